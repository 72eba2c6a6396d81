//! Model descriptions: metadata to a config, a config to a graph.
