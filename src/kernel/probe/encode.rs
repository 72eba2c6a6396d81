//! Kernels that quantise weights.

use super::{Probe, Reader, Rows, columns, done, poison, weight};
use crate::kernel::encode::{ENCODERS, ROWS};
use crate::kernel::{Dispatch, u};
use crate::quant::testing::Rng;
use crate::quant::{Format, Layout};
use crate::shader::Const;
use crate::tensor::DType;

/// Rows of a weight behind others, beside what the quantiser of `src/quant/` makes of them: the
/// same, but for numbers that lie between two codes, and what follows from those.
pub(super) fn encode(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let encoder = ENCODERS.iter().find(|e| e.1.name == dispatch.kernel.name);
    let (dtype, each) = encoder.map_or((DType::F32, 1), |(dtype, _, each)| (*dtype, *each));
    let format = Format::of(dtype);
    let file = r.module("weight").unwrap_or("");
    let k = columns(random, &[file, format.wgsl]);
    let (first, rows) = (ROWS * random.below(2), 1 + random.below(9));
    let (packed, planes, values) = weight(random, file, rows, k);
    let layout = Layout::new(dtype, first + rows, k);
    let mut blocks = vec![0; rows * k / format.block * format.block_bytes];
    (format.quantize)(&values, &mut blocks);
    let mut want = vec![0f32; rows * k];
    (format.dequantize)(&blocks, &mut want);
    let groups = rows * k / 32;
    let mut params = vec![u(groups), u(first * k / 32)];
    params.extend(planes.map(Const::U));
    params.extend(layout.planes().map(Const::U));
    let to = dispatch.bindings[0].0;
    let buffers = vec![
        (to, poison(layout.bytes / 4 + 5)),
        (r.weight("weight"), packed),
    ];
    let grid = [groups.div_ceil(each as usize * r.u("", "WG")), 1, 1];
    let mut probe = done(dispatch.clone(), params, grid, buffers, vec![]);
    probe.rows = Some(Rows {
        resource: to,
        layout,
        first,
        source: values,
        values: want,
    });
    probe
}

/// ‖a - b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let apart: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (apart / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

impl Rows {
    /// Holds the buffer's words to the rows that must be there, and to what they were elsewhere.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn held(&self, before: &[u32], after: &[u32]) -> Result<(), String> {
        let bytes = bytemuck::cast_slice::<u32, u8>(after);
        let own = bytes.get(..self.layout.bytes).unwrap_or_default();
        let got = crate::quant::unpack(&self.layout, own).map_err(|e| e.to_string())?;
        let got = &got[self.first * self.layout.cols..];
        // A number between two codes may take either, at the cost of a step, and so may a scale
        // between two. A wrong search or a wrong scale costs about as much as quantising does; of a
        // few blocks one that went the other way costs as much, but then what is made is as good.
        let lost = distance(&self.values, &self.source);
        let (apart, ours) = (distance(got, &self.values), distance(got, &self.source));
        let (same, as_good) = (apart <= (lost / 3.0).max(1e-4), ours <= 1.02 * lost);
        if !same && !as_good {
            return Err(format!(
                "{} of {} is {apart:.1e} off where quantising costs {lost:.1e}, and costs {ours:.1e}",
                self.resource, self.layout.dtype
            ));
        }
        let mut touched = vec![false; before.len()];
        for plane in 0..Format::of(self.layout.dtype).planes.len() {
            let bytes = self.layout.rows(plane, self.first..self.layout.rows);
            touched[bytes.start / 4..bytes.end.div_ceil(4)].fill(true);
        }
        let changed = |i: &usize| !touched[*i] && before[*i] != after[*i];
        match (0..before.len()).find(changed) {
            Some(i) => Err(format!("{}[{i}] was written", self.resource)),
            None => Ok(()),
        }
    }
}
