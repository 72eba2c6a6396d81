//! What the tests on a device share.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::struct_excessive_bools,
    reason = "shared by tests, each of which uses a part"
)]

pub mod tiny;

use omnimini::gpu::{DeviceOptions, Gpu};
use omnimini::kernel::Resource;
use omnimini::kernel::probe::Probe;

/// The adapter the tests run on.
pub fn gpu() -> Gpu {
    pollster::block_on(Gpu::open(&options())).unwrap()
}

/// See `tests/kernels.rs`.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        adapter: std::env::var("OMNIMINI_ADAPTER").ok(),
        strict_webgpu: std::env::var_os("OMNIMINI_STRICT_WEBGPU").is_some(),
    }
}

fn half_at(words: &[u32], i: usize) -> f64 {
    let bits = (words[i / 2] >> (16 * (i % 2))) as u16;
    half::f16::from_bits(bits).to_f64()
}

/// Joins the parts of a split attention: [H, SPLITS, HD + 4] to [H, HD].
fn join(parts: &[u32], want: usize, probe: &Probe) -> Vec<f64> {
    let [heads, splits, _] = probe.dispatch.grid.map(|g| g as usize);
    let hd = want / heads;
    let at = |h: usize, s: usize, e: usize| {
        f64::from(f32::from_bits(parts[(h * splits + s) * (hd + 4) + e]))
    };
    let mut out = Vec::new();
    for h in 0..heads {
        let used: Vec<usize> = (0..splits).filter(|s| at(h, *s, hd + 1) > 0.0).collect();
        let top = used
            .iter()
            .map(|s| at(h, *s, hd))
            .fold(f64::NEG_INFINITY, f64::max);
        let weight = |s: &usize| (at(h, *s, hd) - top).exp();
        let total: f64 = used.iter().map(|s| weight(s) * at(h, *s, hd + 1)).sum();
        for e in 0..hd {
            out.push(used.iter().map(|s| weight(s) * at(h, *s, e)).sum::<f64>() / total);
        }
    }
    out
}

/// Holds one buffer to what a probe expects of it, and to what it was elsewhere.
pub fn compare(
    probe: &Probe,
    resource: Resource,
    before: &[u32],
    after: &[u32],
) -> Result<(), String> {
    let mut touched = vec![false; before.len()];
    for e in probe.expect.iter().filter(|e| e.resource == resource) {
        let joined = e.first == usize::MAX;
        let got: Vec<f64> = if joined {
            touched.fill(true);
            join(after, e.values.len(), probe)
        } else if e.half {
            (0..e.values.len())
                .map(|i| half_at(after, e.first + i))
                .collect()
        } else {
            after[e.first..e.first + e.values.len()]
                .iter()
                .map(|w| f64::from(f32::from_bits(*w)))
                .collect()
        };
        let largest = e.values.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (i, (want, got)) in e.values.iter().zip(&got).enumerate() {
            let error = (want - got).abs() / largest;
            if error.is_nan() || error > probe.tolerance {
                return Err(format!(
                    "{resource}[{}] is {got}, not {want} (error {error:.1e})",
                    e.first.wrapping_add(i)
                ));
            }
            if !joined {
                touched[(e.first + i) / if e.half { 2 } else { 1 }] = true;
            }
        }
    }
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        if !touched[i] && before != after {
            return Err(format!(
                "{resource}[{i}] was written: {before:#x} became {after:#x}"
            ));
        }
    }
    Ok(())
}
