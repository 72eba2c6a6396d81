//! Kernels held to their answers on the adapter at hand, before a model runs on them.
//!
//! A driver that miscompiles one kernel is not rare. Every variant that a plan wants is run once on
//! a small problem whose answer is known; results are kept for the adapter and driver at hand, by
//! the text of the kernel, so that the next run checks nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::pipelines::text;
use super::{Buffers, Fnv, Gpu, Kept, Pipelines, Program, Readback};
use crate::error::Result;
use crate::kernel::probe::{Kind, Probe, SOURCES, probe};
use crate::kernel::{Access, Dispatch, Resource};

/// A driver's arithmetic may be this much worse than the one the probes' limits come from: units in
/// the last place of `exp` and `tanh`, and the order of sums. What is wrong is wrong by far more.
const SLACK: f64 = 10.0;
/// Any seed does; one that never changes makes a check the same everywhere.
const SEED: u64 = 0x6f6d_6e69;

/// Joins the parts of a token's split attention: `[T, H, SPLITS, HD + 4]` to `[H, HD]`.
fn join(parts: &[u32], token: usize, want: usize, probe: &Probe) -> Option<Vec<f64>> {
    let constant = |name| Some(probe.dispatch.constant(name)? as usize);
    let (heads, splits) = (constant("H")?, constant("SPLITS")?);
    let hd = want / heads;
    let mut out = Vec::with_capacity(want);
    for h in token * heads..(token + 1) * heads {
        let at = |s: usize, e: usize| Kind::Float.read(parts, (h * splits + s) * (hd + 4) + e);
        let mut used = Vec::new();
        for s in 0..splits {
            if at(s, hd + 1)? > 0.0 {
                used.push((s, at(s, hd)?, at(s, hd + 1)?));
            }
        }
        let top = used.iter().map(|u| u.1).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = used.iter().map(|u| (u.1 - top).exp() * u.2).sum();
        for e in 0..hd {
            let mut sum = 0.0;
            for (s, m, _) in &used {
                sum += (m - top).exp() * at(*s, e)?;
            }
            out.push(sum / total);
        }
    }
    Some(out)
}

/// Holds one buffer to what a probe expects of it within `slack` times the probe's tolerance, and
/// to what it was elsewhere.
///
/// # Errors
/// What differs, in words.
pub fn compare(
    probe: &Probe,
    resource: Resource,
    before: &[u32],
    after: &[u32],
    slack: f64,
) -> std::result::Result<(), String> {
    // Whole weights have limits of their own: a code is right, or a step away.
    if let Some(rows) = probe.rows.as_ref().filter(|r| r.resource == resource) {
        return rows.held(before, after);
    }
    let mut touched = vec![false; before.len()];
    for e in probe.expect.iter().filter(|e| e.resource == resource) {
        let joined = e.parts_of.is_some();
        let (first, n) = (e.first, e.values.len());
        let got: Option<Vec<f64>> = if let Some(token) = e.parts_of {
            touched.fill(true);
            join(after, token, n, probe)
        } else {
            (0..n).map(|i| e.kind.read(after, first + i)).collect()
        };
        let got = got.ok_or_else(|| format!("{resource} is too short"))?;
        let largest = e.values.iter().fold(e.floor, |m, v| m.max(v.abs()));
        for (i, (want, got)) in e.values.iter().zip(&got).enumerate() {
            let error = (want - got).abs() / largest;
            if error.is_nan() || error > slack * probe.tolerance {
                return Err(format!(
                    "{resource}[{}] is {got}, not {want} (error {error:.1e})",
                    first.wrapping_add(i)
                ));
            }
            if !joined {
                for place in e.kind.places(first + i) {
                    touched[place] = true;
                }
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

/// Says what differs between a buffer's words as they should be and as they are.
type Verdict = Box<dyn Fn(Resource, &[u32], &[u32]) -> std::result::Result<(), String> + Send>;

/// A small problem on the device: launches that belong together, what they bind, and the answer.
pub(crate) struct Case {
    /// Launched in this order.
    pub(crate) dispatches: Vec<Dispatch>,
    /// Contents of every buffer, as words.
    pub(crate) buffers: Vec<(Resource, Vec<u32>)>,
    /// Gets each buffer that may be written: before, after.
    pub(crate) verdict: Verdict,
}

impl Case {
    /// The problem of one launch.
    pub(crate) fn of(dispatch: &Dispatch) -> Self {
        let probe = probe(dispatch, SEED);
        Self {
            dispatches: vec![probe.dispatch.clone()],
            buffers: probe.buffers.clone(),
            verdict: Box::new(move |r, before, after| compare(&probe, r, before, after, SLACK)),
        }
    }

    fn writes(&self, resource: Resource) -> bool {
        let mut bindings = self.dispatches.iter().flat_map(|d| &d.bindings);
        bindings.any(|b| *b == (resource, Access::Write))
    }

    /// Its buffers on the device, and everything bound.
    fn bind(&self, gpu: &Gpu, pipelines: &Pipelines) -> Result<(Program, Buffers)> {
        let mut buffers = Buffers::new();
        for (resource, words) in &self.buffers {
            let buffer = gpu.buffer("omnimini.check", 4 * words.len() as u64);
            gpu.queue
                .write_buffer(&buffer, 0, bytemuck::cast_slice(words));
            buffers.insert(*resource, buffer);
        }
        let program = Program::new(gpu, pipelines, &self.dispatches, &buffers)?;
        Ok((program, buffers))
    }
}

/// A kernel that computes wrongly on this adapter.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    /// Its name.
    pub(crate) kernel: &'static str,
    /// Its text.
    pub(crate) wgsl: String,
    /// What differs.
    pub(crate) reason: String,
}

/// What is known of the kernels on one adapter.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    file: Option<Kept>,
    /// Variants by the hash of their text and of what they were asked: right ones, and wrong ones with what differs.
    known: Known,
    changed: bool,
    /// Variants run in this process.
    pub(crate) ran: usize,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Known {
    right: BTreeSet<u64>,
    wrong: BTreeMap<u64, String>,
}

impl Known {
    fn read(file: &Kept) -> Option<Self> {
        serde_json::from_slice(&file.read()?).ok()
    }
}

/// A variant under check.
struct Running {
    case: Case,
    key: u64,
    wrong: Wrong,
}

/// Checks that the device is at work on.
pub(crate) struct Pending {
    running: Vec<Running>,
    wrong: Vec<Wrong>,
    readback: Option<Readback>,
}

impl Checks {
    /// What earlier runs found on this adapter.
    pub(crate) fn open(gpu: &Gpu) -> Self {
        let file = gpu.kept("checks");
        Self {
            known: file.as_ref().and_then(Known::read).unwrap_or_default(),
            file,
            changed: false,
            ran: 0,
        }
    }

    /// Keeps what was found for the next run.
    pub(crate) fn save(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.changed) else {
            return;
        };
        // Another process may have found something meanwhile.
        if let Some(other) = Known::read(file) {
            self.known.right.extend(other.right);
            self.known.wrong.extend(other.wrong);
        }
        if let Ok(bytes) = serde_json::to_vec(&self.known) {
            file.write(&bytes);
            self.changed = false;
        }
    }

    /// Puts the device to work on every variant of `cases` that is not known yet; each case comes
    /// with the launch of the plan that it stands for.
    ///
    /// # Errors
    /// Where a kernel does not compose or the device fails.
    pub(crate) fn start(
        &mut self,
        gpu: &Gpu,
        pipelines: &Pipelines,
        cases: Vec<Case>,
    ) -> Result<Pending> {
        let asked = SOURCES
            .iter()
            .fold(Fnv::new(), |hash, text| hash.with(text.as_bytes()));
        let mut pending = Pending {
            running: Vec::new(),
            wrong: Vec::new(),
            readback: None,
        };
        let mut seen = HashSet::new();
        for case in cases {
            let mut wgsl = String::new();
            for d in &case.dispatches {
                wgsl += &text(gpu, d.kernel, &d.variant)?;
            }
            let kernel = case.dispatches.first().map_or("", |d| d.kernel.name);
            let key = asked.with(wgsl.as_bytes()).get();
            if !seen.insert(key) || self.known.right.contains(&key) {
                continue;
            }
            let reason = self.known.wrong.get(&key).cloned();
            let wrong = Wrong {
                kernel,
                wgsl,
                reason: reason.clone().unwrap_or_default(),
            };
            if reason.is_some() {
                pending.wrong.push(wrong);
            } else {
                pending.running.push(Running { case, key, wrong });
            }
        }
        self.ran += pending.running.len();
        if pending.running.is_empty() {
            return Ok(pending);
        }
        log::debug!("checking {} kernels on {}", pending.running.len(), gpu.info);
        let all = pending.running.iter().flat_map(|r| &r.case.dispatches);
        let made = pipelines.prepare(gpu, all);
        if made.and_then(|()| gpu.check()).is_err() {
            self.compile_one_by_one(gpu, &mut pending)?;
        }
        // Everything in one submission, and every written buffer in one readback.
        let mut bound = Vec::new();
        for running in &pending.running {
            bound.push(running.case.bind(gpu, pipelines)?);
        }
        let mut encoder = gpu.encoder();
        for (program, _) in &bound {
            program
                .encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        }
        let written = |running: &Running| -> u64 {
            let buffers = running.case.buffers.iter();
            let written = buffers.filter(|(r, _)| running.case.writes(*r));
            written.map(|(_, words)| 4 * words.len() as u64).sum()
        };
        let total = pending.running.iter().map(written).sum::<u64>();
        let mut readback = Readback::new(gpu, total.max(4));
        let mut at = 0;
        for (running, (_, buffers)) in pending.running.iter().zip(&bound) {
            for (resource, words) in &running.case.buffers {
                if running.case.writes(*resource) {
                    let (from, bytes) = (&buffers[resource], 4 * words.len() as u64);
                    encoder.copy_buffer_to_buffer(from, 0, readback.staging(), at, bytes);
                    at += bytes;
                }
            }
        }
        readback.start(gpu.submit(encoder));
        pending.readback = Some(readback);
        Ok(pending)
    }

    /// Finds the kernels that the driver refuses to compile: those are wrong ones, too.
    fn compile_one_by_one(&mut self, gpu: &Gpu, pending: &mut Pending) -> Result<()> {
        let mut good = Vec::new();
        for mut running in pending.running.drain(..) {
            let alone = Pipelines::default();
            let made = alone.prepare(gpu, running.case.dispatches.iter());
            match made.and_then(|()| gpu.check()) {
                Ok(()) => good.push(running),
                Err(e @ crate::Error::DeviceLost { .. }) => return Err(e),
                Err(e) => {
                    running.wrong.reason = e.to_string();
                    self.note(running.key, Some(&running.wrong.reason));
                    pending.wrong.push(running.wrong);
                }
            }
        }
        pending.running = good;
        Ok(())
    }

    fn note(&mut self, key: u64, wrong: Option<&str>) {
        self.changed = true;
        match wrong {
            None => drop(self.known.right.insert(key)),
            Some(reason) => drop(self.known.wrong.insert(key, reason.into())),
        }
    }

    /// Waits for the device and gives the kernels that compute wrongly.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) async fn finish(&mut self, gpu: &Gpu, pending: Pending) -> Result<Vec<Wrong>> {
        let Pending {
            running,
            mut wrong,
            readback,
        } = pending;
        let Some(mut readback) = readback else {
            return Ok(wrong);
        };
        let mut words = Vec::new();
        readback.finish(gpu, &mut words).await?;
        let mut rest = &words[..];
        for mut r in running {
            let mut verdict = Ok(());
            for (resource, before) in &r.case.buffers {
                if r.case.writes(*resource) {
                    let (after, others) = rest.split_at(before.len().min(rest.len()));
                    rest = others;
                    verdict = verdict.and_then(|()| (r.case.verdict)(*resource, before, after));
                }
            }
            self.note(r.key, verdict.as_ref().err().map(String::as_str));
            if let Err(reason) = verdict {
                r.wrong.reason = reason;
                wrong.push(r.wrong);
            }
        }
        Ok(wrong)
    }
}
