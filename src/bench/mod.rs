//! Prompt and generation rates, as the field's tools report them.
