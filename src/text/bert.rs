//! How BERT cleans and cuts text, and how a GGUF file writes its tokens.

use super::pretokenizers::PUNCTUATION;
use super::spec::{Keep, SPACE, Step};
use super::wordpiece::INSIDE;

/// Characters that are dropped: broken ones, control and format characters, and those of no use.
const DROPPED: &str = r"[\u{FFFD}\p{Cc}\p{Cf}\p{Co}&&[^\t\n\r]]";

/// Characters that each are a word.
const IDEOGRAPHS: &str = r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{F900}-\u{FAFF}\u{2F800}-\u{2FA1F}]";

/// What BERT's normaliser does.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of tokenizer.json"
)]
pub(super) struct Cleaning {
    pub(super) clean: bool,
    pub(super) ideographs: bool,
    pub(super) accents: bool,
    pub(super) lowercase: bool,
}

/// BERT's normaliser as steps.
pub(super) fn normalizer(does: Cleaning) -> Vec<Step> {
    let replace = |pattern: &str, with: &str| Step::Replace {
        pattern: pattern.into(),
        with: with.into(),
    };
    let mut steps = Vec::new();
    if does.clean {
        steps.extend([replace(DROPPED, ""), replace(r"\s", " ")]);
    }
    if does.ideographs {
        steps.push(Step::Apart(IDEOGRAPHS.into()));
    }
    if does.accents {
        steps.extend([Step::Nfd, replace(r"\p{Mn}", "")]);
    }
    if does.lowercase {
        steps.push(Step::Lowercase);
    }
    steps
}

/// BERT's words: cut at white space, and every punctuation mark by itself.
pub(super) fn splits() -> Vec<Step> {
    let split = |pattern: &str, keep| Step::Split {
        pattern: pattern.into(),
        keep,
        invert: false,
    };
    vec![
        split(r"\s+", Keep::Removed),
        split(PUNCTUATION, Keep::Isolated),
    ]
}

/// A token of a GGUF file, where a word begins with U+2581 and what is inside one has no sign.
pub(super) fn read(token: &str) -> String {
    match token.strip_prefix(SPACE) {
        Some(word) => word.into(),
        None if token.starts_with('[') && token.ends_with(']') => token.into(),
        None => [INSIDE, token].concat(),
    }
}

/// A token as a GGUF file has it.
pub(super) fn written(token: &str) -> String {
    match token.strip_prefix(INSIDE) {
        Some(inside) => inside.into(),
        None if token.starts_with('[') && token.ends_with(']') => token.into(),
        None => [SPACE, token].concat(),
    }
}
