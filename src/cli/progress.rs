//! Progress on standard error: a bar where a person looks, a line for each step elsewhere.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{fit, tell};
use crate::engine::LoadOptions;
use crate::format::Checkpoint;
use crate::gpu::Gpu;
use crate::hub::Progress;
use crate::session::Model;

/// A bar of bytes for each step, and whether to stop.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Bar {
    /// Shows nothing before its first step.
    pub(super) fn new() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            stop: Arc::default(),
        }
    }

    /// Has Ctrl-C stop what is done, and not the program.
    pub(super) fn stop_on_ctrl_c(&self) -> anyhow::Result<()> {
        on_ctrl_c(&self.stop)
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn step(&mut self, what: &str, total: Option<u64>) {
        self.finish();
        if !io::stderr().is_terminal() {
            return tell(what);
        }
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template);
        // Whole before it is first drawn.
        self.bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(what.to_string());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn update(&mut self, done: u64) {
        self.bar.set_position(done);
    }

    fn notice(&mut self, text: &str) {
        self.bar.suspend(|| tell(text));
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Has Ctrl-C set `stop`, instead of ending the program.
pub(super) fn on_ctrl_c(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || stop.store(true, Ordering::Relaxed))
        .context("cannot watch for Ctrl-C")
}

/// Loads a model with a bar; with `fit`, as it fits.
pub(super) fn load(name: &str, options: &LoadOptions, fit: bool) -> anyhow::Result<Model> {
    let file = super::model_file(name)?;
    let checkpoint = Checkpoint::open(&file)?;
    let gpu = pollster::block_on(Gpu::open(&options.device))?;
    let fitted = if fit {
        Some(fit::choose(&checkpoint, &gpu, options)?)
    } else {
        None
    };
    let options = fitted.as_ref().unwrap_or(options);
    let mut bar = Bar::new();
    // Where nobody looks, a short wait is not worth a line.
    if io::stderr().is_terminal() {
        bar.step(
            "loading",
            Some(checkpoint.tensors().iter().map(|t| t.bytes).sum()),
        );
    }
    let mut update = |done, _| bar.update(done);
    let model = pollster::block_on(Model::open_on(gpu, &checkpoint, options, &mut update));
    bar.finish();
    let model = model?;
    log::info!("{} on {}", file.display(), model.engine().gpu().info);
    Ok(model)
}
