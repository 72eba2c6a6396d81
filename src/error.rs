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
    Busy,
    /// No page of the cache is free.
    #[error(
        "the KV cache of {tokens} tokens is full; close a conversation, or load the model with a larger cache"
    )]
    CacheFull {
        /// Tokens it holds in all.
        tokens: usize,
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
    #[error("this model has no chat template, so it cannot hold a conversation; give it text to go on with by --raw")]
    NoTemplate,
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
}

fn no_adapter(wanted: Option<&str>, found: &[String]) -> String {
    match (wanted, found) {
        (_, []) => {
            "no GPU or Vulkan driver was found; install your GPU's driver, or Mesa's software \
                    driver (package mesa-vulkan-drivers)"
                .into()
        }
        (Some(wanted), found) => format!(
            "no adapter is called `{wanted}`; there are: {} (see `omnimini devices`)",
            found.join(", ")
        ),
        (None, _) => "no adapter fits; see `omnimini devices`".into(),
    }
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
