//! Prompt and generation rates, as the field's tools report them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::engine::{LaunchTime, Sampling, Sequence, by_operation};
use crate::error::Result;
use crate::session::Model;

/// What is measured: a prompt of some tokens, or some tokens made after one.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens made.
    pub generate: usize,
}

/// One test's results; the names are those of llama.cpp's `llama-bench -o json`.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResult {
    /// Path of the model.
    pub model_filename: String,
    /// The model's own name.
    pub model_type: String,
    /// API of the adapter.
    pub backends: String,
    /// Name of the adapter.
    pub gpu_info: String,
    /// Its driver.
    pub driver: String,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens made.
    pub n_gen: usize,
    /// Tokens a second: mean, deviation, median, and each repetition.
    pub avg_ts: f64,
    /// See `avg_ts`.
    pub stddev_ts: f64,
    /// See `avg_ts`.
    pub median_ts: f64,
    /// See `avg_ts`.
    pub samples_ts: Vec<f64>,
}

/// Runs one test `repetitions` times, after one round that is not counted.
///
/// # Errors
/// Where the test does not fit the context, or the device fails.
pub fn run(model: &Model, file: &Path, test: Test, repetitions: usize) -> Result<BenchResult> {
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
        backends: info.backend.clone(),
        gpu_info: info.name.clone(),
        driver: info.driver.clone(),
        n_prompt: test.prompt,
        n_gen: test.generate,
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
    let prompt: Vec<u32> = (0..test.prompt.max(1)).map(token).collect();
    let mut sequence = Sequence::new(model.engine())?;
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

fn name(r: &BenchResult) -> String {
    if r.n_prompt > 0 {
        format!("pp{}", r.n_prompt)
    } else {
        format!("tg{}", r.n_gen)
    }
}

/// A Markdown table: mean ± deviation.
pub fn markdown(results: &[BenchResult]) -> String {
    let mut out = String::from(
        "| model | backend | adapter | test | t/s |\n| --- | --- | --- | --- | ---: |\n",
    );
    for r in results {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.2} ± {:.2} |",
            r.model_type,
            r.backends,
            r.gpu_info,
            name(r),
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
        "model_filename,model_type,backends,gpu_info,n_prompt,n_gen,avg_ts,stddev_ts,median_ts\n",
    );
    for r in results {
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{}",
            quoted(&r.model_filename),
            quoted(&r.model_type),
            quoted(&r.backends),
            quoted(&r.gpu_info),
            r.n_prompt,
            r.n_gen,
            r.avg_ts,
            r.stddev_ts,
            r.median_ts
        );
    }
    out
}

/// A Markdown table of where a step's time goes: what is computed, by which kernel, how often, for
/// how long, and how fast it reads its weights.
pub fn profile_markdown(title: &str, times: &[LaunchTime]) -> String {
    let total: f64 = times.iter().map(|t| t.nanoseconds).sum();
    let mut out = format!(
        "{title}: {} launches, {:.3} ms\n\n| operation | kernel | launches | ms | share | weights GB/s |\n\
         | --- | --- | ---: | ---: | ---: | ---: |\n",
        times.len(),
        total / 1e6
    );
    for (label, kernel, launches, bytes, ns) in by_operation(times) {
        let _ = writeln!(
            out,
            "| {label} | {kernel} | {launches} | {:.3} | {:.1}% | {:.2} |",
            ns / 1e6,
            100.0 * ns / total,
            bytes as f64 / ns
        );
    }
    out
}
