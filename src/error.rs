//! The one error type of the library's face.
//!
//! Every message is one sentence: what was wrong, where, and what to do about it.

mod file;

pub use file::FileProblem;

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
    /// A checkpoint file is damaged, hostile, incomplete or of another kind.
    #[error("{file} {problem}")]
    File {
        /// The file's path, or what stands for it.
        file: String,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// A metadata key that the model needs is absent.
    #[error(
        "the model's metadata has no `{key}` ({want}); the file is incomplete, or not a model that OmniMini knows"
    )]
    MissingKey {
        /// The key.
        key: String,
        /// What was wanted there.
        want: &'static str,
    },
    /// A metadata value of another type.
    #[error(
        "the model's metadata key `{key}` should be {want}, and is {got}; convert the model again"
    )]
    KeyType {
        /// The key.
        key: String,
        /// What was wanted.
        want: &'static str,
        /// What was there.
        got: String,
    },
    /// A tensor that the model needs is absent.
    #[error(
        "the model has no tensor `{name}`; the file is incomplete, or not a model that OmniMini knows"
    )]
    MissingTensor {
        /// The tensor.
        name: String,
    },
}
