//! A device with a model loaded: weights, KV cache, the step loop, and the sessions on it.
