//! Attention over the paged cache.

use super::{Access, Dispatch, Kernel, Resource, Team, kernel, u};
use crate::caps::{Caps, DeviceKind};
use crate::graph::Attention;
use crate::shader::Const;

pub use super::kv::{KvShape, KvType, PAGE};

/// One token a sequence, with norm, rotation and append.
pub const DECODE: Kernel = kernel!(
    "attention_decode",
    ["q_gain", "k_gain", "sinks", "eps", "page_stride", "scale"]
);

/// Joins the parts of [`DECODE`].
pub const COMBINE: Kernel = kernel!("attention_combine", ["heads", "hd4"]);

/// A chunk of a prompt.
pub const PROMPT: Kernel = kernel!(
    "attention_prompt",
    ["tokens", "sinks", "page_stride", "scale"]
);

/// Norm, rotation and append for a chunk of a prompt.
pub const ROPE_APPEND: Kernel = kernel!("rope_append", ["q_gain", "k_gain", "eps", "page_stride"]);

/// [`DECODE`] by the lanes of a software driver.
pub const DECODE_LANES: Kernel = kernel!(
    "attention_decode_lanes",
    ["q_gain", "k_gain", "sinks", "eps", "page_stride", "scale"]
);

/// [`PROMPT`] by the lanes of a software driver, with q's norm and rotation.
pub const PROMPT_LANES: Kernel = kernel!(
    "attention_prompt_lanes",
    ["q_gain", "sinks", "eps", "tokens", "page_stride", "scale"]
);

/// k's norm and rotation, and append, by the lanes of a software driver.
pub const APPEND_LANES: Kernel = kernel!("append_lanes", ["k_gain", "eps", "page_stride"]);

/// Everything that a layer's attention kernels are made from.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The operation.
    pub a: &'a Attention,
    /// The cache.
    pub kv: KvShape,
    /// Elements of a head that turn, and whether their pairs are NeoX's; `None` where nothing turns.
    pub rope: Option<(usize, bool)>,
    /// Places among the vectors, in elements: of the gains of q and of k, and of the sinks.
    pub vectors: [usize; 3],
}

impl Site<'_> {
    /// Lanes of the kernels for software drivers, where these fit.
    fn lanes(&self, caps: &Caps) -> Option<u32> {
        let lanes = caps.software_lanes()?;
        let hd = self.a.head_dim as u32;
        // What a prompt's workgroup keeps: eight tokens' queries and sums, 4 bytes an element.
        let kept = 2 * 8 * 4 * 8 * (hd / 8).next_multiple_of(lanes);
        let dims = self.rope.map_or(0, |(dims, _)| dims);
        let fits = hd.is_multiple_of(8) && dims.is_multiple_of(8);
        (fits && kept <= caps.workgroup_memory).then_some(lanes)
    }

    fn bind_cache(&self, d: &mut Dispatch, wide: bool) {
        let step = d.bind(Resource::Step, Access::Read);
        let ring = self.kv.ring(self.a.window).unwrap_or(0);
        let pages = d.bind(Resource::Pages(ring), Access::Read);
        let binding = d.bind(Resource::Kv(self.a.layer), Access::Write);
        let consts = vec![
            ("PAGES", pages),
            ("ROWS", step),
            ("RING", u(ring)),
            ("KV", u(self.a.kv_heads)),
            ("HD", u(self.a.head_dim)),
            ("PAGE", u(PAGE)),
        ];
        d.module("cache", "lib/cache", consts);
        let file = self.kv.dtype.file(wide);
        d.module("kv", file, vec![("BINDING", binding)]);
    }

    /// Binds what makes heads ready: by a workgroup of `team` through its memory, or, where `lanes`,
    /// by each lane for itself.
    fn bind_head(&self, d: &mut Dispatch, qkv: Resource, team: Team, lanes: bool) {
        let access = if lanes { Access::Read } else { Access::Write };
        let qkv = d.bind(qkv, access);
        let vectors = d.bind(Resource::Vectors, Access::Read);
        let mut head = vec![
            ("HD", u(self.a.head_dim)),
            ("NORM", Const::B(self.a.qk_norm.is_some())),
            ("QKV", qkv),
            ("VECTORS", vectors),
        ];
        if !lanes {
            head.push(("WG", Const::U(team.wg)));
        }
        let [head_file, rope_file] = if lanes {
            ["lib/head_lanes", "lib/rope_lanes"]
        } else {
            ["lib/head", "lib/rope"]
        };
        d.module("head", head_file, head);
        if let (Some(table), Some((dims, neox))) = (self.a.rope, self.rope) {
            let table = d.bind(Resource::Rope(table), Access::Read);
            let rope = vec![
                ("BINDING", table),
                ("DIMS", u(dims)),
                ("NEOX", Const::B(neox)),
            ];
            d.module("rope", rope_file, rope);
        } else {
            d.module("rope", "lib/rope_none", vec![]);
        }
    }

    /// Says how the queries' scores grow with their position.
    fn set_sharpen(&self, d: &mut Dispatch) {
        let (beta, original) = self.a.sharpen.map_or((0.0, 1), |s| (s.beta, s.original));
        let consts = vec![
            ("BETA", Const::F(beta)),
            ("ORIGINAL", Const::U(original.max(1))),
        ];
        d.module("sharpen", "lib/sharpen", consts);
    }

    /// Sets what every kernel that makes scores is told: heads, window, sinks, cap.
    fn set_scores(&self, d: &mut Dispatch, lanes: bool) {
        d.set("H", u(self.a.heads));
        d.set("WINDOW", Const::U(self.a.window.unwrap_or(0)));
        d.set("SINKS", Const::B(self.a.sinks.is_some()));
        let cap = Const::F(self.a.softcap.unwrap_or(0.0));
        if lanes {
            d.module("scores", "lib/scores_lanes", vec![("CAP", cap)]);
        } else {
            d.set("CAP", cap);
        }
    }

    /// Entries of the page table that a sequence has.
    fn stride(&self) -> Const {
        u(self.kv.entries(self.a.window))
    }

    /// Places of the gains: in elements, or where `lanes`, in vectors of four.
    fn gains(&self, lanes: bool) -> [Const; 2] {
        let unit = if lanes { 4 } else { 1 };
        let [q, k, _] = self.vectors;
        [u(q / unit), u(k / unit)]
    }

    /// Place of the sinks, in elements.
    fn sinks(&self) -> Const {
        u(self.vectors[2])
    }
}

/// The whole workgroup as one team: heads are loaded by all of it.
fn workgroup_team(wg: u32) -> Team {
    Team {
        file: super::REDUCE_SHARED,
        lanes: wg,
        wg,
    }
}

/// One subgroup, which is the workgroup.
fn lanes_team(lanes: u32) -> Team {
    Team {
        file: super::REDUCE_SUBGROUP,
        lanes,
        wg: lanes,
    }
}

/// How the positions that tokens see are shared by workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Parts of the largest context.
    pub count: usize,
    /// Positions of each.
    pub each: usize,
}

impl Parts {
    /// In a decode step, with a context of `positions`.
    ///
    /// A software driver has few cores and dear barriers, so one workgroup takes what its memory can
    /// hold; a GPU wants many workgroups, but no more parts than are joined in no time.
    pub fn decode(caps: &Caps, a: &Attention, positions: usize) -> Self {
        let positions = a.window.map_or(positions, |w| positions.min(w as usize));
        let each = match caps.kind {
            DeviceKind::Cpu => 2048,
            _ if positions > 32 << 10 => 1024,
            _ => 256,
        };
        Self {
            count: positions.div_ceil(each),
            each,
        }
    }

    /// In a chunk of a prompt. Each takes many positions, since the sums of a chunk's every token are
    /// kept for each part.
    ///
    /// Not more, though: Mesa's software driver leaves every loop, with wrong results, once the loops of
    /// an invocation have gone round 65535 times together (`LP_MAX_TGSI_LOOP_ITERATIONS`), and 32
    /// positions of a head take up to 1.4 rounds an element.
    pub fn prompt(a: &Attention, positions: usize) -> Self {
        let most = ((1 << 20) / a.head_dim).clamp(1024, 16 << 10);
        // A power of two, of which any tile of positions is a divisor.
        let each = (most / 2 + 1).next_power_of_two();
        // A window is seen whole, from where it begins for the first of some tokens.
        let whole = a.window.is_some() || !a.causal;
        Self {
            count: if whole { 1 } else { positions.div_ceil(each) },
            each,
        }
    }

    fn set(self, d: &mut Dispatch) {
        d.set("SPLIT", u(self.each));
        d.set("SPLITS", u(self.count));
    }
}

/// One token a sequence, of `tokens`: out `[T, heads, head_dim]`, or parts for [`combine`] where there
/// are several ([`Parts::decode`]).
pub fn decode(
    caps: &Caps,
    label: &str,
    site: &Site<'_>,
    [qkv, out]: [Resource; 2],
    tokens: usize,
) -> Dispatch {
    let a = site.a;
    let parts = Parts::decode(caps, a, site.kv.stride * PAGE);
    let lanes = site.lanes(caps);
    let (mut d, heads) = if let Some(lanes) = lanes {
        let mut d = Dispatch::new(&DECODE_LANES, label);
        d.reduce(lanes_team(lanes));
        d.bind(out, Access::Write);
        site.bind_head(&mut d, qkv, lanes_team(lanes), true);
        site.bind_cache(&mut d, true);
        (d, a.kv_heads * (a.heads / a.kv_heads).div_ceil(4))
    } else {
        let team = workgroup_team(64.max((a.head_dim as u32 / 4).next_power_of_two()));
        let mut d = Dispatch::new(&DECODE, label);
        d.team(team);
        site.bind_head(&mut d, qkv, team, false);
        site.bind_cache(&mut d, false);
        let out = d.bind(out, Access::Write);
        d.set("OUT", out);
        (d, a.heads)
    };
    parts.set(&mut d);
    site.set_scores(&mut d, lanes.is_some());
    site.set_sharpen(&mut d);
    let [q_gain, k_gain] = site.gains(lanes.is_some());
    d.params = vec![
        q_gain,
        k_gain,
        site.sinks(),
        Const::F(a.eps),
        site.stride(),
        Const::F(a.scale),
    ];
    d.grid = [heads as u32, parts.count as u32, 1];
    d.along_tokens(2, tokens, 1);
    d.positions = Some((1, parts.each as u32));
    d
}

/// Joins parts, which lie in `from`: y `[T, heads, head_dim]`.
pub fn combine(
    label: &str,
    a: &Attention,
    parts: Parts,
    [from, y]: [Resource; 2],
    tokens: usize,
) -> Dispatch {
    let mut d = Dispatch::new(&COMBINE, label);
    d.bind(from, Access::Read);
    d.bind(y, Access::Write);
    d.bind(Resource::Step, Access::Read);
    let wg = 64;
    d.set("WG", Const::U(wg));
    parts.set(&mut d);
    d.set("WINDOW", Const::U(a.window.unwrap_or(0)));
    d.params = vec![u(a.heads), u(a.head_dim / 4)];
    d.grid[0] = ((a.heads * a.head_dim) as u32 / 4).div_ceil(wg);
    d.along_tokens(1, tokens, 1);
    d
}

/// A chunk's attention: out `[tokens, heads, head_dim]`, or parts for [`combine`] where there are several
/// ([`Parts::prompt`]). First its k and v go into the cache (`qkv` may change), then its queries
/// attend.
pub fn prompt(
    caps: &Caps,
    label: &str,
    site: &Site<'_>,
    [qkv, out]: [Resource; 2],
    tokens: usize,
) -> [Dispatch; 2] {
    let a = site.a;
    let parts = Parts::prompt(a, site.kv.stride * PAGE);
    let append = format!("{label}.append");
    let eps = Const::F(a.eps);
    let stride = site.stride();
    let lanes = site.lanes(caps);
    let [q_gain, k_gain] = site.gains(lanes.is_some());
    let Some(lanes) = lanes else {
        let team = workgroup_team(32);
        let mut first = Dispatch::new(&ROPE_APPEND, &append);
        first.team(team);
        site.bind_head(&mut first, qkv, team, false);
        site.bind_cache(&mut first, false);
        first.set("H", u(a.heads));
        site.set_sharpen(&mut first);
        first.params = vec![q_gain, k_gain, eps, stride];
        first.grid[0] = (a.heads + 2 * a.kv_heads) as u32;
        first.along_tokens(1, tokens, 1);

        let mut d = Dispatch::new(&PROMPT, label);
        d.bind(qkv, Access::Read);
        d.bind(out, Access::Write);
        d.bind(Resource::Vectors, Access::Read);
        site.bind_cache(&mut d, false);
        site.set_scores(&mut d, false);
        d.set("CAUSAL", Const::B(a.causal));
        parts.set(&mut d);
        d.params = vec![u(tokens), site.sinks(), stride, Const::F(a.scale)];
        d.grid = [a.heads as u32, 1, parts.count as u32];
        d.along_tokens(1, tokens, 32);
        d.positions = (parts.count > 1).then_some((2, parts.each as u32));
        return [first, d];
    };
    let team = lanes_team(lanes);
    let mut first = Dispatch::new(&APPEND_LANES, &append);
    first.reduce(team);
    site.bind_head(&mut first, qkv, team, true);
    site.bind_cache(&mut first, true);
    first.set("H", u(a.heads));
    first.params = vec![k_gain, eps, stride];
    first.grid[0] = 2 * a.kv_heads as u32;
    first.along_tokens(1, tokens, 1);

    let mut d = Dispatch::new(&PROMPT_LANES, label);
    d.reduce(team);
    d.bind(out, Access::Write);
    site.bind_head(&mut d, qkv, team, true);
    site.bind_cache(&mut d, true);
    site.set_scores(&mut d, true);
    site.set_sharpen(&mut d);
    d.set("CAUSAL", Const::B(a.causal));
    parts.set(&mut d);
    d.params = vec![
        q_gain,
        site.sinks(),
        eps,
        u(tokens),
        stride,
        Const::F(a.scale),
    ];
    d.grid = [a.heads as u32, 1, parts.count as u32];
    d.along_tokens(1, tokens, 8);
    d.positions = (parts.count > 1).then_some((2, parts.each as u32));
    [first, d]
}
