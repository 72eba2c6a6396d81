//! The parts of an assistant's turn: what it thinks, what it says, and what it calls.
//!
//! Two formats have such parts. In *harmony*, which gpt-oss speaks, a turn is several messages, each with
//! a header that names a channel and maybe a recipient
//! (<https://github.com/openai/openai-cookbook/blob/main/articles/openai-harmony.md>):
//!
//! ```text
//! <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
//! ```
//!
//! Elsewhere thoughts stand between two marks, such as `<think>` and `</think>`, before what is said.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value as Json;

use super::{Message, Tokenizer, ToolCall};

/// What a piece of an answer is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What is said to the person.
    #[default]
    Content,
    /// What the model thinks before it speaks.
    Reasoning,
    /// The arguments that it calls a function with, which is named here.
    Call(String),
}

/// Marks of thoughts, begin and end.
const THOUGHTS: &[[&str; 2]] = &[["<think>", "</think>"], ["[THINK]", "[/THINK]"]];

/// How a vocabulary marks the parts of a turn, by token ids.
#[derive(Clone, Copy, Debug)]
enum Marks {
    None,
    Thoughts {
        open: u32,
        close: u32,
    },
    Harmony {
        start: u32,
        channel: u32,
        message: u32,
        /// Before the type of what a message holds.
        constrain: Option<u32>,
        /// Ends of messages that other messages may follow, and of the turn.
        ends: [Option<u32>; 3],
    },
}

impl Marks {
    fn of(tokenizer: &Tokenizer) -> Self {
        let id = |text| tokenizer.marker(text);
        let ends = || ["<|end|>", "<|return|>", "<|call|>"].map(id);
        if let (Some(start), Some(channel), Some(message)) =
            (id("<|start|>"), id("<|channel|>"), id("<|message|>"))
        {
            return Self::Harmony {
                start,
                channel,
                message,
                constrain: id("<|constrain|>"),
                ends: ends(),
            };
        }
        let thoughts = THOUGHTS.iter().map(|marks| marks.map(id));
        for marks in thoughts {
            if let [Some(open), Some(close)] = marks {
                return Self::Thoughts { open, close };
            }
        }
        Self::None
    }
}

/// A message's header, before and behind `<|channel|>`.
#[derive(Clone, Debug, Default)]
struct Header {
    author: Vec<u8>,
    channel: Option<Vec<u8>>,
}

impl Header {
    fn push(&mut self, bytes: &[u8]) {
        let into = self.channel.as_mut().unwrap_or(&mut self.author);
        into.extend_from_slice(bytes);
    }

    /// What the message is part of. It may have a recipient in either half, and any message that has one
    /// is a call.
    fn part(&self) -> Part {
        let author = String::from_utf8_lossy(&self.author);
        let channel = String::from_utf8_lossy(self.channel.as_deref().unwrap_or_default());
        let words = || author.split_whitespace().chain(channel.split_whitespace());
        if let Some(to) = words().find_map(|word| word.strip_prefix("to=")) {
            let name = to.strip_prefix("functions.").unwrap_or(to);
            return Part::Call(name.into());
        }
        match channel.split_whitespace().next() {
            Some("analysis") => Part::Reasoning,
            _ => Part::Content,
        }
    }

    /// What was no header: a turn that begins as none can is what is said.
    fn plain(&self) -> Option<&[u8]> {
        if self.channel.is_some() {
            return None;
        }
        // Text that a beginning may be of, or that begins with it.
        let meets = |text: &[u8], want: &[u8]| text.starts_with(want) || want.starts_with(text);
        let (role, to) = (&b"assistant"[..], &b"to="[..]);
        let rest = self.author.strip_prefix(role).unwrap_or(&self.author);
        let unfinished = role.starts_with(&self.author);
        let header = unfinished || meets(rest.trim_ascii_start(), to);
        (!header).then_some(rest)
    }
}

/// Reads an assistant's turn, token by token.
#[derive(Clone, Debug)]
pub struct Turn {
    marks: Marks,
    part: Part,
    /// The header being read.
    header: Option<Header>,
    /// No message of the turn has begun.
    first: bool,
    /// Nothing of this part has come.
    fresh: bool,
    /// Parts that earlier messages were of.
    spoken: Vec<Part>,
}

impl Turn {
    /// The turn that a prompt leaves to the assistant: templates may begin it, even with thoughts.
    pub fn new(tokenizer: &Tokenizer, prompt: &[u32]) -> Self {
        let marks = Marks::of(tokenizer);
        let mut turn = Self {
            marks,
            part: Part::Content,
            header: None,
            first: true,
            fresh: false,
            spoken: Vec::new(),
        };
        let opens = |id: &u32| match marks {
            Marks::None => false,
            Marks::Thoughts { open, close } => {
                tokenizer.is_control(*id) && *id != open && *id != close
            }
            Marks::Harmony { start, .. } => *id == start,
        };
        let tail = prompt.iter().rposition(opens).map_or(0, |at| match marks {
            Marks::Harmony { .. } => at,
            _ => at + 1,
        });
        for id in &prompt[tail..] {
            turn.take(*id, tokenizer.token_bytes(*id));
        }
        turn
    }

    /// A text without parts.
    pub fn plain() -> Self {
        Self {
            marks: Marks::None,
            part: Part::Content,
            header: None,
            first: false,
            fresh: false,
            spoken: Vec::new(),
        }
    }

    /// What the bytes that [`Turn::take`] gives are part of.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Takes a token that stands for `bytes`; gives those that are text of [`Turn::part`].
    pub fn take<'b>(&mut self, token: u32, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match self.marks {
            Marks::None => bytes.into(),
            Marks::Thoughts { open, close } => {
                if token == open || token == close {
                    let thinks = token == open;
                    self.part = if thinks {
                        Part::Reasoning
                    } else {
                        Part::Content
                    };
                    self.fresh = true;
                    return Cow::default();
                }
                // The marks have lines of their own.
                let text = if self.fresh {
                    bytes.trim_ascii_start()
                } else {
                    bytes
                };
                self.fresh &= text.is_empty();
                text.into()
            }
            Marks::Harmony {
                start,
                channel,
                message,
                constrain,
                ends,
            } => {
                if token == start || ends.contains(&Some(token)) {
                    self.header = Some(Header::default());
                } else if token == message {
                    self.part = self.header.take().unwrap_or_default().part();
                    (self.first, self.fresh) = (false, true);
                } else if let Some(header) = &mut self.header {
                    if token == channel {
                        header.channel = Some(Vec::new());
                    } else if Some(token) == constrain {
                        header.push(b" ");
                    } else {
                        header.push(bytes);
                    }
                    let plain = header.plain().filter(|_| self.first).map(<[u8]>::to_vec);
                    if let Some(plain) = plain {
                        (self.header, self.first) = (None, false);
                        return plain.into();
                    }
                } else if self.fresh && !bytes.is_empty() {
                    self.fresh = false;
                    // What comes in several messages is in paragraphs.
                    if self.spoken.contains(&self.part) {
                        return [b"\n\n", bytes].concat().into();
                    }
                    self.spoken.push(self.part.clone());
                    return bytes.into();
                } else {
                    return bytes.into();
                }
                Cow::default()
            }
        }
    }
}

impl Message {
    /// Adds a piece of an answer; `calls` were made before this message.
    pub(crate) fn add(&mut self, part: &Part, text: &str, calls: usize) {
        let name = match part {
            Part::Content => return self.content.push_str(text),
            Part::Reasoning => return self.reasoning.push_str(text),
            Part::Call(name) => name,
        };
        if self.tool_calls.last().is_none_or(|call| call.name != *name) {
            self.tool_calls.push(ToolCall {
                id: format!("call_{}", calls + self.tool_calls.len()),
                name: name.clone(),
                arguments: String::new().into(),
            });
        }
        let last = self.tool_calls.last_mut().map(|call| &mut call.arguments);
        if let Some(Json::String(so_far)) = last {
            so_far.push_str(text);
        }
    }

    /// Takes the message for whole: arguments become JSON where the model wrote any, and the line break
    /// before the mark behind thoughts is none of them.
    pub(crate) fn close(&mut self) {
        self.reasoning.truncate(self.reasoning.trim_end().len());
        for call in &mut self.tool_calls {
            if let Json::String(text) = &call.arguments
                && let Ok(arguments) = serde_json::from_str(text)
            {
                call.arguments = arguments;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Role;

    #[test]
    fn pieces_become_a_message() {
        let mut message = Message::new(Role::Assistant, "");
        let call = Part::Call("f".into());
        for (part, text) in [
            (&Part::Reasoning, "so "),
            (&Part::Reasoning, "it is\n"),
            (&Part::Content, "I look."),
            (&call, "{\"a\""),
            (&call, ": 1}"),
        ] {
            message.add(part, text, 2);
        }
        message.close();
        assert_eq!(message.reasoning, "so it is");
        assert_eq!(message.content, "I look.");
        let want = ToolCall {
            id: "call_2".into(),
            name: "f".into(),
            arguments: serde_json::json!({"a": 1}),
        };
        assert_eq!(message.tool_calls, [want]);
        // What is no JSON stays as it was written.
        let mut message = Message::new(Role::Assistant, "");
        message.add(&Part::Call("python".into()), "1 + x", 0);
        message.close();
        assert_eq!(message.tool_calls[0].arguments, "1 + x");
    }
}
