//! Writes what messages say so that no control token can be read in it.
//!
//! Each character that some control token contains is replaced by a stand-in that occurs nowhere
//! else, from Unicode's private planes. A chat template may then trim, cut, join or quote a message
//! as it likes: wherever a stand-in comes out, it came from a message. Control tokens are looked
//! for in what the template wrote, and only then are the characters put back.
//!
//! A template may look for words of its own in a message, such as `</think>`. Such a word is left
//! as it is, so that the template finds it, unless it could be a part of a control token.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::Tokenizer;
use super::matcher::Matcher;
use crate::error::{Error, Result};

/// Bytes of the longest word that a template is thought to look for.
const LONGEST_WORD: usize = 64;

/// Names of fields by which templates reach into messages and tools.
const FIELDS: &[&str] = &[
    "arguments",
    "content",
    "default",
    "description",
    "enum",
    "function",
    "id",
    "items",
    "name",
    "oneOf",
    "parameters",
    "properties",
    "required",
    "tool_call_id",
    "tool_calls",
    "type",
];

/// The replacements of one rendering.
pub(super) struct Cipher {
    stand_in: FxHashMap<char, char>,
    plain: FxHashMap<char, char>,
    words: Matcher,
}

impl Cipher {
    /// Replacements for everything in `said`; `words` are the template's own.
    ///
    /// # Errors
    /// [`Error::Template`] where more characters need a stand-in than there are, or than are free.
    pub(super) fn new(tokenizer: &Tokenizer, words: &[String], said: &Value) -> Result<Self> {
        let mut used = FxHashSet::default();
        each_text(said, &mut |text| used.extend(text.chars()));
        let marks: FxHashSet<char> = tokenizer.controls().flat_map(str::chars).collect();
        let mut free = ('\u{f0000}'..='\u{ffffd}')
            .chain('\u{100000}'..='\u{10fffd}')
            .filter(|c| !used.contains(c) && !marks.contains(c));
        let mut stand_in = FxHashMap::default();
        for c in used.intersection(&marks) {
            let free = free.next().ok_or_else(|| Error::Template {
                reason: "its messages use too many characters of Unicode's private planes".into(),
            })?;
            stand_in.insert(*c, free);
        }
        let plain = stand_in.iter().map(|(c, s)| (*s, *c)).collect();
        let mut texts = Vec::new();
        each_text(said, &mut |text| texts.push(text));
        let wanted = words.iter().filter(|word| {
            word.len() <= LONGEST_WORD
                && texts.iter().any(|text| text.contains(word.as_str()))
                && !touches_control(tokenizer, word)
        });
        let words = Matcher::new(wanted.map(|word| (word.as_bytes(), 0)))?;
        Ok(Self {
            stand_in,
            plain,
            words,
        })
    }

    /// Replaces every text in a value, names of fields as well but for [`FIELDS`].
    pub(super) fn write(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.write_text(text)),
            Value::Array(values) => values.iter().map(|v| self.write(v)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, v)| {
                    let known = FIELDS.contains(&name.as_str()).then(|| name.clone());
                    (
                        known.unwrap_or_else(|| self.write_text(name)),
                        self.write(v),
                    )
                })
                .collect(),
            other => other.clone(),
        }
    }

    /// Replaces a text's characters, but for the template's words.
    fn write_text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let replace = |text: &str, out: &mut String| {
            out.extend(
                text.chars()
                    .map(|c| self.stand_in.get(&c).copied().unwrap_or(c)),
            );
        };
        let mut done = 0;
        while let Some(found) = self.words.find(text, done) {
            replace(&text[done..found.at], &mut out);
            done = found.at + found.len;
            out.push_str(&text[found.at..done]);
        }
        replace(&text[done..], &mut out);
        out
    }

    /// Puts the characters back.
    pub(super) fn read<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !text.chars().any(|c| self.plain.contains_key(&c)) {
            return text.into();
        }
        let plain = text
            .chars()
            .map(|c| self.plain.get(&c).copied().unwrap_or(c));
        plain.collect()
    }
}

fn each_text<'v>(value: &'v Value, see: &mut dyn FnMut(&'v str)) {
    match value {
        Value::String(text) => see(text),
        Value::Array(values) => values.iter().for_each(|v| each_text(v, see)),
        Value::Object(fields) => {
            for (name, value) in fields {
                see(name);
                each_text(value, see);
            }
        }
        _ => {}
    }
}

/// Whether a word beside other text could be a part of a control token: it has one inside, lies in
/// one, or one begins or ends where it ends or begins.
fn touches_control(tokenizer: &Tokenizer, word: &str) -> bool {
    let meet = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
    tokenizer.controls().any(|control| {
        let ends = word.char_indices().map(|(at, _)| &word[at..]);
        let begins = control.char_indices().map(|(at, _)| &control[at..]);
        ends.into_iter().any(|end| meet(end, control))
            || begins.skip(1).any(|rest| meet(rest, word))
    })
}

/// The words in quotes in a template's code, which it may look for in messages.
pub(super) fn words(template: &str) -> Vec<String> {
    let mut words = FxHashSet::default();
    let mut code = template;
    while let Some(at) = code.find("{{").into_iter().chain(code.find("{%")).min() {
        let mut chars = code[at + 2..].char_indices();
        let mut end = code.len();
        while let Some((i, c)) = chars.next() {
            let here = &code[at + 2 + i..];
            if here.starts_with("}}") || here.starts_with("%}") {
                end = at + 2 + i;
                break;
            }
            if c != '"' && c != '\'' {
                continue;
            }
            let mut word = String::new();
            while let Some((_, next)) = chars.next().filter(|(_, next)| *next != c) {
                match next {
                    '\\' => match chars.next().map(|(_, c)| c) {
                        Some('n') => word.push('\n'),
                        Some('t') => word.push('\t'),
                        Some('r') => word.push('\r'),
                        other => word.extend(other),
                    },
                    other => word.push(other),
                }
            }
            if !word.is_empty() {
                words.insert(word);
            }
        }
        code = &code[end..];
    }
    let mut words: Vec<String> = words.into_iter().collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_templates_words_are_found() {
        let template = r#"it's {{ m['content'].split("</think>")[-1] + '\n\'' }} don't
            {%- if '}}' in x %}{# 'comment' #}{{ "a" ~ 'b"c' }}{% endif %} 'text'"#;
        assert_eq!(
            words(template),
            ["\n'", "</think>", "a", "b\"c", "content", "}}"]
        );
        assert_eq!(words("{{ 'never closed"), ["never closed"]);
        assert_eq!(words("{{"), [""; 0]);
    }
}
