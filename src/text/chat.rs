//! Conversations to tokens, by the model's own Jinja template.
//!
//! **A message cannot forge a role marker.** The template never sees a message's text: each text is
//! stood in for by a placeholder with a random number in it, and put back after rendering. Only
//! what the template itself wrote is searched for control tokens; what came from a message is
//! tokenised as plain text. Text of both kinds between two control tokens is tokenised as one, so
//! that the ids are those of the whole rendered string wherever no message tries to be clever.

use std::hash::{BuildHasher, RandomState};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use super::{Specials, Tokenizer};
use crate::error::{Error, Result};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The application's instructions; `system` to templates that do not know it.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// Steps a template may take: enough for a thousand messages, too few to hang.
const FUEL: u64 = 5_000_000;

/// Templates of families whose files may carry none, by a marker of their vocabulary.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "<|im_start|>",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    (
        "<start_of_turn>",
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set lead = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ lead if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    ),
    (
        "<|start_header_id|>",
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
];

/// A conversation template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    knows_developer: bool,
    random: RandomState,
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn template(reason: impl ToString) -> Error {
    Error::Template {
        reason: reason.to_string(),
    }
}

impl ChatTemplate {
    /// A template from its Jinja source, as Hugging Face's tokenizers take it.
    ///
    /// # Errors
    /// [`Error::Template`] where it does not parse.
    pub fn new(source: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(template)?);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        // A fixed day keeps prompts, and with them the prefix cache, the same from day to day.
        environment.add_function(
            "strftime_now",
            |_format: String, _options: Kwargs| "26 Jul 2024",
        );
        environment
            .add_template_owned("chat", source.to_string())
            .map_err(template)?;
        Ok(Self {
            environment,
            knows_developer: source.contains("developer"),
            random: RandomState::new(),
        })
    }

    /// The template of a vocabulary: the file's own, or that of the family its markers show.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] where neither is there.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        if let Some(source) = &tokenizer.spec.chat_template {
            return Self::new(source);
        }
        let known = |marker: &str| tokenizer.controls.iter().any(|(c, _)| c == marker);
        let (_, source) = BUILT_IN
            .iter()
            .find(|(marker, _)| known(marker))
            .ok_or(Error::NoTemplate)?;
        Self::new(source)
    }

    /// Tokens of a conversation, ready for the assistant's turn; `bos` included where wanted.
    ///
    /// # Errors
    /// [`Error::Template`] where the template refuses the conversation, such as roles out of order.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut run = String::new();
        let mut first = true;
        for piece in self.render(tokenizer, messages)? {
            match piece {
                Piece::Content(text) => run.push_str(&text),
                Piece::Markup(mut text) => {
                    while let Some((at, len, id)) = tokenizer.find_control(&text) {
                        run.push_str(&text[..at]);
                        tokenizer.encode_plain(&run, first, &mut ids);
                        run.clear();
                        ids.push(id);
                        text.drain(..at + len);
                        first = false;
                    }
                    run.push_str(&text);
                }
            }
        }
        tokenizer.encode_plain(&run, first, &mut ids);
        if let Some(bos) = tokenizer.bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The conversation as text, for people: what a message says may look like markup here.
    pub fn text(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<String> {
        let pieces = self.render(tokenizer, messages)?.into_iter();
        Ok(pieces
            .map(|p| match p {
                Piece::Content(text) | Piece::Markup(text) => text,
            })
            .collect())
    }

    fn render(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<Piece>> {
        // A number no message can know. A template may trim what it is given, so a wide space
        // stands at each end that has white space, and shows whether it is still there.
        let nonce = self
            .random
            .hash_one((messages.len(), std::time::Instant::now().elapsed()));
        let open = format!("\u{e000}{nonce:016x}.");
        let edge = |white: bool| if white { "\u{2003}" } else { "" };
        let stand_ins: Vec<Value> = messages
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let role = match m.role {
                    Role::Developer if !self.knows_developer => "system",
                    role => role.name(),
                };
                let text = &m.content;
                let left = edge(text.starts_with(char::is_whitespace));
                let right = edge(text.ends_with(char::is_whitespace));
                // An empty text stays empty: templates ask whether there is one.
                let content = if text.is_empty() {
                    String::new()
                } else {
                    format!("{left}{open}{i}\u{e001}{right}")
                };
                minijinja::context! { role => role, content => content }
            })
            .collect();
        let token = |id: Option<u32>| {
            id.map_or("", |id| {
                tokenizer
                    .spec
                    .tokens
                    .get(id as usize)
                    .map_or("", String::as_str)
            })
        };
        let rendered = self
            .environment
            .get_template("chat")
            .and_then(|t| {
                t.render(minijinja::context! {
                    messages => stand_ins,
                    add_generation_prompt => true,
                    bos_token => token(tokenizer.spec.bos),
                    eos_token => token(tokenizer.spec.eos),
                })
            })
            .map_err(|e| {
                template(
                    e.detail()
                        .map_or_else(|| e.to_string(), ToString::to_string),
                )
            })?;

        let mut pieces = Vec::new();
        let mut rest = rendered.as_str();
        while let Some((before, after)) = rest.split_once(&open) {
            let (index, after) = after
                .split_once('\u{e001}')
                .ok_or_else(|| template("it cuts messages apart"))?;
            let message = index.parse().ok().and_then(|i: usize| messages.get(i));
            let text = &message
                .ok_or_else(|| template("it cuts messages apart"))?
                .content;
            let kept_left = before.strip_suffix('\u{2003}');
            let kept_right = after.strip_prefix('\u{2003}');
            let mut content = text.as_str();
            if kept_left.is_none() {
                content = content.trim_start();
            }
            if kept_right.is_none() {
                content = content.trim_end();
            }
            pieces.push(Piece::Markup(kept_left.unwrap_or(before).into()));
            pieces.push(Piece::Content(content.into()));
            rest = kept_right.unwrap_or(after);
        }
        pieces.push(Piece::Markup(rest.into()));
        Ok(pieces)
    }
}

/// A part of a rendered conversation.
#[derive(Debug)]
enum Piece {
    /// Written by the template.
    Markup(String),
    /// From a message.
    Content(String),
}

impl Tokenizer {
    /// Tokens of a text with the beginning-of-text token where the model wants one.
    pub fn encode_text(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut ids = self.encode(text, specials);
        if let Some(bos) = self.bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }
}
