//! Tensors of a folder under GGUF's names.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde_json::Value as Json;

use super::config::Config;
use super::family::Family;
use super::rows::{Convert, Piece, Raw, Recipe};
use super::{Raws, problem};
use crate::error::{Error, FileProblem, Result, shown};
use crate::quant::Format;
use crate::rope::llama3_divisors;
use crate::tensor::{DType, TensorInfo};

/// Parts of a layer, and what GGUF calls them.
const PARTS: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    // BERT's,
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    // and nomic's, whose second product is the gate.
    ("attn.Wqkv", "attn_qkv"),
    ("attn.out_proj", "attn_output"),
    ("norm1", "attn_output_norm"),
    ("mlp.fc11", "ffn_up"),
    ("mlp.fc12", "ffn_gate"),
    ("mlp.fc2", "ffn_down"),
    ("norm2", "layer_output_norm"),
];

/// What BERT's encoders have before their layers, and what GGUF calls it.
const EMBEDDINGS: &[(&str, &str)] = &[
    ("embeddings.word_embeddings.weight", "token_embd.weight"),
    (
        "embeddings.position_embeddings.weight",
        "position_embd.weight",
    ),
    (
        "embeddings.token_type_embeddings.weight",
        "token_types.weight",
    ),
    ("embeddings.LayerNorm.weight", "token_embd_norm.weight"),
    ("embeddings.LayerNorm.bias", "token_embd_norm.bias"),
    ("emb_ln.weight", "token_embd_norm.weight"),
    ("emb_ln.bias", "token_embd_norm.bias"),
];

/// Parts of one of many experts.
const EXPERT_PARTS: &[(&str, &str)] = &[
    ("gate_proj.weight", "ffn_gate_exps"),
    ("up_proj.weight", "ffn_up_exps"),
    ("down_proj.weight", "ffn_down_exps"),
];

/// Where models that are more than text keep the part that is.
const PREFIXES: [&str; 7] = [
    "bert.encoder.",
    "bert.",
    "encoder.",
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.",
];

/// What is there and not needed, or not by itself.
const IDLE: [&str; 9] = [
    "position_ids",
    "pooler.",
    "cls.",
    "rotary_emb.inv_freq",
    "vision",
    "multi_modal_projector",
    "weight_scale",
    "activation_scale",
    "input_scale",
];

/// Tensors under way.
struct Maker<'a> {
    family: &'static Family,
    config: Config<'a>,
    raws: &'a Raws,
    /// The folder, for messages.
    folder: &'a str,
    tensors: Vec<TensorInfo>,
    recipes: Vec<Recipe>,
}

/// GGUF's tensors of a folder, and how each is made.
pub(super) fn translate(
    family: &'static Family,
    config: &Json,
    raws: &Raws,
    folder: &str,
) -> Result<(Vec<TensorInfo>, Vec<Recipe>)> {
    let mut maker = Maker {
        family,
        config: Config::new(family, config),
        raws,
        folder,
        tensors: Vec::new(),
        recipes: Vec::new(),
    };
    let layers = maker.config.need("num_hidden_layers")?;
    // Experts of their own names, by GGUF's name and number.
    let mut experts: BTreeMap<String, BTreeMap<usize, &Raw>> = BTreeMap::new();
    for (name, raw) in raws {
        let short = PREFIXES.iter().find_map(|p| name.strip_prefix(p));
        let short = short.unwrap_or(name);
        if let Some((layer, part)) = layer(short) {
            if layer >= layers {
                let name = shown(name);
                let reason = format!(
                    "tensor `{name}` is of layer {layer}, and `num_hidden_layers` is {layers}"
                );
                return Err(problem(folder, FileProblem::Safetensors { reason }));
            }
            if let Some((number, part)) = expert(part) {
                let of_all = format!("blk.{layer}.{part}.weight");
                experts.entry(of_all).or_default().insert(number, raw);
            } else if !maker.layer_part(layer, part, name, raw)? {
                unknown(name);
            }
            continue;
        }
        if let Some((_, to)) = EMBEDDINGS.iter().find(|(from, _)| *from == short) {
            if raw.shape.len() == 1 {
                maker.vector(to, raw, false)?;
            } else {
                maker.matrix(to, name, raw, None)?;
            }
            continue;
        }
        match short {
            "embed_tokens.weight" => {
                maker.table(name, raw)?;
                maker.matrix("token_embd.weight", name, raw, None)?;
            }
            "norm.weight" => maker.vector("output_norm.weight", raw, family.minus_one)?,
            "lm_head.weight" if maker.config.tied() => {}
            "lm_head.weight" => maker.matrix("output.weight", name, raw, None)?,
            _ => unknown(name),
        }
    }
    for (name, of_one) in experts {
        maker.stack(name, &of_one)?;
    }
    maker.divisors()?;
    Ok((maker.tensors, maker.recipes))
}

fn unknown(name: &str) {
    if !IDLE.iter().any(|idle| name.contains(idle)) {
        let name = shown(name);
        log::warn!("tensor `{name}` has no place in this architecture and is not used");
    }
}

/// Number and part of `layers.N.part`.
fn layer(name: &str) -> Option<(usize, &str)> {
    let rest = ["layers.", "layer."]
        .iter()
        .find_map(|p| name.strip_prefix(p));
    let (number, part) = rest?.split_once('.')?;
    Some((number.parse().ok()?, part))
}

/// Number and GGUF's name of `mlp.experts.N.part`.
fn expert(part: &str) -> Option<(usize, &'static str)> {
    let (number, part) = part.strip_prefix("mlp.experts.")?.split_once('.')?;
    let (_, name) = EXPERT_PARTS.iter().find(|(p, _)| *p == part)?;
    Some((number.parse().ok()?, name))
}

impl Maker<'_> {
    /// The embedding has a row for each token.
    fn table(&self, from: &str, raw: &Raw) -> Result<()> {
        match (self.config.vocabulary(), raw.shape.first()) {
            (Some(want), Some(rows)) if want != *rows => {
                let name = shown(from);
                let reason = format!("tensor `{name}` has {rows} rows, and `vocab_size` is {want}");
                Err(problem(self.folder, FileProblem::Safetensors { reason }))
            }
            _ => Ok(()),
        }
    }

    /// A part of a layer; false where it has no place.
    fn layer_part(&mut self, layer: usize, part: &str, name: &str, raw: &Raw) -> Result<bool> {
        let block = |part: &str| format!("blk.{layer}.{part}");
        if part == "self_attn.sinks" {
            self.vector(&block("attn_sinks.weight"), raw, false)?;
            return Ok(true);
        }
        if let Some(part) = part.strip_prefix("mlp.experts.") {
            return self.experts(layer, part, name, raw);
        }
        let Some((stem, kind)) = part.rsplit_once('.') else {
            return Ok(false);
        };
        let to = if stem == "post_attention_layernorm" {
            self.family.post_attention
        } else if let Some((_, to)) = PARTS.iter().find(|(from, _)| *from == stem) {
            to
        } else {
            return Ok(false);
        };
        if kind != "weight" && kind != "bias" {
            return Ok(false);
        }
        let to = block(&format!("{to}.{kind}"));
        let turns = self.family.rotary && matches!(stem, "self_attn.q_proj" | "self_attn.k_proj");
        let head = turns.then(|| self.config.head_dim()).transpose()?;
        if raw.shape.len() == 1 {
            let norm = stem.ends_with("norm") && self.family.minus_one;
            self.vector(&to, raw, norm)?;
            if let Some(recipe) = self.recipes.last_mut().filter(|_| head.is_some()) {
                // A bias is turned as the rows that it belongs to: each element is a row.
                (recipe.cols, recipe.head) = (1, head);
                recipe.pieces[0].rows = raw.shape[0];
            }
        } else {
            self.matrix(&to, name, raw, head)?;
        }
        Ok(true)
    }

    /// Experts that are stored together, gate and up in one tensor.
    fn experts(&mut self, layer: usize, part: &str, from: &str, raw: &Raw) -> Result<bool> {
        let (stem, kind) = match part.rsplit_once('_') {
            Some((stem, kind @ ("bias" | "blocks" | "scales"))) => (stem, kind),
            _ => (part, "weight"),
        };
        let (names, step): (&[&str], usize) = match stem {
            "gate_up_proj" => (&["ffn_gate_exps", "ffn_up_exps"], 2),
            "down_proj" => (&["ffn_down_exps"], 1),
            _ => return Ok(false),
        };
        let count = raw.shape.first().copied().unwrap_or(0);
        for (first, name) in names.iter().enumerate() {
            let name = |kind: &str| format!("blk.{layer}.{name}.{kind}");
            match (kind, &raw.shape[..]) {
                // The other half of the blocks.
                ("scales", _) => {}
                ("bias", [_, n]) => {
                    // An element is a row here.
                    let piece = Piece {
                        raw: raw.clone(),
                        first,
                        step,
                        rows: count * n / step,
                    };
                    let shape = vec![count, n / step];
                    let convert = Convert::Floats(0.0);
                    self.add(
                        name("bias"),
                        shape,
                        DType::F32,
                        vec![piece],
                        convert,
                        None,
                        1,
                    );
                }
                ("blocks", [_, n, groups, 16]) => {
                    let scales = format!("layers.{layer}.mlp.experts.{stem}_scales");
                    let scales = self.raws.iter().find(|(n, _)| n.ends_with(&scales));
                    let Some((_, scales)) = scales.filter(|(_, s)| s.shape[..] == raw.shape[..3])
                    else {
                        return Ok(false);
                    };
                    let piece = Piece {
                        raw: raw.clone(),
                        first,
                        step,
                        rows: count * n / step,
                    };
                    let shape = vec![count, n / step, groups * 32];
                    let convert = Convert::Mxfp4(scales.clone());
                    let cols = groups * 32;
                    let name = name("weight");
                    self.add(name, shape, DType::MXFP4, vec![piece], convert, None, cols);
                }
                ("weight", [_, a, b]) => {
                    let dtype = self.dtype(from, raw)?;
                    let (inputs, n, convert) = if self.turned(from, raw)? {
                        (*a, *b, Convert::Transposed)
                    } else {
                        (*b, *a, Convert::Copy)
                    };
                    let rows = n / step;
                    let piece = |first, step, rows| Piece {
                        raw: raw.clone(),
                        first,
                        step,
                        rows,
                    };
                    let pieces = if self.family.paired {
                        vec![piece(first, step, count * rows)]
                    } else {
                        let half = |expert: usize| piece(expert * n + first * rows, 1, rows);
                        (0..count).map(half).collect()
                    };
                    let shape = vec![count, rows, inputs];
                    self.add(name("weight"), shape, dtype, pieces, convert, None, inputs);
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether the experts that `from` is a part of have inputs as rows: `[experts, inputs, outputs]`.
    ///
    /// transformers keeps Qwen3-MoE's as `[experts, 2 ffn, width]` and `[experts, width, ffn]`; gpt-oss's are
    /// turned, and so are those that were published for the same way of multiplying.
    fn turned(&self, from: &str, raw: &Raw) -> Result<bool> {
        let width = self.config.need("hidden_size")?;
        // Where the width stands in each part, and where in those that are turned.
        let parts = [("gate_up_proj", 2, 1), ("down_proj", 1, 2)];
        let stem = from.rsplit_once('.').map_or("", |(stem, _)| stem);
        // One of them tells, wherever a matrix of the other is a square.
        let told = parts.iter().find_map(|(part, plain, turned)| {
            let shape = &self.raws.get(&format!("{stem}.{part}"))?.shape;
            let at = |i: usize| shape.get(i) == Some(&width);
            (at(*plain) != at(*turned)).then_some(at(*turned))
        });
        let turned = self.family.paired || told == Some(true);
        let fits = parts.iter().any(|(part, plain, other)| {
            let at = if turned { other } else { plain };
            from.ends_with(part) && raw.shape.get(*at) == Some(&width)
        });
        if fits {
            return Ok(turned);
        }
        let name = shown(from);
        let reason = format!(
            "tensor `{name}` is {:?}, which no experts of `hidden_size` {width} are",
            raw.shape
        );
        Err(problem(self.folder, FileProblem::Safetensors { reason }))
    }

    /// A matrix as it is, or with the halves of its heads alternating.
    fn matrix(&mut self, to: &str, from: &str, raw: &Raw, head: Option<usize>) -> Result<()> {
        let cols = raw.shape.last().copied().unwrap_or(1);
        if raw.dtype == Dtype::F8_E4M3 {
            return self.eight(to, from, raw, head);
        }
        let dtype = self.dtype(from, raw)?;
        // GGUF keeps scores of experts in full.
        let (dtype, convert) = if to.contains("ffn_gate_inp") {
            (DType::F32, Convert::Floats(0.0))
        } else {
            (dtype, Convert::Copy)
        };
        let (shape, pieces) = (raw.shape.clone(), vec![Piece::whole(raw)]);
        self.add(to.into(), shape, dtype, pieces, convert, head, cols);
        Ok(())
    }

    /// A matrix of FP8, whose scales are beside it.
    fn eight(&mut self, to: &str, from: &str, raw: &Raw, head: Option<usize>) -> Result<()> {
        let cols = raw.shape.last().copied().unwrap_or(1);
        let rows = raw.rows();
        // DeepSeek's name for it, and that of compressed-tensors.
        let scales = ["_scale_inv", "_scale"];
        let scales = scales
            .iter()
            .find_map(|s| self.raws.get(&format!("{from}{s}")));
        let found = scales.and_then(|scales| {
            let squares: Vec<usize> = self.config.fp8_square();
            let across = |n: usize, square: usize| n.div_ceil(square.max(1));
            let square = match scales.shape[..] {
                [] | [1] | [1, 1] => [rows.max(1), cols],
                [n] | [n, 1] if n == rows => [1, cols],
                [a, b] if squares.len() == 2 => {
                    let fits = a == across(rows, squares[0]) && b == across(cols, squares[1]);
                    [
                        squares[0],
                        squares[1]
                            .is_multiple_of(32)
                            .then_some(squares[1])
                            .filter(|_| fits)?,
                    ]
                }
                _ => return None,
            };
            plain(scales.dtype)?;
            Some((scales.clone(), square))
        });
        let Some((scales, square)) = found.filter(|_| cols.is_multiple_of(32)) else {
            let name = shown(from);
            let reason = format!("tensor `{name}` is FP8 without scales that fit it");
            return Err(problem(self.folder, FileProblem::Safetensors { reason }));
        };
        let convert = Convert::Scaled { scales, square };
        let (shape, pieces) = (raw.shape.clone(), vec![Piece::whole(raw)]);
        self.add(
            to.into(),
            shape,
            DType::F8_E4M3,
            pieces,
            convert,
            head,
            cols,
        );
        Ok(())
    }

    /// A vector, in f32.
    fn vector(&mut self, to: &str, raw: &Raw, less_one: bool) -> Result<()> {
        self.dtype(to, raw)?;
        let len = raw.shape.iter().product();
        let convert = Convert::Floats(if less_one { 1.0 } else { 0.0 });
        let pieces = vec![Piece::whole(raw)];
        self.add(to.into(), vec![len], DType::F32, pieces, convert, None, len);
        Ok(())
    }

    /// One matrix of all experts.
    fn stack(&mut self, to: String, of_one: &BTreeMap<usize, &Raw>) -> Result<()> {
        let count = of_one.len();
        let Some((_, first)) = of_one.first_key_value() else {
            return Ok(());
        };
        let whole = of_one.keys().copied().eq(0..count);
        let same = |r: &&Raw| r.shape == first.shape && r.dtype == first.dtype;
        if !whole || !of_one.values().all(same) || first.shape.len() != 2 {
            let reason = format!("the experts of `{to}` are not all there, or not of one shape");
            return Err(problem(self.folder, FileProblem::Safetensors { reason }));
        }
        let dtype = self.dtype(&to, first)?;
        let (rows, cols) = (first.shape[0], first.shape[1]);
        let pieces = of_one.values().map(|raw| Piece::whole(raw)).collect();
        let shape = vec![count, rows, cols];
        self.add(to, shape, dtype, pieces, Convert::Copy, None, cols);
        Ok(())
    }

    /// What Llama 3's and LongRoPE's frequencies are divided by.
    fn divisors(&mut self) -> Result<()> {
        let [rope, _] = self.config.ropes();
        let number = |key: &str| self.config.rope_number(rope, key);
        let kind = [&rope["rope_type"], &rope["type"]];
        match kind.into_iter().find_map(Json::as_str) {
            Some("llama3") => {
                let base = number("rope_theta")?.unwrap_or(10_000.0);
                let factor = number("factor")?.unwrap_or(8.0);
                let low = number("low_freq_factor")?.unwrap_or(1.0);
                let high = number("high_freq_factor")?.unwrap_or(4.0);
                let original = number("original_max_position_embeddings")?.unwrap_or(8192.0);
                let dims = self.config.rope_dims()?;
                let values = llama3_divisors(dims, base, factor, [low, high], original);
                self.literal("rope_freqs.weight", values);
            }
            Some("longrope" | "su") => {
                for (from, to) in [
                    ("long_factor", "rope_factors_long.weight"),
                    ("short_factor", "rope_factors_short.weight"),
                ] {
                    let list = rope[from].as_array().map_or(&[][..], Vec::as_slice);
                    let values = list.iter().map(|v| v.as_f64().map(|v| v as f32));
                    let values = values.collect::<Option<_>>().ok_or_else(|| Error::Config {
                        key: from.into(),
                        value: rope[from].to_string(),
                        want: "a list of numbers",
                    })?;
                    self.literal(to, values);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn literal(&mut self, name: &str, values: Vec<f32>) {
        let len = values.len();
        let convert = Convert::Copy;
        self.add(
            name.into(),
            vec![len],
            DType::F32,
            vec![],
            convert,
            None,
            len,
        );
        if let Some(recipe) = self.recipes.last_mut() {
            recipe.literal = values;
        }
    }

    /// The type of a raw tensor, where we can keep it.
    fn dtype(&self, name: &str, raw: &Raw) -> Result<DType> {
        plain(raw.dtype).ok_or_else(|| {
            let name = shown(name);
            let reason = format!("tensor `{name}` is {:?}, which is not read", raw.dtype);
            problem(self.folder, FileProblem::Safetensors { reason })
        })
    }

    #[expect(clippy::too_many_arguments, reason = "a row of the tensor's table")]
    fn add(
        &mut self,
        name: String,
        shape: Vec<usize>,
        dtype: DType,
        pieces: Vec<Piece>,
        convert: Convert,
        head: Option<usize>,
        cols: usize,
    ) {
        let elements: usize = shape.iter().product();
        let format = Format::of(dtype);
        self.tensors.push(TensorInfo {
            name,
            dtype,
            bytes: (elements / format.block * format.block_bytes) as u64,
            shape,
            file: pieces.first().map_or(0, |p| p.raw.file),
            offset: pieces.first().map_or(0, |p| p.raw.offset),
        });
        self.recipes.push(Recipe {
            pieces,
            head,
            convert,
            literal: Vec::new(),
            cols,
        });
    }
}

/// Plain numbers.
fn plain(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
