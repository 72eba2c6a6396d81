//! Attention over the paged cache.

use super::{Access, Dispatch, Kernel, Resource, Team, kernel, u};
use crate::caps::{Caps, DeviceKind};
use crate::graph::Attention;
use crate::shader::Const;

/// One token a sequence, with norm, rotation and append.
pub const DECODE: Kernel = kernel!(
    "attention_decode",
    ["q_gain", "k_gain", "eps", "page_stride", "values", "scale"]
);

/// Joins the parts of [`DECODE`].
pub const COMBINE: Kernel = kernel!("attention_combine", ["heads", "hd4"]);

/// A chunk of a prompt.
pub const PROMPT: Kernel = kernel!(
    "attention_prompt",
    ["tokens", "page_stride", "values", "scale"]
);

/// Norm, rotation and append for a chunk of a prompt.
pub const ROPE_APPEND: Kernel = kernel!(
    "rope_append",
    ["q_gain", "k_gain", "eps", "page_stride", "values"]
);

/// Positions of one page of the cache.
pub const PAGE: usize = 32;

/// How the cache keeps its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half precision: two bytes an element.
    F16,
    /// Single precision: four.
    F32,
}

impl KvType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::F16 => "kv/f16",
            Self::F32 => "kv/f32",
        }
    }
}

/// The cache's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Element type.
    pub dtype: KvType,
    /// Pages in all.
    pub pages: usize,
    /// Entries of the page table that each sequence has: its largest context, in pages.
    pub stride: usize,
}

impl KvShape {
    /// Bytes of one layer's cache, keys and values.
    pub fn layer_bytes(&self, kv_heads: usize, head_dim: usize) -> usize {
        2 * self.pages * PAGE * kv_heads * head_dim * self.dtype.bytes()
    }

    /// Items of four elements from a key to its value.
    fn values(&self, a: &Attention) -> usize {
        self.pages * PAGE * a.kv_heads * a.head_dim / 4
    }
}

/// What the attention kernels bind beside q, k and v.
#[derive(Clone, Copy, Debug)]
pub struct Gains {
    /// Places of the gains of q and k among the vectors, in elements.
    pub q: usize,
    /// See `q`.
    pub k: usize,
}

fn bind_cache(d: &mut Dispatch, a: &Attention, kv: KvShape) {
    let step = d.bind(Resource::Step, Access::Read);
    let pages = d.bind(Resource::Pages, Access::Read);
    let binding = d.bind(Resource::Kv(a.layer), Access::Write);
    let consts = vec![
        ("PAGES", pages),
        ("ROWS", step),
        ("KV", u(a.kv_heads)),
        ("HD", u(a.head_dim)),
        ("PAGE", u(PAGE)),
    ];
    d.module("cache", "lib/cache", consts);
    d.module("kv", kv.dtype.file(), vec![("BINDING", binding)]);
}

fn bind_head(d: &mut Dispatch, a: &Attention, rope: (usize, bool), qkv: Resource, team: Team) {
    let qkv = d.bind(qkv, Access::Write);
    let vectors = d.bind(Resource::Vectors, Access::Read);
    let table = d.bind(Resource::Rope(a.rope), Access::Read);
    let head = vec![
        ("WG", Const::U(team.wg)),
        ("HD", u(a.head_dim)),
        ("NORM", Const::B(a.qk_norm.is_some())),
        ("QKV", qkv),
        ("VECTORS", vectors),
    ];
    d.module("head", "lib/head", head);
    let (dims, neox) = rope;
    let rope = vec![
        ("BINDING", table),
        ("DIMS", u(dims)),
        ("NEOX", Const::B(neox)),
    ];
    d.module("rope", "lib/rope", rope);
}

/// The whole workgroup as one team: heads are loaded by all of it.
fn workgroup_team(wg: u32) -> Team {
    Team {
        file: super::REDUCE_SHARED,
        lanes: wg,
        wg,
    }
}

/// Positions one workgroup of [`DECODE`] takes.
///
/// A software driver has few cores and dear barriers, so one workgroup takes what its memory can
/// hold; a GPU wants many workgroups.
pub fn split(caps: &Caps) -> usize {
    if caps.kind == DeviceKind::Cpu {
        2048
    } else {
        256
    }
}

/// Parts a context of `positions` is split into at most.
pub fn splits(caps: &Caps, a: &Attention, positions: usize) -> usize {
    let positions = a.window.map_or(positions, |w| positions.min(w as usize));
    positions.div_ceil(split(caps))
}

/// One token a sequence: out `[T, heads, head_dim]`, or parts for [`combine`] where there are several.
///
/// `rope` is (rotating elements, NeoX pairs); `tokens` sequences have a row each.
#[expect(clippy::too_many_arguments, reason = "a launch's whole shape")]
pub fn decode(
    caps: &Caps,
    label: &str,
    a: &Attention,
    kv: KvShape,
    rope: (usize, bool),
    gains: Gains,
    [qkv, out]: [Resource; 2],
    tokens: usize,
) -> Dispatch {
    let team = workgroup_team(64.max((a.head_dim as u32 / 4).next_power_of_two()));
    let splits = splits(caps, a, kv.stride * PAGE);
    let mut d = Dispatch::new(&DECODE, label);
    d.team(team);
    bind_head(&mut d, a, rope, qkv, team);
    bind_cache(&mut d, a, kv);
    let out = d.bind(out, Access::Write);
    d.set("OUT", out);
    d.set("H", u(a.heads));
    d.set("SPLIT", u(split(caps)));
    d.set("SPLITS", u(splits));
    d.set("WINDOW", Const::U(a.window.unwrap_or(0)));
    d.set("CAP", Const::F(a.softcap.unwrap_or(0.0)));
    d.params = vec![
        u(gains.q),
        u(gains.k),
        Const::F(a.eps),
        u(kv.stride),
        u(kv.values(a)),
        Const::F(a.scale),
    ];
    d.grid = [a.heads as u32, splits as u32, tokens as u32];
    d
}

/// Joins the parts: y `[T, heads, head_dim]`.
pub fn combine(
    caps: &Caps,
    label: &str,
    a: &Attention,
    kv: KvShape,
    [parts, y]: [Resource; 2],
    tokens: usize,
) -> Dispatch {
    let mut d = Dispatch::new(&COMBINE, label);
    d.bind(parts, Access::Read);
    d.bind(y, Access::Write);
    let wg = 64;
    d.set("WG", Const::U(wg));
    d.set("SPLITS", u(splits(caps, a, kv.stride * PAGE)));
    d.params = vec![u(a.heads), u(a.head_dim / 4)];
    d.grid = [
        ((a.heads * a.head_dim) as u32 / 4).div_ceil(wg),
        tokens as u32,
        1,
    ];
    d
}

/// A chunk's q in place, its k and v into the cache.
pub fn rope_append(
    label: &str,
    a: &Attention,
    kv: KvShape,
    rope: (usize, bool),
    gains: Gains,
    qkv: Resource,
    tokens: usize,
) -> Dispatch {
    let team = workgroup_team(32);
    let mut d = Dispatch::new(&ROPE_APPEND, label);
    d.team(team);
    bind_head(&mut d, a, rope, qkv, team);
    bind_cache(&mut d, a, kv);
    d.set("H", u(a.heads));
    d.params = vec![
        u(gains.q),
        u(gains.k),
        Const::F(a.eps),
        u(kv.stride),
        u(kv.values(a)),
    ];
    d.grid = [(a.heads + 2 * a.kv_heads) as u32, tokens as u32, 1];
    d
}

/// A chunk's attention, after [`rope_append`]: y `[tokens, heads, head_dim]`.
pub fn prompt(
    label: &str,
    a: &Attention,
    kv: KvShape,
    [qkv, y]: [Resource; 2],
    tokens: usize,
) -> Dispatch {
    let mut d = Dispatch::new(&PROMPT, label);
    d.bind(qkv, Access::Read);
    d.bind(y, Access::Write);
    bind_cache(&mut d, a, kv);
    d.set("H", u(a.heads));
    d.set("WINDOW", Const::U(a.window.unwrap_or(0)));
    d.set("CAP", Const::F(a.softcap.unwrap_or(0.0)));
    d.params = vec![u(tokens), u(kv.stride), u(kv.values(a)), Const::F(a.scale)];
    d.grid = [a.heads as u32, (tokens as u32).div_ceil(32), 1];
    d
}
