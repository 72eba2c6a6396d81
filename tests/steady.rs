//! What a token costs the host in steady decoding: submissions, waits, launches, allocations.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use omnimini::engine::{Engine, Generation, LoadOptions, Sampling, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::Counts;
use pollster::block_on;

mod common;
use common::tiny::{GEMMA, LLAMA, Tiny};

/// Whose code asks for memory, found on the stack of each allocation of this thread.
struct Watching;

/// Return addresses of an allocation, the innermost first. What is deeper is nobody's that counts.
type Stack = [usize; 48];

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static STACKS: RefCell<BTreeMap<Stack, usize>> = const { RefCell::new(BTreeMap::new()) };
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Notes the addresses alone: to name them takes milliseconds a stack, and most stacks are alike.
fn watch() {
    if ON.try_with(Cell::get).unwrap_or(false) {
        ON.set(false);
        let mut stack: Stack = [0; 48];
        let mut depth = 0;
        backtrace::trace(|frame| {
            stack[depth] = frame.ip() as usize;
            depth += 1;
            depth < stack.len()
        });
        STACKS.with_borrow_mut(|all| *all.entry(stack).or_default() += 1);
        ON.set(true);
    }
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged; what `watch` allocates itself is not
// watched.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        watch();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Whose code an allocation is: that of the innermost frame which is neither the standard library's
/// nor this file's.
fn owner(stack: &Stack) -> String {
    let theirs = ["wgpu", "naga", "ash", "gpu_allocator", "gpu-allocator"];
    let mut found = None;
    for ip in stack.iter().take_while(|ip| **ip != 0) {
        backtrace::resolve(*ip as *mut std::ffi::c_void, |symbol| {
            let name = symbol.name().map(|n| n.to_string()).unwrap_or_default();
            let file = symbol.filename().map(|f| f.display().to_string());
            let file = file.unwrap_or_default();
            let of = |krate: &str| {
                file.contains(&format!("/{krate}-"))
                    || name.starts_with(krate)
                    || name.contains(&format!("<{krate}"))
            };
            let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
            if found.is_some() {
            } else if file.starts_with(ours) || name.starts_with("omnimini::") {
                found = Some(format!("omnimini {name}"));
            } else if theirs.into_iter().any(of) {
                found = Some(format!("wgpu {name}"));
            }
        });
        if found.is_some() {
            break;
        }
    }
    found.unwrap_or_else(|| "nobody".into())
}

fn load(tiny: &Tiny) -> Arc<Engine> {
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(1)).unwrap();
    let options = LoadOptions {
        device: common::options(),
        context: Some(1024),
        ..LoadOptions::default()
    };
    block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap()
}

const SAMPLING: Sampling = Sampling {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    logit_bias: Vec::new(),
    seed: 0,
    max_tokens: 600,
    ignore_end: true,
};

fn take(generation: &mut Generation<'_>, tokens: usize) {
    for _ in 0..tokens {
        generation.next().unwrap().unwrap();
    }
}

fn since(engine: &Engine, before: Counts) -> Counts {
    let now = engine.gpu().counts();
    Counts {
        submissions: now.submissions - before.submissions,
        waits: now.waits - before.waits,
        launches: now.launches - before.launches,
    }
}

#[test]
fn the_host_does_little_for_a_token() {
    for tiny in [&LLAMA, &GEMMA] {
        let engine = load(tiny);
        let mut sequence = Sequence::new(&engine).unwrap();
        let mut generation = sequence.generate(&[7; 20], &SAMPLING, &[], None).unwrap();
        // The driver compiles and the pace is found.
        take(&mut generation, 100);
        let before = engine.gpu().counts();
        let clock = std::time::Instant::now();
        take(&mut generation, 400);
        let each = clock.elapsed().as_secs_f64() / 400.0;
        let c = since(&engine, before);
        println!("{}: 400 tokens by {c:?}", tiny.arch);
        // What is submitted runs ahead by two submissions at most.
        let launches = engine.plans()[0].dispatches.len() + 3;
        let steps = c.launches as usize / launches;
        assert_eq!(c.launches as usize % launches, 0, "whole steps");
        assert!((400 - 64..=400 + 64).contains(&steps), "{steps} steps");
        // One wait a submission, for the one before it; never one a step.
        assert!(c.waits <= c.submissions + 2, "{c:?}");
        // As many steps in a submission as run in 40 ms, give or take what else the machine does.
        let fit = (0.04 / each).clamp(1.0, 32.0);
        let got = 400.0 / c.submissions as f64;
        println!("  {got:.1} steps in a submission, where {fit:.1} fit");
        assert!(
            got > fit / 3.0,
            "{got:.1} steps in a submission, where {fit:.1} fit"
        );
    }
}

#[test]
fn a_layer_takes_six_launches_at_most() {
    for tiny in [&LLAMA, &GEMMA] {
        let engine = load(tiny);
        let plan = &engine.plans()[0];
        for layer in 0..tiny.layers {
            let of = |l: &str| l.starts_with(&format!("blk.{layer}."));
            let n = plan.dispatches.iter().filter(|d| of(&d.label)).count();
            assert!((1..=6).contains(&n), "{} layer {layer}: {n}", tiny.arch);
        }
        // What is launched is the plan: a prompt of one token is one chunk and one draw.
        let before = engine.gpu().counts();
        let mut sequence = Sequence::new(&engine).unwrap();
        let one = Sampling {
            max_tokens: 1,
            ..SAMPLING
        };
        let mut generation = sequence.generate(&[7], &one, &[], None).unwrap();
        take(&mut generation, 1);
        let prompt = engine.plans()[1].dispatches.len() + 3;
        assert_eq!(since(&engine, before).launches as usize, prompt);
    }
}

#[test]
fn the_loop_allocates_nothing_of_its_own() {
    let engine = load(&LLAMA);
    let mut sequence = Sequence::new(&engine).unwrap();
    let mut generation = sequence.generate(&[7; 20], &SAMPLING, &[], None).unwrap();
    take(&mut generation, 100);
    // The unwinder's own tables are read once.
    backtrace::trace(|_| true);
    let before = engine.gpu().counts();
    ON.set(true);
    take(&mut generation, 120);
    ON.set(false);
    let c = since(&engine, before);
    assert!(c.submissions >= 3, "{c:?}");
    let stacks = STACKS.take();
    let all: usize = stacks.values().sum();
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (stack, times) in &stacks {
        *owners.entry(owner(stack)).or_default() += times;
    }
    println!("{all} allocations in {c:?}:");
    for (owner, n) in &owners {
        println!("{n:6} {owner}");
    }
    let ours: Vec<_> = owners.keys().filter(|o| !o.starts_with("wgpu ")).collect();
    assert!(ours.is_empty(), "allocations that are not wgpu's: {ours:?}");
    assert!(
        all > 0,
        "wgpu allocates when it encodes and submits; none was seen"
    );
}
