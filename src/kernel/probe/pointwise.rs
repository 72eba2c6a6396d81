//! Kernels that touch each element about once.

use super::{
    EPS, Probe, Reader, columns, done, floats, normals, poison, step, weight, wide, words,
};
use crate::graph::reference;
use crate::kernel::{Dispatch, Resource, u};
use crate::quant::testing::Rng;
use crate::shader::Const;

pub(super) fn embed(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let file = r.module("weight").unwrap_or("");
    let k = columns(random, &[file]);
    let rows = 4 + random.below(40);
    let first = random.below(20);
    let tokens = 1 + random.below(9);
    let (packed, planes, values) = weight(random, file, rows, k);
    let scale = 1.0 + random.uniform(0.0, 8.0);
    // Positions need not be those of the rows.
    let pos = random.below(5);
    let mut rows_of = step(tokens, tokens, pos, 0);
    let plus = r.module("plus") == Some("lib/plus_vectors");
    let [positions, shift] = ["POSITIONS", "SHIFT"].map(|name| r.b("plus", name));
    let (shift_at, positions_at) = (4, 4 + k);
    let vectors = normals(random, positions_at + (pos + tokens) * k);
    let mut expect = Vec::new();
    let to = dispatch.bindings[1].0;
    for t in 0..tokens {
        // Some tokens are in another part of the table, and one row is not live.
        let token = first + random.below(rows + 6);
        rows_of[4 * t] = token as u32;
        let dead = tokens > 2 && t == 1;
        rows_of[4 * t + 3] = u32::from(!dead);
        if token - first < rows && !dead {
            let row = &values[(token - first) * k..][..k];
            let row = row.iter().enumerate().map(|(i, v)| {
                let of = |wanted: bool, at: usize| if wanted { vectors[at + i] } else { 0.0 };
                let more = [
                    of(positions, positions_at + (pos + t) * k),
                    of(shift, shift_at),
                ];
                let more = more.iter().map(|v| f64::from(*v)).sum::<f64>();
                f64::from(*v) * f64::from(scale) + more
            });
            expect.push(floats(to, t * k, row.collect()));
        }
    }
    let mut params = vec![u(k / 32), u(first), u(rows)];
    params.extend(planes.map(Const::U));
    params.extend([Const::F(scale), u(positions_at / 4), u(shift_at / 4)]);
    let mut buffers = vec![
        (Resource::Step, rows_of),
        (to, poison(tokens * k)),
        (r.weight("weight"), packed),
    ];
    if plus {
        buffers.push((Resource::Vectors, words(&vectors)));
    }
    let grid = [(k / 32).div_ceil(r.u("", "WG")), tokens, 1];
    done(dispatch.clone(), params, grid, buffers, expect)
}

pub(super) fn norm(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let (rows, d) = (1 + random.below(20), 4 * (1 + random.below(100)));
    let vectors = normals(random, 2 * d + 8);
    let mut x = normals(random, rows * d);
    let (from, to) = (dispatch.bindings[0].0, dispatch.bindings[2].0);
    let mut buffers = vec![
        (from, words(&x)),
        (Resource::Vectors, words(&vectors)),
        (to, poison(rows * d + 4)),
    ];
    let (gain, bias) = vectors[8..].split_at(d);
    let mut params = vec![u(rows), u(d / 4), u(2), Const::F(EPS)];
    let y = if dispatch.kernel.name == "layer_norm" {
        // Far from zero, where a mean of squares would say nothing of the variance.
        for v in &mut x {
            *v += 30.0;
        }
        buffers[0].1 = words(&x);
        params.insert(3, u(2 + d / 4));
        reference::layer_norm(&wide(&x), gain, bias, f64::from(EPS))
    } else if dispatch.kernel.name == "add_norm" {
        let b = normals(random, rows * d);
        buffers.push((dispatch.bindings[3].0, words(&b)));
        let normed = reference::rms_norm(&wide(&b), gain, f64::from(EPS));
        wide(&x).iter().zip(normed).map(|(x, b)| x + b).collect()
    } else {
        reference::rms_norm(&wide(&x), gain, f64::from(EPS))
    };
    let grid = [rows.div_ceil(r.u("", "WG") / r.u("reduce", "LANES")), 1, 1];
    done(
        dispatch.clone(),
        params,
        grid,
        buffers,
        vec![floats(to, 0, y)],
    )
}

pub(super) fn qk_norm(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let rows = 1 + random.below(20);
    let mut size = || 4 * (1 + random.below(60));
    let (q, k, v) = (size(), size(), size());
    let stride = q + k + v;
    let vectors = normals(random, 4 + q + k);
    let (q_gain, k_gain) = (&vectors[4..4 + q], &vectors[4 + q..]);
    let qkv = normals(random, rows * stride);
    let to = dispatch.bindings[0].0;
    let mut expect = Vec::new();
    for (t, row) in wide(&qkv).chunks_exact(stride).enumerate() {
        let mut y = reference::rms_norm(&row[..q], q_gain, f64::from(EPS));
        y.extend(reference::rms_norm(&row[q..q + k], k_gain, f64::from(EPS)));
        expect.push(floats(to, t * stride, y));
    }
    let buffers = vec![(to, words(&qkv)), (Resource::Vectors, words(&vectors))];
    let mut params: Vec<Const> = [rows, stride / 4, q / 4, k / 4, 1, 1 + q / 4].map(u).into();
    params.push(Const::F(EPS));
    let grid = [rows.div_ceil(r.u("", "WG") / r.u("reduce", "LANES")), 2, 1];
    done(dispatch.clone(), params, grid, buffers, expect)
}

pub(super) fn binary(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let n = 4 * (1 + random.below(300));
    let (a, b) = (normals(random, n), normals(random, n));
    let pairs = wide(&a).into_iter().zip(wide(&b));
    let y = if r.module("combine") == Some("lib/combine_add") {
        pairs.map(|(a, b)| a + b).collect()
    } else {
        pairs.map(|(a, b)| reference::glu(r.act(), a, b)).collect()
    };
    let to = dispatch.bindings[2].0;
    let buffers = vec![
        (dispatch.bindings[0].0, words(&a)),
        (dispatch.bindings[1].0, words(&b)),
        (to, poison(n + 4)),
    ];
    let grid = [(n / 4).div_ceil(r.u("", "WG")), 1, 1];
    done(
        dispatch.clone(),
        vec![u(n / 4)],
        grid,
        buffers,
        vec![floats(to, 0, y)],
    )
}

pub(super) fn last_row(dispatch: &Dispatch, random: &mut Rng) -> Probe {
    let (rows, d) = (1 + random.below(12), 4 * (1 + random.below(100)));
    let live = 1 + random.below(rows);
    let x = normals(random, rows * d);
    let to = dispatch.bindings[2].0;
    let y = wide(&x[(live - 1) * d..live * d]);
    let buffers = vec![
        (Resource::Step, step(rows, live, 0, 0)),
        (dispatch.bindings[1].0, words(&x)),
        (to, poison(d + 4)),
    ];
    done(
        dispatch.clone(),
        vec![u(rows), u(d / 4)],
        [1, 1, 1],
        buffers,
        vec![floats(to, 0, y)],
    )
}

pub(super) fn pool(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let (rows, d) = (1 + random.below(60), 4 * (1 + random.below(100)));
    let x = normals(random, rows * d);
    let [from, spans, to] = [0, 1, 2].map(|i| dispatch.bindings[i].0);
    let count = 2 + random.below(6);
    let (mut places, mut expect) = (Vec::new(), Vec::new());
    for s in 0..count {
        let first = random.below(rows);
        // One is empty.
        let len = if s == 1 {
            0
        } else {
            1 + random.below(rows - first)
        };
        places.extend([first as u32, len as u32]);
        let mut sum = vec![0.0; d];
        for row in wide(&x[first * d..(first + len) * d]).chunks_exact(d) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        if len > 0 {
            expect.push(floats(to, s * d, sum));
        }
    }
    let buffers = vec![
        (from, words(&x)),
        (spans, places),
        (to, poison(count * d + 4)),
    ];
    let grid = [(d / 4).div_ceil(r.u("", "WG")), count, 1];
    done(dispatch.clone(), vec![u(d / 4)], grid, buffers, expect)
}
