//! Regular expressions, as a tokenizer's file has them: in linear time where that can be had.
//!
//! Most end in `\s+(?!\S)|\s+`: white space before a word leaves its last character to the word. A
//! look-ahead wants a backtracking engine, which gives up on a megabyte of spaces. Here what comes
//! before that ending and `\s+` are two patterns of one automaton, and where the second is found
//! its last character is given back. Other look-arounds go to the backtracking engine.

use std::ops::Range;

use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::unusable;
use crate::error::{Result, shown};

/// The endings that say it.
const GIVES_BACK: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)|\s"];

/// Steps back that the backtracking engine may take in a search.
const BACKTRACKS: usize = 1_000_000;

/// Bytes that the backtracking engine sees ahead: a look-ahead that went on to the end of a text of
/// nothing but digits would take minutes. Where it gives up even so, these go by as one match.
const WINDOW: usize = 1 << 11;

/// A compiled pattern.
pub(super) enum Pattern {
    /// The automaton, and whether its second pattern gives back a character.
    Linear { regex: Regex, gives_back: bool },
    /// The backtracking engine.
    Backtracking(Box<fancy_regex::Regex>),
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linear { .. } => "Linear",
            Self::Backtracking(_) => "Backtracking",
        })
    }
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where it does not compile.
    pub(super) fn new(source: &str) -> Result<Self> {
        let head = GIVES_BACK
            .iter()
            .find_map(|ending| source.strip_suffix(ending));
        // `$` may cut white space before a line's end, which giving back knows nothing of.
        if let Some(head) = head.filter(|head| !head.contains('$'))
            && let Some(regex) = linear(&[head, r"\s+"])
        {
            return Ok(Self::Linear {
                regex,
                gives_back: true,
            });
        }
        if let Some(regex) = linear(&[source]) {
            return Ok(Self::Linear {
                regex,
                gives_back: false,
            });
        }
        let regex = fancy_regex::RegexBuilder::new(source)
            .multi_line(true)
            .backtrack_limit(BACKTRACKS)
            .build();
        match regex {
            Ok(regex) => Ok(Self::Backtracking(regex.into())),
            Err(error) => {
                let (pattern, reason) = (shown(source), error.to_string());
                let reason = reason.lines().next().unwrap_or_default();
                Err(unusable(format!(
                    "its pattern `{pattern}` does not compile: {}",
                    shown(reason)
                )))
            }
        }
    }

    /// The first match at or after `from`.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<Range<usize>> {
        match self {
            Self::Linear { regex, gives_back } => {
                let found = regex.find(Input::new(text).range(from..))?;
                let spaces = *gives_back && found.pattern().as_usize() == 1;
                let end = if spaces {
                    given_back(text, found.range())
                } else {
                    found.end()
                };
                Some(found.start()..end)
            }
            Self::Backtracking(regex) => backtracking(regex, text, from),
        }
    }
}

/// The first match at or after `from`, a window at a time.
fn backtracking(regex: &fancy_regex::Regex, text: &str, mut from: usize) -> Option<Range<usize>> {
    loop {
        let end = text.floor_char_boundary(from.saturating_add(WINDOW));
        let found = match regex.find_from_pos(&text[..end], from) {
            Ok(found) => found.map(|found| found.range()),
            Err(_) => Some(from..end),
        };
        match found {
            // What goes to the window's end may go on behind it.
            Some(found) if found.end == end && end < text.len() && found.start > from => {
                from = found.start;
            }
            Some(found) => return Some(found),
            None if end == text.len() => return None,
            // A match may lie across the end.
            None => from = text.floor_char_boundary(from + WINDOW / 2),
        }
    }
}

/// The end of a run of white space without the character that belongs to the word after it.
fn given_back(text: &str, spaces: Range<usize>) -> usize {
    let last = text[spaces.clone()].chars().next_back();
    match last.map(char::len_utf8) {
        Some(last) if spaces.end < text.len() && last < spaces.len() => spaces.end - last,
        _ => spaces.end,
    }
}

/// The automaton of some patterns, of which the first that matches somewhere counts.
fn linear(sources: &[&str]) -> Option<Regex> {
    if sources.iter().any(|source| possessive(source)) {
        return None;
    }
    Regex::builder()
        .syntax(syntax::Config::new().multi_line(true))
        .build_many(sources)
        .ok()
}

/// Whether a pattern has a possessive quantifier, which the automaton would take for another.
fn possessive(source: &str) -> bool {
    let mut chars = source.chars().peekable();
    let (mut classes, mut quantified) = (0usize, false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
                // `\p{L}` and its like.
                if chars.next_if_eq(&'{').is_some() {
                    chars.by_ref().find(|c| *c == '}');
                    quantified = false;
                    continue;
                }
            }
            '[' => classes += 1,
            ']' => classes = classes.saturating_sub(1),
            '+' if quantified && classes == 0 => return true,
            _ => {}
        }
        quantified = matches!(c, '?' | '*' | '+' | '}') && classes == 0;
    }
    false
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn found(source: &str, text: &str) -> Vec<String> {
        let pattern = Pattern::new(source).unwrap();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(range) = pattern.find(text, at) {
            assert!(!range.is_empty());
            at = range.end;
            found.push(text[range].to_string());
        }
        found
    }

    #[test]
    fn the_ending_is_what_the_backtracking_engine_makes_of_it() {
        let texts = [
            "a   b\n\n c  ",
            " \n \n x\t\ty",
            "",
            "   ",
            "x \u{3000}\u{2003}y  z\r\n  \r\nw",
        ];
        for head in [r"'s| ?\p{L}+| ?[^\s\p{L}]+", r"\S+|\s*[\r\n]+", r"\w+\s?"] {
            for ending in GIVES_BACK {
                let source = format!("{head}{ending}");
                let linear = Pattern::new(&source).unwrap();
                assert!(matches!(
                    linear,
                    Pattern::Linear {
                        gives_back: true,
                        ..
                    }
                ));
                let fancy = fancy_regex::Regex::new(&source).unwrap();
                for text in texts {
                    let want: Vec<_> = fancy
                        .find_iter(text)
                        .map(|m| m.unwrap().as_str().to_string())
                        .collect();
                    assert_eq!(found(&source, text), want, "{source}: {text:?}");
                }
            }
        }
    }

    #[test]
    fn look_arounds_and_possessives_are_kept() {
        assert_eq!(
            found(r"\d{1,3}(?=(?:\d{3})*\b)", "1234567"),
            ["1", "234", "567"]
        );
        assert_eq!(found(r"a++b|[+*]+", "aab+*"), ["aab", "+*"]);
        assert!(possessive(r"\s++$") && possessive(r"[a]?+") && possessive(r"a{2}+"));
        assert!(!possessive(r"[?+]+\++") && !possessive(r"a+|b?|\p{L}+|\x{41}+"));
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_named() {
        let error = Pattern::new("(a").unwrap_err().to_string();
        assert!(error.contains("`(a`"), "{error}");
        assert!(Pattern::new("((((a{999}){999}){999}){999})").is_err());
    }

    #[test]
    fn a_search_that_never_ends_is_ended() {
        let text = "a".repeat(WINDOW * 4 + 10);
        let pieces = found(r"(?:a+a+)+(?!a)b|\bz", &text);
        assert!(pieces.len() < 10);
        let digits = "1".repeat(WINDOW * 2);
        assert!(found(r"\d{1,3}(?=(?:\d{3})*\b)", &digits).len() > WINDOW / 2);
    }

    #[test]
    fn a_match_behind_a_window_is_found() {
        let mut text = "x".repeat(WINDOW + 3);
        text.insert_str(WINDOW - 3, "abcdef");
        assert_eq!(found("a(?=b)bcdef", &text), ["abcdef"]);
        text.push_str("éa");
        assert_eq!(found(r"é(?!b)", &text), ["é"]);
    }
}
