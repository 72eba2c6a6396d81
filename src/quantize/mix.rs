//! The file types that users know by name, and which tensors of a model get which type in each.
//!
//! Names, numbers and choices are llama.cpp's, so that files of one name compare.

use crate::quant::fitting;
use crate::tensor::DType::{
    self, BF16, F16, F32, IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K,
    Q6_K, Q8_0,
};

/// A file type: what most matrices become, and the exceptions.
#[derive(Debug)]
pub struct Mix {
    /// What users call it, in small letters.
    pub name: &'static str,
    /// `general.file_type` of such a file.
    pub file_type: u32,
    /// The type of most matrices.
    pub dtype: DType,
    /// For some tensors another type; the first that applies.
    rules: &'static [Rule],
}

/// For tensors of one kind, in some layers, a type.
type Rule = (Kind, When, DType);

/// Tensors that are treated alike.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The values of attention, alone or in one matrix with queries and keys.
    Values,
    /// The second matrix of the feed-forward block.
    Down,
    AttentionOutput,
    /// Stacks of matrices, of which a token takes a few.
    Experts,
}

/// In which layers a rule holds.
#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    /// In the first so many.
    First(usize),
    /// In the first layers: one of so many.
    FirstOf(usize),
    /// In the first and last eighth, and every third between.
    Ends,
    /// Where a key serves four queries or more, so that the matrix is small.
    Shared,
}
use Kind::{AttentionOutput, Down, Experts, Values};
use When::{Always, Ends, First, FirstOf, Shared};

const fn plain(name: &'static str, file_type: u32, dtype: DType) -> Mix {
    mix(name, file_type, dtype, &[])
}

const fn mix(name: &'static str, file_type: u32, dtype: DType, rules: &'static [Rule]) -> Mix {
    Mix {
        name,
        file_type,
        dtype,
        rules,
    }
}

const ENDS: &[Rule] = &[(Values, Ends, Q6_K), (Down, Ends, Q6_K)];
const Q3_K_M: &[Rule] = &[
    (Values, First(2), Q5_K),
    (Values, Always, Q4_K),
    (Down, FirstOf(16), Q5_K),
    (Down, Always, Q4_K),
    (AttentionOutput, Always, Q4_K),
];
const IQ4: &[Rule] = &[(Values, Shared, Q5_K), (Down, FirstOf(8), Q5_K)];

/// Every file type.
pub const MIXES: &[Mix] = &[
    plain("f32", 0, F32),
    plain("f16", 1, F16),
    plain("bf16", 32, BF16),
    plain("q4_0", 2, Q4_0),
    plain("q4_1", 3, Q4_1),
    plain("q5_0", 8, Q5_0),
    plain("q5_1", 9, Q5_1),
    plain("q8_0", 7, Q8_0),
    mix(
        "q2_k",
        10,
        Q2_K,
        &[
            (Values, Shared, Q4_K),
            (Values, Always, Q3_K),
            (Down, Always, Q3_K),
            (AttentionOutput, Always, Q3_K),
        ],
    ),
    mix("q3_k", 12, Q3_K, Q3_K_M),
    plain("q3_k_s", 11, Q3_K),
    mix("q3_k_m", 12, Q3_K, Q3_K_M),
    mix(
        "q3_k_l",
        13,
        Q3_K,
        &[
            (Values, Always, Q5_K),
            (Down, Always, Q5_K),
            (AttentionOutput, Always, Q5_K),
        ],
    ),
    mix("q4_k", 15, Q4_K, ENDS),
    mix(
        "q4_k_s",
        14,
        Q4_K,
        &[(Values, First(4), Q5_K), (Down, FirstOf(8), Q5_K)],
    ),
    mix("q4_k_m", 15, Q4_K, ENDS),
    mix("q5_k", 17, Q5_K, ENDS),
    plain("q5_k_s", 16, Q5_K),
    mix("q5_k_m", 17, Q5_K, ENDS),
    plain("q6_k", 18, Q6_K),
    mix("iq4_nl", 25, IQ4_NL, IQ4),
    mix("iq4_xs", 30, IQ4_XS, IQ4),
    // Experts take most of a model that has them; the rest is little and does more.
    mix("mxfp4", 38, Q8_0, &[(Experts, Always, MXFP4)]),
];

/// What a choice depends on, of the model as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    /// Query heads to a key head.
    pub(super) shared: usize,
    /// Experts of a layer.
    pub(super) experts: usize,
    /// The embedding is the output matrix, too.
    pub(super) tied: bool,
}

/// A matrix, or a stack of them, as a choice sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    pub(super) name: &'a str,
    pub(super) cols: usize,
    pub(super) stacked: bool,
    /// Its layer among all, or its place among the tensors that hold values of attention.
    pub(super) at: usize,
    /// How many of them there are.
    pub(super) of: usize,
}

/// Parts of names of matrices that stay as they are: small, or looked up rather than multiplied.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "position_embd",
    "token_types",
    "ssm_conv1d",
    "shortconv.conv",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "attn_rel_b",
];

/// Whether a matrix of this name is one that is quantised.
pub(super) fn is_quantised(name: &str) -> bool {
    name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}

/// Whether a tensor holds values of attention, alone or with others.
pub(super) fn is_values(name: &str) -> bool {
    let parts = ["attn_v.", "attn_qkv.", "attn_kv_b."];
    parts.iter().any(|part| name.contains(part))
}

impl Kind {
    fn covers(self, matrix: Matrix<'_>) -> bool {
        match self {
            Self::Values => is_values(matrix.name),
            Self::Down => matrix.name.contains("ffn_down"),
            Self::AttentionOutput => matrix.name.contains("attn_output."),
            Self::Experts => matrix.stacked,
        }
    }
}

impl When {
    fn holds(self, Matrix { at, of, .. }: Matrix<'_>, model: Model) -> bool {
        match self {
            Self::Always => true,
            Self::First(n) => at < n,
            Self::FirstOf(parts) => at < of / parts,
            Self::Ends => at < of / 8 || at >= 7 * of / 8 || (at - of / 8) % 3 == 2,
            Self::Shared => model.shared >= 4,
        }
    }
}

impl Mix {
    /// The file type of a name, in letters of any size.
    pub fn named(name: &str) -> Option<&'static Self> {
        MIXES.iter().find(|m| m.name.eq_ignore_ascii_case(name))
    }

    /// The type that a matrix of `model` gets; `pure` leaves the exceptions out.
    pub(super) fn choose(&self, matrix: Matrix<'_>, model: Model, pure: bool) -> DType {
        let floats = matches!(self.dtype, F32 | F16 | BF16);
        let wanted = if pure || floats {
            self.dtype
        } else {
            self.mixed(matrix, model)
        };
        fitting(wanted, matrix.cols)
    }

    fn mixed(&self, matrix: Matrix<'_>, model: Model) -> DType {
        let embedding = matches!(
            matrix.name,
            "token_embd.weight" | "per_layer_token_embd.weight"
        );
        // What makes the logits is worth more bits.
        if matrix.name == "output.weight" || embedding && model.tied {
            let whole = fitting(self.dtype, matrix.cols) == self.dtype;
            return if whole && self.dtype != Q8_0 {
                Q6_K
            } else {
                Q8_0
            };
        }
        // What eight experts share is small beside them.
        if model.experts == 8 {
            if Values.covers(matrix) || matrix.name.contains("attn_k.") {
                return Q8_0;
            }
            let few_bits = matches!(self.dtype, Q2_K | Q3_K | Q4_K | IQ4_NL | IQ4_XS);
            if AttentionOutput.covers(matrix) && few_bits {
                return Q5_K;
            }
        }
        let mut rules = self.rules.iter();
        let rule = rules.find(|(kind, when, _)| kind.covers(matrix) && when.holds(matrix, model));
        rule.map_or(self.dtype, |(.., dtype)| *dtype)
    }
}
