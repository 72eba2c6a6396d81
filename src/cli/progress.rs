//! Progress on standard error: a bar where a person looks, a line for each step elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::tell;
use crate::engine::LoadOptions;
use crate::format::Checkpoint;
use crate::hub::Progress;
use crate::session::Model;

/// A bar of bytes.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn step(&mut self, what: &str, total: Option<u64>) {
        if self.0.is_hidden() {
            tell(what);
        }
        self.0.reset();
        self.0.set_length(total.unwrap_or(0));
        self.0.set_message(what.to_string());
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    fn update(&mut self, done: u64) {
        self.0.set_position(done);
    }

    fn notice(&mut self, text: &str) {
        self.0.suspend(|| tell(text));
    }
}

/// Loads a model with a bar.
pub(super) fn load(name: &str, options: &LoadOptions) -> anyhow::Result<Model> {
    let file = super::model_file(name)?;
    let checkpoint = Checkpoint::open(&file)?;
    let mut bar = Bar::new();
    if !bar.0.is_hidden() {
        bar.step(
            "loading",
            Some(checkpoint.tensors().iter().map(|t| t.bytes).sum()),
        );
    }
    let model = pollster::block_on(Model::open(&checkpoint, options, &mut |done, _| {
        bar.update(done);
    }));
    bar.finish();
    let model = model?;
    log::info!("{} on {}", file.display(), model.engine().gpu().info);
    Ok(model)
}
