//! Operations on shaped tensors, built by a model description.
//!
//! A graph says what is computed for the tokens of one step and nothing of how. Every value is a
//! matrix of f32 with one row for each token (T rows, T unknown here) or, after
//! [`Graph::last_row`], one row in all. Weights are named once, where they are used.

use crate::quant;
use crate::tensor::DType;

pub mod reference;

pub use crate::rope::{RopeSpec, Scaling};

/// A value: the index of the node that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// A weight matrix: an index into [`Graph::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightId(pub usize);

/// A weight vector: an index into [`Graph::vectors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VectorId(pub usize);

/// A matrix `[rows N, cols K]` of the checkpoint: a whole tensor or some of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// The checkpoint's name for the tensor.
    pub name: String,
    /// Element type on the device: the checkpoint's own, or one that it is quantised to.
    pub dtype: DType,
    /// The first of its rows.
    pub first: usize,
    /// Rows that are used together (an expert's): a part of the matrix has whole ones of them.
    pub group: usize,
    /// Outputs, N.
    pub rows: usize,
    /// Inputs, K.
    pub cols: usize,
}

/// A vector of the checkpoint (norm gains, biases), kept in f32: a whole tensor or some of its
/// elements.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSpec {
    /// The checkpoint's name for the tensor.
    pub name: String,
    /// The first of its elements.
    pub from: usize,
    /// Factor that it is multiplied by.
    pub scale: f32,
    /// Elements.
    pub len: usize,
    /// Where it starts among all vectors, in elements; a multiple of 4.
    pub first: usize,
}

/// Activations of feed-forward blocks, gated or (times one) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// x · sigmoid(x).
    Silu,
    /// GELU as it is defined, by the error function.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// gpt-oss's: x · sigmoid(1.702 x) of x clamped to at most 7, times one more than the other half,
    /// which is clamped to ±7.
    SiluClamped,
}

/// A factor of the scores of the token at position p: 1 + beta · ln(1 + floor(p / original)).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Sharpen {
    /// How fast it grows.
    pub beta: f32,
    /// Positions before it begins: the context the model was first trained for.
    pub original: u32,
}

impl Sharpen {
    /// The factor at position `pos`.
    pub fn factor(&self, pos: u32) -> f64 {
        1.0 + f64::from(self.beta) * f64::from(pos / self.original.max(1)).ln_1p()
    }
}

/// Attention of this step's tokens over their sequences' cached positions and each other.
///
/// It norms (where gains are given) and rotates q and k, appends k and v to the layer's cache, and
/// attends: softmax(scale · q·k, capped, within the window) · v.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Queries `[T, heads · head_dim]`.
    pub q: NodeId,
    /// Keys `[T, kv_heads · head_dim]`.
    pub k: NodeId,
    /// Values `[T, kv_heads · head_dim]`.
    pub v: NodeId,
    /// Which layer's cache; those of an encoder, which keep nothing for the next step, share one.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores of late tokens grow by this.
    pub sharpen: Option<Sharpen>,
    /// Each token sees those before it and itself. Where not, all tokens of a step see one another,
    /// as in an encoder: then a step is a whole text, and what the cache held before is not seen.
    pub causal: bool,
    /// Positions seen back, with the token's own (and, where not causal, as many forth); all when
    /// `None`.
    pub window: Option<u32>,
    /// Scores go through cap · tanh(score / cap).
    pub softcap: Option<f32>,
    /// Sinks `[heads]`: a score for each query head that joins the softmax and has no value.
    pub sinks: Option<VectorId>,
    /// Index into [`Graph::ropes`]; q and k are not rotated when `None`.
    pub rope: Option<usize>,
    /// RMSNorm gains `[head_dim]` of q and of k.
    pub qk_norm: Option<(VectorId, VectorId)>,
    /// Epsilon of those norms.
    pub eps: f32,
}

/// A mixture of experts: each token goes through the `used` experts with the highest scores, and what
/// they make of it is summed by the softmax of those scores.
///
/// An expert is down(act(gate x + bias) · (up x + bias)) + bias. Matrices of all experts stand one after
/// the other: rows e·ffn to (e + 1)·ffn of `gate` are expert e's.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Input `[T, D]`.
    pub x: NodeId,
    /// Scores of the experts `[T, count]`.
    pub scores: NodeId,
    /// Experts.
    pub count: usize,
    /// Experts of a token.
    pub used: usize,
    /// Width of an expert.
    pub ffn: usize,
    /// `[count · ffn, D]`.
    pub gate: WeightId,
    /// `[count · ffn, D]`.
    pub up: WeightId,
    /// `[count · D, ffn]`.
    pub down: WeightId,
    /// Biases of the three, one expert's after the other's.
    pub biases: [Option<VectorId>; 3],
    /// Activation.
    pub act: Act,
    /// The softmax is over the chosen experts, rather than over all.
    pub renormalise: bool,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Rows of a table by this step's token ids, times `scale`, plus what else a row begins with: `[T, D]`.
    Embed {
        /// The table `[vocabulary, D]`.
        table: WeightId,
        /// Factor.
        scale: f32,
        /// Learned positions, `[D]` for each, one after the other.
        positions: Option<VectorId>,
        /// A vector `[D]` that every row gets, such as BERT's for the first kind of sentence.
        shift: Option<VectorId>,
    },
    /// x · gain / sqrt(mean(x²) + eps), row by row.
    RmsNorm {
        /// Input.
        x: NodeId,
        /// Gain, one for each column.
        gain: VectorId,
        /// Added to the mean square.
        eps: f32,
    },
    /// (x − mean(x)) · gain / sqrt(variance(x) + eps) + bias, row by row.
    LayerNorm {
        /// Input.
        x: NodeId,
        /// Gain, one for each column.
        gain: VectorId,
        /// Bias, one for each column.
        bias: VectorId,
        /// Added to the variance.
        eps: f32,
    },
    /// x · Wᵀ (+ bias): [·, N].
    Linear {
        /// Input [·, K].
        x: NodeId,
        /// Weight `[N, K]`.
        w: WeightId,
        /// Bias `[N]`.
        bias: Option<VectorId>,
    },
    /// See [`Attention`]: `[T, heads · head_dim]`.
    Attention(Box<Attention>),
    /// act(gate) · up, element by element.
    Glu {
        /// The activated half.
        gate: NodeId,
        /// The other.
        up: NodeId,
        /// Activation.
        act: Act,
    },
    /// act(x), element by element.
    Act {
        /// Input: a product.
        x: NodeId,
        /// Activation.
        act: Act,
    },
    /// See [`Experts`]: `[T, D]`.
    Experts(Box<Experts>),
    /// a + b.
    Add {
        /// The residual stream, as a rule.
        a: NodeId,
        /// What is added to it.
        b: NodeId,
    },
    /// cap · tanh(x / cap).
    Softcap {
        /// Input.
        x: NodeId,
        /// Bound.
        cap: f32,
    },
    /// The last live row of x: `[1, D]`.
    LastRow {
        /// Input.
        x: NodeId,
    },
}

/// An operation and the shape of its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Columns of its value.
    pub cols: usize,
    /// One row, rather than one for each token.
    pub single: bool,
    /// What it is called in plans and profiles, such as `blk.3.attn_q`.
    pub label: String,
}

/// What a model computes for the tokens of one step. The last node is the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Operations; inputs come before their users.
    pub nodes: Vec<Node>,
    /// Weight matrices.
    pub weights: Vec<WeightSpec>,
    /// Weight vectors.
    pub vectors: Vec<VectorSpec>,
    /// Rotary tables.
    pub ropes: Vec<RopeSpec>,
    /// Layers with a cache.
    pub layers: usize,
    /// What the next node is called.
    scope: String,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Labels of the nodes that follow begin with this.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// The result.
    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    /// The node that makes `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Every attention, in order.
    pub fn attentions(&self) -> impl Iterator<Item = &Attention> {
        self.nodes.iter().filter_map(|n| match &n.op {
            Op::Attention(a) => Some(&**a),
            _ => None,
        })
    }

    /// How many nodes use each value.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for node in &self.nodes {
            for input in inputs(&node.op) {
                uses[input.0] += 1;
            }
        }
        uses
    }

    /// Elements of all vectors where they lie one after the other; never none.
    pub fn vector_elements(&self) -> usize {
        self.vectors.last().map_or(0, |v| v.first + v.len).max(4)
    }

    /// Keeps every matrix that has more bits in `dtype`, or in what stands in for that where its
    /// columns are no whole blocks (see [`quant::smaller`]).
    pub fn shrink(&mut self, dtype: DType) {
        for w in &mut self.weights {
            w.dtype = quant::smaller(w.dtype, dtype, w.cols);
        }
    }

    /// Names a matrix; naming it again gives the same id.
    pub fn weight(&mut self, spec: WeightSpec) -> WeightId {
        let known = self.weights.iter().position(|w| *w == spec);
        WeightId(known.unwrap_or_else(|| {
            self.weights.push(spec);
            self.weights.len() - 1
        }))
    }

    /// Names a vector: `len` elements of a tensor from `from` on, times `scale`. Naming it again gives
    /// the same id.
    pub fn vector(&mut self, name: String, from: usize, len: usize, scale: f32) -> VectorId {
        let first = self
            .vectors
            .last()
            .map_or(0, |v| (v.first + v.len).next_multiple_of(4));
        let spec = VectorSpec {
            name,
            from,
            scale,
            len,
            first,
        };
        let same = |v: &VectorSpec| VectorSpec { first, ..v.clone() } == spec;
        let known = self.vectors.iter().position(same);
        VectorId(known.unwrap_or_else(|| {
            self.vectors.push(spec);
            self.vectors.len() - 1
        }))
    }

    /// Names a rotary table.
    pub fn rope(&mut self, spec: RopeSpec) -> usize {
        let known = self.ropes.iter().position(|r| *r == spec);
        known.unwrap_or_else(|| {
            self.ropes.push(spec);
            self.ropes.len() - 1
        })
    }

    /// [`Op::Embed`].
    pub fn embed(
        &mut self,
        table: WeightId,
        scale: f32,
        positions: Option<VectorId>,
        shift: Option<VectorId>,
    ) -> NodeId {
        let cols = self.weights[table.0].cols;
        let op = Op::Embed {
            table,
            scale,
            positions,
            shift,
        };
        self.push(op, cols, false, "embed")
    }

    /// [`Op::RmsNorm`].
    pub fn rms_norm(&mut self, x: NodeId, gain: VectorId, eps: f32) -> NodeId {
        let (cols, single) = self.shape(x);
        self.push(Op::RmsNorm { x, gain, eps }, cols, single, "norm")
    }

    /// [`Op::LayerNorm`].
    pub fn layer_norm(&mut self, x: NodeId, gain: VectorId, bias: VectorId, eps: f32) -> NodeId {
        let (cols, single) = self.shape(x);
        let op = Op::LayerNorm { x, gain, bias, eps };
        self.push(op, cols, single, "norm")
    }

    /// [`Op::Linear`], called after its weight.
    pub fn linear(&mut self, x: NodeId, w: WeightId, bias: Option<VectorId>) -> NodeId {
        let label = self.weights[w.0].name.clone();
        self.linear_as(x, w, bias, label.trim_end_matches(".weight"))
    }

    /// [`Op::Linear`] with a name of its own.
    pub fn linear_as(
        &mut self,
        x: NodeId,
        w: WeightId,
        bias: Option<VectorId>,
        label: &str,
    ) -> NodeId {
        self.nodes.push(Node {
            op: Op::Linear { x, w, bias },
            cols: self.weights[w.0].rows,
            single: self.node(x).single,
            label: label.into(),
        });
        self.output()
    }

    /// [`Op::Attention`].
    pub fn attention(&mut self, attention: Attention) -> NodeId {
        self.layers = self.layers.max(attention.layer + 1);
        let cols = attention.heads * attention.head_dim;
        self.push(Op::Attention(Box::new(attention)), cols, false, "attention")
    }

    /// [`Op::Glu`].
    pub fn glu(&mut self, gate: NodeId, up: NodeId, act: Act) -> NodeId {
        let (cols, single) = self.shape(gate);
        self.push(Op::Glu { gate, up, act }, cols, single, "glu")
    }

    /// [`Op::Act`].
    pub fn act(&mut self, x: NodeId, act: Act) -> NodeId {
        let (cols, single) = self.shape(x);
        self.push(Op::Act { x, act }, cols, single, "act")
    }

    /// [`Op::Experts`].
    pub fn experts(&mut self, experts: Experts) -> NodeId {
        let (cols, single) = self.shape(experts.x);
        self.push(Op::Experts(Box::new(experts)), cols, single, "experts")
    }

    /// [`Op::Add`].
    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let (cols, single) = self.shape(a);
        self.push(Op::Add { a, b }, cols, single, "add")
    }

    /// [`Op::Softcap`].
    pub fn softcap(&mut self, x: NodeId, cap: f32) -> NodeId {
        let (cols, single) = self.shape(x);
        self.push(Op::Softcap { x, cap }, cols, single, "softcap")
    }

    /// [`Op::LastRow`].
    pub fn last_row(&mut self, x: NodeId) -> NodeId {
        let cols = self.node(x).cols;
        self.push(Op::LastRow { x }, cols, true, "last_row")
    }

    fn shape(&self, x: NodeId) -> (usize, bool) {
        (self.node(x).cols, self.node(x).single)
    }

    fn push(&mut self, op: Op, cols: usize, single: bool, what: &str) -> NodeId {
        let label = if self.scope.is_empty() {
            what.to_string()
        } else {
            format!("{}.{what}", self.scope)
        };
        self.nodes.push(Node {
            op,
            cols,
            single,
            label,
        });
        self.output()
    }
}

/// The values an operation reads.
pub fn inputs(op: &Op) -> Vec<NodeId> {
    match op {
        Op::Embed { .. } => vec![],
        Op::RmsNorm { x, .. }
        | Op::LayerNorm { x, .. }
        | Op::Act { x, .. }
        | Op::Linear { x, .. }
        | Op::Softcap { x, .. }
        | Op::LastRow { x } => vec![*x],
        Op::Attention(a) => vec![a.q, a.k, a.v],
        Op::Glu { gate, up, .. } => vec![*gate, *up],
        Op::Experts(e) => vec![e.x, e.scores],
        Op::Add { a, b } => vec![*a, *b],
    }
}
