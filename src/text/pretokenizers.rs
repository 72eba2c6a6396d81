//! How text is split before byte-level BPE merges it: what the names in GGUF files stand for.
//!
//! The patterns are the makers' own, as their `tokenizer.json` files have them.

use super::spec::{Keep, Step};
use super::unusable;
use Stage::{Each, Runs};

use crate::error::{Result, shown};

/// A pre-tokenizer: a row of [`TABLE`].
pub(super) struct Pre {
    /// Values of `tokenizer.ggml.pre`.
    pub(super) names: &'static [&'static str],
    /// Each splits what the one before it left; what it does not match stays whole.
    stages: &'static [Stage],
    /// A piece that is a token is taken as it is, even where merges would not make it.
    pub(super) whole: bool,
    /// Texts begin with the beginning-of-text token where the file does not say.
    pub(super) bos: bool,
    /// Texts are composed (NFC) first.
    pub(super) composed: bool,
}

/// A cut, or a change of what is cut.
enum Stage {
    /// Every match is a piece.
    Each(&'static str),
    /// Every run of matches is a piece.
    Runs(&'static str),
    /// [`Step::Bytes`].
    Bytes,
}

/// What Hugging Face's library calls punctuation.
pub(super) const PUNCTUATION: &str = r"[\p{P}$+<=>^`|~]";
/// What it calls a digit.
pub(super) const NUMBER: &str = r"\p{N}";
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";

/// The pre-tokenizers that are known.
const TABLE: &[Pre] = &[
    Pre {
        names: &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "jais",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "trillion",
            "granite-docling",
        ],
        stages: &[Each(GPT2)],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["command-r"],
        stages: &[Each(NUMBER), Each(GPT2)],
        whole: false,
        bos: false,
        composed: true,
    },
    // GPT-NeoX's.
    Pre {
        names: &["olmo", "mpt"],
        stages: &[Each(GPT2)],
        whole: false,
        bos: false,
        composed: true,
    },
    Pre {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        stages: &[Each(NUMBER), Each(GPT2)],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        stages: &[Each(LLAMA3)],
        whole: true,
        bos: true,
        composed: false,
    },
    Pre {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        stages: &[Each(LLAMA3)],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["glm4", "glm5"],
        stages: &[Each(LLAMA3)],
        whole: true,
        bos: false,
        composed: false,
    },
    Pre {
        names: &[
            "stablelm2",
            "deepseek-r1-qwen",
            "hunyuan",
            "megrez",
            "grok-2",
            "solar-open",
            "kormo",
        ],
        stages: &[Each(QWEN2)],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["qwen2"],
        stages: &[Each(QWEN2)],
        whole: false,
        bos: false,
        composed: true,
    },
    Pre {
        names: &["qwen35"],
        stages: &[Each(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole: false,
        bos: false,
        composed: true,
    },
    Pre {
        names: &["minicpm5"],
        stages: &[
            Each(r"\p{N}{1,3}"),
            Each(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
        ],
        whole: true,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["seed-coder"],
        stages: &[Each(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        stages: &[Each(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["cl100k_base"],
        stages: &[Each(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
        whole: true,
        bos: false,
        composed: false,
    },
    Pre {
        names: &[
            "gpt-4o",
            "o200k_base",
            "o200k_harmony",
            "llama4",
            "kanana2",
            "minimax-m2",
        ],
        stages: &[Each(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole: true,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["tekken"],
        stages: &[Each(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole: true,
        bos: true,
        composed: false,
    },
    Pre {
        names: &["kimi-k2"],
        stages: &[Each(
            r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole: true,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        stages: &[
            Each(r"\p{N}{1,3}"),
            Each(CJK),
            Each(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
            ),
        ],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["deepseek-llm"],
        stages: &[
            Each(r"[\r\n]"),
            // Cased letters, but for those that Unicode has for mathematics.
            Each(r"\s?[\p{LC}&&[^\x{1D400}-\x{1D7FF}]]+"),
            Each(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Each(r"\s+$"),
            Each("[一-龥ࠀ-一가-\u{d7ff}]+"),
            Each(NUMBER),
        ],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["deepseek-coder"],
        stages: &[
            Each(r"[\r\n]"),
            Each(r"\s?\p{L}+"),
            Each(r"\s?\p{P}+"),
            Each("[一-龥ࠀ-一가-\u{d7ff}]+"),
            Each(NUMBER),
        ],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["falcon"],
        // Digits are looked for after bytes are written as characters, of which more are digits.
        stages: &[
            Runs(PUNCTUATION),
            Each(GPT2),
            Stage::Bytes,
            Runs(NUMBER),
            Each("[0-9][0-9][0-9]"),
        ],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["bloom", "poro-chat", "gpt3-finnish"],
        stages: &[Each(BLOOM)],
        whole: false,
        bos: false,
        composed: false,
    },
    Pre {
        names: &["viking"],
        stages: &[Each(BLOOM), Each(NUMBER)],
        whole: false,
        bos: false,
        composed: false,
    },
    // What a file that names none is split by elsewhere, too.
    Pre {
        names: &["default"],
        stages: &[
            Each(r"[\p{P}$+<=>^~|]+"),
            Each(GPT2),
            Each(r"\p{N}+"),
            Each(r"[0-9][0-9][0-9]"),
        ],
        whole: false,
        bos: false,
        composed: false,
    },
];

const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// The pre-tokenizer of a name.
///
/// # Errors
/// [`crate::Error::Tokenizer`] with the known names.
pub(super) fn find(name: &str) -> Result<&'static Pre> {
    TABLE
        .iter()
        .find(|pre| pre.names.contains(&name))
        .ok_or_else(|| {
            let known: Vec<_> = TABLE.iter().map(|p| p.names[0]).collect();
            unusable(format!(
                "its pre-tokenizer `{}` is unknown; known are {}, and more names for the same",
                shown(name),
                known.join(", ")
            ))
        })
}

/// The name of a pre-tokenizer that cuts this way: of several the one that is nearest in the rest.
pub(super) fn name(splits: &[Step], whole: bool, composed: bool) -> Option<&'static str> {
    // Line ends are written as themselves in some files.
    let plain = |step: &Step| match step {
        Step::Split {
            pattern,
            keep,
            invert,
        } => Step::Split {
            pattern: pattern.replace('\r', r"\r").replace('\n', r"\n"),
            keep: *keep,
            invert: *invert,
        },
        other => other.clone(),
    };
    let splits: Vec<Step> = splits.iter().map(plain).collect();
    let same = TABLE.iter().filter(|pre| pre.steps() == splits);
    let near = |pre: &&Pre| (pre.whole == whole, pre.composed == composed);
    // Of rows that are as near the first.
    same.rev().max_by_key(near).map(|pre| pre.names[0])
}

impl Pre {
    /// The steps of a row.
    pub(super) fn steps(&self) -> Vec<Step> {
        let step = |stage: &Stage| {
            let (pattern, keep) = match stage {
                Each(pattern) => (pattern, Keep::Isolated),
                Runs(pattern) => (pattern, Keep::Contiguous),
                Stage::Bytes => return Step::Bytes,
            };
            Step::Split {
                pattern: (*pattern).into(),
                keep,
                invert: false,
            }
        };
        self.stages.iter().map(step).collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::steps::Steps;
    use super::*;

    fn pieces(pre: &str, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let steps = Steps::new(&find(pre).unwrap().steps()).unwrap();
        steps.each(text, true, &mut |p| pieces.push(p.to_string()));
        if pre != "falcon" {
            assert_eq!(pieces.concat(), text);
        }
        pieces
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        assert_eq!(
            pieces("gpt-2", "a   b\n\n c  "),
            ["a", "  ", " b", "\n\n", " c", "  "]
        );
        assert_eq!(pieces("gpt-2", "\n\nx\ty"), ["\n", "\n", "x", "\t", "y"]);
        assert_eq!(pieces("llama-bpe", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(
            pieces("llama-bpe", "a\tb!\r\n\n c"),
            ["a", "\tb", "!\r\n\n", " c"]
        );
    }

    #[test]
    fn digits_are_split_first() {
        assert_eq!(
            pieces("smollm", "in  2024 it's"),
            ["in", "  ", "2", "0", "2", "4", " it", "'s"]
        );
        assert_eq!(pieces("qwen2", "x 12"), ["x", " ", "1", "2"]);
        assert_eq!(pieces("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(
            pieces("gpt-4o", "HTTPServer's a/b"),
            ["HTTPServer's", " a", "/b"]
        );
    }

    #[test]
    fn pieces_are_those_of_the_makers() {
        let fixture = include_str!("../../tests/fixtures/reference/text.json");
        let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let texts = fixture["texts"].as_array().unwrap();
        for (pre, wanted) in fixture["pieces"].as_object().unwrap() {
            for (text, want) in texts.iter().zip(wanted.as_array().unwrap()) {
                let text = text.as_str().unwrap();
                let lengths: Vec<_> = pieces(pre, text).iter().map(String::len).collect();
                assert_eq!(serde_json::json!(lengths), *want, "{pre}: {text:?}");
            }
        }
    }

    #[test]
    fn every_row_compiles_and_keeps_the_text() {
        let text = "It's DON'T 1234 五十音かな ไทย \u{301}e\u{301} (a|b).  \r\n\t\n x  ";
        for pre in TABLE {
            for name in pre.names {
                assert!(pieces(name, text).len() > 8, "{name}");
                assert!(pieces(name, "").is_empty(), "{name}");
            }
        }
        let error = find("nobody").err().unwrap().to_string();
        assert!(
            error.contains("`nobody`") && error.contains("smollm"),
            "{error}"
        );
    }
}
