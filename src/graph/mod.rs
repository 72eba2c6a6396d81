//! Operations on shaped tensors, built by a model description.
