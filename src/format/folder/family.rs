//! What a family's folders are like, beside what they say themselves.

use serde_json::Value as Json;

use crate::error::{Error, Result, shown};

/// A family of models as Hugging Face names it.
#[derive(Debug)]
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// GGUF's name of the architecture.
    pub(super) arch: &'static str,
    /// GGUF wants rotating pairs side by side, and a folder has them half a head apart.
    pub(super) rotary: bool,
    /// Norms are stored less one.
    pub(super) minus_one: bool,
    /// Experts are stored together with gate and up taking turns, output by output; otherwise all of the
    /// gate comes first.
    pub(super) paired: bool,
    /// What `post_attention_layernorm` is called in GGUF.
    pub(super) post_attention: &'static str,
    /// The one activation (`hidden_act`) that its models may have, where others are known.
    pub(super) act: Option<&'static str>,
    /// What `config.json` may leave out.
    pub(super) defaults: &'static [(&'static str, f64)],
}

const PLAIN: Family = Family {
    model_type: "",
    arch: "",
    rotary: false,
    minus_one: false,
    paired: false,
    post_attention: "ffn_norm",
    act: None,
    defaults: &[("rms_norm_eps", 1e-6)],
};

const GEMMA: Family = Family {
    minus_one: true,
    post_attention: "post_attention_norm",
    ..PLAIN
};

const GEMMA3: Family = Family {
    model_type: "gemma3_text",
    arch: "gemma3",
    defaults: &[
        ("rms_norm_eps", 1e-6),
        ("num_attention_heads", 8.0),
        ("num_key_value_heads", 4.0),
        ("head_dim", 256.0),
        ("max_position_embeddings", 131_072.0),
        ("query_pre_attn_scalar", 256.0),
        ("sliding_window", 4096.0),
        ("rope_theta", 1e6),
        ("rope_local_base_freq", 1e4),
        ("vocab_size", 262_208.0),
    ],
    ..GEMMA
};

/// BERT's encoders, whose activation is in no GGUF key.
const BERT: Family = Family {
    model_type: "bert",
    arch: "bert",
    act: Some("gelu"),
    defaults: &[
        ("layer_norm_eps", 1e-12),
        ("max_position_embeddings", 512.0),
    ],
    ..PLAIN
};

/// Every family we read. Defaults are those of the makers' configuration classes.
const FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        arch: "llama",
        rotary: true,
        ..PLAIN
    },
    Family {
        model_type: "mistral",
        arch: "llama",
        rotary: true,
        ..PLAIN
    },
    Family {
        model_type: "ministral3",
        arch: "mistral3",
        rotary: true,
        ..PLAIN
    },
    Family {
        model_type: "smollm3",
        arch: "smollm3",
        rotary: true,
        ..PLAIN
    },
    Family {
        model_type: "qwen2",
        arch: "qwen2",
        ..PLAIN
    },
    Family {
        model_type: "qwen3",
        arch: "qwen3",
        defaults: &[("rms_norm_eps", 1e-6), ("head_dim", 128.0)],
        ..PLAIN
    },
    Family {
        model_type: "qwen3_moe",
        arch: "qwen3moe",
        defaults: &[("rms_norm_eps", 1e-6), ("num_experts_per_tok", 8.0)],
        ..PLAIN
    },
    Family {
        model_type: "gemma2",
        arch: "gemma2",
        defaults: &[
            ("rms_norm_eps", 1e-6),
            ("head_dim", 256.0),
            ("query_pre_attn_scalar", 256.0),
            ("sliding_window", 4096.0),
            ("attn_logit_softcapping", 50.0),
            ("final_logit_softcapping", 30.0),
        ],
        ..GEMMA
    },
    GEMMA3,
    Family {
        model_type: "gemma3",
        ..GEMMA3
    },
    Family {
        model_type: "phi3",
        arch: "phi3",
        defaults: &[("rms_norm_eps", 1e-5)],
        ..PLAIN
    },
    Family {
        model_type: "olmo2",
        arch: "olmo2",
        post_attention: "post_attention_norm",
        defaults: &[("rms_norm_eps", 1e-5)],
        ..PLAIN
    },
    Family {
        model_type: "olmo3",
        arch: "olmo2",
        post_attention: "post_attention_norm",
        defaults: &[("rms_norm_eps", 1e-5), ("sliding_window", 4096.0)],
        ..PLAIN
    },
    Family {
        model_type: "granite",
        arch: "granite",
        rotary: true,
        ..PLAIN
    },
    Family {
        model_type: "gpt_oss",
        arch: "gpt-oss",
        paired: true,
        post_attention: "post_attention_norm",
        defaults: &[
            ("rms_norm_eps", 1e-5),
            ("head_dim", 64.0),
            ("sliding_window", 128.0),
            ("rope_theta", 150_000.0),
            ("num_experts_per_tok", 4.0),
        ],
        ..PLAIN
    },
    BERT,
    Family {
        model_type: "nomic_bert",
        arch: "nomic-bert",
        act: None,
        defaults: &[
            ("layer_norm_eps", 1e-12),
            ("max_position_embeddings", 2048.0),
            ("rope_theta", 1000.0),
        ],
        ..BERT
    },
];

/// The family of a `config.json`.
///
/// # Errors
/// [`Error::Architecture`] for one we do not read.
pub(super) fn find(config: &Json) -> Result<&'static Family> {
    // Models that are more than text say what their part that is comes from.
    let names = [&config["text_config"]["model_type"], &config["model_type"]];
    let name = names.into_iter().find_map(Json::as_str);
    let name = name.unwrap_or("nothing");
    let family = FAMILIES.iter().find(|f| f.model_type == name);
    family.ok_or_else(|| Error::Architecture {
        name: shown(name),
        known: FAMILIES
            .iter()
            .map(|f| f.model_type)
            .collect::<Vec<_>>()
            .join(", "),
    })
}
