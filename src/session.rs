//! One conversation on an engine: messages, tokens, sampling, and a stream of deltas.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use crate::engine::{Engine, Generation, LoadOptions, Sampling, Sequence, Step, TokenLogprob};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::gpu::Gpu;
use crate::model::Pooling;
use crate::text::{
    ChatTemplate, Detokenizer, Effort, Message, Part, Request, Role, Specials, StopFilter,
    Tokenizer, TokenizerSpec, Turn,
};

/// A model on a device, with its tokenizer and its chat template. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model {
    engine: Arc<Engine>,
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
}

impl Model {
    /// Loads a GGUF file on the best adapter of this machine.
    ///
    /// # Errors
    /// Where the file is damaged or of an unknown kind, no adapter fits, or memory does not suffice.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn load(path: impl AsRef<std::path::Path>, options: &LoadOptions) -> Result<Self> {
        pollster::block_on(Self::open(
            &Checkpoint::open(path)?,
            options,
            &mut |_, _| {},
        ))
    }

    /// Loads a checkpoint; `progress` gets the bytes uploaded so far and all of them.
    ///
    /// # Errors
    /// See [`Model::load`].
    pub async fn open(
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (tokenizer, template) = text(checkpoint)?;
        let engine = Engine::load(checkpoint, options, progress).await?;
        Ok(Self {
            engine,
            tokenizer,
            template,
        })
    }

    /// Loads a checkpoint on a device that the program has already.
    ///
    /// # Errors
    /// See [`Model::load`].
    pub async fn open_on(
        gpu: Gpu,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (tokenizer, template) = text(checkpoint)?;
        let engine = Engine::load_on(gpu, checkpoint, options, progress).await?;
        Ok(Self {
            engine,
            tokenizer,
            template,
        })
    }

    /// The same model once more on `gpu`, as it was loaded: for going on after its device was lost,
    /// by [`Session::move_to`]. `checkpoint` must be the one it was loaded from.
    ///
    /// # Errors
    /// See [`Model::load`].
    pub async fn reload(
        &self,
        gpu: Gpu,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let options = self.engine.options();
        Ok(Self {
            engine: Engine::load_on(gpu, checkpoint, options, progress).await?,
            tokenizer: Arc::clone(&self.tokenizer),
            template: self.template.clone(),
        })
    }

    /// The device it runs on, with its plans and its cache.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Its chat template, where it has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_deref()
    }

    /// One vector for each text, by which texts can be compared: of length 1 (L2), so that the dot product
    /// of two is the cosine of the angle between them. Encoders (BERT's) and decoders alike have them.
    ///
    /// Texts are taken as they are: a prefix or an instruction that a model wants is the caller's to give.
    /// Several texts go into one step on the device; texts of a mixture of experts, and those longer than a
    /// step of 512 tokens, have steps of their own.
    ///
    /// # Errors
    /// [`crate::Error::LongText`] where a text has more tokens than [`Engine::longest_text`] and may not be
    /// cut, [`crate::Error::EmptyText`] where it has none, and where the device fails.
    pub async fn embed_async(
        &self,
        texts: &[&str],
        options: &EmbedOptions,
    ) -> Result<Vec<Embedding>> {
        let limit = self.engine.longest_text();
        let mut ids = Vec::with_capacity(texts.len());
        let mut cut = Vec::with_capacity(texts.len());
        for text in texts {
            let tokens = self.tokenizer.encode_text(text, Specials::AsText);
            let over = tokens.len().saturating_sub(limit);
            cut.push(if options.truncate { over } else { 0 });
            ids.push(if options.truncate {
                self.tokenizer.truncate(tokens, limit)
            } else {
                tokens
            });
        }
        let pooling = options.pooling.unwrap_or(self.engine.model().pooling());
        let tokens: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let vectors = self.engine.embed(&tokens, pooling).await?;
        let made = vectors.into_iter().zip(ids.iter().zip(cut));
        Ok(made
            .map(|(vector, (ids, cut))| Embedding {
                vector,
                tokens: ids.len(),
                cut,
            })
            .collect())
    }

    /// [`Model::embed_async`], waiting for it.
    ///
    /// # Errors
    /// See there.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn embed(&self, texts: &[&str], options: &EmbedOptions) -> Result<Vec<Embedding>> {
        pollster::block_on(self.embed_async(texts, options))
    }

    /// A new conversation.
    ///
    /// # Errors
    /// Where as many are open as the model was loaded for, and [`crate::Error::Encoder`] where the model
    /// makes no text.
    pub fn session(&self) -> Result<Session> {
        Ok(Session {
            model: self.clone(),
            sequence: Sequence::new(&self.engine)?,
            messages: Vec::new(),
        })
    }
}

fn text(checkpoint: &Checkpoint) -> Result<(Arc<Tokenizer>, Option<Arc<ChatTemplate>>)> {
    let tokenizer = Tokenizer::new(TokenizerSpec::of(checkpoint)?)?;
    let template = match ChatTemplate::of(&tokenizer) {
        Ok(template) => Some(Arc::new(template)),
        Err(crate::Error::NoTemplate) => None,
        Err(e) => return Err(e),
    };
    Ok((Arc::new(tokenizer), template))
}

/// How texts become vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// How a text's tokens become one vector; as the model's makers say when `None`, or, where they do
    /// not, the mean in encoders and the last token in decoders.
    pub pooling: Option<Pooling>,
    /// Texts that are too long are cut: the tokens that end a text stay. Otherwise they are an error.
    pub truncate: bool,
}

/// A text's vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// As many numbers as the model is wide, the sum of whose squares is 1.
    pub vector: Vec<f32>,
    /// Tokens that it was made from, with those that begin and end a text.
    pub tokens: usize,
    /// Tokens of the text that were left out.
    pub cut: usize,
}

impl Embedding {
    /// How alike two texts are: the cosine of the angle between their vectors, from −1 to 1.
    pub fn similarity(&self, other: &Self) -> f32 {
        self.vector
            .iter()
            .zip(&other.vector)
            .map(|(a, b)| a * b)
            .sum()
    }
}

/// What an answer may be, beside how its tokens are chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end an answer and are no part of it.
    pub stop: Vec<String>,
    /// Log-probabilities of each token and of this many alternatives.
    pub logprobs: Option<usize>,
    /// How long the model thinks before it speaks, where it can be told; as it is used to when `None`.
    pub effort: Option<Effort>,
    /// Functions that the model may call, each a JSON object
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`.
    pub tools: Vec<Json>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text was met.
    Stop,
    /// It reached its largest length, or the context's end.
    Length,
    /// It calls functions, and waits for what they give.
    ToolCalls,
}

/// Tokens counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many the cache held already.
    pub cached_tokens: usize,
    /// Made.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// How long an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Until the first token, milliseconds.
    pub prompt_ms: f64,
    /// Prompt tokens computed in a second.
    pub prompt_per_second: f64,
    /// From the first token to the last, milliseconds.
    pub generation_ms: f64,
    /// Tokens made in a second, after the first.
    pub generation_per_second: f64,
}

/// One conversation: its messages, and its tokens in the model's cache.
#[derive(Debug)]
pub struct Session {
    model: Model,
    sequence: Sequence,
    messages: Vec<Message>,
}

impl Session {
    /// What was said so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The model it runs on.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Goes on with another copy of its model, such as [`Model::reload`] gives: what was said stays,
    /// and its tokens are computed again with the next answer.
    ///
    /// # Errors
    /// Where as many conversations are open on `model` as it was loaded for.
    pub fn move_to(&mut self, model: &Model) -> Result<()> {
        self.sequence = Sequence::new(&model.engine)?;
        self.model = model.clone();
        Ok(())
    }

    /// Forgets everything said, but keeps a leading system message.
    pub fn clear(&mut self) {
        let system = self
            .messages
            .first()
            .filter(|m| m.role == Role::System)
            .cloned();
        self.messages.clear();
        self.messages.extend(system);
    }

    /// Sets or replaces the leading system message.
    pub fn system(&mut self, text: &str) {
        if self
            .messages
            .first()
            .is_some_and(|m| m.role == Role::System)
        {
            self.messages.remove(0);
        }
        if !text.is_empty() {
            self.messages.insert(0, Message::new(Role::System, text));
        }
    }

    /// Adds a message without asking for an answer.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Asks, and streams the answer. Both become part of the conversation; an answer that is
    /// dropped early stays as far as it was read, and one that said nothing leaves it with its
    /// question when the next is asked.
    ///
    /// # Errors
    /// Where the model has no chat template, the conversation does not fit the context, or a bias is
    /// for no token; the question is then no part of the conversation.
    pub fn ask(&mut self, question: &str, options: &Options) -> Result<Answer<'_>> {
        if let [.., asked, said] = self.messages.as_slice()
            && asked.role == Role::User
            && said.role == Role::Assistant
            && said.content.is_empty()
            && said.tool_calls.is_empty()
        {
            self.messages.truncate(self.messages.len() - 2);
        }
        self.messages.push(Message::new(Role::User, question));
        match self.prompt(options) {
            Ok(ids) => self.answer(&ids, options),
            Err(e) => {
                self.messages.pop();
                Err(e)
            }
        }
    }

    /// Streams what the model says next, such as after the results of its calls were pushed.
    ///
    /// # Errors
    /// See [`Session::ask`].
    pub fn reply(&mut self, options: &Options) -> Result<Answer<'_>> {
        let ids = self.prompt(options)?;
        self.answer(&ids, options)
    }

    /// The tokens of the conversation as it stands.
    fn prompt(&self, options: &Options) -> Result<Vec<u32>> {
        let Model {
            template,
            tokenizer,
            engine,
        } = &self.model;
        let template = template.as_ref().ok_or(crate::Error::NoTemplate)?;
        let request = Request {
            tools: &options.tools,
            effort: options.effort,
        };
        let ids = template.encode_with(tokenizer, &self.messages, request)?;
        self.check_bias(&options.sampling)?;
        let context = engine.context();
        if ids.len() > context {
            return Err(crate::Error::Prompt {
                tokens: ids.len(),
                context,
            });
        }
        Ok(ids)
    }

    /// An answer that becomes part of the conversation.
    fn answer(&mut self, prompt: &[u32], options: &Options) -> Result<Answer<'_>> {
        self.messages.push(Message::new(Role::Assistant, ""));
        let turn = Turn::new(&self.model.tokenizer, prompt);
        self.complete_into(prompt, options, Some(turn))
    }

    /// Goes on with tokens as they are, outside the conversation.
    ///
    /// # Errors
    /// Where the prompt is empty or does not fit the context, or a bias is for no token.
    pub fn complete(&mut self, prompt: &[u32], options: &Options) -> Result<Answer<'_>> {
        self.check_bias(&options.sampling)?;
        self.complete_into(prompt, options, None)
    }

    fn check_bias(&self, sampling: &Sampling) -> Result<()> {
        let vocab = self.model.engine.model().config.vocab;
        match sampling
            .logit_bias
            .iter()
            .find(|(id, _)| *id as usize >= vocab)
        {
            Some((id, _)) => Err(crate::Error::Token { id: *id, vocab }),
            None => Ok(()),
        }
    }

    fn complete_into(
        &mut self,
        prompt: &[u32],
        options: &Options,
        turn: Option<Turn>,
    ) -> Result<Answer<'_>> {
        let calls = self.messages.iter().map(|m| m.tool_calls.len()).sum();
        let tokenizer = Arc::clone(&self.model.tokenizer);
        let generation = self.sequence.generate(
            prompt,
            &options.sampling,
            tokenizer.ends(),
            options.logprobs,
        )?;
        Ok(Answer {
            said: turn.is_some().then(|| self.messages.last_mut()).flatten(),
            turn: turn.unwrap_or_else(Turn::plain),
            calls,
            prompt_tokens: prompt.len(),
            generation,
            tokenizer,
            detokenizer: Detokenizer::new(),
            stops: StopFilter::new(&options.stop),
            given: 0,
            finish: None,
        })
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Text that is certain now; may be empty.
    pub text: String,
    /// What it is part of.
    pub part: Part,
    /// The token it came with; `None` with text that was held back until the end.
    pub token: Option<u32>,
    /// Its log-probability, where asked for.
    pub logprob: Option<TokenLogprob>,
}

/// An answer being made. Ask [`Answer::next`] for its pieces; dropping it stops.
#[derive(Debug)]
pub struct Answer<'s> {
    generation: Generation<'s>,
    said: Option<&'s mut Message>,
    turn: Turn,
    /// Calls made before this answer.
    calls: usize,
    prompt_tokens: usize,
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: StopFilter,
    /// Tokens given out; the device may have made more.
    given: usize,
    finish: Option<FinishReason>,
}

impl Answer<'_> {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Where the device fails. The conversation keeps what was said so far.
    pub async fn next_delta(&mut self) -> Result<Option<Delta>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let Some(step) = self.generation.next_step().await? else {
            self.finish = Some(FinishReason::Length);
            let rest = self.detokenizer.finish();
            let (text, _) = self.stops.push(&rest);
            let text = text + &self.stops.finish();
            if text.is_empty() {
                return Ok(None);
            }
            return Ok(Some(self.say(text, self.turn.part().clone(), None)));
        };
        self.given += 1;
        let token = step.token;
        let markup = step.end || self.tokenizer.is_control(token);
        let bytes = if markup {
            &[][..]
        } else {
            self.tokenizer.token_bytes(token)
        };
        let part = self.turn.part().clone();
        let bytes = self.turn.take(token, bytes);
        // What was held back belongs to the part that ends here.
        let closes = step.end || part != *self.turn.part();
        let mut text = if closes {
            self.detokenizer.finish()
        } else {
            self.detokenizer.push(&bytes)
        };
        // Stops end what is said; thoughts and calls may have their texts in them.
        let mut stopped = false;
        if part == Part::Content {
            (text, stopped) = self.stops.push(&text);
            if closes && !stopped {
                text.push_str(&self.stops.finish());
            }
        }
        if stopped || step.end {
            self.finish = Some(FinishReason::Stop);
        }
        let end = step.end;
        let delta = self.say(text, part, Some(step));
        if end && self.said.as_ref().is_some_and(|m| !m.tool_calls.is_empty()) {
            self.finish = Some(FinishReason::ToolCalls);
        }
        Ok(Some(delta))
    }

    /// [`Answer::next_delta`], waiting for it.
    ///
    /// # Errors
    /// See there.
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends and fails; an iterator does neither"
    )]
    pub fn next(&mut self) -> Result<Option<Delta>> {
        pollster::block_on(self.next_delta())
    }

    /// Why it ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Tokens so far: those of the prompt, and those given out.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.generation.reused(),
            completion_tokens: self.given,
            total_tokens: self.prompt_tokens + self.given,
        }
    }

    /// Times so far.
    pub fn timings(&self) -> Timings {
        let usage = self.usage();
        let rate = |tokens: usize, time: Duration| {
            let seconds = time.as_secs_f64();
            if seconds > 0.0 {
                tokens as f64 / seconds
            } else {
                0.0
            }
        };
        let (prompt, generation) = (
            self.generation.prompt_time(),
            self.generation.generation_time(),
        );
        Timings {
            prompt_ms: prompt.as_secs_f64() * 1e3,
            prompt_per_second: rate(usage.prompt_tokens - usage.cached_tokens, prompt),
            generation_ms: generation.as_secs_f64() * 1e3,
            generation_per_second: rate(self.generation.made().len().saturating_sub(1), generation),
        }
    }

    /// Makes a piece part of the conversation.
    fn say(&mut self, text: String, part: Part, step: Option<Step>) -> Delta {
        if let Some(message) = &mut self.said {
            message.add(&part, &text, self.calls);
            if self.finish.is_some() {
                message.close();
            }
        }
        let (token, logprob) = match step {
            Some(step) => (Some(step.token), step.logprob),
            None => (None, None),
        };
        Delta {
            text,
            part,
            token,
            logprob,
        }
    }
}
