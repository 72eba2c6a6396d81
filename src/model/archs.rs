//! What an architecture is, as far as its metadata does not say.

use crate::graph::Act;

/// An architecture.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    /// Every token sees every other, and what comes out is a vector for each: BERT's block.
    pub encoder: bool,
    /// Activation of the feed-forward block.
    pub act: Act,
    /// Rotating pairs are halves of the head apart, rather than neighbours.
    pub neox: bool,
    /// The embedding is multiplied by sqrt(width).
    pub embed_scale: bool,
    /// Where there is a window at all, layers that see only it come in periods: all but the last of
    /// each; every layer, where there is no period.
    pub window_period: Option<usize>,
    /// Rotary base of the layers with a window, where it is another.
    pub local_base: Option<f64>,
    /// Layers with a window take part in the rotary scaling.
    pub local_scaled: bool,
    /// The last layer of each such period does not rotate.
    pub rope_period: Option<usize>,
    /// YaRN's ramp begins and ends at whole pairs.
    pub yarn_truncate: bool,
    /// Of the model with so many layers, scores are divided by sqrt(width / heads) rather than by
    /// sqrt(head_dim).
    pub wide_scale: Option<usize>,
    /// Name of the norm after attention, where there may be one.
    pub post_attn_norm: Option<&'static str>,
    /// Name of the norm before the feed-forward block.
    pub ffn_norm: &'static str,
}

/// The commonest answers.
const PLAIN: Arch = Arch {
    name: "",
    encoder: false,
    act: Act::Silu,
    neox: true,
    embed_scale: false,
    window_period: None,
    local_base: None,
    local_scaled: true,
    rope_period: None,
    yarn_truncate: true,
    wide_scale: None,
    post_attn_norm: Some("post_attention_norm"),
    ffn_norm: "ffn_norm",
};

/// Every architecture we know.
pub const ARCHS: &[Arch] = &[
    // Llama, SmolLM2, Mistral, Mixtral.
    Arch {
        name: "llama",
        neox: false,
        ..PLAIN
    },
    // Ministral 3.
    Arch {
        name: "mistral3",
        neox: false,
        ..PLAIN
    },
    Arch {
        name: "smollm3",
        neox: false,
        rope_period: Some(4),
        ..PLAIN
    },
    // Qwen2 and 2.5.
    Arch {
        name: "qwen2",
        ..PLAIN
    },
    Arch {
        name: "qwen3",
        ..PLAIN
    },
    Arch {
        name: "qwen3moe",
        ..PLAIN
    },
    Arch {
        name: "gemma2",
        act: Act::GeluTanh,
        embed_scale: true,
        window_period: Some(2),
        wide_scale: Some(46),
        ..PLAIN
    },
    Arch {
        name: "gemma3",
        act: Act::GeluTanh,
        embed_scale: true,
        window_period: Some(6),
        local_base: Some(10_000.0),
        local_scaled: false,
        wide_scale: Some(62),
        ..PLAIN
    },
    // Phi-3, 3.5 and Phi-4-mini.
    Arch {
        name: "phi3",
        ..PLAIN
    },
    // OLMo 2 and 3.
    Arch {
        name: "olmo2",
        window_period: Some(4),
        local_scaled: false,
        ..PLAIN
    },
    Arch {
        name: "granite",
        neox: false,
        ..PLAIN
    },
    Arch {
        name: "gpt-oss",
        act: Act::SiluClamped,
        window_period: Some(2),
        yarn_truncate: false,
        post_attn_norm: None,
        ffn_norm: "post_attention_norm",
        ..PLAIN
    },
    // BERT's encoders: MiniLM, BGE, E5, GTE.
    Arch {
        name: "bert",
        encoder: true,
        act: Act::Gelu,
        ..PLAIN
    },
    Arch {
        name: "nomic-bert",
        encoder: true,
        ..PLAIN
    },
];
