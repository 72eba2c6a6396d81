//! `omnimini quantize`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::progress::Bar;
use super::{model_file, print, print_json};
use crate::format::Checkpoint;
use crate::hub::Progress as _;
use crate::quantize::{self, Change, MIXES, Mix, Recipe};
use crate::tensor::DType;
use crate::text::TokenizerSpec;

const TWICE: &str = "this model was quantised before and loses once more: \
                     one in f16 or bf16 would make a better file";

/// Arguments of `quantize`.
#[derive(Debug, Args)]
pub(super) struct Quantize {
    /// A built-in or pulled name, or a path to a model.
    model: String,
    /// The GGUF file to write.
    output: PathBuf,
    /// The file type.
    #[arg(short, long, value_name = "TYPE", ignore_case = true,
        value_parser = PossibleValuesParser::new(MIXES.iter().map(|m| m.name)))]
    r#type: String,
    /// Give every matrix the type itself, and none more bits than others.
    #[arg(long)]
    pure: bool,
    /// Replace a file that is there.
    #[arg(short, long)]
    force: bool,
    /// One JSON object; its fields are listed below.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct TensorReport {
    name: String,
    shape: Vec<usize>,
    before: String,
    dtype: String,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct QuantizeReport {
    file: PathBuf,
    file_type: &'static str,
    bytes: u64,
    bits_per_weight: f64,
    tensors: Vec<TensorReport>,
}

impl Quantize {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint::open(model_file(&self.model)?)?;
        let mix = Mix::named(&self.r#type).ok_or_else(|| anyhow::anyhow!("no such type"))?;
        let recipe = Recipe {
            mix,
            pure: self.pure,
            replace: self.force,
        };
        let twice = checkpoint.tensors().iter().any(|t| loses(t.dtype)) && loses(mix.dtype);
        let mut bar = Bar::new();
        bar.stop_on_ctrl_c()?;
        let mut begun = false;
        let mut progress = |done, total| {
            if !std::mem::replace(&mut begun, true) {
                bar.step(&format!("writing {}", self.output.display()), Some(total));
                if twice {
                    bar.notice(TWICE);
                }
            }
            bar.update(done);
            !bar.cancelled()
        };
        // A folder's tokenizer is not in its metadata.
        let more = if checkpoint.is_folder() {
            TokenizerSpec::of(&checkpoint)?.metadata()?
        } else {
            Vec::new()
        };
        let changes = quantize::write(&checkpoint, more, &recipe, &self.output, &mut progress);
        bar.finish();
        let report = self.report(mix, &changes?);
        if self.json {
            return print_json(&report);
        }
        let mut out = String::new();
        for t in &report.tensors {
            let (before, after) = (&t.before, &t.dtype);
            writeln!(
                out,
                "{:<40} {before:>6} -> {after:<6} {:?}",
                t.name, t.shape
            )?;
        }
        writeln!(
            out,
            "{}: {:.1} MB of weights, {:.2} bits each",
            report.file.display(),
            report.bytes as f64 / 1e6,
            report.bits_per_weight
        )?;
        print(&out)
    }

    fn report(&self, mix: &Mix, changes: &[Change]) -> QuantizeReport {
        let bytes: u64 = changes.iter().map(|c| c.tensor.bytes).sum();
        let elements: usize = changes.iter().map(|c| c.tensor.elements()).sum();
        let tensors = changes.iter().map(|c| TensorReport {
            name: c.tensor.name.clone(),
            shape: c.tensor.shape.clone(),
            before: c.before.to_string(),
            dtype: c.tensor.dtype.to_string(),
            bytes: c.tensor.bytes,
        });
        QuantizeReport {
            file: self.output.clone(),
            file_type: mix.name,
            bytes,
            bits_per_weight: 8.0 * bytes as f64 / elements.max(1) as f64,
            tensors: tensors.collect(),
        }
    }
}

/// Whether a type holds fewer bits than floats do.
fn loses(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}
