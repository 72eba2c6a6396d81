//! Small models of true structure with random weights, as GGUF files in memory.

use std::collections::HashMap;

use omnimini::format::Checkpoint;
use omnimini::graph::reference::Weights;
use omnimini::quant::testing::{Rng, random_matrix};
use omnimini::quant::{Format, dequantize};
use omnimini::tensor::DType;

/// A GGUF file under way: version 3, little-endian.
#[derive(Default)]
pub struct Gguf {
    keys: u64,
    meta: Vec<u8>,
    tensors: Vec<(String, Vec<u64>, DType, Vec<u8>)>,
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

impl Gguf {
    fn key(&mut self, key: &str, ty: u32) {
        self.keys += 1;
        string(&mut self.meta, key);
        self.meta.extend(ty.to_le_bytes());
    }

    pub fn u32(&mut self, key: &str, v: u32) {
        self.key(key, 4);
        self.meta.extend(v.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, v: f32) {
        self.key(key, 6);
        self.meta.extend(v.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, v: bool) {
        self.key(key, 7);
        self.meta.push(v.into());
    }

    pub fn str(&mut self, key: &str, v: &str) {
        self.key(key, 8);
        string(&mut self.meta, v);
    }

    fn array(&mut self, key: &str, ty: u32, n: usize) {
        self.key(key, 9);
        self.meta.extend(ty.to_le_bytes());
        self.meta.extend((n as u64).to_le_bytes());
    }

    pub fn strings(&mut self, key: &str, v: &[String]) {
        self.array(key, 8, v.len());
        for s in v {
            string(&mut self.meta, s);
        }
    }

    pub fn f32s(&mut self, key: &str, v: &[f32]) {
        self.array(key, 6, v.len());
        for v in v {
            self.meta.extend(v.to_le_bytes());
        }
    }

    pub fn i32s(&mut self, key: &str, v: &[i32]) {
        self.array(key, 5, v.len());
        for v in v {
            self.meta.extend(v.to_le_bytes());
        }
    }

    /// A tensor; `shape` is row-major.
    pub fn u8s(&mut self, key: &str, v: &[u8]) {
        self.array(key, 0, v.len());
        self.meta.extend(v);
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize], dtype: DType, data: Vec<u8>) {
        let dims = shape.iter().rev().map(|d| *d as u64).collect();
        self.tensors.push((name.into(), dims, dtype, data));
    }

    pub fn finish(self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.keys.to_le_bytes());
        out.extend(self.meta);
        let mut offset = 0u64;
        for (name, dims, dtype, data) in &self.tensors {
            string(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            for d in dims {
                out.extend(d.to_le_bytes());
            }
            out.extend(Format::of(*dtype).id.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + data.len() as u64).next_multiple_of(32);
        }
        for (.., data) in self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(data);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }
}

/// What a tiny model is like.
pub struct Tiny {
    pub arch: &'static str,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub window: Option<u32>,
    pub qk_norm: bool,
    pub post_norms: bool,
    pub tied: bool,
    pub biases: bool,
    /// Types of the matrices, in turn.
    pub types: &'static [DType],
}

pub const LLAMA: Tiny = Tiny {
    arch: "llama",
    layers: 3,
    width: 256,
    heads: 8,
    kv_heads: 2,
    head_dim: 64,
    ffn: 512,
    vocab: 300,
    window: None,
    qk_norm: false,
    post_norms: false,
    tied: false,
    biases: false,
    types: &[DType::Q4_1, DType::Q8_0, DType::Q4_K],
};

pub const GEMMA: Tiny = Tiny {
    arch: "gemma3",
    layers: 7,
    width: 256,
    heads: 4,
    kv_heads: 1,
    head_dim: 128,
    ffn: 512,
    vocab: 333,
    window: Some(24),
    qk_norm: true,
    post_norms: true,
    tied: true,
    biases: false,
    types: &[
        DType::Q5_0,
        DType::Q6_K,
        DType::Q4_K,
        DType::Q8_0,
        DType::IQ4_XS,
    ],
};

impl Tiny {
    /// The file, with weights that depend on `seed`.
    pub fn gguf(&self, seed: u64) -> Vec<u8> {
        self.gguf_with(seed, |_| {})
    }

    /// The same, with what `more` adds to it.
    pub fn gguf_with(&self, seed: u64, more: impl FnOnce(&mut Gguf)) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let mut g = Gguf::default();
        let key = |k: &str| format!("{}.{k}", self.arch);
        g.str("general.architecture", self.arch);
        g.u32(&key("block_count"), self.layers as u32);
        g.u32(&key("embedding_length"), self.width as u32);
        g.u32(&key("attention.head_count"), self.heads as u32);
        g.u32(&key("attention.head_count_kv"), self.kv_heads as u32);
        g.u32(&key("attention.key_length"), self.head_dim as u32);
        g.u32(&key("attention.value_length"), self.head_dim as u32);
        g.u32(&key("feed_forward_length"), self.ffn as u32);
        g.u32(&key("context_length"), 4096);
        g.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
        g.f32(&key("rope.freq_base"), 100_000.0);
        g.u32(&key("rope.dimension_count"), self.head_dim as u32);
        if let Some(window) = self.window {
            g.u32(&key("attention.sliding_window"), window);
        }
        g.str("tokenizer.ggml.model", "llama");
        let tokens: Vec<String> = (0..self.vocab)
            .map(|i| match i {
                0 => "<unk>".into(),
                1 => "<s>".into(),
                2 => "</s>".into(),
                3..259 => format!("<0x{:02X}>", i - 3),
                _ => char::from_u32(0x4e00 + i as u32).unwrap().into(),
            })
            .collect();
        let types: Vec<i32> = (0..self.vocab)
            .map(|i| {
                [2, 3, 3]
                    .get(i)
                    .copied()
                    .unwrap_or(if i < 259 { 6 } else { 1 })
            })
            .collect();
        g.strings("tokenizer.ggml.tokens", &tokens);
        g.f32s("tokenizer.ggml.scores", &vec![0.0; self.vocab]);
        g.i32s("tokenizer.ggml.token_type", &types);
        g.u32("tokenizer.ggml.bos_token_id", 1);
        g.u32("tokenizer.ggml.eos_token_id", 2);

        let mut next = 0;
        let mut matrix = |g: &mut Gguf, rng: &mut Rng, name: &str, rows: usize, cols: usize| {
            let dtype = self.types[next % self.types.len()];
            next += 1;
            g.tensor(
                name,
                &[rows, cols],
                dtype,
                random_matrix(dtype, rng, rows, cols),
            );
        };
        let vector = |g: &mut Gguf, rng: &mut Rng, name: &str, n: usize, mean: f32| {
            let values: Vec<f32> = (0..n).map(|_| mean + 0.2 * rng.normal()).collect();
            g.tensor(
                name,
                &[n],
                DType::F32,
                bytemuck::cast_slice(&values).to_vec(),
            );
        };
        matrix(
            &mut g,
            &mut rng,
            "token_embd.weight",
            self.vocab,
            self.width,
        );
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
            vector(&mut g, &mut rng, &name("attn_norm"), self.width, 1.0);
            for (part, rows, cols) in [
                ("attn_q", q, self.width),
                ("attn_k", kv, self.width),
                ("attn_v", kv, self.width),
                ("attn_output", self.width, q),
                ("ffn_gate", self.ffn, self.width),
                ("ffn_up", self.ffn, self.width),
                ("ffn_down", self.width, self.ffn),
            ] {
                matrix(&mut g, &mut rng, &name(part), rows, cols);
                if self.biases && part.len() == 6 {
                    vector(
                        &mut g,
                        &mut rng,
                        &format!("blk.{layer}.{part}.bias"),
                        rows,
                        0.0,
                    );
                }
            }
            if self.qk_norm {
                vector(&mut g, &mut rng, &name("attn_q_norm"), self.head_dim, 1.0);
                vector(&mut g, &mut rng, &name("attn_k_norm"), self.head_dim, 1.0);
            }
            vector(&mut g, &mut rng, &name("ffn_norm"), self.width, 1.0);
            if self.post_norms {
                vector(
                    &mut g,
                    &mut rng,
                    &name("post_attention_norm"),
                    self.width,
                    1.0,
                );
                vector(&mut g, &mut rng, &name("post_ffw_norm"), self.width, 1.0);
            }
        }
        vector(&mut g, &mut rng, "output_norm.weight", self.width, 1.0);
        if !self.tied {
            matrix(&mut g, &mut rng, "output.weight", self.vocab, self.width);
        }
        more(&mut g);
        g.finish()
    }
}

/// A checkpoint's tensors as floats, each dequantised once.
pub struct Floats(HashMap<String, Vec<f32>>);

impl Floats {
    pub fn new(checkpoint: &Checkpoint) -> Self {
        let floats = |t: &omnimini::tensor::TensorInfo| {
            dequantize(t.dtype, &checkpoint.data(t).unwrap()).unwrap()
        };
        Self(
            checkpoint
                .tensors()
                .iter()
                .map(|t| (t.name.clone(), floats(t)))
                .collect(),
        )
    }
}

impl Weights for Floats {
    fn floats(&self, name: &str) -> Vec<f32> {
        self.0[name].clone()
    }
}
