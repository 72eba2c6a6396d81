//! `config.json` as GGUF's metadata.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::super::{Array, Value};
use super::family::Family;
use crate::error::{Error, Result, shown};
use crate::rope::{longrope_amplitude, yarn_amplitude};

/// Keys of `config.json` that are whole numbers, and what GGUF calls them.
const SIZES: &[(&str, &str)] = &[
    ("num_hidden_layers", "block_count"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("head_dim", "attention.value_length"),
    ("max_position_embeddings", "context_length"),
    ("vocab_size", "vocab_size"),
    ("num_experts", "expert_count"),
    ("num_local_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
];

/// Those that are not.
const FLOATS: &[(&str, &str)] = &[
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("embedding_multiplier", "embedding_scale"),
    ("residual_multiplier", "residual_scale"),
    ("attention_multiplier", "attention.scale"),
    ("logits_scaling", "logit_scale"),
];

/// Other names that makers have for a key, which is asked for by its first.
const ALIASES: &[(&str, &[&str])] = &[
    ("num_hidden_layers", &["n_layer"]),
    ("hidden_size", &["n_embd"]),
    ("intermediate_size", &["n_inner"]),
    ("num_attention_heads", &["n_head"]),
    (
        "max_position_embeddings",
        &["max_trained_positions", "n_positions"],
    ),
    ("layer_norm_eps", &["layer_norm_epsilon"]),
    ("rope_theta", &["rotary_emb_base"]),
    ("partial_rotary_factor", &["rotary_emb_fraction"]),
    ("hidden_act", &["activation_function"]),
];

/// Elements of the largest head that there is a kernel for.
const MOST_HEAD_DIM: usize = 1024;

/// A description with the family's defaults.
pub(super) struct Config<'a> {
    family: &'static Family,
    /// The whole, and the part that is about text.
    top: &'a Json,
    text: &'a Json,
}

impl<'a> Config<'a> {
    pub(super) fn new(family: &'static Family, top: &'a Json) -> Self {
        let text = match &top["text_config"] {
            text @ Json::Object(_) => text,
            _ => top,
        };
        Self { family, top, text }
    }

    fn get(&self, key: &str) -> Option<&'a Json> {
        let others = ALIASES.iter().find(|(name, _)| *name == key);
        let others = others.map_or(&[][..], |(_, others)| others);
        let names = || std::iter::once(&key).chain(others);
        let parts = [self.text, self.top].into_iter();
        let mut own = parts.flat_map(|part| names().map(move |name| &part[*name]));
        own.find(|v| !v.is_null())
    }

    /// A number; a key that is there and null has none, whatever the default.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let bad = |value: &Json| Error::Config {
            key: key.into(),
            value: value.to_string(),
            want: "a number",
        };
        match self.get(key) {
            Some(value) => value.as_f64().map(Some).ok_or_else(|| bad(value)),
            None if self.text.get(key).is_some() => Ok(None),
            None => {
                let defaults = self.family.defaults.iter();
                Ok(defaults.filter(|(k, _)| *k == key).map(|(_, v)| *v).next())
            }
        }
    }

    /// A whole number.
    pub(super) fn size(&self, key: &str) -> Result<Option<u32>> {
        let Some(number) = self.number(key)? else {
            return Ok(None);
        };
        if number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0 {
            return Ok(Some(number as u32));
        }
        Err(Error::Config {
            key: key.into(),
            value: number.to_string(),
            want: "a size that a model can have",
        })
    }

    /// A whole number that must be there.
    pub(super) fn need(&self, key: &str) -> Result<usize> {
        let size = self.size(key)?.ok_or_else(|| Error::MissingKey {
            key: key.into(),
            want: "a size that a model can have",
        })?;
        Ok(size as usize)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// Tokens that the file itself says there are.
    pub(super) fn vocabulary(&self) -> Option<usize> {
        let size = self.text.get("vocab_size")?.as_u64()?;
        usize::try_from(size).ok()
    }

    /// Whether the embedding is the output matrix, too.
    pub(super) fn tied(&self) -> bool {
        // Gemma's class says so where the file does not.
        self.flag("tie_word_embeddings")
            .unwrap_or(self.family.minus_one)
    }

    /// Elements of a head: even, as rotation wants it.
    pub(super) fn head_dim(&self) -> Result<usize> {
        let dim = match self.size("head_dim")? {
            Some(dim) => dim as usize,
            None => self.need("hidden_size")? / self.need("num_attention_heads")?.max(1),
        };
        if dim == 0 || dim > MOST_HEAD_DIM || !dim.is_multiple_of(2) {
            return Err(Error::Config {
                key: "head_dim".into(),
                value: dim.to_string(),
                want: "an even number up to 1024",
            });
        }
        Ok(dim)
    }

    /// What is said of rotation, for layers without a window and for those with one: newer files have it
    /// all in `rope_parameters`, maybe for each kind of layer; older ones the stretch in `rope_scaling`.
    pub(super) fn ropes(&self) -> [&'a Json; 2] {
        let new = self.get("rope_parameters");
        let old = self.get("rope_scaling");
        match new {
            Some(new) if new.get("full_attention").is_some() => {
                [&new["full_attention"], &new["sliding_attention"]]
            }
            Some(new) => [new, &Json::Null],
            None => [old.unwrap_or(&Json::Null), &Json::Null],
        }
    }

    /// A number of the rotation, or else of the whole description.
    pub(super) fn rope_number(&self, rope: &Json, key: &str) -> Result<Option<f64>> {
        match &rope[key] {
            Json::Null => self.number(key),
            value => value.as_f64().map(Some).ok_or_else(|| Error::Config {
                key: key.into(),
                value: value.to_string(),
                want: "a number",
            }),
        }
    }

    /// Elements of a head that rotate.
    pub(super) fn rope_dims(&self) -> Result<usize> {
        let [rope, _] = self.ropes();
        let key = "partial_rotary_factor";
        let share = self.rope_number(rope, key)?.unwrap_or(1.0);
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::Config {
                key: key.into(),
                value: share.to_string(),
                want: "a share of a head, above 0 and up to 1",
            });
        }
        Ok((self.head_dim()? as f64 * share) as usize)
    }

    /// Rows and columns of FP8 weights that share a scale, where squares do.
    pub(super) fn fp8_square(&self) -> Vec<usize> {
        let quantization = self.get("quantization_config");
        let size = quantization.and_then(|q| q["weight_block_size"].as_array());
        let sizes = size.into_iter().flatten().filter_map(Json::as_u64);
        sizes.map(|n| n as usize).collect()
    }

    /// Whether a layer is of a kind, where the file lists kinds.
    fn layers(&self, kind: &str) -> Option<Vec<bool>> {
        let types = self.get("layer_types")?.as_array()?;
        Some(types.iter().map(|t| t.as_str() == Some(kind)).collect())
    }
}

/// The metadata of a description.
pub(super) fn metadata(family: &'static Family, json: &Json) -> Result<BTreeMap<String, Value>> {
    let config = Config::new(family, json);
    let act = config.get("hidden_act").and_then(Json::as_str);
    if let (Some(want), Some(act)) = (family.act, act)
        && want != act
    {
        return Err(Error::Config {
            key: "hidden_act".into(),
            value: format!("`{}`", shown(act)),
            want,
        });
    }
    let mut meta = BTreeMap::new();
    meta.insert(
        "general.architecture".to_string(),
        Value::String(family.arch.into()),
    );
    for key in ["hidden_size", "num_attention_heads"] {
        config.need(key)?;
    }
    let mut set = |key: &str, value: Value| meta.insert(format!("{}.{key}", family.arch), value);
    for (from, to) in SIZES {
        if let Some(size) = config.size(from)? {
            set(to, Value::U32(size));
        }
    }
    for (from, to) in FLOATS {
        if let Some(float) = config.number(from)? {
            set(to, Value::F32(float as f32));
        }
    }
    if let Some(scalar) = config.number("query_pre_attn_scalar")? {
        set("attention.scale", Value::F32(scalar.sqrt().recip() as f32));
    }
    // gpt-oss has nothing but experts, and says their width as that of any other block.
    if config.size("num_local_experts")?.is_some()
        && let Some(width) = config.size("intermediate_size")?
    {
        set("expert_feed_forward_length", Value::U32(width));
    }
    if let Some(norm) = config.flag("norm_topk_prob") {
        set("expert_weights_norm", Value::Bool(norm));
    }
    set(
        "rope.dimension_count",
        Value::U32(config.rope_dims()? as u32),
    );
    // Qwen2 says how large a window would be that it does not use.
    let window = config.size("sliding_window")?;
    if let Some(window) = window.filter(|_| config.flag("use_sliding_window") != Some(false)) {
        set("attention.sliding_window", Value::U32(window));
        if let Some(local) = config.layers("sliding_attention") {
            let pattern = Value::Array(Array::Bool(local));
            set("attention.sliding_window_pattern", pattern);
        } else if let Some(period) = config.size("sliding_window_pattern")? {
            set("attention.sliding_window_pattern", Value::U32(period));
        }
    }
    if let Some(layers) = config.get("no_rope_layers").and_then(Json::as_array) {
        // One stands for a layer that rotates.
        let turns = layers.iter().map(|l| l.as_u64() == Some(1)).collect();
        set("attention.rope_pattern", Value::Array(Array::Bool(turns)));
    }
    rotation(&config, &mut set)?;
    Ok(meta)
}

/// Bases, and how rotation was stretched.
fn rotation<R>(config: &Config<'_>, set: &mut impl FnMut(&str, Value) -> R) -> Result<()> {
    let [rope, local] = config.ropes();
    let float = |v: f64| Value::F32(v as f32);
    let number = |key: &str| config.rope_number(rope, key);
    if let Some(base) = number("rope_theta")? {
        set("rope.freq_base", float(base));
    }
    let local_base = match &local["rope_theta"] {
        Json::Null => config.number("rope_local_base_freq")?,
        base => base.as_f64(),
    };
    if let Some(base) = local_base {
        set("rope.freq_base_swa", float(base));
    }
    let kind = [&rope["rope_type"], &rope["type"]];
    let kind = kind.into_iter().find_map(Json::as_str).unwrap_or("default");
    let longest = config.need("max_position_embeddings")? as f64;
    let original = number("original_max_position_embeddings")?.unwrap_or(longest);
    let factor = number("factor")?.unwrap_or(longest / original);
    match kind {
        "default" | "llama3" => return Ok(()),
        "dynamic" => {
            // GGUF has no name for it, and llama.cpp stops at one that it does not know. Up to the
            // original length, which is all that it reads then, there is nothing to stretch.
            set("rope.scaling.type", Value::String("none".into()));
            set("rope.scaling.dynamic_factor", float(factor));
        }
        "linear" | "yarn" => {
            set("rope.scaling.type", Value::String(kind.into()));
            set("rope.scaling.factor", float(factor));
        }
        "longrope" | "su" => {
            set("rope.scaling.type", Value::String("longrope".into()));
            let amplitude = match number("attention_factor")? {
                Some(amplitude) => amplitude,
                None => longrope_amplitude(longest / original, original),
            };
            set("rope.scaling.attn_factor", float(amplitude));
        }
        other => {
            return Err(Error::Config {
                key: "rope_type".into(),
                value: format!("`{other}`"),
                want: "one of default, linear, dynamic, yarn, llama3, longrope",
            });
        }
    }
    set(
        "rope.scaling.original_context_length",
        Value::U32(original as u32),
    );
    if let Some(beta) = number("llama_4_scaling_beta")? {
        set("attention.temperature_scale", float(beta));
    }
    if kind != "yarn" {
        return Ok(());
    }
    for (from, to) in [
        ("beta_fast", "yarn_beta_fast"),
        ("beta_slow", "yarn_beta_slow"),
    ] {
        if let Some(beta) = number(from)? {
            set(&format!("rope.scaling.{to}"), float(beta));
        }
    }
    if let Some(truncate) = rope["truncate"].as_bool() {
        set("rope.scaling.yarn_truncate", Value::Bool(truncate));
    }
    let usual = yarn_amplitude(factor, 1.0);
    let amplitude = match (
        number("attention_factor")?,
        number("mscale")?,
        number("mscale_all_dim")?,
    ) {
        (Some(amplitude), ..) => amplitude,
        (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
            yarn_amplitude(factor, m) / yarn_amplitude(factor, all)
        }
        _ => usual,
    };
    // GGUF has a factor beside the usual one.
    if (amplitude / usual - 1.0).abs() > 1e-6 {
        set("rope.scaling.attn_factor", float(amplitude / usual));
    }
    Ok(())
}
