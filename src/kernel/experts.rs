//! Mixtures of experts: which ones a token goes through, and their products for one token. Those for
//! many tokens are mat-muls over [`Lists`].

use super::linear::{Input, Lists, Output, Rows, WEIGHT, WEIGHT_A, WEIGHT_B, Weight, act_file};
use super::{Access, Dispatch, Kernel, Resource, kernel, u};
use crate::caps::Caps;
use crate::graph::Act;
use crate::shader::Const;

/// The best experts of each token.
pub const ROUTE: Kernel = kernel!("experts_route", ["experts"]);

/// Tokens by expert.
pub const SORT: Kernel = kernel!("experts_sort", ["tokens"]);

/// Sums of what experts made of each token.
pub const SUM: Kernel = kernel!("experts_sum", ["rows"]);

/// First halves, one token.
pub const GLU: Kernel = kernel!(
    "experts_glu",
    [
        "groups",
        "rows",
        "plane1",
        "plane2",
        "plane3",
        "b_plane1",
        "b_plane2",
        "b_plane3",
        "gain",
        "post_gain",
        "eps",
        "bias",
        "b_bias"
    ]
);

/// Second halves and their sum, one token.
pub const DOWN: Kernel = kernel!(
    "experts_down",
    ["groups", "rows", "plane1", "plane2", "plane3", "bias"]
);

/// Experts that a token may go through at most.
pub const MOST_USED: usize = 64;

/// Which experts: their number, and how many a token goes through.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Experts.
    pub count: usize,
    /// Of a token.
    pub used: usize,
    /// Weights are the softmax over the chosen ones.
    pub renormalise: bool,
}

/// routes `[T, used, 2]`, words = the best of scores `[T, count]`, T = `tokens`.
pub fn route(
    label: &str,
    scores: Resource,
    choice: Choice,
    routes: Resource,
    tokens: usize,
) -> Dispatch {
    let mut d = Dispatch::new(&ROUTE, label);
    d.bind(Resource::Step, Access::Read);
    d.bind(scores, Access::Read);
    d.bind(routes, Access::Write);
    d.set("USED", u(choice.used));
    d.set("RENORMALISE", Const::B(choice.renormalise));
    d.params = vec![u(choice.count)];
    d.along_tokens(0, tokens, 1);
    d
}

/// Tiles of `size` pairs that the pairs of `tokens` tokens may need.
pub fn tiles(choice: Choice, tokens: usize, size: usize) -> usize {
    let pairs = tokens * choice.used;
    // Each expert may leave one tile not full.
    choice.count.min(pairs) + pairs / size
}

/// Words of the lists of `tiles` tiles over the pairs of `tokens` tokens.
pub fn list_words(choice: Choice, tokens: usize, tiles: usize) -> usize {
    4 + 3 * tiles + tokens * choice.used
}

/// Lists of the pairs of `tokens` tokens, by expert and in tiles of `size`.
pub fn sort(
    label: &str,
    routes: Resource,
    choice: Choice,
    lists: Lists,
    [tokens, size]: [usize; 2],
) -> Dispatch {
    let mut d = Dispatch::new(&SORT, label);
    d.bind(Resource::Step, Access::Read);
    d.bind(routes, Access::Read);
    d.bind(lists.resource, Access::Write);
    d.set("USED", u(choice.used));
    d.set("EXPERTS", u(choice.count));
    d.set("TILES", u(lists.tiles));
    d.set("SIZE", u(size));
    d.params = vec![u(tokens)];
    d
}

/// y `[T, N]` = output(the weighted sums of d `[T · used, N]`), T = `tokens`.
pub fn sum(
    label: &str,
    [d_, routes, y]: [Resource; 3],
    used: usize,
    output: Output,
    [tokens, rows]: [usize; 2],
) -> Dispatch {
    let mut d = Dispatch::new(&SUM, label);
    d.bind(Resource::Step, Access::Read);
    d.bind(d_, Access::Read);
    d.bind(routes, Access::Read);
    output.bind(&mut d, y);
    d.set("USED", u(used));
    d.params = vec![u(rows)];
    d.grid[0] = (rows as u32).div_ceil(64);
    d.along_tokens(1, tokens, 1);
    d
}

/// Binds routes and vectors, and says which experts a weight of `rows` rows an expert has.
fn bind(d: &mut Dispatch, routes: Resource, w: &Weight, rows: usize, biased: bool) {
    let routes = d.bind(routes, Access::Read);
    d.set("ROUTES", routes);
    let vectors = d.bind(Resource::Vectors, Access::Read);
    d.set("VECTORS", vectors);
    d.set("FIRST", u(w.first / rows));
    d.set("COUNT", u(w.rows / rows));
    d.set("BIASED", Const::B(biased));
}

/// y `[used, rows]` = the first halves of the chosen experts for one token; `biases` are the places of
/// the first expert's.
#[expect(
    clippy::too_many_arguments,
    reason = "all that an expert's half is made of"
)]
pub fn glu(
    caps: &Caps,
    label: &str,
    [a, b]: [Weight; 2],
    input: Input,
    routes: Resource,
    used: usize,
    rows: usize,
    biases: Option<[usize; 2]>,
    act: Act,
    y: Resource,
) -> Dispatch {
    let way = Rows::new(caps, a.cols);
    let mut d = Dispatch::new(&GLU, label);
    d.team(way.team);
    let [gain, post_gain, eps] = input.bind(&mut d);
    way.bind(&mut d, caps, "rows_a", WEIGHT_A, a);
    way.bind(&mut d, caps, "rows_b", WEIGHT_B, b);
    bind(&mut d, routes, &a, rows, biases.is_some());
    d.module("act", act_file(act), vec![]);
    let y = d.bind(y, Access::Write);
    d.set("Y", y);
    let [a1, a2, a3] = a.planes();
    let [b1, b2, b3] = b.planes();
    let [bias, b_bias] = biases.unwrap_or_default();
    d.params = vec![
        u(a.cols / 32),
        u(rows),
        a1,
        a2,
        a3,
        b1,
        b2,
        b3,
        gain,
        post_gain,
        eps,
        u(bias),
        u(b_bias),
    ];
    d.grid = [way.groups(rows), used as u32, 1];
    d
}

/// y `[rows]` = output(the weighted sum of the chosen experts' second halves of h `[used, K]`) for one token.
#[expect(
    clippy::too_many_arguments,
    reason = "all that an expert's half is made of"
)]
pub fn down(
    caps: &Caps,
    label: &str,
    w: Weight,
    [h, routes, y]: [Resource; 3],
    used: usize,
    rows: usize,
    bias: Option<usize>,
    output: Output,
) -> Dispatch {
    let way = Rows::new(caps, w.cols);
    let mut d = Dispatch::new(&DOWN, label);
    d.team(way.team);
    let h = d.bind(h, Access::Read);
    d.module("input", "input/plain", vec![("X", h)]);
    way.bind(&mut d, caps, "rows", WEIGHT, w);
    bind(&mut d, routes, &w, rows, bias.is_some());
    d.set("USED", u(used));
    output.bind(&mut d, y);
    let [p1, p2, p3] = w.planes();
    d.params = vec![u(w.cols / 32), u(rows), p1, p2, p3, u(bias.unwrap_or(0))];
    d.grid2(way.groups(rows), caps);
    d
}
