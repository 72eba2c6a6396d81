//! Tokenizers, chat templates, roles and streaming decode.
