//! Attention over the paged cache, and the joining of its parts.

use super::{EPS, Expected, Kind, Probe, Reader, done, floats, normals, poison, step, wide, words};
use crate::graph::reference;
use crate::graph::{Attention, NodeId, RopeSpec, Sharpen, VectorId};
use crate::kernel::kv::{KvType, PAGE};
use crate::kernel::{Dispatch, Resource, u};
use crate::quant::testing::Rng;
use crate::shader::Const;

/// A word that is no number in any type of cache, as an element or as a scale.
const NANS: u32 = 0x7fc0_7fc0;

/// A cache of `positions` positions in pages out of order, behind attention of any kind.
pub(super) fn attention(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let name = dispatch.kernel.name;
    let (h, kv, hd) = (r.u("", "H"), r.u("cache", "KV"), r.u("cache", "HD"));
    let dtype = r.module("kv").and_then(KvType::of_file);
    let dtype = dtype.unwrap_or(KvType::F32);
    let kind = Kind::Cache(dtype);
    let decode = matches!(name, "attention_decode" | "attention_decode_lanes");
    let attends = decode || matches!(name, "attention_prompt" | "attention_prompt_lanes");
    let appends = matches!(name, "append_lanes" | "rope_append") || decode;
    let lanes = r.module("head") == Some("lib/head_lanes");
    let window = r.u("", "WINDOW");
    let cap = r.f("", "CAP").max(r.f("scores", "CAP"));
    let a = Attention {
        q: NodeId(0),
        k: NodeId(0),
        v: NodeId(0),
        layer: 0,
        heads: h,
        kv_heads: kv,
        head_dim: hd,
        scale: 1.0 / (hd as f32).sqrt(),
        sharpen: (r.f("sharpen", "BETA") > 0.0).then(|| Sharpen {
            beta: r.f("sharpen", "BETA") as f32,
            original: r.u("sharpen", "ORIGINAL") as u32,
        }),
        causal: decode || r.b("", "CAUSAL"),
        window: (window > 0).then_some(window as u32),
        softcap: (cap > 0.0).then_some(cap as f32),
        sinks: r.b("", "SINKS").then_some(VectorId(0)),
        rope: Some(0),
        qk_norm: None,
        eps: EPS,
    };
    let turns = r.module("rope") != Some("lib/rope_none");
    let dims = if turns { r.u("rope", "DIMS") } else { 2 };
    let mut rope = RopeSpec::plain(dims, r.b("rope", "NEOX"), 10_000.0);
    // As YaRN has it.
    rope.amplitude = 1.25;
    let frequencies = rope.frequencies();

    // Where the tokens stand: past a window or a split now and then, else near the start.
    let splits = r.u("", "SPLITS").max(1);
    let far = random.below(3) == 0 && (splits > 1 || decode);
    let reach = if far { r.u("", "SPLIT") + 40 } else { 90 };
    let ring = r.u("cache", "RING");
    let reach = reach.max(if window > 0 {
        (window + 40).min(700).max(ring * PAGE + 100)
    } else {
        0
    });
    let rows = match (decode, far) {
        (true, _) => 1,
        (_, true) => 1 + random.below(9),
        _ => 1 + random.below(70),
    };
    // A text that all its tokens see begins with its step.
    let pos = match (a.causal, far && !decode) {
        (false, _) => 0,
        // On both sides of where a part ends.
        (_, true) => reach - 41 - random.below(9),
        _ => random.below(reach),
    };
    let live = 1 + random.below(rows);
    let positions = pos + rows;
    let stride = if ring > 0 {
        ring
    } else {
        positions.div_ceil(PAGE) + 1
    };
    let slots = 2;
    let pages = slots * stride + 1;
    let slot = random.below(slots);
    let mut order: Vec<u32> = (0..pages as u32).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
    order.truncate(slots * stride);
    let values_at = PAGE * kv * hd;
    let at = |p: usize, head: usize| {
        let page = order[slot * stride + p / PAGE % stride] as usize;
        ((page * 2 * kv + head) * PAGE + p % PAGE) * hd
    };

    // The cache before: everything poisoned but the positions that are there; in a ring the newest are, and what
    // was written last stands where a position belongs.
    let cached = if appends { pos } else { pos + live };
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut cache = vec![NANS; dtype.words(pages * 2 * values_at)];
    for p in 0..cached {
        for head in 0..kv {
            for (to, store) in [(0, &mut keys), (values_at, &mut values)] {
                let words = dtype.encode(&normals(random, hd));
                let mut kept: Vec<f64> = (0..hd).filter_map(|e| dtype.value(&words, e)).collect();
                dtype.turn(&mut kept);
                store.extend(kept);
                cache[dtype.words(to + at(p, head))..][..words.len()].copy_from_slice(&words);
            }
        }
    }

    // q, k and v of this step, and what they become.
    let width = (h + 2 * kv) * hd;
    let mut qkv = normals(random, rows * width);
    let norm = r.b("head", "NORM");
    let mut vectors = normals(random, 2 * hd + 4 + h);
    let gains = [4, 4 + hd];
    // Sinks matter where they are near the largest score.
    let at_sinks = 4 + 2 * hd;
    vectors[at_sinks..].iter_mut().for_each(|s| *s += 1.5);
    let sinks = vectors[at_sinks..].to_vec();
    vectors.resize(vectors.len().next_multiple_of(4), 0.0);
    let made = |raw: &[f32], t: usize, gain: usize| {
        let mut x = wide(raw);
        if norm {
            x = reference::rms_norm(&x, &vectors[gain..gain + hd], f64::from(EPS));
        }
        if turns {
            rope.rotate(&mut x, &frequencies, (pos + t) as u32);
        }
        x
    };
    if appends {
        // No code of a new key or value hangs on the last bit of a sum.
        for head in (0..rows).flat_map(|t| (h..h + 2 * kv).map(move |head| (t, head))) {
            let (t, head) = head;
            let raw = &mut qkv[t * width + head * hd..][..hd];
            let clear = |raw: &[f32]| {
                let key = head < h + kv;
                dtype.is_clear(&if key {
                    made(raw, t, gains[1])
                } else {
                    wide(raw)
                })
            };
            while !clear(raw) {
                raw.copy_from_slice(&normals(random, hd));
            }
        }
    }
    let ready =
        |t: usize, head: usize, gain: usize| made(&qkv[t * width + head * hd..][..hd], t, gain);
    let mut expect = Vec::new();
    let kv_resource = r.bound("kv", "BINDING");
    let mut put = |to: usize, values: Vec<f64>| {
        expect.push(Expected {
            resource: kv_resource,
            first: to,
            parts_of: None,
            values,
            kind,
            floor: 1e-3,
        });
    };
    if appends {
        for t in 0..live {
            for head in 0..kv {
                let from = t * width + (h + kv + head) * hd;
                let new = [ready(t, h + head, gains[1]), wide(&qkv[from..from + hd])];
                for ((to, store), mut new) in [(0, &mut keys), (values_at, &mut values)]
                    .into_iter()
                    .zip(new)
                {
                    dtype.keep(&mut new);
                    put(to + at(pos + t, head), new.clone());
                    dtype.turn(&mut new);
                    store.extend(new);
                }
            }
        }
    }
    let mut buffers = vec![
        (Resource::Step, step(rows, live, pos, slot)),
        (Resource::Pages(ring), order.clone()),
        (kv_resource, cache),
    ];
    let scale = Const::F(a.scale);
    let page = [u(stride)];
    let unit = if lanes { 4 } else { 1 };
    let [q_gain, k_gain] = gains.map(|g| u(g / unit));
    let eps = Const::F(EPS);
    let at_sinks = u(at_sinks);
    // Where q is read, and whether the kernel is what makes it ready.
    let has_head = r.module("head").is_some();
    let from = if has_head {
        r.bound("head", "QKV")
    } else {
        dispatch.bindings[0].0
    };
    buffers.push((from, words(&qkv)));
    if attends {
        let to = match name {
            "attention_decode" => r.bound("", "OUT"),
            "attention_prompt" => dispatch.bindings[1].0,
            _ => dispatch.bindings[0].0,
        };
        for t in 0..live {
            let q: Vec<f64> = if has_head {
                (0..h).flat_map(|head| ready(t, head, gains[0])).collect()
            } else {
                let mut q = wide(&qkv[t * width..][..h * hd]);
                dtype.turn(&mut q);
                q
            };
            let sinks = a.sinks.map(|_| &sinks[..]);
            let y = reference::attend(&a, sinks, &q, &keys, &values, (pos + t) as u32);
            // Parts are checked by joining them, as `attention_combine` would.
            expect.push(Expected {
                parts_of: (splits > 1).then_some(t),
                ..floats(to, t * h * hd, y)
            });
        }
        let size = if splits > 1 { splits * (hd + 4) } else { hd };
        buffers.push((to, poison(rows * h * size + 4)));
    }
    let (params, grid) = match name {
        "append_lanes" => ([&[k_gain, eps], &page[..]].concat(), [2 * kv, rows, 1]),
        "rope_append" => {
            for t in 0..live {
                for head in 0..h {
                    let mut q = ready(t, head, gains[0]);
                    let sharpen = a.sharpen.map_or(1.0, |s| s.factor((pos + t) as u32));
                    for v in &mut q {
                        *v *= sharpen;
                    }
                    dtype.turn(&mut q);
                    expect.push(floats(from, t * width + head * hd, q));
                }
            }
            (
                [&[q_gain, k_gain, eps], &page[..]].concat(),
                [h + 2 * kv, rows, 1],
            )
        }
        "attention_decode" | "attention_decode_lanes" => {
            let heads = if lanes { kv * (h / kv).div_ceil(4) } else { h };
            (
                [&[q_gain, k_gain, at_sinks, eps], &page[..], &[scale]].concat(),
                [heads, r.u("", "SPLITS"), 1],
            )
        }
        "attention_prompt" => (
            [&[u(rows), at_sinks], &page[..], &[scale]].concat(),
            [h, rows.div_ceil(32), splits],
        ),
        _ => (
            [&[q_gain, at_sinks, eps, u(rows)], &page[..], &[scale]].concat(),
            [h, rows.div_ceil(8), splits],
        ),
    };
    if has_head && turns {
        let table = rope.table(0..positions);
        buffers.push((Resource::Rope(0), words(table.as_flattened())));
    }
    buffers.push((Resource::Vectors, words(&vectors)));
    let mut dispatch = dispatch.clone();
    for (resource, _) in &mut dispatch.bindings {
        if let Resource::Rope(i) = resource {
            *i = 0;
        }
    }
    let mut probe = done(dispatch, params, grid, buffers, expect);
    // Angles come from f32 tables. A half rounds to 2^-11, and may round the other way; codes are clear.
    probe.tolerance = if dtype == KvType::F16 { 1.2e-3 } else { 1e-4 };
    probe
}

pub(super) fn combine(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let splits = r.u("", "SPLITS");
    let (tokens, heads, hd) = (
        1 + random.below(3),
        1 + random.below(5),
        4 * (1 + random.below(20)),
    );
    let (split, window) = (r.u("", "SPLIT"), r.u("", "WINDOW"));
    // Where the first token stands: as many parts as there are, or fewer.
    let most = if window > 0 {
        2 * window
    } else {
        splits * split
    };
    let pos = random.below(most + 1 - tokens) / (1 + random.below(splits));
    let used = |t: usize| {
        let seen = if window > 0 {
            (pos + t + 1).min(window)
        } else {
            pos + t + 1
        };
        seen.div_ceil(split)
    };
    let mut parts = normals(random, tokens * heads * splits * (hd + 4));
    let mut y = Vec::new();
    for (i, head) in parts.chunks_exact_mut(splits * (hd + 4)).enumerate() {
        let used = used(i / heads);
        for (s, part) in head.chunks_exact_mut(hd + 4).enumerate() {
            // An unused part is as it was.
            if s < used {
                part[hd + 1] = part[hd + 1].abs() + 0.1;
                part[hd] *= 3.0;
            } else {
                part.fill(f32::NAN);
            }
        }
        let live: Vec<_> = head.chunks_exact(hd + 4).take(used).collect();
        let weight = |p: &[f32]| f64::from(p[hd]).exp();
        let total: f64 = live.iter().map(|p| weight(p) * f64::from(p[hd + 1])).sum();
        y.extend((0..hd).map(|e| {
            let sum: f64 = live.iter().map(|p| weight(p) * f64::from(p[e])).sum();
            sum / total
        }));
    }
    let to = dispatch.bindings[1].0;
    let buffers = vec![
        (dispatch.bindings[0].0, words(&parts)),
        (to, poison(tokens * heads * hd + 4)),
        (Resource::Step, step(tokens, tokens, pos, 0)),
    ];
    let grid = [(heads * hd / 4).div_ceil(r.u("", "WG")), tokens, 1];
    done(
        dispatch.clone(),
        vec![u(heads), u(hd / 4)],
        grid,
        buffers,
        vec![floats(to, 0, y)],
    )
}
