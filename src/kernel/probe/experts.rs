//! Mixtures of experts: the choice, the lists, and products with chosen rows.

use super::linear::{eight, finish, usual};
use super::{
    EPS, Expected, Kind, Probe, Reader, columns, done, floats, normals, poison, step, weight, wide,
    words,
};
use crate::graph::reference;
use crate::kernel::{Dispatch, Resource, u};
use crate::quant::testing::Rng;
use crate::shader::Const;

/// Words that must stand in a buffer.
fn whole(resource: Resource, first: usize, words: &[u32]) -> Expected {
    Expected {
        resource,
        first,
        parts_of: None,
        values: words.iter().map(|w| f64::from(*w)).collect(),
        kind: Kind::Word,
        floor: 1.0,
    }
}

/// Routes of `tokens` tokens: (expert, weight) pairs, experts of a token being different.
fn routes(random: &mut Rng, tokens: usize, count: usize, used: usize) -> Vec<(usize, f32)> {
    let mut all = Vec::new();
    for _ in 0..tokens {
        let scores: Vec<f64> = wide(&normals(random, count));
        let chosen = reference::route(&scores, used, true);
        all.extend(chosen.into_iter().map(|(e, w)| (e, w as f32)));
    }
    all
}

fn route_words(routes: &[(usize, f32)]) -> Vec<u32> {
    let pair = |(e, w): &(usize, f32)| [*e as u32, w.to_bits()];
    routes.iter().flat_map(pair).collect()
}

pub(super) fn route(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let used = r.u("", "USED");
    let (count, tokens) = (used + random.below(150), 1 + random.below(9));
    let live = 1 + random.below(tokens);
    let mut scores = normals(random, tokens * count);
    // Equals happen: the earlier one is the better.
    scores[count - 1] = scores[0];
    let [from, to] = [1, 2].map(|i| dispatch.bindings[i].0);
    let mut expect = Vec::new();
    for (t, row) in wide(&scores).chunks_exact(count).take(live).enumerate() {
        let chosen = reference::route(row, used, r.b("", "RENORMALISE"));
        for (s, (expert, weight)) in chosen.into_iter().enumerate() {
            let at = 2 * (t * used + s);
            expect.push(whole(to, at, &[expert as u32]));
            expect.push(floats(to, at + 1, vec![weight]));
        }
    }
    let buffers = vec![
        (Resource::Step, step(tokens, live, 5, 0)),
        (from, words(&scores)),
        (to, poison(2 * tokens * used + 3)),
    ];
    let grid = [tokens, 1, 1];
    done(dispatch.clone(), vec![u(count)], grid, buffers, expect)
}

pub(super) fn sort(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let [used, count, tiles, size] = ["USED", "EXPERTS", "TILES", "SIZE"].map(|n| r.u("", n));
    // As many tokens as there are tiles for.
    let most = (1..1000)
        .take_while(|t| count.min(t * used) + t * used / size <= tiles)
        .last()
        .unwrap_or(1);
    let tokens = 1 + random.below(most);
    let live = 1 + random.below(tokens);
    let routes = routes(random, tokens, count, used);
    let [from, to] = [1, 2].map(|i| dispatch.bindings[i].0);
    let mut list = Vec::new();
    let mut heads = Vec::new();
    for expert in 0..count {
        let first = list.len();
        let pairs = (0..live * used).filter(|p| routes[*p].0 == expert);
        list.extend(pairs.map(|p| p as u32));
        for start in (first..list.len()).step_by(size) {
            let n = size.min(list.len() - start);
            heads.extend([expert as u32, start as u32, n as u32]);
        }
    }
    let expect = vec![
        whole(to, 0, &[(heads.len() / 3) as u32]),
        whole(to, 4, &heads),
        whole(to, 4 + 3 * tiles, &list),
    ];
    let buffers = vec![
        (Resource::Step, step(tokens, live, 5, 0)),
        (from, route_words(&routes)),
        (to, poison(4 + 3 * tiles + tokens * used)),
    ];
    done(
        dispatch.clone(),
        vec![u(tokens)],
        [1, 1, 1],
        buffers,
        expect,
    )
}

pub(super) fn sum(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let used = r.u("", "USED");
    let (tokens, rows) = (1 + random.below(9), 1 + random.below(150));
    let routes = routes(random, tokens, used + 3, used);
    let d = normals(random, tokens * used * rows);
    let mut y = vec![0.0; tokens * rows];
    for (pair, ((_, weight), row)) in routes.iter().zip(d.chunks_exact(rows)).enumerate() {
        let to = &mut y[pair / used * rows..][..rows];
        for (y, d) in to.iter_mut().zip(row) {
            *y += f64::from(*weight) * f64::from(*d);
        }
    }
    let [from, by] = [1, 2].map(|i| dispatch.bindings[i].0);
    let mut buffers = vec![
        (Resource::Step, step(tokens, tokens, 5, 0)),
        (from, words(&d)),
        (by, route_words(&routes)),
    ];
    finish(r, random, &mut buffers, &mut y, 0, &[0.0]);
    let to = r.bound("output", "Y");
    buffers.push((to, poison(tokens * rows + 4)));
    let grid = [rows.div_ceil(64), tokens, 1];
    let expect = vec![floats(to, 0, y)];
    done(dispatch.clone(), vec![u(rows)], grid, buffers, expect)
}

/// Products with the rows of chosen experts; a launch leaves out experts that its weight does not have.
pub(super) fn matvec(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let glu = dispatch.kernel.name == "experts_glu";
    let (here, first) = (r.u("", "COUNT"), r.u("", "FIRST"));
    let all = first + here + 2;
    let used = if glu { 3 } else { r.u("", "USED") };
    let all = all.max(used);
    let names: &[&str] = if glu {
        &["weight_a", "weight_b"]
    } else {
        &["weight"]
    };
    let files: Vec<_> = names.iter().filter_map(|m| r.module(m)).collect();
    let (k, rows) = (columns(random, &files), 1 + random.below(70));
    let chosen = routes(random, 1, all, used);
    // The gain of the input's norm, then the biases of one half and of the other.
    let vectors = normals(random, k + 2 * all * rows);
    let input = normals(random, if glu { k } else { used * k });
    let mut x = wide(&input);
    if r.module("input") == Some("input/norm") {
        x = reference::rms_norm(&x, &vectors[..k], f64::from(EPS));
    }
    let mut buffers = vec![
        (r.bound("input", "X"), words(&input)),
        (r.bound("", "ROUTES"), route_words(&chosen)),
        (Resource::Vectors, words(&vectors)),
    ];
    let mut floor = 0f64;
    let mut params = vec![u(k / 32), u(rows)];
    // What each weight makes of each choice that it has.
    let mut products: Vec<Vec<Option<Vec<f64>>>> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let file = r.module(name).unwrap_or("");
        let (packed, planes, values) = weight(random, file, here * rows, k);
        buffers.push((r.weight(name), packed));
        params.extend(planes.map(Const::U));
        floor = floor.max(usual(&x[..k], &values));
        let rounded = r.module(&name.replace("weight", "rows")) == Some("lib/rows_int8");
        let product = |(slot, (expert, _)): (usize, &(usize, f32))| {
            let own = expert.checked_sub(first).filter(|own| *own < here)?;
            let x = if glu { &x[..] } else { &x[slot * k..][..k] };
            let x = if rounded { eight(x).2 } else { x.to_vec() };
            let mut y = reference::linear(&x, &values[own * rows * k..][..rows * k], k);
            if r.b("", "BIASED") {
                let at = k + (i * all + expert) * rows;
                for (y, b) in y.iter_mut().zip(&vectors[at..]) {
                    *y += f64::from(*b);
                }
            }
            Some(y)
        };
        products.push(chosen.iter().enumerate().map(product).collect());
    }
    if glu {
        params.extend([u(0), u(0), Const::F(EPS)]);
    }
    params.extend(
        [k, k + all * rows]
            .iter()
            .take(names.len())
            .map(|at| u(*at)),
    );
    let mut expect = Vec::new();
    let to = if glu {
        let to = r.bound("", "Y");
        let pairs = products[0].iter().zip(&products[1]);
        for (slot, pair) in pairs.enumerate() {
            if let (Some(gate), Some(up)) = pair {
                let y = gate.iter().zip(up);
                let y = y.map(|(g, u)| reference::glu(r.act(), *g, *u)).collect();
                expect.push(floats(to, slot * rows, y));
            }
        }
        buffers.push((to, poison(used * rows + 5)));
        to
    } else {
        let mut y = vec![0.0; rows];
        for ((_, weight), product) in chosen.iter().zip(&products[0]) {
            for (y, p) in y.iter_mut().zip(product.iter().flatten()) {
                *y += f64::from(*weight) * p;
            }
        }
        finish(r, random, &mut buffers, &mut y, 0, &[0.0]);
        let to = r.bound("output", "Y");
        expect.push(floats(to, 0, y));
        buffers.push((to, poison(rows + 5)));
        to
    };
    for answer in expect.iter_mut().filter(|e| e.resource == to) {
        answer.floor = floor;
    }
    let block = match r.module("rows").or(r.module("rows_a")) {
        Some("lib/rows_lanes") => 8 * r.u("", "WG"),
        _ => 4 * (r.u("", "WG") / r.u("reduce", "LANES")),
    };
    let grid = if glu {
        [rows.div_ceil(block), used, 1]
    } else {
        [rows.div_ceil(block).div_ceil(2), 2, 1]
    };
    let mut probe = done(dispatch.clone(), params, grid, buffers, expect);
    let modules = &dispatch.variant.modules;
    if modules.iter().any(|(_, file, _)| *file == "lib/rows_int8") {
        // A code that lies between two may be rounded either way.
        probe.tolerance = 5e-3;
    }
    probe
}

/// A mat-mul over the lists of the experts that its weight has.
pub(super) fn matmul(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let name = |n: &str| r.u("tokens", n);
    let (here, first, share, tiles) = (name("COUNT"), name("FIRST"), name("SHARE"), name("TILES"));
    let all = first + here + 1;
    let size = tile_of(dispatch, r);
    // A token goes through `share` experts, or the lists are of single pairs.
    let used = share.min(all);
    let tokens = 1 + random.below((tiles - all) * size / used / 2);
    let file = r.module("weight").unwrap_or("");
    let (k, rows) = (columns(random, &[file]), 1 + random.below(100));
    let (packed, planes, values) = weight(random, file, here * rows, k);
    let chosen = routes(random, tokens, all, used);
    let pairs = tokens * used;
    let inputs = normals(random, pairs.div_ceil(share) * k);
    let vectors = normals(random, 8 + all * rows);
    let x = wide(&inputs);
    let mut lists = vec![0; 4];
    let mut list = Vec::new();
    for expert in 0..all {
        let from = list.len();
        list.extend(
            (0..pairs)
                .filter(|p| chosen[*p].0 == expert)
                .map(|p| p as u32),
        );
        for start in (from..list.len()).step_by(size) {
            let n = size.min(list.len() - start);
            lists.extend([expert as u32, start as u32, n as u32]);
            lists[0] += 1;
        }
    }
    lists.resize(4 + 3 * tiles, 0);
    lists.extend(list);
    // Every pair's row, though those of other experts are left alone.
    let mut y = vec![0.0; pairs * rows];
    for (pair, (expert, _)) in chosen.iter().enumerate() {
        let Some(own) = expert.checked_sub(first).filter(|own| *own < here) else {
            continue;
        };
        let x = &x[pair / share * k..][..k];
        let mut row = reference::linear(x, &values[own * rows * k..][..rows * k], k);
        if r.module("output") == Some("output/bias") {
            for (y, b) in row.iter_mut().zip(&vectors[8 + expert * rows..]) {
                *y += f64::from(*b);
            }
        }
        y[pair * rows..][..rows].copy_from_slice(&row);
    }
    let mut buffers = vec![
        (r.bound("tokens", "LISTS"), lists),
        (r.weight("weight"), packed),
        (dispatch.bindings[1].0, words(&inputs)),
    ];
    let gain = if r.has_vectors() {
        buffers.push((Resource::Vectors, words(&vectors)));
        1.0
    } else {
        finish(r, random, &mut buffers, &mut y, 0, &[0.0])
    };
    let to = r.bound("output", "Y");
    buffers.push((to, poison(pairs * rows + 7)));
    let mut expect = Vec::new();
    for (pair, (expert, _)) in chosen.iter().enumerate() {
        if expert.checked_sub(first).is_some_and(|own| own < here) {
            expect.push(Expected {
                floor: gain * usual(&x[pair / share * k..][..k], &values),
                ..floats(to, pair * rows, y[pair * rows..][..rows].to_vec())
            });
        }
    }
    let mut params = vec![u(k / 32), u(rows)];
    params.extend(planes.map(Const::U));
    params.extend([u(rows), u(0), u(8), u(0)]);
    let block = match dispatch.kernel.name {
        "matmul_direct" => 4 * r.u("", "WG"),
        "matmul_lanes" => 8 * r.u("", "LANES"),
        _ => 64,
    };
    let grid = [rows.div_ceil(block), tiles, 1];
    let mut probe = done(dispatch.clone(), params, grid, buffers, expect);
    if r.module("matrix").is_some() || r.module("element") == Some("lib/element_f16") {
        // Both factors are rounded to 2^-12 of themselves.
        probe.tolerance = 2e-3;
    }
    probe
}

/// Pairs of a tile of a mat-mul.
fn tile_of(dispatch: &Dispatch, r: &Reader<'_>) -> usize {
    match dispatch.kernel.name {
        "matmul_direct" => 4,
        "matmul_lanes" => 8,
        "matmul_matrix" if r.module("matrix") == Some("lib/matrix_16") => 64,
        _ => 32,
    }
}
