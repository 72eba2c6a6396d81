//! The one error type of the library's face.
//!
//! Every message is one sentence: what was wrong, where, and what to do about it.

use std::path::PathBuf;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with fields rather than prose.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "map".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Columns that do not divide into a format's blocks.
    #[error(
        "rows of {columns} elements cannot be {dtype}, whose blocks have {block}; convert the model with another type"
    )]
    Columns {
        /// The format.
        dtype: crate::tensor::DType,
        /// Elements of a row.
        columns: usize,
        /// Elements of a block.
        block: usize,
    },
    /// A buffer's length is not what its shape wants: a fault of the calling program.
    #[error("{what}: {want} bytes are wanted and {got} were given")]
    Length {
        /// What the bytes are.
        what: &'static str,
        /// Bytes wanted.
        want: usize,
        /// Bytes given.
        got: usize,
    },
    /// A size does not fit this machine's addresses.
    #[error(
        "the size of a {what} is beyond this machine's addresses; the file is damaged, or too large for this machine"
    )]
    Overflow {
        /// What has that size.
        what: &'static str,
    },
}
