//! Every kernel in every variant on the adapter at hand, against plain f64 arithmetic: odd shapes,
//! fresh inputs, poisoned outputs, guard words around what may be written.
//!
//! `OMNIMINI_ADAPTER` chooses the adapter, `OMNIMINI_STRICT_WEBGPU=1` runs under the browser's
//! rules and default limits, `OMNIMINI_SEED` repeats a run, `OMNIMINI_KERNEL=NAME` runs one kernel,
//! `OMNIMINI_SHARE=N` one variant in N.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashSet;

use omnimini::caps::{Caps, DeviceKind, Precision};
use omnimini::gpu::{Buffers, Gpu, Pipelines, Program, compare, read};
use omnimini::kernel::catalog::catalog;
use omnimini::kernel::probe::{POISON, Probe, probe};
use omnimini::kernel::{Access, Dispatch, Resource};
use pollster::block_on;

mod common;

fn seed() -> u64 {
    let seed = std::env::var("OMNIMINI_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    })
}

/// Runs a probe; the error says what differs.
fn check(gpu: &Gpu, pipelines: &Pipelines, probe: &Probe) -> Result<(), String> {
    let mut buffers = Buffers::new();
    for (resource, words) in &probe.buffers {
        let buffer = gpu.buffer("probe", 4 * words.len() as u64);
        gpu.queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        buffers.insert(*resource, buffer);
    }
    let program = Program::new(
        gpu,
        pipelines,
        std::slice::from_ref(&probe.dispatch),
        &buffers,
    )
    .map_err(|e| e.to_string())?;
    let mut encoder = gpu
        .device
        .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    program.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    gpu.queue.submit([encoder.finish()]);
    gpu.check().map_err(|e| e.to_string())?;
    let written: HashSet<Resource> = probe
        .dispatch
        .bindings
        .iter()
        .filter(|(_, a)| *a == Access::Write)
        .map(|(r, _)| *r)
        .collect();
    for (resource, before) in &probe.buffers {
        if !written.contains(resource) {
            continue;
        }
        let after = block_on(read(gpu, &buffers[resource], 4 * before.len() as u64))
            .map_err(|e| e.to_string())?;
        compare(probe, *resource, before, &after, 1.0)?;
    }
    Ok(())
}

/// Every launch that this adapter can run: its own, those that a GPU of its abilities would get, with
/// and without subgroups, in every precision.
fn every(own: &Caps) -> Vec<Dispatch> {
    let gpu = Caps {
        kind: DeviceKind::Discrete,
        ..own.clone()
    };
    let plain = Caps {
        subgroups: None,
        ..gpu.clone()
    };
    let mut all = Vec::new();
    for caps in [own, &gpu, &plain] {
        for wanted in [Precision::F32, Precision::F16, Precision::Int8] {
            all.extend(catalog(&Caps {
                precision: wanted.resolve(caps.kind, caps.f16),
                ..caps.clone()
            }));
        }
    }
    all
}

/// What ends a driver rather than failing on it: words of the driver's name, of the kernel's, and a
/// module. None of these is what that driver would be given.
const CRASHES: &[(&[&str], &str, &str)] = &[
    // A null pointer in compiled code, seen with 26.1.6 and the block formats of several loads; it
    // looks like a descriptor that is taken from a lane without work.
    (&["llvmpipe", "Mesa 26."], "matvec", "lib/reduce_shared"),
];

fn crashes(gpu: &Gpu, d: &Dispatch) -> bool {
    let of = |file: &str| d.variant.modules.iter().any(|(_, f, _)| *f == file);
    let driver = |words: &[&str]| words.iter().all(|w| gpu.info.driver.contains(w));
    CRASHES
        .iter()
        .any(|(words, kernel, file)| driver(words) && d.kernel.name.starts_with(kernel) && of(file))
}

/// Every second variant, from number `first` on: a driver compiles them one by one, so that two tests
/// beside each other take half of the time.
fn agree(first: usize) {
    let gpu = common::gpu();
    let seed = seed();
    println!("on {} with OMNIMINI_SEED={seed}", gpu.info);
    let pipelines = Pipelines::default();
    let mut failures = Vec::new();
    let mut seen = HashSet::new();
    let only = std::env::var("OMNIMINI_KERNEL").ok();
    // Of so many variants one, another in each run, but all of those for matrix units.
    let share = std::env::var("OMNIMINI_SHARE").map_or(1, |s| s.parse().unwrap());
    let (mut checked, mut variants, mut skipped) = (0, 0, 0);
    for d in every(&gpu.caps) {
        if only.as_ref().is_some_and(|name| name != d.kernel.name) {
            continue;
        }
        if d.kernel.name.starts_with("sample_") || !seen.insert((d.kernel.name, d.variant.clone()))
        {
            continue;
        }
        // The first of them is number 1.
        let number = seen.len();
        let chosen = (number as u64 / 2).wrapping_add(seed).is_multiple_of(share);
        if number % 2 != first || !(chosen || d.kernel.name == "matmul_matrix") {
            continue;
        }
        variants += 1;
        if crashes(&gpu, &d) {
            skipped += 1;
            continue;
        }
        for round in 0..3 {
            let probe = probe(&d, seed.wrapping_add(round));
            checked += 1;
            if let Err(e) = check(&gpu, &pipelines, &probe) {
                failures.push(format!("{} ({}): {e}", d.kernel.name, d.variant));
                break;
            }
        }
    }
    println!("{checked} probes of {variants} variants, of which {skipped} would end this driver");
    assert!(checked > 0 || only.is_some(), "no variant was run");
    assert!(
        failures.is_empty(),
        "{} variants differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_ne!(POISON, 0);
}

#[test]
fn variants_of_odd_numbers_agree_with_the_reference() {
    agree(1);
}

#[test]
fn variants_of_even_numbers_agree_with_the_reference() {
    agree(0);
}
