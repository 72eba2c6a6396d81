//! Kernels that quantise a weight on its way to the device: planes of one format from another's.

use super::linear::{WEIGHT, Weight};
use super::{Access, Dispatch, Kernel, Resource, kernel, u};
use crate::caps::Caps;
use crate::quant::Layout;
use crate::shader::Const;
use crate::tensor::DType;

/// Declares an encoder's row: all take the same parameters.
macro_rules! encoder {
    ($name:literal) => {
        kernel!(
            $name,
            [
                "total", "first", "plane1", "plane2", "plane3", "to1", "to2", "to3"
            ]
        )
    };
}

/// Halves.
pub const F16: Kernel = encoder!("encode_f16");
/// Q4_0.
pub const Q4_0: Kernel = encoder!("encode_q4_0");
/// Q4_K.
pub const Q4_K: Kernel = encoder!("encode_q4_k");
/// Q5_0, which stands in for Q4_K.
pub const Q5_0: Kernel = encoder!("encode_q5_0");
/// Q6_K.
pub const Q6_K: Kernel = encoder!("encode_q6_k");
/// Q8_0, which stands in for Q6_K.
pub const Q8_0: Kernel = encoder!("encode_q8_0");

/// The encoder of each type that has one, and how many groups of 32 elements an invocation makes.
pub const ENCODERS: &[(DType, &Kernel, u32)] = &[
    (DType::F16, &F16, 1),
    (DType::Q4_0, &Q4_0, 2),
    (DType::Q4_K, &Q4_K, 1),
    (DType::Q5_0, &Q5_0, 2),
    (DType::Q6_K, &Q6_K, 1),
    (DType::Q8_0, &Q8_0, 2),
];

/// Pieces of a weight begin at multiples of so many rows, so that none shares a word or a
/// workgroup's super-blocks with another.
pub const ROWS: usize = 64;

const WG: u32 = 64;

/// Rows `first ..` of the planes `to` in `y` = the rows of `source`, in the type of `to`; `first` is
/// a multiple of [`ROWS`], and so are the rows of `source`, or they are the last. `None` where no
/// kernel makes that type.
pub fn encode(
    caps: &Caps,
    label: &str,
    source: Weight,
    y: Resource,
    to: &Layout,
    first: usize,
) -> Option<Dispatch> {
    let (_, kernel, each) = ENCODERS.iter().find(|(dtype, ..)| *dtype == to.dtype)?;
    let mut d = Dispatch::new(kernel, label);
    d.bind(y, Access::Write);
    source.bind(&mut d, caps, WEIGHT);
    d.set("WG", Const::U(WG));
    let groups = source.rows * source.cols / 32;
    let [p1, p2, p3] = source.planes();
    let [t1, t2, t3] = to.planes().map(Const::U);
    let first = u(first * source.cols / 32);
    d.params = vec![u(groups), first, p1, p2, p3, t1, t2, t3];
    d.grid[0] = (groups as u32).div_ceil(WG * each);
    Some(d)
}
