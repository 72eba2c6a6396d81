//! One conversation on an engine: messages, tokens, sampling, and a stream of deltas.
