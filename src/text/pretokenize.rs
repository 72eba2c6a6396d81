//! How text is split before byte-level BPE merges it: one pattern or several, by name.
//!
//! Most patterns end in `\s+(?!\S)|\s+`: white space before a word leaves its last character to the
//! word. A look-ahead wants a backtracking engine, which gives up on a megabyte of spaces; here the
//! patterns are written without it, run in linear time, and the last character is given back.

use regex::Regex;

use super::unusable;
use crate::error::Result;

/// A pre-tokenizer: a row of [`TABLE`].
pub(super) struct Pre {
    /// Values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Each splits what the one before it left; what it does not match stays whole.
    stages: &'static [&'static str],
    /// A piece that is a token is taken as it is, even where merges would not make it.
    pub(super) whole: bool,
    /// Texts begin with the beginning-of-text token where the file does not say.
    pub(super) bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";

/// The pre-tokenizers that are known.
const TABLE: &[Pre] = &[
    Pre {
        names: &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "olmo",
            "mpt",
            "jais",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "trillion",
            "granite-docling",
        ],
        stages: &[GPT2],
        whole: false,
        bos: false,
    },
    Pre {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        stages: &[r"\p{N}", GPT2],
        whole: false,
        bos: false,
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
        stages: &[LLAMA3],
        whole: true,
        bos: true,
    },
    Pre {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        stages: &[LLAMA3],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["glm4", "glm5"],
        stages: &[LLAMA3],
        whole: true,
        bos: false,
    },
    Pre {
        names: &[
            "qwen2",
            "stablelm2",
            "deepseek-r1-qwen",
            "hunyuan",
            "megrez",
            "grok-2",
            "solar-open",
            "kormo",
        ],
        stages: &[QWEN2],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["qwen35"],
        stages: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
        ],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["minicpm5"],
        stages: &[
            r"\p{N}{1,3}",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
        ],
        whole: true,
        bos: false,
    },
    Pre {
        names: &["seed-coder"],
        stages: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+",
        ],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        stages: &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+",
        ],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["cl100k_base"],
        stages: &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+",
        ],
        whole: true,
        bos: false,
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
        stages: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
        ],
        whole: true,
        bos: false,
    },
    Pre {
        names: &["tekken"],
        stages: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
        ],
        whole: true,
        bos: true,
    },
    Pre {
        names: &["kimi-k2"],
        stages: &[
            r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
        ],
        whole: true,
        bos: false,
    },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        stages: &[
            r"\p{N}{1,3}",
            CJK,
            r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+",
        ],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["deepseek-coder"],
        stages: &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[一-龥ࠀ-一가-\u{d7ff}]+",
            r"\p{N}",
        ],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["falcon"],
        stages: &[r"[\p{P}$+<=>^~|`]+", GPT2, r"[0-9][0-9][0-9]"],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["bloom", "poro-chat", "gpt3-finnish"],
        stages: &[BLOOM],
        whole: false,
        bos: false,
    },
    Pre {
        names: &["viking"],
        stages: &[BLOOM, r"\p{N}"],
        whole: false,
        bos: false,
    },
    // What a file that names none is split by elsewhere, too.
    Pre {
        names: &["default"],
        stages: &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        whole: false,
        bos: false,
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
            let known: Vec<_> = TABLE.iter().flat_map(|p| p.names).copied().collect();
            unusable(format!(
                "its pre-tokenizer `{name}` is unknown; known are {}",
                known.join(", ")
            ))
        })
}

/// Splits text into the pieces that are merged each for itself.
#[derive(Debug)]
pub(super) struct Splitter(Vec<Stage>);

#[derive(Debug)]
struct Stage {
    pattern: Regex,
    /// White space before a word leaves its last character to the word.
    gives_back: bool,
    /// White space that ends in a line's end is matched by itself, and keeps it.
    keeps_lines: bool,
}

impl Splitter {
    /// Compiles a row of the table.
    pub(super) fn new(pre: &Pre) -> Result<Self> {
        let stage = |source: &&str| {
            Ok(Stage {
                pattern: Regex::new(source).map_err(|e| unusable(e.to_string()))?,
                gives_back: source.ends_with(r"|\s+"),
                keeps_lines: source.contains(r"\s*[\r\n]"),
            })
        };
        Ok(Self(
            pre.stages.iter().map(stage).collect::<Result<Vec<_>>>()?,
        ))
    }

    /// Calls `each` with every piece, in order; together they are the text.
    pub(super) fn split(&self, text: &str, each: &mut dyn FnMut(&str)) {
        split(&self.0, text, each);
    }
}

fn split(stages: &[Stage], text: &str, each: &mut dyn FnMut(&str)) {
    let Some((stage, later)) = stages.split_first() else {
        each(text);
        return;
    };
    let mut done = 0;
    while let Some(found) = stage.pattern.find_at(text, done) {
        if found.start() > done {
            split(later, &text[done..found.start()], each);
        }
        let piece = stage.trim(found.as_str(), found.end() == text.len());
        if piece.is_empty() {
            break; // No pattern of the table matches nothing.
        }
        split(later, piece, each);
        done = found.start() + piece.len();
    }
    if done < text.len() {
        split(later, &text[done..], each);
    }
}

impl Stage {
    /// A match without the white space that belongs to the word after it.
    fn trim<'t>(&self, found: &'t str, last: bool) -> &'t str {
        if !self.gives_back || last || (self.keeps_lines && found.ends_with(['\r', '\n'])) {
            return found;
        }
        let mut back = found.chars();
        match back.next_back() {
            // Nothing but a run of white space ends in white space that is no line's end.
            Some(end) if end.is_whitespace() && !back.as_str().is_empty() => back.as_str(),
            _ => found,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pieces(pre: &str, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let splitter = Splitter::new(find(pre).unwrap()).unwrap();
        splitter.split(text, &mut |p| pieces.push(p.to_string()));
        assert_eq!(pieces.concat(), text);
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
