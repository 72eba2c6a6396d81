//! Sampling on the device: penalties, cuts and the draw, in three launches.

use super::{Access, Dispatch, Kernel, Resource, kernel, u};
use crate::caps::{Caps, DeviceKind};
use crate::shader::Const;

/// Penalties and partial maxima.
pub const SCAN: Kernel = kernel!("sample_scan", ["vocab"]);
/// Collects candidates.
pub const GATHER: Kernel = kernel!("sample_gather", ["vocab"]);
/// Cuts and draws.
pub const PICK: Kernel = kernel!("sample_pick", ["rows"]);

/// Parts the vocabulary is scanned in.
pub const PARTS: u32 = 64;
/// Tokens that the ring of results holds.
pub const RING: u32 = 256;
/// End tokens a sampler can know.
pub const ENDS: usize = 8;
/// An unused entry of a token list.
pub const NONE: u32 = u32::MAX;

/// The sampler's state as the shaders see it (`lib/sampler.wgsl`).
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SamplerState {
    /// 0 takes the best token.
    pub temperature: f32,
    /// Smallest set of tokens with this share stays; 1 for all.
    pub top_p: f32,
    /// Tokens below this share of the best's probability go; 0 for none.
    pub min_p: f32,
    /// Factor against tokens seen; 1 for none.
    pub repetition: f32,
    /// Taken once from tokens made before.
    pub presence: f32,
    /// Taken from tokens made before for each time.
    pub frequency: f32,
    /// Tokens that stay; 0 for all.
    pub top_k: u32,
    /// Seed.
    pub seed: [u32; 2],
    /// 1: penalties, 2: bias.
    pub flags: u32,
    /// Tokens made.
    pub made: u32,
    /// Tokens that may be made.
    pub limit: u32,
    /// Tokens that end.
    pub ends: [u32; ENDS],
    /// Scratch.
    pub candidates: u32,
}

/// The three launches that sample from `logits` `[vocab]` and write the next step's row 0.
///
/// `rows` are the rows of the step whose last live one was sampled.
pub fn sample(caps: &Caps, logits: Resource, vocab: usize, rows: usize) -> [Dispatch; 3] {
    let wg = if caps.kind == DeviceKind::Cpu {
        32
    } else {
        128
    };
    let module = |d: &mut Dispatch| {
        let state = d.bind(Resource::Sampler, Access::Write);
        let partials = d.bind(Resource::Partials, Access::Write);
        let consts = vec![
            ("STATE", state),
            ("PARTIALS", partials),
            ("PARTS", Const::U(PARTS)),
        ];
        d.module("sampler", "lib/sampler", consts);
        d.set("WG", Const::U(wg));
    };
    let mut scan = Dispatch::new(&SCAN, "sample.scan");
    scan.bind(logits, Access::Write);
    scan.bind(Resource::History, Access::Read);
    scan.bind(Resource::Bias, Access::Read);
    module(&mut scan);
    scan.params = vec![u(vocab)];
    scan.grid = [PARTS, 1, 1];

    let mut gather = Dispatch::new(&GATHER, "sample.gather");
    gather.bind(logits, Access::Read);
    gather.bind(Resource::Candidates, Access::Write);
    module(&mut gather);
    gather.params = vec![u(vocab)];
    gather.grid = [PARTS, 1, 1];

    let mut pick = Dispatch::new(&PICK, "sample.pick");
    pick.bind(Resource::Candidates, Access::Read);
    pick.bind(Resource::Step, Access::Write);
    pick.bind(Resource::Out, Access::Write);
    pick.bind(Resource::History, Access::Write);
    module(&mut pick);
    pick.set("RING", Const::U(RING));
    pick.params = vec![u(rows)];
    [scan, gather, pick]
}
