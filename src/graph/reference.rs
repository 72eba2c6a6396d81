//! The operations in plain Rust and f64: the oracle that every kernel is held to.

use super::{Act, Attention, Graph, Op};

/// y`[T, N]` = x`[T, K]` · w`[N, K]`ᵀ.
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

/// (x − mean(x)) · gain / sqrt(variance(x) + eps) + bias, for rows as long as `gain`.
pub fn layer_norm(x: &[f64], gain: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
    x.chunks_exact(gain.len())
        .flat_map(|row| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + eps).sqrt();
            let affine = gain.iter().zip(bias);
            row.iter()
                .zip(affine)
                .map(move |(v, (g, b))| (v - mean) * scale * f64::from(*g) + f64::from(*b))
        })
        .collect()
}

/// The error function, by a series whose terms have one sign.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 2.0;
        term *= 2.0 * x * x / n;
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// A gated unit: the activation of `gate`, times `up`.
pub fn glu(act: Act, gate: f64, up: f64) -> f64 {
    match act {
        Act::Silu => gate / (1.0 + (-gate).exp()) * up,
        Act::Gelu => 0.5 * gate * (1.0 + erf(gate / 2f64.sqrt())) * up,
        Act::GeluTanh => {
            let t = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + t.tanh()) * up
        }
        Act::SiluClamped => {
            let (gate, up) = (gate.min(7.0), up.clamp(-7.0, 7.0));
            gate / (1.0 + (-1.702 * gate).exp()) * (up + 1.0)
        }
    }
}

/// The `used` experts with the highest scores and their weights, best first; of equals, the earlier.
pub fn route(scores: &[f64], used: usize, renormalise: bool) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let top = scores[order[0]];
    let all: f64 = scores.iter().map(|s| (s - top).exp()).sum();
    order.truncate(used);
    let chosen: f64 = order.iter().map(|e| (scores[*e] - top).exp()).sum();
    let total = if renormalise { chosen } else { all };
    let weight = |e: usize| (e, (scores[e] - top).exp() / total);
    order.into_iter().map(weight).collect()
}

/// cap · tanh(x / cap).
pub fn softcap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

/// Attention of one token at `pos` with normed and rotated query heads `q` `[heads, head_dim]` over
/// `keys` and `values` [positions 0 .. n, kv_heads, head_dim], of which a causal one sees those up to
/// its own; `sinks` has one score for each head.
pub fn attend(
    a: &Attention,
    sinks: Option<&[f32]>,
    q: &[f64],
    keys: &[f64],
    values: &[f64],
    pos: u32,
) -> Vec<f64> {
    let (hd, kv) = (a.head_dim, a.kv_heads);
    let window = a.window.unwrap_or(u32::MAX);
    let first = (pos + 1).saturating_sub(window);
    let last = if a.causal {
        pos
    } else {
        let last = (keys.len() / (kv * hd)) as u32 - 1;
        last.min(pos.saturating_add(window - 1))
    };
    let scale = f64::from(a.scale) * a.sharpen.map_or(1.0, |s| s.factor(pos));
    let mut out = vec![0.0; a.heads * hd];
    for h in 0..a.heads {
        let kv_head = h / (a.heads / kv);
        let query = &q[h * hd..][..hd];
        let at = |p: u32| (p as usize * kv + kv_head) * hd;
        let scores: Vec<f64> = (first..=last)
            .map(|p| {
                let key = &keys[at(p)..][..hd];
                let dot: f64 = query.iter().zip(key).map(|(a, b)| a * b).sum();
                let score = dot * scale;
                a.softcap
                    .map_or(score, |cap| softcap(score, f64::from(cap)))
            })
            .collect();
        let sink = sinks.map_or(f64::NEG_INFINITY, |s| f64::from(s[h]));
        let top = scores.iter().copied().fold(sink, f64::max);
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        let total = total + (sink - top).exp();
        for (p, score) in (first..=last).zip(&scores) {
            let weight = (score - top).exp() / total;
            for (o, v) in out[h * hd..][..hd].iter_mut().zip(&values[at(p)..][..hd]) {
                *o += weight * v;
            }
        }
    }
    out
}

/// What [`evaluate`] looks weights up in.
pub trait Weights {
    /// A matrix or vector by its checkpoint's name, as floats.
    fn floats(&self, name: &str) -> Vec<f32>;
}

/// The value of a graph's last node for `tokens`, a text from its first token on, row by row.
pub fn evaluate(graph: &Graph, weights: &dyn Weights, tokens: &[u32]) -> Vec<f64> {
    evaluate_rounded(graph, weights, tokens, &|_| {})
}

/// [`evaluate`], where `round` makes of each head of keys and of values what a cache gives back.
pub fn evaluate_rounded(
    graph: &Graph,
    weights: &dyn Weights,
    tokens: &[u32],
    round: &dyn Fn(&mut [f64]),
) -> Vec<f64> {
    let t = tokens.len();
    let mut values: Vec<Vec<f64>> = Vec::new();
    let matrix = |w: &super::WeightId| {
        let w = &graph.weights[w.0];
        weights.floats(&w.name)[w.first * w.cols..][..w.rows * w.cols].to_vec()
    };
    let vector = |v: &super::VectorId| -> Vec<f32> {
        let v = &graph.vectors[v.0];
        let part = &weights.floats(&v.name)[v.from..][..v.len];
        part.iter().map(|x| x * v.scale).collect()
    };
    for node in &graph.nodes {
        let of = |id: &super::NodeId| values[id.0].as_slice();
        let value = match &node.op {
            Op::Embed {
                table,
                scale,
                positions,
                shift,
            } => {
                let table = matrix(table);
                let row = |id: &u32| table[*id as usize * node.cols..][..node.cols].to_vec();
                let scaled = |v: f32| f64::from(v) * f64::from(*scale);
                let mut y: Vec<f64> = tokens.iter().flat_map(row).map(scaled).collect();
                if let Some(positions) = positions {
                    let positions = vector(positions);
                    y.iter_mut()
                        .zip(positions)
                        .for_each(|(y, p)| *y += f64::from(p));
                }
                if let Some(shift) = shift {
                    let shift = vector(shift);
                    y.iter_mut()
                        .zip(shift.iter().cycle())
                        .for_each(|(y, s)| *y += f64::from(*s));
                }
                y
            }
            Op::RmsNorm { x, gain, eps } => rms_norm(of(x), &vector(gain), f64::from(*eps)),
            Op::LayerNorm { x, gain, bias, eps } => {
                layer_norm(of(x), &vector(gain), &vector(bias), f64::from(*eps))
            }
            Op::Linear { x, w, bias } => {
                let k = graph.weights[w.0].cols;
                let mut y = linear(of(x), &matrix(w), k);
                if let Some(bias) = bias {
                    let bias = vector(bias);
                    for (y, b) in y.iter_mut().zip(bias.iter().cycle()) {
                        *y += f64::from(*b);
                    }
                }
                y
            }
            Op::Attention(a) => {
                let rope = a.rope.map(|i| {
                    let rope = &graph.ropes[i];
                    (rope, rope.frequencies())
                });
                let sinks = a.sinks.as_ref().map(vector);
                let ready = |x: &[f64], gain: Option<&super::VectorId>| -> Vec<f64> {
                    let mut x = match gain {
                        Some(gain) => rms_norm(x, &vector(gain), f64::from(a.eps)),
                        None => x.to_vec(),
                    };
                    let heads = x.len() / t / a.head_dim;
                    for (i, head) in x.chunks_exact_mut(a.head_dim).enumerate() {
                        if let Some((rope, frequencies)) = &rope {
                            rope.rotate(head, frequencies, (i / heads) as u32);
                        }
                    }
                    x
                };
                let q = ready(of(&a.q), a.qk_norm.as_ref().map(|(q, _)| q));
                let mut k = ready(of(&a.k), a.qk_norm.as_ref().map(|(_, k)| k));
                let mut v = of(&a.v).to_vec();
                k.chunks_exact_mut(a.head_dim).for_each(round);
                v.chunks_exact_mut(a.head_dim).for_each(round);
                let width = a.heads * a.head_dim;
                let row = |pos: usize| {
                    let q = &q[pos * width..][..width];
                    attend(a, sinks.as_deref(), q, &k, &v, pos as u32)
                };
                (0..t).flat_map(row).collect()
            }
            Op::Glu { gate, up, act } => {
                let pairs = of(gate).iter().zip(of(up));
                pairs.map(|(g, u)| glu(*act, *g, *u)).collect()
            }
            Op::Act { x, act } => of(x).iter().map(|x| glu(*act, *x, 1.0)).collect(),
            Op::Experts(e) => {
                let [gate, up, down] = [&e.gate, &e.up, &e.down].map(matrix);
                let biases = e.biases.map(|b| b.map(|b| vector(&b)));
                // Some rows of a matrix with their biases.
                let part = |x: &[f64], w: &[f32], i: usize, rows: usize, expert: usize| {
                    let k = x.len();
                    let mut y = linear(x, &w[expert * rows * k..][..rows * k], k);
                    if let Some(bias) = &biases[i] {
                        let bias = &bias[expert * rows..][..rows];
                        y.iter_mut()
                            .zip(bias)
                            .for_each(|(y, b)| *y += f64::from(*b));
                    }
                    y
                };
                let rows = of(&e.x).chunks_exact(node.cols);
                rows.zip(of(&e.scores).chunks_exact(e.count))
                    .flat_map(|(x, scores)| {
                        let mut sum = vec![0.0; node.cols];
                        for (expert, weight) in route(scores, e.used, e.renormalise) {
                            let g = part(x, &gate, 0, e.ffn, expert);
                            let u = part(x, &up, 1, e.ffn, expert);
                            let pairs = g.iter().zip(&u);
                            let h: Vec<f64> = pairs.map(|(g, u)| glu(e.act, *g, *u)).collect();
                            let y = part(&h, &down, 2, node.cols, expert);
                            sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
                        }
                        sum
                    })
                    .collect()
            }
            Op::Add { a, b } => of(a).iter().zip(of(b)).map(|(a, b)| a + b).collect(),
            Op::Softcap { x, cap } => {
                let cap = f64::from(*cap);
                of(x).iter().map(|x| softcap(*x, cap)).collect()
            }
            Op::LastRow { x } => of(x)[of(x).len() - node.cols..].to_vec(),
        };
        values.push(value);
    }
    values.pop().unwrap_or_default()
}
