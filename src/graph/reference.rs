//! The operations in plain Rust and f64: the oracle that every kernel is held to.

use super::{Act, Attention, RopeSpec};

/// y[T, N] = x[T, K] · w[N, K]ᵀ.
pub fn linear(x: &[f64], w: &[f32], k: usize) -> Vec<f64> {
    let dot = |row: &[f64], w: &[f32]| row.iter().zip(w).map(|(a, b)| a * f64::from(*b)).sum();
    x.chunks_exact(k)
        .flat_map(|row| w.chunks_exact(k).map(move |w| dot(row, w)))
        .collect()
}

/// x · gain / sqrt(mean(x²) + eps), for rows as long as `gain`.
pub fn rms_norm(x: &[f64], gain: &[f32], eps: f64) -> Vec<f64> {
    x.chunks_exact(gain.len())
        .flat_map(|row| {
            let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + eps).sqrt();
            row.iter()
                .zip(gain)
                .map(move |(v, g)| v * f64::from(*g) * scale)
        })
        .collect()
}

/// The activation at x.
pub fn act(act: Act, x: f64) -> f64 {
    match act {
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::GeluTanh => {
            let t = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + t.tanh())
        }
    }
}

/// cap · tanh(x / cap).
pub fn softcap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

/// Angular frequencies of a rotary table, dims / 2 of them, radians a position.
pub fn frequencies(rope: &RopeSpec, factors: Option<&[f32]>) -> Vec<f64> {
    (0..rope.dims / 2)
        .map(|i| {
            let factor = factors
                .and_then(|f| f.get(i))
                .map_or(1.0, |f| f64::from(*f));
            rope.base.powf(-2.0 * i as f64 / rope.dims as f64) / rope.scale / factor
        })
        .collect()
}

/// Turns one head in place to position `pos`.
pub fn rotate(head: &mut [f64], rope: &RopeSpec, frequencies: &[f64], pos: u32) {
    for (i, f) in frequencies.iter().enumerate() {
        let (sin, cos) = (f64::from(pos) * f).sin_cos();
        let (a, b) = if rope.neox {
            (i, i + rope.dims / 2)
        } else {
            (2 * i, 2 * i + 1)
        };
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
    }
}

/// Attention of one token at `pos` with normed and rotated query heads `q` [heads, head_dim] over
/// `keys` and `values` [positions 0 ..= pos, kv_heads, head_dim].
pub fn attend(a: &Attention, q: &[f64], keys: &[f64], values: &[f64], pos: u32) -> Vec<f64> {
    let (hd, kv) = (a.head_dim, a.kv_heads);
    let first = a.window.map_or(0, |w| (pos + 1).saturating_sub(w));
    let mut out = vec![0.0; a.heads * hd];
    for h in 0..a.heads {
        let kv_head = h / (a.heads / kv);
        let query = &q[h * hd..][..hd];
        let at = |p: u32| (p as usize * kv + kv_head) * hd;
        let scores: Vec<f64> = (first..=pos)
            .map(|p| {
                let key = &keys[at(p)..][..hd];
                let dot: f64 = query.iter().zip(key).map(|(a, b)| a * b).sum();
                let score = dot * f64::from(a.scale);
                a.softcap
                    .map_or(score, |cap| softcap(score, f64::from(cap)))
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        for (p, score) in (first..=pos).zip(&scores) {
            let weight = (score - top).exp() / total;
            for (o, v) in out[h * hd..][..hd].iter_mut().zip(&values[at(p)..][..hd]) {
                *o += weight * v;
            }
        }
    }
    out
}

/// (cos, sin) of 0 to 255 steps, then of each whole 256: see `shaders/lib/rope.wgsl`.
pub fn rope_table(rope: &RopeSpec, factors: Option<&[f32]>, positions: usize) -> Vec<[f32; 2]> {
    let frequencies = frequencies(rope, factors);
    let steps = (0..256).chain((0..positions.div_ceil(256)).map(|h| h * 256));
    steps
        .flat_map(|pos| {
            frequencies.iter().map(move |f| {
                let (sin, cos) = (pos as f64 * f).sin_cos();
                [cos as f32, sin as f32]
            })
        })
        .collect()
}
