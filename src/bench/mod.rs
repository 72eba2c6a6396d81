//! Prompt and generation rates, as the field's tools report them.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::caps::DeviceKind;
use crate::engine::{LaunchTime, Sampling, Sequence, by_operation};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::gpu::Gpu;
use crate::session::Model;

/// What is measured: a prompt of some tokens, or some tokens made, after others in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens made.
    pub generate: usize,
    /// Tokens in the cache before, which were not computed.
    pub depth: usize,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prompt > 0 {
            write!(f, "pp{}", self.prompt)?;
        } else {
            write!(f, "tg{}", self.generate)?;
        }
        if self.depth > 0 {
            write!(f, " @ d{}", self.depth)?;
        }
        Ok(())
    }
}

/// One test's results; the names are those of llama.cpp's `llama-bench -o json`.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResult {
    /// Path of the model.
    pub model_filename: String,
    /// The model's own name.
    pub model_type: String,
    /// Bytes of its tensors.
    pub model_size: u64,
    /// API of the adapter.
    pub backends: String,
    /// Name of the adapter.
    pub gpu_info: String,
    /// Its driver.
    pub driver: String,
    /// See [`copy_bandwidth`].
    pub copy_gb_s: f64,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens made.
    pub n_gen: usize,
    /// Tokens in the cache before.
    pub n_depth: usize,
    /// Tokens a second: mean, deviation, median, and each repetition.
    pub avg_ts: f64,
    /// See `avg_ts`.
    pub stddev_ts: f64,
    /// See `avg_ts`.
    pub median_ts: f64,
    /// See `avg_ts`.
    pub samples_ts: Vec<f64>,
}

impl BenchResult {
    fn test(&self) -> Test {
        Test {
            prompt: self.n_prompt,
            generate: self.n_gen,
            depth: self.n_depth,
        }
    }
}

/// How fast an adapter copies a large buffer: gigabytes (10^9 bytes) read and written in a second,
/// the best of some rounds. No kernel can read weights faster than memory allows, so this is what
/// rates are to be compared with.
///
/// # Errors
/// Where the device has no memory for two such buffers, or fails.
pub fn copy_bandwidth(gpu: &Gpu) -> Result<f64> {
    // Beyond every cache, and within the limits of a browser.
    let bytes = (256 << 20).min(gpu.caps.max_buffer) / 16 * 16;
    // A real GPU copies that in less time than a submission takes.
    let copies = if gpu.caps.kind == DeviceKind::Cpu {
        1
    } else {
        16
    };
    let [from, to] = ["copied from", "copied to"].map(|label| gpu.buffer(label, bytes));
    let start = Instant::now();
    let mut best = 0f64;
    // The first round clears the buffers, and is not the best.
    for round in 0.. {
        let mut encoder = gpu.encoder();
        for _ in 0..copies {
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
        }
        let began = Instant::now();
        gpu.wait(Some(&gpu.submit(encoder)))?;
        best = best.max((2 * copies * bytes) as f64 / began.elapsed().as_secs_f64());
        if round >= 3 && start.elapsed() > Duration::from_millis(500) {
            break;
        }
    }
    Ok(best / 1e9)
}

/// Runs one test `repetitions` times, after one round that is not counted.
///
/// # Errors
/// Where the test does not fit the context, or the device fails.
pub fn run(
    model: &Model,
    file: &Path,
    test: Test,
    repetitions: usize,
    copy_gb_s: f64,
) -> Result<BenchResult> {
    let mut samples = Vec::new();
    for round in 0..=repetitions.max(1) {
        let rate = once(model, test, round as u32)?;
        if round > 0 {
            samples.push(rate);
        }
    }
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let variance = samples.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let mut sorted = samples.clone();
    sorted.sort_by(f64::total_cmp);
    let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    let info = &model.engine().gpu().info;
    Ok(BenchResult {
        model_filename: file.display().to_string(),
        model_type: model.engine().model().config.name.clone(),
        model_size: Checkpoint::open(file)?
            .tensors()
            .iter()
            .map(|t| t.bytes)
            .sum(),
        backends: info.backend.clone(),
        gpu_info: info.name.clone(),
        driver: info.driver.clone(),
        copy_gb_s,
        n_prompt: test.prompt,
        n_gen: test.generate,
        n_depth: test.depth,
        avg_ts: mean,
        stddev_ts: variance.sqrt(),
        median_ts: median,
        samples_ts: samples,
    })
}

/// Tokens a second of one round, on tokens that no other round had.
fn once(model: &Model, test: Test, round: u32) -> Result<f64> {
    let vocab = model.engine().model().config.vocab as u32;
    let token = |i: usize| (i as u32 * 7919 + round * 104_729) % vocab;
    let prompt: Vec<u32> = (0..test.depth + test.prompt.max(1)).map(token).collect();
    let mut sequence = Sequence::new(model.engine())?;
    sequence.fill(&prompt[..test.depth])?;
    let sampling = Sampling {
        max_tokens: test.generate.max(1),
        ignore_end: true,
        ..Sampling::default()
    };
    let start = Instant::now();
    let mut generation = sequence.generate(&prompt, &sampling, &[], None)?;
    while generation.next()?.is_some() {}
    let seconds = start.elapsed().as_secs_f64();
    Ok(test.prompt.max(test.generate) as f64 / seconds)
}

/// A Markdown table: mean ± deviation.
pub fn markdown(results: &[BenchResult]) -> String {
    let mut out = String::from(
        "| model | size | backend | adapter | copy | test | t/s |\n\
         | --- | ---: | --- | --- | ---: | --- | ---: |\n",
    );
    for r in results {
        let _ = writeln!(
            out,
            "| {} | {:.1} MB | {} | {} | {:.1} GB/s | {} | {:.2} ± {:.2} |",
            r.model_type,
            r.model_size as f64 / 1e6,
            r.backends,
            r.gpu_info,
            r.copy_gb_s,
            r.test(),
            r.avg_ts,
            r.stddev_ts
        );
    }
    out
}

/// Comma-separated values with a header.
pub fn csv(results: &[BenchResult]) -> String {
    let quoted = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
    let mut out = String::from(
        "model_filename,model_type,model_size,backends,gpu_info,driver,copy_gb_s,n_prompt,n_gen,\
         n_depth,avg_ts,stddev_ts,median_ts\n",
    );
    for r in results {
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{}",
            quoted(&r.model_filename),
            quoted(&r.model_type),
            r.model_size,
            quoted(&r.backends),
            quoted(&r.gpu_info),
            quoted(&r.driver),
            r.copy_gb_s,
            r.n_prompt,
            r.n_gen,
            r.n_depth,
            r.avg_ts,
            r.stddev_ts,
            r.median_ts
        );
    }
    out
}

/// What one kind of operation takes in all layers of a step.
#[derive(Clone, Debug, Serialize)]
pub struct OperationTime {
    /// Which step.
    pub step: String,
    /// What is computed.
    pub operation: String,
    /// By which kernel.
    pub kernel: &'static str,
    /// Launches in the step.
    pub launches: usize,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Nanoseconds of all launches.
    pub nanoseconds: f64,
}

/// Where the time of `step` goes, in order of first appearance.
pub fn operations(step: &str, times: &[LaunchTime]) -> Vec<OperationTime> {
    let sums = by_operation(times).into_iter();
    sums.map(
        |(operation, kernel, launches, weight_bytes, nanoseconds)| OperationTime {
            step: step.into(),
            operation,
            kernel,
            launches,
            weight_bytes,
            nanoseconds,
        },
    )
    .collect()
}

/// A Markdown table for each step: what is computed, by which kernel, how often, for how long, and
/// how fast it reads its weights.
pub fn profile_markdown(times: &[OperationTime]) -> String {
    let mut out = String::new();
    for step in times.chunk_by(|a, b| a.step == b.step) {
        let total: f64 = step.iter().map(|t| t.nanoseconds).sum();
        let launches: usize = step.iter().map(|t| t.launches).sum();
        let _ = writeln!(
            out,
            "{}: {launches} launches, {:.3} ms\n\n\
             | operation | kernel | launches | ms | share | weights GB/s |\n\
             | --- | --- | ---: | ---: | ---: | ---: |",
            step[0].step,
            total / 1e6
        );
        for t in step {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.3} | {:.1}% | {:.2} |",
                t.operation,
                t.kernel,
                t.launches,
                t.nanoseconds / 1e6,
                100.0 * t.nanoseconds / total,
                t.weight_bytes as f64 / t.nanoseconds
            );
        }
        out.push('\n');
    }
    out
}
