//! Graph and adapter abilities to a plan: fused steps, kernel variants, buffer slots.
//!
//! A [`Plan`] is pure data: it prints, and its tests need no GPU. Lowering is driven by demand: a
//! node is made only when something asks for its value, so that whoever asks may instead take it
//! *into* itself. That one rule is all fusion there is: a mat-vec takes the norm before it, a
//! product takes the sum or the gate after it, attention takes its three projections.

use std::fmt;

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::graph::{Experts, Graph, NodeId, Op, VectorId, WeightId, WeightSpec};
use crate::kernel::attention::{self, KvShape, Parts, Site};
use crate::kernel::experts::Choice;
use crate::kernel::linear::{self, Columns, Input, Inputs, Lists, Output, Tokens, Weight};
use crate::kernel::pointwise::{self, Plus};
use crate::kernel::{Dispatch, Resource, experts};
use crate::quant::Layout;

mod slots;

use slots::assign;

/// A graph made concrete for one adapter and one number of tokens a step.
#[derive(Debug)]
pub struct Plan {
    /// Tokens of a step at most, T.
    pub tokens: usize,
    /// Launches, in order.
    pub dispatches: Vec<Dispatch>,
    /// How many of them serve every token; those after them serve the last row alone.
    pub body: usize,
    /// Bytes of each activation buffer.
    pub slots: Vec<usize>,
    /// The buffer of the graph's result.
    pub output: Resource,
    /// Rows and columns of the result.
    pub shape: [usize; 2],
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.slots.iter().sum();
        writeln!(
            f,
            "T = {}, {} dispatches, {} slots, {total} bytes, result {} {:?}",
            self.tokens,
            self.dispatches.len(),
            self.slots.len(),
            self.output,
            self.shape
        )?;
        for dispatch in &self.dispatches {
            writeln!(f, "{dispatch}")?;
        }
        Ok(())
    }
}

/// A part of a weight that fits one binding: `rows` rows from `first` on.
#[derive(Clone, Debug)]
pub struct Part {
    /// First row.
    pub first: usize,
    /// Rows.
    pub rows: usize,
    /// Its planes.
    pub layout: Layout,
}

/// Splits a weight by rows so that each part fits a binding of the adapter.
///
/// # Errors
/// [`Error::TooLarge`] where not even 64 rows fit, or not one expert.
pub fn parts(w: &WeightSpec, caps: &Caps) -> Result<Vec<Part>> {
    let limit = caps.max_binding.min(caps.max_buffer) as usize;
    let whole = Layout::new(w.dtype, w.rows, w.cols).bytes;
    let rows = if whole <= limit {
        w.rows
    } else {
        let per_row = whole.div_ceil(w.rows);
        let group = if w.group == 1 { 64 } else { w.group };
        // Planes are padded to 16 bytes each, of which there are at most four.
        limit.saturating_sub(64) / per_row / group * group
    };
    if rows == 0 {
        return Err(Error::TooLarge {
            tensor: w.name.clone(),
            bytes: whole as u64,
            limit: limit as u64,
        });
    }
    Ok((0..w.rows)
        .step_by(rows)
        .map(|first| {
            let rows = rows.min(w.rows - first);
            Part {
                first,
                rows,
                layout: Layout::new(w.dtype, rows, w.cols),
            }
        })
        .collect())
}

/// A mat-vec of more rows than this takes its input ready made: each of its many workgroups would
/// make it again otherwise.
const FUSE_ROWS: usize = 8192;

/// Plans `graph` for steps of up to `tokens` tokens.
///
/// # Errors
/// [`Error::TooLarge`] for a weight whose rows do not fit the adapter; [`Error::Unplannable`] for a
/// graph that no kernel covers.
pub fn plan(graph: &Graph, caps: &Caps, kv: KvShape, tokens: usize) -> Result<Plan> {
    let weights = graph
        .weights
        .iter()
        .map(|w| parts(w, caps))
        .collect::<Result<_>>()?;
    let mut planner = Planner {
        graph,
        caps,
        kv,
        tokens,
        weights,
        uses: graph.uses(),
        made: vec![None; graph.nodes.len()],
        eights: vec![None; graph.nodes.len()],
        slots: Vec::new(),
        dispatches: Vec::new(),
        body: None,
    };
    let output = planner.value(graph.output())?;
    let shape = [
        planner.rows(graph.output()),
        graph.node(graph.output()).cols,
    ];
    let Planner {
        slots,
        mut dispatches,
        body,
        ..
    } = planner;
    let (slots, physical) = assign(&slots, &dispatches, output);
    let place = |r: &mut Resource| {
        if let Resource::Slot(s) = r {
            *s = physical[*s];
        }
    };
    for dispatch in &mut dispatches {
        dispatch.bindings.iter_mut().for_each(|(r, _)| place(r));
    }
    let mut output = output;
    place(&mut output);
    Ok(Plan {
        tokens,
        body: body.unwrap_or(dispatches.len()),
        dispatches,
        slots,
        output,
        shape,
    })
}

/// Tokens of a step that need not be fewer, whatever they take.
pub const FEW: usize = 16;

/// Bytes of a plan's buffers above which its steps get shorter: they are to be little beside the
/// weights and the cache.
const SLOTS: usize = 256 << 20;

/// Plans `graph` for the longest steps of up to `tokens` tokens whose buffers each fit a binding and
/// together are few.
///
/// # Errors
/// As [`plan`].
pub fn longest(graph: &Graph, caps: &Caps, kv: KvShape, mut tokens: usize) -> Result<Plan> {
    let binding = caps.max_binding.min(caps.max_buffer);
    loop {
        let plan = plan(graph, caps, kv, tokens)?;
        let largest = plan.slots.iter().max().copied().unwrap_or(0);
        let fits = largest as u64 <= binding && plan.slots.iter().sum::<usize>() <= SLOTS;
        if fits || tokens <= FEW {
            return Ok(plan);
        }
        tokens = (tokens / 2).max(FEW);
    }
}

struct Planner<'a> {
    graph: &'a Graph,
    caps: &'a Caps,
    kv: KvShape,
    tokens: usize,
    weights: Vec<Vec<Part>>,
    uses: Vec<usize>,
    /// Buffers of values made already.
    made: Vec<Option<Resource>>,
    /// Values made already in eight bits.
    eights: Vec<Option<Inputs>>,
    /// Bytes of each value's buffer, before buffers are shared.
    slots: Vec<usize>,
    dispatches: Vec<Dispatch>,
    /// See [`Plan::body`], once the last row was taken.
    body: Option<usize>,
}

impl<'a> Planner<'a> {
    fn rows(&self, id: NodeId) -> usize {
        if self.graph.node(id).single {
            1
        } else {
            self.tokens
        }
    }

    fn slot(&mut self, floats: usize) -> Resource {
        self.slots.push(4 * floats);
        Resource::Slot(self.slots.len() - 1)
    }

    /// A buffer for the value of `id`.
    fn slot_of(&mut self, id: NodeId) -> Resource {
        let floats = self.rows(id) * self.graph.node(id).cols;
        self.slot(floats)
    }

    /// Place of a vector, in elements.
    fn vector(&self, id: VectorId) -> usize {
        self.graph.vectors[id.0].first
    }

    fn weight(&self, id: WeightId) -> Vec<Weight> {
        let spec = &self.graph.weights[id.0];
        let parts = self.weights[id.0].iter().enumerate();
        parts
            .map(|(i, part)| Weight {
                resource: Resource::Weight(id.0, i),
                dtype: spec.dtype,
                rows: part.rows,
                cols: spec.cols,
                first: part.first,
                planes: part.layout.planes(),
            })
            .collect()
    }

    /// The same value one step back, where a node changes nothing for this many tokens.
    fn through(&self, id: NodeId) -> NodeId {
        match self.graph.node(id).op {
            Op::LastRow { x } if self.tokens == 1 => self.through(x),
            _ => id,
        }
    }

    /// The only user's view of `id`: its operation, where nothing else needs the value.
    fn own(&self, id: NodeId) -> Option<&'a Op> {
        let id = self.through(id);
        let free = self.uses[id.0] == 1 && self.made[id.0].is_none();
        free.then(|| &self.graph.node(id).op)
    }

    /// Makes the value of `id`, if it is not there yet, and returns its buffer.
    fn value(&mut self, id: NodeId) -> Result<Resource> {
        let id = self.through(id);
        if let Some(slot) = self.made[id.0] {
            return Ok(slot);
        }
        let node = self.graph.node(id);
        let rows = self.rows(id);
        let slot = match &node.op {
            Op::Embed {
                table,
                scale,
                positions,
                shift,
            } => {
                let y = self.slot_of(id);
                let [positions, shift] = [positions, shift].map(|v| v.map(|v| self.vector(v) / 4));
                let plus = Plus { positions, shift };
                for part in self.weight(*table) {
                    let d = pointwise::embed(self.caps, &node.label, part, *scale, plus, y, rows);
                    self.dispatches.push(d);
                }
                y
            }
            Op::RmsNorm { x, gain, eps } => {
                let x = self.value(*x)?;
                let y = self.slot_of(id);
                let gain = self.vector(*gain) / 4;
                let shape = [rows, node.cols];
                let d = pointwise::rms_norm(self.caps, &node.label, x, gain, *eps, y, shape);
                self.dispatches.push(d);
                y
            }
            Op::LayerNorm { x, gain, bias, eps } => {
                let x = self.value(*x)?;
                let y = self.slot_of(id);
                let affine = [gain, bias].map(|v| self.vector(*v) / 4);
                let shape = [rows, node.cols];
                let d = pointwise::layer_norm(self.caps, &node.label, x, affine, *eps, y, shape);
                self.dispatches.push(d);
                y
            }
            Op::Linear { bias, .. } => {
                let output = bias.map_or(Output::Store, |b| Output::Bias(self.vector(b)));
                self.linear(id, output)?
            }
            Op::Act { x, act } => match self.own(*x) {
                Some(Op::Linear { bias, .. }) => {
                    let bias = bias.map(|b| self.vector(b));
                    self.linear(*x, Output::Act(*act, bias))?
                }
                _ => return Err(self.unplannable(id)),
            },
            Op::Attention(_) => self.attention(id)?,
            Op::Experts(e) => self.experts(id, e, None)?,
            Op::Glu { gate, up, act } => self.glu(id, *gate, *up, *act)?,
            Op::Add { a, b } => self.sum(id, *a, *b)?,
            Op::Softcap { x, cap } => match self.own(*x) {
                Some(Op::Linear { bias: None, .. }) => self.linear(*x, Output::Softcap(*cap))?,
                _ => return Err(self.unplannable(id)),
            },
            Op::LastRow { x } => {
                let from = self.value(*x)?;
                self.body.get_or_insert(self.dispatches.len());
                let y = self.slot_of(id);
                let shape = [self.rows(*x), node.cols];
                let d = pointwise::last_row(&node.label, from, y, shape);
                self.dispatches.push(d);
                y
            }
        };
        self.made[id.0] = Some(slot);
        Ok(slot)
    }

    fn unplannable(&self, id: NodeId) -> Error {
        Error::Unplannable {
            label: self.graph.node(id).label.clone(),
        }
    }

    /// a + b; b's product or norm is taken in.
    fn sum(&mut self, id: NodeId, a: NodeId, b: NodeId) -> Result<Resource> {
        let label = &self.graph.node(id).label;
        let shape = [self.rows(id), self.graph.node(id).cols];
        match self.own(b) {
            Some(Op::Linear { bias, .. }) => {
                let bias = bias.map(|b| self.vector(b));
                let residual = self.value(a)?;
                self.linear(b, Output::Add(residual, bias))
            }
            Some(Op::Experts(e)) => {
                let residual = self.value(a)?;
                self.experts(b, e, Some(residual))
            }
            Some(Op::RmsNorm { x, gain, eps }) => {
                let (x, gain, eps) = (*x, self.vector(*gain) / 4, *eps);
                // The branch first: a product in it may take the sum `a` into its own input.
                let x = self.value(x)?;
                let pair = [self.value(a)?, x];
                let y = self.slot_of(id);
                let d = pointwise::add_norm(self.caps, label, pair, gain, eps, y, shape);
                self.dispatches.push(d);
                Ok(y)
            }
            _ => {
                let pair = [self.value(a)?, self.value(b)?];
                let y = self.slot_of(id);
                let n = shape[0] * shape[1];
                let d = pointwise::binary(self.caps, label, None, pair, y, n);
                self.dispatches.push(d);
                Ok(y)
            }
        }
    }

    /// How a mat-vec of `rows` outputs takes its input.
    fn input(&mut self, x: NodeId, rows: usize) -> Result<Input> {
        let x = self.through(x);
        if self.made[x.0].is_some() || rows > FUSE_ROWS {
            return Ok(Input::Plain { x: self.value(x)? });
        }
        let norm = match self.graph.node(x).op {
            Op::RmsNorm { x, gain, eps } => Some((x, self.vector(gain) / 4, eps)),
            _ => None,
        };
        let s = self.through(norm.map_or(x, |(x, ..)| x));
        // The residual stream plus a normed block: both norms or the one are taken in.
        if let (None, &Op::Add { a, b }) = (self.made[s.0], &self.graph.node(s).op)
            && let Some(&Op::RmsNorm {
                x: b,
                gain: post_gain,
                eps,
            }) = self.own(b)
            && norm.is_none_or(|(.., outer)| outer.to_bits() == eps.to_bits())
        {
            let b = self.value(b)?;
            let a = self.value(a)?;
            let kept = self.slot_of(s);
            self.made[s.0] = Some(kept);
            return Ok(Input::AddNorm {
                x: a,
                b,
                s: kept,
                gain: norm.map(|(_, gain, _)| gain),
                post_gain: self.vector(post_gain) / 4,
                eps,
            });
        }
        match norm {
            Some((_, gain, eps)) => Ok(Input::Norm {
                x: self.value(s)?,
                gain,
                eps,
            }),
            None => Ok(Input::Plain { x: self.value(x)? }),
        }
    }

    /// How a mat-mul with these parts takes its input; in eight bits it is made once for all who want
    /// it so.
    fn inputs(&mut self, x: NodeId, parts: &[Weight]) -> Result<Inputs> {
        let x = self.through(x);
        let plain = self.value(x)?;
        if !parts.iter().all(|w| linear::wants_eight(self.caps, w)) {
            return Ok(Inputs::Plain(plain));
        }
        if let Some(made) = self.eights[x.0] {
            return Ok(made);
        }
        let node = self.graph.node(x);
        let elements = self.rows(x) * node.cols;
        let (codes, scales) = (self.slot(elements / 4), self.slot(elements / 8));
        let label = format!("{}.int8", node.label);
        let shape = [self.rows(x), node.cols];
        let d = linear::quantize(&label, plain, [codes, scales], shape);
        self.dispatches.push(d);
        let made = Inputs::Eight(codes, scales);
        self.eights[x.0] = Some(made);
        Ok(made)
    }

    /// A product into a buffer of its own.
    fn linear(&mut self, id: NodeId, output: Output) -> Result<Resource> {
        let id = self.through(id);
        let y = self.slot_of(id);
        let columns = Columns {
            y,
            stride: self.graph.node(id).cols,
            first: 0,
        };
        self.linear_into(id, output, columns)?;
        Ok(y)
    }

    /// A product into some columns of a buffer.
    fn linear_into(&mut self, id: NodeId, output: Output, to: Columns) -> Result<()> {
        let node = self.graph.node(id);
        let Op::Linear { x, w, .. } = node.op else {
            return Err(self.unplannable(id));
        };
        let parts = self.weight(w);
        if self.rows(id) == 1 {
            let rows = if parts.len() > 1 {
                usize::MAX
            } else {
                node.cols
            };
            let input = self.input(x, rows)?;
            for part in parts {
                let d = linear::matvec(self.caps, &node.label, part, input, output, to);
                self.dispatches.push(d);
            }
        } else {
            let x = self.inputs(x, &parts)?;
            let tokens = Tokens::All(self.tokens);
            for part in parts {
                let d = linear::matmul(self.caps, &node.label, part, x, output, to, tokens);
                self.dispatches.push(d);
            }
        }
        Ok(())
    }

    /// act(gate) · up, with both products or the second taken in.
    fn glu(
        &mut self,
        id: NodeId,
        gate: NodeId,
        up: NodeId,
        act: crate::graph::Act,
    ) -> Result<Resource> {
        let label = &self.graph.node(id).label;
        let own = (self.own(gate).cloned(), self.own(up).cloned());
        if let (
            Some(Op::Linear {
                x,
                w: a,
                bias: None,
            }),
            Some(Op::Linear {
                x: same,
                w: b,
                bias: None,
            }),
        ) = own
        {
            let (a, b) = (self.weight(a), self.weight(b));
            if let ([a], [b], true, 1) = (&a[..], &b[..], x == same, self.rows(id)) {
                let input = self.input(x, a.rows)?;
                let y = self.slot_of(id);
                let d = linear::matvec_glu(self.caps, label, [*a, *b], input, act, y);
                self.dispatches.push(d);
                return Ok(y);
            }
            let gate = self.value(gate)?;
            return self.linear(up, Output::Glu(gate, act));
        }
        let pair = [self.value(gate)?, self.value(up)?];
        let y = self.slot_of(id);
        let n = self.rows(id) * self.graph.node(id).cols;
        let d = pointwise::binary(self.caps, label, Some(act), pair, y, n);
        self.dispatches.push(d);
        Ok(y)
    }

    /// A mixture of experts, plus a residual.
    fn experts(&mut self, id: NodeId, e: &Experts, residual: Option<Resource>) -> Result<Resource> {
        let label = self.graph.node(id).label.clone();
        let (caps, rows, width) = (self.caps, self.rows(id), self.graph.node(id).cols);
        let choice = Choice {
            count: e.count,
            used: e.used,
            renormalise: e.renormalise,
        };
        if e.used > experts::MOST_USED {
            return Err(self.unplannable(id));
        }
        let scores = self.value(e.scores)?;
        let routes = self.slot(2 * rows * e.used);
        let d = experts::route(&format!("{label}.route"), scores, choice, routes, rows);
        self.dispatches.push(d);
        let [gate, up, down] = [e.gate, e.up, e.down].map(|w| self.weight(w));
        let biases = e.biases.map(|b| b.map(|b| self.vector(b)));
        let pairs = rows * e.used;
        let hidden = self.slot(pairs * e.ffn);
        if rows == 1 {
            // Weights of several parts come in the same parts: both halves have the same shape, but maybe
            // not the same type.
            let first = |w: &[Weight]| w.iter().map(|w| w.first).collect::<Vec<_>>();
            if first(&gate) != first(&up) {
                return Err(self.unplannable(id));
            }
            let most = if gate.len() > 1 { usize::MAX } else { e.ffn };
            let input = self.input(e.x, most)?;
            let both = biases[0].zip(biases[1]).map(|(a, b)| [a, b]);
            for (gate, up) in gate.into_iter().zip(up) {
                let label = format!("{label}.glu");
                let d = experts::glu(
                    caps,
                    &label,
                    [gate, up],
                    input,
                    routes,
                    e.used,
                    e.ffn,
                    both,
                    e.act,
                    hidden,
                );
                self.dispatches.push(d);
            }
            let mut sum = residual;
            for part in down {
                let y = self.slot(width);
                let output = sum.map_or(Output::Store, |r| Output::Add(r, None));
                let label = format!("{label}.down");
                let d = experts::down(
                    caps,
                    &label,
                    part,
                    [hidden, routes, y],
                    e.used,
                    width,
                    biases[2],
                    output,
                );
                self.dispatches.push(d);
                sum = Some(y);
            }
            return sum.ok_or_else(|| self.unplannable(id));
        }
        let size = linear::tile(caps);
        let tiles = experts::tiles(choice, rows, size);
        let lists = Lists {
            resource: self.slot(experts::list_words(choice, rows, tiles)),
            tiles,
            share: e.used,
            rows: e.ffn,
        };
        let sort = format!("{label}.sort");
        let d = experts::sort(&sort, routes, choice, lists, [rows, size]);
        self.dispatches.push(d);
        let x = Inputs::Plain(self.value(e.x)?);
        let product = |this: &mut Self, part: &str, w: Vec<Weight>, x, output, y, lists: Lists| {
            let to = Columns {
                y,
                stride: lists.rows,
                first: 0,
            };
            let label = format!("{label}.{part}");
            for w in w {
                let d = linear::matmul(caps, &label, w, x, output, to, Tokens::Routed(lists));
                this.dispatches.push(d);
            }
        };
        let stored = |i: usize| biases[i].map_or(Output::Store, Output::Bias);
        let gated = self.slot(pairs * e.ffn);
        product(self, "gate", gate, x, stored(0), gated, lists);
        if biases[1].is_some() {
            let upper = self.slot(pairs * e.ffn);
            product(self, "up", up, x, stored(1), upper, lists);
            let n = pairs * e.ffn;
            let both = [gated, upper];
            let label = format!("{label}.glu");
            let d = pointwise::binary(caps, &label, Some(e.act), both, hidden, n);
            self.dispatches.push(d);
        } else {
            let output = Output::Glu(gated, e.act);
            product(self, "up", up, x, output, hidden, lists);
        }
        let own = Lists {
            share: 1,
            rows: width,
            ..lists
        };
        let parts = self.slot(pairs * width);
        let hidden = Inputs::Plain(hidden);
        product(self, "down", down, hidden, stored(2), parts, own);
        let y = self.slot_of(id);
        let output = residual.map_or(Output::Store, |r| Output::Add(r, None));
        let sum = format!("{label}.sum");
        let d = experts::sum(&sum, [parts, routes, y], e.used, output, [rows, width]);
        self.dispatches.push(d);
        Ok(y)
    }

    /// q, k and v side by side in one buffer `[T, heads + 2 kv_heads, head_dim]`.
    fn qkv(&mut self, nodes: [NodeId; 3]) -> Result<Resource> {
        let cols = nodes.map(|n| self.graph.node(n).cols);
        let stride: usize = cols.iter().sum();
        let rows = self.rows(nodes[0]);
        // The norm of all heads of q and k together is taken afterwards, in place.
        let mut norms = Vec::new();
        let mut products = Vec::new();
        for node in nodes {
            let mut product = node;
            if let Some(&Op::RmsNorm { x, gain, eps }) = self.own(node) {
                norms.push((self.vector(gain) / 4, eps));
                product = x;
            }
            let Some(&Op::Linear { x, w, bias }) = self.own(product) else {
                return Err(self.unplannable(node));
            };
            products.push((product, x, w, bias.map(|b| self.vector(b))));
        }
        let x = products[0].1;
        let same = products.iter().all(|(_, i, ..)| *i == x);
        // Biases that follow one another are one vector.
        let bias = products[0].3;
        let mut next = bias;
        let mut whole = true;
        for ((.., own), cols) in products.iter().zip(cols) {
            whole &= *own == next;
            next = next.map(|at| at + cols);
        }
        let parts: Vec<_> = products.iter().map(|p| self.weight(p.2)).collect();
        let y = if let ([q], [k], [v], true, true, 1) = (
            &parts[0][..],
            &parts[1][..],
            &parts[2][..],
            same,
            whole,
            rows,
        ) {
            let input = self.input(x, stride)?;
            let y = self.slot(stride);
            let label = &self.graph.node(products[0].0).label;
            let label = format!("{label}kv");
            let output = bias.map_or(Output::Store, Output::Bias);
            let d = linear::matvec_qkv(self.caps, &label, [*q, *k, *v], input, output, y);
            self.dispatches.push(d);
            y
        } else {
            let y = self.slot(rows * stride);
            let mut first = 0;
            for ((product, _, _, bias), cols) in products.into_iter().zip(cols) {
                let output = bias.map_or(Output::Store, Output::Bias);
                self.linear_into(product, output, Columns { y, stride, first })?;
                first += cols;
            }
            y
        };
        if let [(q_gain, eps), (k_gain, _)] = norms[..] {
            let label = format!("{}.norm", self.graph.node(nodes[0]).label);
            let gains = [q_gain, k_gain];
            let d = pointwise::qk_norm(self.caps, &label, y, gains, eps, [rows, stride], cols);
            self.dispatches.push(d);
        } else if !norms.is_empty() {
            return Err(self.unplannable(nodes[0]));
        }
        Ok(y)
    }

    fn attention(&mut self, id: NodeId) -> Result<Resource> {
        let node = self.graph.node(id);
        let Op::Attention(a) = &node.op else {
            return Err(self.unplannable(id));
        };
        let qkv = self.qkv([a.q, a.k, a.v])?;
        let place = |id: Option<VectorId>| id.map_or(0, |id| self.vector(id));
        let (q, k) = a.qk_norm.unzip();
        let site = Site {
            a,
            kv: self.kv,
            rope: a.rope.map(|i| {
                let rope = &self.graph.ropes[i];
                (rope.dims, rope.neox)
            }),
            vectors: [q, k, a.sinks].map(place),
        };
        let (caps, label, tokens) = (self.caps, &node.label, self.tokens);
        let positions = self.kv.stride * attention::PAGE;
        let parts = if tokens > 1 {
            Parts::prompt(a, positions)
        } else {
            Parts::decode(caps, a, positions)
        };
        let out = if parts.count > 1 {
            self.slot(tokens * a.heads * parts.count * (a.head_dim + 4))
        } else {
            self.slot_of(id)
        };
        if tokens > 1 {
            let both = attention::prompt(caps, label, &site, [qkv, out], tokens);
            self.dispatches.extend(both);
        } else {
            let d = attention::decode(caps, label, &site, [qkv, out], tokens);
            self.dispatches.push(d);
        }
        if parts.count == 1 {
            return Ok(out);
        }
        let y = self.slot_of(id);
        let combine = format!("{label}.combine");
        let d = attention::combine(&combine, a, parts, [out, y], tokens);
        self.dispatches.push(d);
        Ok(y)
    }
}
