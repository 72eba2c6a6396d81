//! What a model takes and what of it fits: the table of `omnimini inspect`, and `--fit`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::caps::Caps;
use crate::engine::{self, LoadOptions, Memory};
use crate::error::size;
use crate::format::Checkpoint;
use crate::gpu::{self, AdapterInfo, Gpu};
use crate::model::Description;

use super::tell;

/// Contexts of the table; beyond them, the model's own.
const CONTEXTS: [usize; 4] = [4096, 8192, 32_768, 131_072];

/// One way to load a model at one context.
#[derive(Debug, Serialize)]
pub(super) struct Estimate {
    /// `null` for the weights as they are.
    quant: Option<String>,
    kv: String,
    context: usize,
    #[serde(flatten)]
    memory: Memory,
    total: u64,
    /// `null` where nobody says how much memory there is.
    fits: Option<bool>,
}

/// What a model takes, on the adapter that would run it or on any.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    adapter: Option<String>,
    /// What may be taken of its memory.
    available: Option<u64>,
    estimates: Vec<Estimate>,
}

/// Estimates what `options` come to at several contexts, or at theirs; with `all`, in every quality
/// there is.
pub(super) fn report(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    all: bool,
) -> anyhow::Result<Report> {
    // An estimate needs no device: where there is none, what any would do is said.
    let (adapter, caps) = match pollster::block_on(gpu::look(&options.device)) {
        Ok((info, caps)) => (Some(info), caps),
        Err(e) if options.device.adapter.is_some() => return Err(e.into()),
        Err(_) => (None, Caps::webgpu_default()),
    };
    let available = adapter
        .as_ref()
        .map_or(options.memory, |info| engine::budget(info, options));
    let most = Description::new(checkpoint)?.config.context;
    let shorter = CONTEXTS.into_iter().filter(|c| *c < most);
    let contexts: Vec<usize> = options
        .context
        .map_or_else(|| shorter.chain([most]).collect(), |context| vec![context]);
    let ways = if all {
        engine::ways(checkpoint, options)?
    } else {
        vec![options.clone()]
    };
    let mut estimates = Vec::new();
    for way in &ways {
        for &context in &contexts {
            let way = LoadOptions {
                context: Some(context),
                ..way.clone()
            };
            let memory = match engine::estimate(checkpoint, &caps, &way) {
                Ok(memory) => memory,
                // Beyond a limit of the adapter, whatever memory it has.
                Err(e) if ways.len() + contexts.len() > 2 => {
                    log::debug!("{e}");
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            estimates.push(Estimate {
                quant: way.quant.map(|dtype| dtype.to_string().to_lowercase()),
                kv: way.kv.to_string(),
                context,
                memory,
                total: memory.total(),
                fits: available.map(|limit| memory.total() <= limit),
            });
        }
    }
    Ok(Report {
        adapter: adapter.as_ref().map(AdapterInfo::to_string),
        available,
        estimates,
    })
}

impl Report {
    /// As a table: a line for each quality, a column for each context with all that is taken there.
    pub(super) fn table(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let adapter = self.adapter.as_deref().unwrap_or("any adapter");
        match self.available {
            Some(bytes) => writeln!(out, "memory on {adapter}, which has {} for it", size(bytes))?,
            None => writeln!(out, "memory on {adapter}")?,
        }
        let mut contexts: Vec<usize> = self.estimates.iter().map(|e| e.context).collect();
        contexts.sort_unstable();
        contexts.dedup();
        write!(out, "  {:<10} {:<5} {:>10}", "--quant", "--kv", "weights")?;
        for context in &contexts {
            write!(out, " {:>11}", format!("at {context}"))?;
        }
        out.push('\n');
        let quality = |e: &Estimate| (e.quant.clone(), e.kv.clone());
        for row in self.estimates.chunk_by(|a, b| quality(a) == quality(b)) {
            let Some(first) = row.first() else { continue };
            let quant = first.quant.as_deref().unwrap_or("as stored");
            let weights = size(first.memory.weights);
            write!(out, "  {quant:<10} {:<5} {weights:>10}", first.kv)?;
            for context in &contexts {
                let cell = match row.iter().find(|e| e.context == *context) {
                    None => "-".into(),
                    Some(e) if e.fits == Some(false) => format!("({})", size(e.total)),
                    Some(e) => size(e.total),
                };
                write!(out, " {cell:>11}")?;
            }
            out.push('\n');
        }
        if self.estimates.iter().any(|e| e.fits == Some(false)) {
            out.push_str("  what is in parentheses does not fit\n");
        }
        Ok(out)
    }
}

/// The best way to load a model that fits, said in one line.
pub(super) fn choose(
    checkpoint: &Checkpoint,
    gpu: &Gpu,
    options: &LoadOptions,
) -> anyhow::Result<LoadOptions> {
    let Some(limit) = engine::budget(&gpu.info, options) else {
        anyhow::bail!(
            "{} does not say how much memory it has: say it by --memory, such as --memory 6GiB",
            gpu.info
        );
    };
    let (chosen, memory) = engine::fit(checkpoint, &gpu.caps, options, limit)?;
    let quant = match chosen.quant {
        Some(dtype) => format!("--quant {}", dtype.to_string().to_lowercase()),
        None => "the weights as stored".into(),
    };
    tell(&format!(
        "fits: {quant}, --kv {}, --ctx {}: {} of {}",
        chosen.kv,
        chosen.context.unwrap_or_default(),
        size(memory.total()),
        size(limit),
    ));
    Ok(chosen)
}
