//! The encodings that tiktoken carries, by name.

use rustc_hash::FxHashMap;

use super::spec::{CONTROL, NORMAL, UNUSED};
use super::{Kind, Pieces, Tokenizer, TokenizerSpec, bpe, pretokenizers, unusable};
use crate::error::Result;

/// Names that [`Tokenizer::named`] knows.
pub const ENCODINGS: &[&str] = &["o200k_base", "o200k_harmony", "cl100k_base"];

impl Tokenizer {
    /// One of tiktoken's encodings: a name in [`ENCODINGS`].
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for another name.
    pub fn named(name: &str) -> Result<Self> {
        let core = match name {
            "o200k_base" => tiktoken_rs::o200k_base(),
            "o200k_harmony" => tiktoken_rs::o200k_harmony(),
            "cl100k_base" => tiktoken_rs::cl100k_base(),
            _ => {
                let known = ENCODINGS.join(", ");
                return Err(unusable(format!(
                    "no encoding is called `{name}`; known are {known}"
                )));
            }
        };
        let core = core.map_err(|e| unusable(e.to_string()))?;
        let id_of = |text: &str| match core.encode_with_special_tokens(text)[..] {
            [id] => Some(id),
            _ => None,
        };
        let controls: FxHashMap<u32, &str> = core
            .special_tokens()
            .into_iter()
            .filter_map(|text| Some((id_of(text)?, text)))
            .collect();
        let count = controls.keys().max().map_or(0, |most| most + 1);
        let alphabet = bpe::alphabet();
        let mut spec = TokenizerSpec {
            splits: pretokenizers::find(name)?.steps(),
            eos: id_of("<|return|>").or(id_of("<|endoftext|>")),
            ..TokenizerSpec::default()
        };
        let mut pieces = Pieces::default();
        let mut ranks = FxHashMap::default();
        for id in 0..count {
            // Ids that stand for nothing are holes in the numbering.
            let bytes = core.decode_bytes(&[id]).unwrap_or_default();
            pieces.push(&bytes);
            if let Some(text) = controls.get(&id) {
                spec.tokens.push((*text).into());
                spec.types.push(CONTROL);
                continue;
            }
            let written = bytes.iter().map(|b| alphabet[usize::from(*b)]).collect();
            spec.tokens.push(written);
            spec.types
                .push(if bytes.is_empty() { UNUSED } else { NORMAL });
            if !bytes.is_empty() {
                ranks.insert(bytes, id);
            }
        }
        let control = spec.types.iter().map(|ty| *ty == CONTROL).collect();
        let kind = Kind::Bytes(bpe::Bpe::ranked(ranks)?.into());
        Self::of(kind, spec, pieces, control)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Specials;
    use super::*;

    #[test]
    fn ids_are_tiktokens_own() {
        let texts = [
            "Hello, world! It's 12345 o'clock.\n\n  def f(x):\n\treturn x  \n",
            "日本語のテキスト、한국어 텍스트، نص عربي e\u{301}\u{302} 👩‍👩‍👧‍👦🇫🇷 ÀÉÎ ǅ ﬁ ſ's",
            "HTTPServer's CamelCASE /path//to/ \r\n\r\n   \u{3000}x   ",
            "   ",
            "\n \n",
            " \n x \t",
            "a<|endoftext|>b<|end|>",
        ];
        let cores = [
            tiktoken_rs::o200k_base(),
            tiktoken_rs::o200k_harmony(),
            tiktoken_rs::cl100k_base(),
        ];
        for (name, core) in ENCODINGS.iter().zip(cores) {
            let (ours, core) = (Tokenizer::named(name).unwrap(), core.unwrap());
            for text in texts {
                let ids = ours.encode(text, Specials::AsText);
                assert_eq!(ids, core.encode_ordinary(text), "{name}: {text:?}");
                assert_eq!(ours.decode(&ids), text.as_bytes());
                let ids = ours.encode(text, Specials::Parse);
                assert_eq!(
                    ids,
                    core.encode_with_special_tokens(text),
                    "{name}: {text:?}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = Tokenizer::named("p50k").unwrap_err().to_string();
        assert!(error.contains("o200k_harmony"), "{error}");
    }
}
