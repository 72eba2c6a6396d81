//! Plans that the adapter at hand computes rightly: planned, checked, and planned again without
//! what failed.

use crate::caps::{Caps, DeviceKind};
use crate::error::{Error, Result};
use crate::gpu::{Case, Checks, Gpu, Pipelines, Wrong};
use crate::kernel::sample::{self, ENDS, NONE, PARTS, RING, SamplerState};
use crate::kernel::{Dispatch, Resource};
use crate::plan::Plan;
use crate::quant::testing::Rng;

/// Plans by `make`, whose kernels all hold on this adapter, and the abilities that they rest on.
/// `meanwhile` runs while the device is at work on the first checks.
///
/// # Errors
/// [`Error::BrokenDriver`] where a kernel is wrong in every variant there is, and whatever `make`
/// and `meanwhile` say.
pub(super) async fn settle<T>(
    gpu: &Gpu,
    pipelines: &Pipelines,
    checks: &mut Checks,
    samples: bool,
    make: impl Fn(&Caps) -> Result<Vec<Plan>>,
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<(Vec<Plan>, Caps, T)> {
    let mut caps = gpu.caps.clone();
    let start = |checks: &mut Checks, plans: &[Plan], caps: &Caps| {
        let launches = plans.iter().flat_map(|p| &p.dispatches);
        let mut cases: Vec<Case> = distinct(launches).into_iter().map(Case::of).collect();
        if samples {
            cases.push(sampler_case(caps));
        }
        checks.start(gpu, pipelines, cases)
    };
    let mut plans = make(&caps)?;
    let mut pending = start(checks, &plans, &caps)?;
    let done = meanwhile()?;
    let mut turned = false;
    loop {
        let wrong = checks.finish(gpu, pending).await?;
        checks.save();
        if wrong.is_empty() {
            return Ok((plans, caps, done));
        }
        let before = caps.clone();
        for w in wrong {
            let without = step_down(&mut caps, &before, &w, &mut turned);
            let Some(without) = without else {
                return Err(Error::BrokenDriver {
                    adapter: gpu.info.name.clone(),
                    kernel: w.kernel,
                    reason: w.reason,
                });
            };
            log::warn!(
                "{}: kernel `{}` computes wrongly with {without}, which is not used then ({})",
                gpu.info.name,
                w.kernel,
                w.reason
            );
        }
        plans = make(&caps)?;
        pending = start(checks, &plans, &caps)?;
    }
}

/// One launch of each variant.
fn distinct<'a>(launches: impl Iterator<Item = &'a Dispatch>) -> Vec<&'a Dispatch> {
    let mut seen = std::collections::HashSet::new();
    launches
        .filter(|d| seen.insert((d.kernel.name, &d.variant)))
        .collect()
}

/// Switches off what a wrong kernel rests on, and says what that is. `before` is what it was
/// planned with; `turned` says whether the kind of device was taken for another already.
fn step_down(caps: &mut Caps, before: &Caps, w: &Wrong, turned: &mut bool) -> Option<&'static str> {
    if w.wgsl.contains("coop_mat") && before.coop_matrix.is_some() {
        caps.coop_matrix = None;
        return Some("cooperative matrices");
    }
    if w.wgsl.contains("u64") && before.int64 {
        caps.int64 = false;
        return Some("64-bit integers");
    }
    // Operations have a capital letter after the word; comments name subgroups, too.
    let operation = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase());
    if w.wgsl.split("subgroup").skip(1).any(operation) && before.subgroups.is_some() {
        caps.subgroups = None;
        return Some("subgroup operations");
    }
    if w.wgsl.contains("enable f16") && before.f16 {
        caps.f16 = false;
        return Some("half precision");
    }
    if caps.kind == before.kind {
        if *turned {
            return None;
        }
        *turned = true;
        caps.kind = match before.kind {
            DeviceKind::Cpu => DeviceKind::Other,
            _ => DeviceKind::Cpu,
        };
    }
    Some("the variant for this kind of device")
}

const VOCAB: usize = 701;
const ROWS: usize = 3;

/// A place of the second of two samplers, beside the first's.
fn second(resource: Resource) -> Resource {
    match resource {
        Resource::Slot(_) => Resource::Slot(1),
        Resource::Sampler => Resource::Slot(2),
        Resource::Partials => Resource::Slot(3),
        Resource::Candidates => Resource::Slot(4),
        Resource::History => Resource::Slot(5),
        Resource::Bias => Resource::Slot(6),
        Resource::Step => Resource::Slot(7),
        Resource::Out => Resource::Slot(8),
        other => other,
    }
}

/// What a sampler is given, and what it must make of it.
struct Draw {
    state: SamplerState,
    history: Vec<u32>,
    logits: Vec<f32>,
    bias: Vec<f32>,
    changed: Vec<f64>,
    id: usize,
}

/// The three sampling launches, once with a draw from what all the cuts leave and once greedy.
fn sampler_case(caps: &Caps) -> Case {
    let mut random = Rng::new(3);
    let draws = [0.8, 0.0].map(|temperature| draw(&mut random, temperature));
    let first = sample::sample(caps, Resource::Slot(0), VOCAB, ROWS);
    let mut dispatches = first.to_vec();
    for mut d in first {
        d.bindings.iter_mut().for_each(|(r, _)| *r = second(*r));
        dispatches.push(d);
    }
    // Rows 0 and 1 are live: row 1 was sampled.
    let step = [9, 4, 1, 1, 8, 5, 1, 1, 7, 6, 1, 0].to_vec();
    let mut buffers = Vec::new();
    let mut want: Vec<(Resource, Want)> = Vec::new();
    for (draw, place) in draws
        .into_iter()
        .zip([(|r| r) as fn(Resource) -> Resource, second])
    {
        let state: &[u32] = bytemuck::cast_slice(std::slice::from_ref(&draw.state));
        let made = draw.state.made as usize;
        let id = draw.id as u32;
        let words = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        buffers.extend([
            (place(Resource::Slot(0)), words(&draw.logits)),
            (place(Resource::Sampler), state.to_vec()),
            (place(Resource::Partials), vec![0; 4 * PARTS as usize]),
            (place(Resource::Candidates), vec![0; 2 * VOCAB]),
            (place(Resource::History), draw.history.clone()),
            (place(Resource::Bias), words(&draw.bias)),
            (place(Resource::Step), step.clone()),
            (place(Resource::Out), vec![NONE; RING as usize]),
        ]);
        let row = [id, 6, 1, 1].into_iter().enumerate().collect();
        let times = vec![(draw.id, draw.history[draw.id] + 1)];
        want.extend([
            (place(Resource::Slot(0)), Want::Floats(draw.changed)),
            (place(Resource::History), Want::Words(times)),
            (place(Resource::Step), Want::Words(row)),
            (
                place(Resource::Out),
                Want::Words(vec![(made % RING as usize, id)]),
            ),
        ]);
    }
    let verdict = move |resource: Resource, before: &[u32], after: &[u32]| {
        let wanted = want.iter().find(|(r, _)| *r == resource);
        wanted.map_or(Ok(()), |(r, want)| {
            want.held(before, after).map_err(|e| format!("{r}{e}"))
        })
    };
    Case {
        dispatches,
        buffers,
        verdict: Box::new(verdict),
    }
}

/// What must stand in a buffer.
enum Want {
    /// These values, everywhere.
    Floats(Vec<f64>),
    /// These words at these places, and elsewhere what was there.
    Words(Vec<(usize, u32)>),
}

impl Want {
    fn held(&self, before: &[u32], after: &[u32]) -> std::result::Result<(), String> {
        match self {
            Self::Floats(values) => {
                for (i, (want, got)) in values.iter().zip(after).enumerate() {
                    let got = f64::from(f32::from_bits(*got));
                    let error = (want - got).abs() / want.abs().max(1.0);
                    if error.is_nan() || error > 1e-4 {
                        return Err(format!("[{i}] is {got}, not {want}"));
                    }
                }
            }
            Self::Words(words) => {
                let mut want = before.to_vec();
                for (i, word) in words {
                    want[*i] = *word;
                }
                if let Some(i) = (0..want.len()).find(|i| after.get(*i) != Some(&want[*i])) {
                    return Err(format!("[{i}] is {:?}, not {}", after.get(i), want[i]));
                }
            }
        }
        Ok(())
    }
}

/// A problem whose answer is far from every boundary, so that rounding cannot change it.
fn draw(random: &mut Rng, temperature: f32) -> Draw {
    loop {
        let logits: Vec<f32> = (0..VOCAB).map(|_| 2.0 * random.normal()).collect();
        let bias: Vec<f32> = (0..VOCAB).map(|_| 0.3 * random.normal()).collect();
        let history: Vec<u32> = (0..VOCAB)
            .map(|_| match random.below(8) {
                0 => 1 << 31,
                1 => 1 + random.below(3) as u32,
                _ => 0,
            })
            .collect();
        let state = SamplerState {
            temperature,
            top_p: 0.9,
            min_p: 0.01,
            repetition: 1.2,
            presence: 0.4,
            frequency: 0.1,
            top_k: 40,
            seed: [random.below(1 << 30) as u32, 77],
            flags: 3,
            made: RING + 5,
            limit: RING + 50,
            ends: [NONE; ENDS],
            candidates: 0,
        };
        let changed: Vec<f64> = (0..VOCAB)
            .map(|i| penalised(&state, f64::from(logits[i]), history[i]) + f64::from(bias[i]))
            .collect();
        // Cuts a little wider and a little narrower must leave the same choice.
        let ids = [1.01, 1.0, 0.99].map(|width| choice(&state, &changed, width));
        if let [Some(id), Some(b), Some(c)] = ids
            && id == b
            && id == c
        {
            return Draw {
                state,
                history,
                logits,
                bias,
                changed,
                id,
            };
        }
    }
}

fn penalised(s: &SamplerState, logit: f64, seen: u32) -> f64 {
    if seen == 0 {
        return logit;
    }
    let repetition = f64::from(s.repetition);
    let logit = if logit > 0.0 {
        logit / repetition
    } else {
        logit * repetition
    };
    match seen & 0x7fff_ffff {
        0 => logit,
        times => logit - f64::from(s.presence) - f64::from(s.frequency) * f64::from(times),
    }
}

/// The token that `shaders/sample_pick.wgsl` must take, where no other comes near it; `width`
/// scales the cuts.
fn choice(s: &SamplerState, logits: &[f64], width: f64) -> Option<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let best = logits[order[0]];
    let clear = |ranked: &[(f64, usize)]| match ranked {
        [a, b, ..] => (a.0 - b.0 > 0.05).then_some(a.1),
        [a] => Some(a.1),
        [] => None,
    };
    if s.temperature <= 0.0 {
        let ranked: Vec<_> = order.iter().map(|i| (logits[*i], *i)).collect();
        return clear(&ranked);
    }
    let depth = |i: usize| (best - logits[i]) / f64::from(s.temperature);
    order.truncate(s.top_k as usize);
    let masses: Vec<f64> = order.iter().map(|i| (-depth(*i)).exp()).collect();
    let goal =
        masses.iter().sum::<f64>() * f64::from(s.top_p) * width.min(1.0 / f64::from(s.top_p));
    let mut sum = 0.0;
    let stays = masses.iter().take_while(|m| {
        let stays = sum < goal;
        sum += **m;
        stays
    });
    let stays = stays.count();
    order.truncate(stays);
    let deepest = -f64::from(s.min_p).ln() * width;
    let mut ranked: Vec<(f64, usize)> = order
        .into_iter()
        .filter(|i| depth(*i) <= deepest)
        .map(|i| (gumbel(s, i as u32) - depth(i), i))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    clear(&ranked)
}

fn mix(h: u32) -> u32 {
    let x = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn gumbel(s: &SamplerState, id: u32) -> f64 {
    let [low, high] = s.seed;
    let h = mix(id ^ mix(s.made ^ mix(low ^ mix(high ^ 0x9e37_79b9))));
    let u = (f64::from(h >> 9) + 0.5) / 8_388_608.0;
    -(-u.ln()).ln()
}
