//! What a tokenizer is: one description, whether a GGUF file or a Hugging Face folder gave it.

use super::unusable;
use crate::error::Result;

/// How pieces of a text become tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// Byte-level BPE (GPT-2's): bytes are merged by a list of pairs. Normal tokens are written in
    /// GPT-2's alphabet, one character a byte.
    #[default]
    ByteBpe,
    /// BPE over characters (SentencePiece's): merged by a list of pairs or, where there is none,
    /// by the scores of what they make. What is no token falls back to byte tokens.
    Bpe,
    /// SentencePiece's unigram model: the cut whose scores have the largest sum.
    Unigram,
    /// BERT's: the longest token first; inside a word tokens begin with `##`.
    WordPiece,
}

/// A step from a text to the pieces that become tokens. Patterns are regular expressions as
/// Oniguruma reads them, with `^` and `$` at every line's ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Unicode's canonical composition.
    Nfc,
    /// Unicode's canonical decomposition.
    Nfd,
    /// Unicode's compatibility composition.
    Nfkc,
    /// Unicode's compatibility decomposition.
    Nfkd,
    /// Lower case, character by character.
    Lowercase,
    /// White space goes.
    Strip {
        /// At the beginning.
        left: bool,
        /// At the end.
        right: bool,
    },
    /// Put before a text that is not empty.
    Prepend(String),
    /// Put before a text that does not begin with it.
    Lead {
        /// What is put.
        with: String,
        /// Only where nothing comes before the text.
        first: bool,
    },
    /// Every match becomes another text.
    Replace {
        /// What is looked for.
        pattern: String,
        /// What comes in its place.
        with: String,
    },
    /// A space on either side of every match.
    Apart(String),
    /// SentencePiece's compiled table of replacements.
    Charsmap {
        /// The table: the bytes of a double array's units behind their length, then the texts.
        table: Vec<u8>,
        /// Looked up whole graphemes at a time, as Hugging Face's library does; else the longest
        /// entry wins, as SentencePiece does.
        graphemes: bool,
    },
    /// A cut into pieces.
    Split {
        /// Where.
        pattern: String,
        /// What becomes of the matches.
        keep: Keep,
        /// What matches and what lies between change places.
        invert: bool,
    },
    /// From here on the text is written in GPT-2's alphabet. A byte-level model does this last by
    /// itself: the step is there only where others come after it.
    Bytes,
}

/// What becomes of the matches of a [`Step::Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are dropped.
    Removed,
    /// Each is a piece.
    Isolated,
    /// Each ends the piece before it.
    WithPrevious,
    /// Each begins the piece after it.
    WithNext,
    /// Neighbours are one piece.
    Contiguous,
}

/// How a token that stands for a fixed text is found, where that is not by its text alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of tokenizer.json"
)]
pub struct Flags {
    /// White space before it belongs to it.
    pub lstrip: bool,
    /// White space after it belongs to it.
    pub rstrip: bool,
    /// Not inside a word.
    pub single_word: bool,
    /// Looked for after normalising, in its own normalised form.
    pub normalized: bool,
}

/// A tokenizer.
#[derive(Clone, Debug, Default)]
pub struct TokenizerSpec {
    /// The algorithm.
    pub model: Model,
    /// Tokens in their written form, by id.
    pub tokens: Vec<String>,
    /// Types of tokens: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Those
    /// that are missing are normal.
    pub types: Vec<i32>,
    /// A score for each token: unigram models, and BPE over characters without merges.
    pub scores: Vec<f32>,
    /// Pairs of tokens that merge, best first, by their ids.
    pub merges: Vec<(u32, u32)>,
    /// How some control and user-defined tokens are found.
    pub flags: Vec<(u32, Flags)>,
    /// What is done to a text before user-defined tokens are looked for in it a second time.
    pub normalizer: Vec<Step>,
    /// What cuts it into pieces.
    pub splits: Vec<Step>,
    /// A piece that is a token is taken as it is, even where merges would not make it.
    pub whole: bool,
    /// Neighbouring characters that are no token are one unknown token.
    pub fuse_unknown: bool,
    /// Characters of a word at most, beyond which WordPiece takes it for unknown.
    pub longest_word: usize,
    /// Beginning of a text, as chat templates know it.
    pub bos: Option<u32>,
    /// End of a text, as chat templates know it.
    pub eos: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// Fills batches; nothing is ever made of it.
    pub pad: Option<u32>,
    /// Ends an answer, beside `eos` and `eot`.
    pub ends: Vec<u32>,
    /// What every text begins with.
    pub begin: Vec<u32>,
    /// What every text that is not a conversation ends with.
    pub end: Vec<u32>,
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
    /// The same for conversations with tools, where it is another.
    pub tool_template: Option<String>,
}

/// Types of tokens, as a GGUF file numbers them.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// How SentencePiece writes a space.
pub(super) const SPACE: &str = "\u{2581}";

/// Characters of a word at most, as BERT has it.
pub(super) const LONGEST_WORD: usize = 100;

impl TokenizerSpec {
    /// Fills in what may be missing, and looks for what cannot be.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for no tokens, or an id that is none.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.tokens.is_empty() {
            return Err(unusable("it has no tokens"));
        }
        let known = self.tokens.len();
        self.types.resize(known, NORMAL);
        let single = [self.bos, self.eos, self.eot, self.pad];
        let lists = [&self.ends, &self.begin, &self.end].into_iter().flatten();
        let flagged = self.flags.iter().map(|(id, _)| id);
        let merged = self.merges.iter().flat_map(|(left, right)| [left, right]);
        let mut ids = single
            .iter()
            .flatten()
            .chain(lists)
            .chain(flagged)
            .chain(merged);
        if let Some(id) = ids.find(|id| **id as usize >= known) {
            return Err(unusable(format!(
                "its special token {id} is outside its {known} tokens"
            )));
        }
        Ok(())
    }

    /// The token for what no other stands for.
    pub(super) fn unknown(&self) -> Option<u32> {
        let at = self.types.iter().position(|ty| *ty == UNKNOWN)?;
        u32::try_from(at).ok()
    }

    /// Which tokens are markers: what the file calls control, and, since files are wrong about it,
    /// what is written like a marker. Other user-defined tokens (runs of spaces, tags) are text.
    pub(super) fn controls(&self) -> Vec<bool> {
        let special = [self.bos, self.eos, self.eot];
        // Phi-3 calls its `</s>` user-defined; Gemma's is a tag of HTML.
        let bos = self.bos.and_then(|id| self.tokens.get(id as usize));
        let end = bos.filter(|bos| *bos == "<s>").map(|_| "</s>");
        let tokens = self.tokens.iter().zip(&self.types).zip(0..);
        tokens
            .map(|((text, ty), id)| match *ty {
                CONTROL => !text.is_empty(),
                NORMAL | USER_DEFINED => {
                    let inside = |open, close| {
                        let inner = text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
                        inner.is_some_and(|inner: &str| !inner.is_empty())
                    };
                    inside("<|", "|>")
                        || Some(text.as_str()) == end
                        || inside("<", "_of_turn>")
                        || (inside("<", ">") && special.contains(&Some(id)))
                }
                _ => false,
            })
            .collect()
    }
}
