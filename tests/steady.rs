//! What a token costs the host in steady decoding: submissions, waits, launches, allocations.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use omnimini::engine::{Engine, Generation, LoadOptions, Sampling, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::Counts;
use pollster::block_on;

mod common;
use common::tiny::{GEMMA, LLAMA, Tiny};

/// Whose code asks for memory, found on the stack of each allocation of this thread.
struct Watching;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static STACKS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn watch() {
    if ON.try_with(Cell::get).unwrap_or(false) {
        ON.set(false);
        STACKS.with_borrow_mut(|all| all.push(Backtrace::force_capture().to_string()));
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
/// nor this file's. A line `12: name` is a frame, and where it is known, a line `at file:1:2` follows.
fn owner(stack: &str) -> String {
    let mut lines = stack.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, name)) = line.split_once(": ") else {
            continue;
        };
        if number.parse::<usize>().is_err() {
            continue;
        }
        let file = lines
            .next_if(|l| l.starts_with("at "))
            .map_or("", |at| &at[3..]);
        let of = |krate: &str| {
            file.contains(&format!("/{krate}-"))
                || name.starts_with(krate)
                || name.contains(&format!("<{krate}"))
        };
        let theirs = ["wgpu", "naga", "ash", "gpu_allocator", "gpu-allocator"];
        if file.starts_with("./src/") || name.starts_with("omnimini::") {
            return format!("omnimini {name}");
        } else if theirs.into_iter().any(of) {
            return format!("wgpu {name}");
        }
    }
    "nobody".into()
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
    // Symbols are read once.
    let _ = Backtrace::force_capture().to_string();
    let before = engine.gpu().counts();
    ON.set(true);
    take(&mut generation, 120);
    ON.set(false);
    let c = since(&engine, before);
    assert!(c.submissions >= 3, "{c:?}");
    let stacks = STACKS.take();
    let mut owners: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for stack in &stacks {
        *owners.entry(owner(stack)).or_default() += 1;
    }
    println!("{} allocations in {c:?}:", stacks.len());
    for (owner, n) in &owners {
        println!("{n:6} {owner}");
    }
    let ours: Vec<_> = stacks
        .iter()
        .filter(|s| !owner(s).starts_with("wgpu "))
        .collect();
    assert!(
        ours.is_empty(),
        "{} allocations of our own, the first:\n{}",
        ours.len(),
        ours[0]
    );
    assert!(
        !stacks.is_empty(),
        "wgpu allocates when it encodes and submits; none was seen"
    );
}
