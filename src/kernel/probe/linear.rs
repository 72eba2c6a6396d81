//! Products with weights: mat-vecs, mat-muls, and inputs in eight bits.

use super::{
    EPS, Expected, Kind, Probe, Reader, columns, done, floats, normals, poison, step, weight, wide,
    words,
};
use crate::graph::reference;
use crate::kernel::{Dispatch, Resource, u};
use crate::quant::testing::Rng;
use crate::shader::Const;

pub(super) fn matvec(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let names: &[(&str, &str)] = match dispatch.kernel.name {
        "matvec" => &[("", "weight")],
        "matvec_glu" => &[("a", "weight_a"), ("b", "weight_b")],
        _ => &[("a", "weight_a"), ("b", "weight_b"), ("c", "weight_c")],
    };
    let files: Vec<_> = names.iter().filter_map(|(_, m)| r.module(m)).collect();
    let k = columns(random, &files);
    let mut buffers = Vec::new();
    let mut expect = Vec::new();
    // The input, and what it is after its norms.
    let (gain_at, post_at) = (8, 8 + k);
    let vectors = normals(random, post_at + k + 256);
    let (gain, post) = (
        &vectors[gain_at..gain_at + k],
        &vectors[post_at..post_at + k],
    );
    let x = normals(random, k);
    buffers.push((r.bound("input", "X"), words(&x)));
    let mut input = wide(&x);
    match r.module("input") {
        Some("input/plain") => {}
        Some("input/norm") => input = reference::rms_norm(&input, gain, f64::from(EPS)),
        _ => {
            let b = normals(random, k);
            buffers.push((r.bound("input", "B"), words(&b)));
            let normed = reference::rms_norm(&wide(&b), post, f64::from(EPS));
            input = input.iter().zip(normed).map(|(x, b)| x + b).collect();
            let s = r.bound("input", "S");
            buffers.push((s, poison(k)));
            expect.push(floats(s, 0, input.clone()));
            if r.b("input", "NORMED") {
                input = reference::rms_norm(&input, gain, f64::from(EPS));
            }
        }
    }
    // Rows: the two halves of a gated pair have the same number.
    let mut rows: Vec<usize> = names.iter().map(|_| 1 + random.below(70)).collect();
    if dispatch.kernel.name == "matvec_glu" {
        rows[1] = rows[0];
    }
    let mut products = Vec::new();
    let (mut planes, mut floor) = (Vec::new(), 0f64);
    for ((_, module), rows) in names.iter().zip(&rows) {
        let (packed, p, values) = weight(random, r.module(module).unwrap_or(""), *rows, k);
        buffers.push((r.weight(module), packed));
        planes.push(p.map(Const::U));
        let rows_module = module.replace("weight", "rows");
        if r.module(&rows_module) == Some("lib/rows_int8") {
            products.push(reference::linear(&eight(&input).2, &values, k));
        } else {
            products.push(reference::linear(&input, &values, k));
        }
        floor = usual(&input, &values).max(floor);
    }
    let total: usize = rows.iter().sum();
    let (groups, eps) = (u(k / 32), Const::F(EPS));
    // A plain input begins where the second says.
    let plain = r.module("input") == Some("input/plain");
    let (gain, post) = (u(gain_at / 4), u(if plain { 0 } else { post_at / 4 }));
    let mut params = vec![groups];
    let (y, first, values) = match dispatch.kernel.name {
        "matvec" => {
            let first = random.below(9);
            let bias = 8;
            params.push(u(rows[0]));
            params.extend(planes[0]);
            params.extend([gain, post, eps, u(first), u(bias)]);
            let mut y = products.remove(0);
            finish(r, random, &mut buffers, &mut y, first, &vectors[bias..]);
            (r.bound("output", "Y"), first, y)
        }
        "matvec_glu" => {
            params.push(u(rows[0]));
            params.extend(planes.concat());
            params.extend([gain, post, eps]);
            let y = products[0].iter().zip(&products[1]);
            let y = y.map(|(a, b)| reference::glu(r.act(), *a, *b)).collect();
            (r.bound("", "Y"), 0, y)
        }
        _ => {
            for (rows, planes) in rows.iter().zip(&planes) {
                params.push(u(*rows));
                params.extend(planes);
            }
            params.extend([gain, post, eps, u(4)]);
            let mut y = products.concat();
            finish(r, random, &mut buffers, &mut y, 0, &vectors[4..]);
            (r.bound("output", "Y"), 0, y)
        }
    };
    if r.has_vectors() {
        buffers.push((Resource::Vectors, words(&vectors)));
    }
    buffers.push((y, poison(first + total + 5)));
    let mut answer = floats(y, first, values);
    answer.floor = floor;
    expect.push(answer);
    let teams = match r.module("rows").or(r.module("rows_a")) {
        Some("lib/rows_lanes") => 8 * r.u("", "WG"),
        _ => 4 * (r.u("", "WG") / r.u("reduce", "LANES")),
    };
    let grid = match dispatch.kernel.name {
        "matvec_qkv" => [rows.iter().map(|n| n.div_ceil(teams)).sum(), 1, 1],
        // Two dimensions, as a large vocabulary takes them.
        _ => [rows[0].div_ceil(teams).div_ceil(2), 2, 1],
    };
    let mut probe = done(dispatch.clone(), params, grid, buffers, expect);
    let modules = &dispatch.variant.modules;
    if modules.iter().any(|(_, file, _)| *file == "lib/rows_int8") {
        // A code that lies between two may be rounded either way.
        probe.tolerance = 5e-3;
    }
    probe
}

/// What an output module makes of `y`, at elements `first` on; `biases` are of its rows, over and over.
/// Returns by how much, at most, the result is off where `y` is off by one.
pub(super) fn finish(
    r: &Reader<'_>,
    random: &mut Rng,
    buffers: &mut Vec<(Resource, Vec<u32>)>,
    y: &mut [f64],
    first: usize,
    biases: &[f32],
) -> f64 {
    let mut gain = 1f64;
    let n = first + y.len();
    let mut other = |name: &str| {
        let values = normals(random, n);
        buffers.push((r.bound("output", name), words(&values)));
        values[first..].to_vec()
    };
    match r.module("output") {
        Some("output/bias") => {
            for (y, b) in y.iter_mut().zip(biases.iter().cycle()) {
                *y += f64::from(*b);
            }
        }
        Some(file @ ("output/add" | "output/add_bias")) => {
            for (y, b) in y.iter_mut().zip(other("RESIDUAL")) {
                *y += f64::from(b);
            }
            if file == "output/add_bias" {
                for (y, b) in y.iter_mut().zip(biases.iter().cycle()) {
                    *y += f64::from(*b);
                }
            }
        }
        Some("output/glu") => {
            for (y, g) in y.iter_mut().zip(other("GATE")) {
                let of = |up| reference::glu(r.act(), f64::from(g), up);
                gain = gain.max((of(1.0) - of(0.0)).abs());
                *y = of(*y);
            }
        }
        Some(file @ ("output/act" | "output/act_bias")) => {
            let biased = file == "output/act_bias";
            for (y, b) in y.iter_mut().zip(biases.iter().cycle()) {
                let v = *y + if biased { f64::from(*b) } else { 0.0 };
                *y = reference::glu(r.act(), v, 1.0);
            }
        }
        Some("output/softcap") => {
            for y in y {
                *y = reference::softcap(*y, r.f("output", "CAP"));
            }
        }
        _ => {}
    }
    gain
}

pub(super) fn matmul(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let file = r.module("weight").unwrap_or("");
    let k = columns(random, &[file]);
    let rows = 1 + random.below(150);
    // Rows past the live ones may be computed or not, but only in the tile of the last live one.
    let tokens = 1 + random.below(70);
    let (packed, planes, values) = weight(random, file, rows, k);
    let input = normals(random, tokens * k);
    let mut x = wide(&input);
    let mut buffers = vec![
        (Resource::Step, step(tokens, tokens, 3, 0)),
        (r.weight("weight"), packed),
    ];
    let inputs = [1, 2].map(|i| dispatch.bindings[i].0);
    if dispatch.kernel.name == "matmul_int8" {
        let (codes, scales, rounded) = eight(&x);
        let scales: Vec<f32> = scales.as_flattened().iter().map(|s| *s as f32).collect();
        let codes: Vec<u8> = codes.into_iter().map(|c| c as u8).collect();
        buffers.push((inputs[0], bytemuck::pod_collect_to_vec(&codes)));
        buffers.push((inputs[1], words(&scales)));
        x = rounded;
    } else {
        buffers.push((inputs[0], words(&input)));
    }
    let mut y = reference::linear(&x, &values, k);
    let vectors = normals(random, rows + 16);
    // The result is as wide as its rows, so that the residual and the gate have its shape.
    let biases = &vectors[8..8 + rows];
    let gain = finish(r, random, &mut buffers, &mut y, 0, biases);
    if r.has_vectors() {
        buffers.push((Resource::Vectors, words(&vectors)));
    }
    let to = r.bound("output", "Y");
    let (mut stride, mut first) = (rows, 0);
    if r.module("output") == Some("output/store") {
        (stride, first) = (rows + random.below(9), random.below(5));
        stride += first;
    }
    let expect = y
        .chunks_exact(rows)
        .enumerate()
        .map(|(t, row)| Expected {
            floor: gain * usual(&x[t * k..][..k], &values),
            ..floats(to, t * stride + first, row.to_vec())
        })
        .collect();
    buffers.push((to, poison(tokens * stride + 7)));
    let mut params = vec![u(k / 32), u(rows)];
    params.extend(planes.map(Const::U));
    params.extend([u(stride), u(first), u(8), u(tokens)]);
    let grid = match dispatch.kernel.name {
        "matmul_direct" => [rows.div_ceil(4 * r.u("", "WG")), tokens.div_ceil(4), 1],
        "matmul_lanes" => [rows.div_ceil(8 * r.u("", "LANES")), tokens.div_ceil(8), 1],
        "matmul_matrix" if r.module("matrix") == Some("lib/matrix_16") => {
            [rows.div_ceil(64), tokens.div_ceil(64), 1]
        }
        _ => [rows.div_ceil(64), tokens.div_ceil(32), 1],
    };
    let mut probe = done(dispatch.clone(), params, grid, buffers, expect);
    if r.module("matrix").is_some() || r.module("element") == Some("lib/element_f16") {
        // Both factors are rounded to 2^-12 of themselves.
        probe.tolerance = 2e-3;
    }
    probe
}

pub(super) fn quantize(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let k = 16 * (1 + random.below(40));
    let rows = 1 + random.below(6);
    let live = 1 + random.below(rows);
    let mut x = normals(random, rows * k);
    // Sixteen zeros have codes, too.
    x[..16].fill(0.0);
    let (codes, scales, _) = eight(&wide(&x[..live * k]));
    let [from, to, scale] = [1, 2, 3].map(|i| dispatch.bindings[i].0);
    let buffers = vec![
        (Resource::Step, step(rows, live, 0, 0)),
        (from, words(&x)),
        (to, poison(rows * k / 4 + 3)),
        (scale, poison(rows * k / 8 + 3)),
    ];
    let codes = Expected {
        kind: Kind::Byte,
        ..floats(to, 0, codes.into_iter().map(f64::from).collect())
    };
    let scales = floats(scale, 0, scales.concat());
    let grid = [(k / 16).div_ceil(r.u("", "WG")), rows, 1];
    let params = vec![u(k / 16)];
    let mut probe = done(dispatch.clone(), params, grid, buffers, vec![codes, scales]);
    // A code that lies between two may be rounded either way.
    probe.tolerance = 0.01;
    probe
}

/// x in eight bits as `shaders/lib/eight.wgsl` has it: codes, scales as (step, sum of the codes) of
/// each 16, and what they stand for.
pub(super) fn eight(x: &[f64]) -> (Vec<i8>, Vec<[f64; 2]>, Vec<f64>) {
    let (mut codes, mut scales, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for half in x.chunks_exact(16) {
        let top = half.iter().fold(0f64, |top, v| top.max(v.abs()));
        let steps = if top > 0.0 { 127.0 / top } else { 0.0 };
        let q: Vec<f64> = half.iter().map(|v| (v * steps).round_ties_even()).collect();
        scales.push([top / 127.0, q.iter().sum()]);
        values.extend(q.iter().map(|q| q * top / 127.0));
        codes.extend(q.iter().map(|q| *q as i8));
    }
    (codes, scales, values)
}

/// What a product of `x` `[k]` with random rows `w` `[rows, k]` comes to, as a rule.
pub(super) fn usual(x: &[f64], w: &[f32]) -> f64 {
    let squares = |sum: f64, v: f64| sum + v * v;
    let rows = w.len() / x.len();
    let x2 = x.iter().copied().fold(0.0, squares);
    let w2 = w.iter().map(|v| f64::from(*v)).fold(0.0, squares);
    (x2 * w2 / (x.len() * rows) as f64).sqrt()
}
