//! Conversations to tokens, by the model's own Jinja template.
//!
//! **A message cannot forge a role marker.** What messages say goes through the template in
//! cipher: no control token can be read in it, and the template may trim, cut, join or quote it.
//! What the template then gives is searched for control tokens, all of which it wrote itself, and
//! the text between two of them is deciphered and tokenised as one, so that the ids are those of
//! the whole rendered string wherever no message tries to be clever.

use std::fmt;
use std::str::FromStr;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use super::cipher::{self, Cipher};
use super::{Tokenizer, json};
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

/// How long the model thinks before it speaks, where its template lets one choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Not at all or, of a model that cannot but think, as little as it can.
    None,
    /// A little.
    Low,
    /// As it is used to.
    Medium,
    /// As long as it takes.
    High,
}

impl Effort {
    /// Every effort, the least first.
    pub const ALL: [Self; 4] = [Self::None, Self::Low, Self::Medium, Self::High];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Effort {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|e| e.name() == s);
        known.ok_or_else(|| format!("it is one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What a template is told beside the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Tools that the assistant may call, each a JSON object
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`.
    pub tools: &'a [serde_json::Value],
    /// How long it thinks; the template's own choice when `None`.
    pub effort: Option<Effort>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What the assistant thought before; templates leave it out once the next question comes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Functions that the assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's result answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// A function that the assistant calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// What the result refers to it by.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: an object.
    pub arguments: serde_json::Value,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// The message as templates know it, but for its role.
    fn said(&self) -> serde_json::Value {
        let mut said = serde_json::json!({ "content": self.content });
        if !self.reasoning.is_empty() {
            // Qwen's templates and most others know it by the first name, gpt-oss's by the second.
            said["reasoning_content"] = self.reasoning.as_str().into();
            said["thinking"] = self.reasoning.as_str().into();
        }
        if let Some(id) = &self.tool_call_id {
            said["tool_call_id"] = id.clone().into();
        }
        if !self.tool_calls.is_empty() {
            let call = |c: &ToolCall| {
                serde_json::json!({
                    "id": c.id,
                    "type": "function",
                    "function": { "name": c.name, "arguments": c.arguments },
                })
            };
            said["tool_calls"] = self.tool_calls.iter().map(call).collect();
        }
        said
    }
}

/// Steps a template may take: enough for a thousand messages, too few to hang.
const FUEL: u64 = 5_000_000;

/// The day that templates are told it is, by `strftime`'s codes. A fixed one keeps prompts, and with
/// them the prefix cache, the same from day to day.
const DAY: &[(&str, &str)] = &[
    ("%Y", "2024"),
    ("%y", "24"),
    ("%m", "07"),
    ("%B", "July"),
    ("%b", "Jul"),
    ("%d", "26"),
    ("%-d", "26"),
    ("%A", "Friday"),
    ("%a", "Fri"),
    ("%H", "00"),
    ("%M", "00"),
    ("%S", "00"),
];

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
    /// There is another for conversations with tools.
    has_tools: bool,
    knows_developer: bool,
    /// What it may look for in messages.
    words: Vec<String>,
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
        environment.add_filter("tojson", json::tojson);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_function("strftime_now", |format: String, _options: Kwargs| {
            let codes = DAY.iter();
            codes.fold(format, |text, (code, means)| text.replace(code, means))
        });
        environment
            .add_template_owned("chat", source.to_string())
            .map_err(template)?;
        Ok(Self {
            environment,
            has_tools: false,
            knows_developer: source.contains("developer"),
            words: cipher::words(source),
        })
    }

    /// Takes another source for conversations with tools.
    fn for_tools(&mut self, source: &str) -> Result<()> {
        let added = self
            .environment
            .add_template_owned("tools", source.to_string());
        added.map_err(template)?;
        self.has_tools = true;
        self.knows_developer &= source.contains("developer");
        self.words.extend(cipher::words(source));
        Ok(())
    }

    /// The template of a vocabulary: the file's own, or that of the family its markers show.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] where neither is there.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        if let Some(source) = &tokenizer.spec.chat_template {
            let mut template = Self::new(source)?;
            if let Some(tools) = &tokenizer.spec.tool_template {
                template.for_tools(tools)?;
            }
            return Ok(template);
        }
        let known = |marker: &str| tokenizer.controls().any(|c| c == marker);
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
        self.encode_with(tokenizer, messages, Request::default())
    }

    /// [`ChatTemplate::encode`] with more that the template is told.
    ///
    /// # Errors
    /// See [`ChatTemplate::encode`].
    pub fn encode_with(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        request: Request<'_>,
    ) -> Result<Vec<u32>> {
        let (rendered, cipher) = self.render(tokenizer, messages, request)?;
        let mut ids = Vec::new();
        tokenizer.encode_marked(&rendered, |text| cipher.read(text), &mut ids);
        Ok(tokenizer.begin(ids))
    }

    /// The conversation as text, for people: what a message says may look like markup here.
    ///
    /// # Errors
    /// See [`ChatTemplate::encode`].
    pub fn text(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<String> {
        let (rendered, cipher) = self.render(tokenizer, messages, Request::default())?;
        Ok(cipher.read(&rendered).into_owned())
    }

    /// The conversation as the template writes it, and the cipher of what messages and tools say.
    fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        request: Request<'_>,
    ) -> Result<(String, Cipher)> {
        let said: serde_json::Value = messages.iter().map(Message::said).collect();
        let said = serde_json::json!({ "messages": said, "tools": request.tools });
        let cipher = Cipher::new(tokenizer, &self.words, &said)?;
        let written = |key: &str| {
            let values = said[key].as_array().into_iter().flatten();
            values.map(|v| cipher.write(v)).collect::<Vec<_>>()
        };
        let mut turns = written("messages");
        for (turn, message) in turns.iter_mut().zip(messages) {
            turn["role"] = match message.role {
                Role::Developer if !self.knows_developer => "system",
                role => role.name(),
            }
            .into();
        }
        let values = |values: &[serde_json::Value]| {
            let values = values.iter().map(|v| Value::from(Serde(v)));
            values.collect::<Vec<_>>()
        };
        let (turns, tools) = (values(&turns), values(&written("tools")));
        let token = |id: Option<u32>| {
            id.and_then(|id| tokenizer.spec.tokens.get(id as usize))
                .map_or("", String::as_str)
        };
        // Templates have defaults for what they are not told.
        let effort =
            |value: &dyn Fn(Effort) -> Value| request.effort.map_or(Value::UNDEFINED, value);
        let name = if self.has_tools && !tools.is_empty() {
            "tools"
        } else {
            "chat"
        };
        let rendered = self.environment.get_template(name).and_then(|t| {
            t.render(minijinja::context! {
                messages => turns,
                // Templates ask whether there are tools.
                tools => (!tools.is_empty()).then_some(tools),
                add_generation_prompt => true,
                // Qwen's and SmolLM's templates know whether, gpt-oss's how much.
                enable_thinking => effort(&|effort| Value::from(effort != Effort::None)),
                reasoning_effort => effort(&|effort| match effort {
                    Effort::None => Value::from(Effort::Low.name()),
                    effort => Value::from(effort.name()),
                }),
                bos_token => token(tokenizer.spec.bos),
                eos_token => token(tokenizer.spec.eos),
            })
        });
        let rendered = rendered.map_err(|e| match e.detail() {
            Some(detail) => template(cipher.read(detail)),
            None => template(e),
        })?;
        Ok((rendered, cipher))
    }
}
