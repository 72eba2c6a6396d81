//! Where models come from, and the cache folder they are kept in.
