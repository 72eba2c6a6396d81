//! Quantising: what the blocks lose beside ggml's own, and what becomes of numbers that no weight
//! should have.
//!
//! `tests/fixtures/quantize.json` is made by tools/fixtures/quantize.py.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashMap;
use std::path::Path;

use common::tiny::{LLAMA, Tiny};
use omnimini::Error;
use omnimini::format::{Checkpoint, Value};
use omnimini::model::Description;
use omnimini::quant::testing::{Rng, Sample};
use omnimini::quant::{self, FORMATS, Format, convert, dequantize};
use omnimini::quantize::{self, Mix, Recipe};
use omnimini::tensor::DType;
use tempfile::TempDir;

mod common;
#[path = "quantize/load.rs"]
mod load;
#[path = "quantize/peers.rs"]
mod peers;
#[path = "quantize/real.rs"]
mod real;

/// Relative squared error.
fn error(values: &[f32], back: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let lost: f64 = values.iter().zip(back).map(|(x, w)| square(w - x)).sum();
    lost / values.iter().map(|x| square(*x)).sum::<f64>()
}

#[test]
fn no_type_loses_more_than_ggmls() {
    let fixture = include_str!("fixtures/quantize.json");
    let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
    let mut worse = Vec::new();
    for format in FORMATS[1..].iter().filter(|f| f.in_gguf()) {
        for sample in [Sample::Usual, Sample::Outliers, Sample::Shifted] {
            let values = sample.values(16 * 1024);
            let blocks = quant::quantize(format.dtype, &values).unwrap();
            let back = dequantize(format.dtype, &blocks).unwrap();
            let label = format!("{sample:?}").to_lowercase();
            let theirs = fixture[format.name][&label].as_f64().unwrap();
            let ratio = error(&values, &back) / theirs;
            println!("{:<7} {label:<9} {ratio:.4}", format.name);
            if ratio.is_nan() || ratio > 1.001 {
                worse.push((format.name, label, ratio));
            }
        }
    }
    assert!(worse.is_empty(), "times ggml's error: {worse:?}");
}

/// What no weight should be, in rows of 512.
fn odd_rows() -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = Rng::new(7);
    let any = (0..512).map(|_| f32::from_bits(rng.next_u64() as u32));
    let bits = any.collect();
    let mut mixed = Sample::Usual.values(512);
    for (i, x) in mixed.iter_mut().enumerate() {
        match i % 50 {
            3 => *x = f32::NAN,
            7 => *x = f32::INFINITY,
            11 => *x = f32::NEG_INFINITY,
            _ => {}
        }
    }
    let mut lone = vec![0.0; 512];
    lone[300] = 0.25;
    vec![
        ("zeros", vec![0.0; 512]),
        ("negative zeros", vec![-0.0; 512]),
        ("NaN", vec![f32::NAN; 512]),
        ("infinite", vec![f32::INFINITY; 512]),
        ("huge", vec![f32::MAX; 512]),
        ("tiny", vec![1e-30; 512]),
        ("subnormal", vec![f32::from_bits(1); 512]),
        ("any bits", bits),
        ("mixed", mixed),
        ("a lone number", lone),
        ("constant", vec![0.75; 512]),
        ("negative constant", vec![-0.75; 512]),
    ]
}

#[test]
fn blocks_stay_sane_whatever_they_are_made_of() {
    for format in FORMATS.iter().filter(|f| f.block > 1 && f.in_gguf()) {
        for (what, values) in odd_rows() {
            let blocks = quant::quantize(format.dtype, &values).unwrap();
            let back = dequantize(format.dtype, &blocks).unwrap();
            let at = format!("{} of {what}", format.name);
            assert!(back.iter().all(|w| w.is_finite()), "{at}");
            let near = |i: usize, x: f32, share: f32| {
                let w = back[i];
                assert!((w - x).abs() <= share * x.abs(), "{at}: {w} for {x}");
            };
            match what {
                "zeros" | "negative zeros" | "NaN" | "tiny" | "subnormal" => {
                    // MXFP4 reaches as far down as floats do.
                    assert!(back.iter().all(|w| w.abs() < 1e-20), "{at}");
                }
                // As far as the type reaches, and that is far.
                "infinite" | "huge" => assert!(back.iter().all(|w| *w > 1e4), "{at}"),
                "constant" => (0..512).for_each(|i| near(i, 0.75, 0.02 + mxfp4(format))),
                "negative constant" => (0..512).for_each(|i| near(i, -0.75, 0.02 + mxfp4(format))),
                "a lone number" => {
                    near(300, 0.25, 0.02);
                    let others = back.iter().enumerate().filter(|(i, _)| *i != 300);
                    let most = others.map(|(_, w)| w.abs()).fold(0.0, f32::max);
                    assert!(most < 0.01, "{at}: {most} for zeros");
                }
                _ => {}
            }
        }
    }
}

/// Its scales are powers of two alone.
fn mxfp4(format: &Format) -> f32 {
    if format.dtype == DType::MXFP4 {
        0.1
    } else {
        0.0
    }
}

#[test]
fn plain_numbers_keep_what_they_can() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.5];
    let through = |dtype| dequantize(dtype, &quant::quantize(dtype, &odd).unwrap()).unwrap();
    let (single, half) = (through(DType::F32), through(DType::F16));
    assert!(single[0].is_nan() && half[0].is_nan());
    assert_eq!(single[1..], odd[1..]);
    // The largest number that a half can be, rather than infinity.
    let most = 65504.0;
    assert_eq!(half[1..], [f32::INFINITY, f32::NEG_INFINITY, most, -1.5]);
}

#[test]
fn converting_is_quantising_what_was_dequantised() {
    let values = Sample::Outliers.values(3 << 16);
    for from in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_K] {
        let blocks = quant::quantize(from, &values).unwrap();
        let floats = dequantize(from, &blocks).unwrap();
        for to in [DType::F32, DType::Q4_0, DType::Q6_K, from] {
            let made = convert(from, &blocks, values.len(), to).unwrap();
            let want = if to == from {
                blocks.clone()
            } else {
                quant::quantize(to, &floats).unwrap()
            };
            assert!(made == want, "{from} to {to}");
        }
    }
    let columns = convert(DType::F32, &[0; 128], 32, DType::Q4_K);
    assert!(matches!(columns, Err(Error::Columns { .. })));
    let length = convert(DType::F32, &[0; 127], 32, DType::Q4_0);
    assert!(matches!(length, Err(Error::Length { .. })));
    assert!(quant::quantize(DType::Q4_0, &[0.0; 33]).is_err());
    assert!(quant::quantize(DType::Q4_0, &[]).unwrap().is_empty());
}

/// Writes a checkpoint anew, and reads it.
fn rewritten(source: &Checkpoint, name: &str, pure: bool) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.gguf");
    let recipe = Recipe {
        mix: Mix::named(name).unwrap(),
        pure,
        replace: false,
    };
    let changes = quantize::write(source, Vec::new(), &recipe, &path, &mut |_, _| true).unwrap();
    let new = Checkpoint::open(&path).unwrap();
    let written: Vec<_> = changes.iter().map(|c| &c.tensor).collect();
    assert_eq!(written.len(), new.tensors().len());
    for (want, got) in written.iter().zip(new.tensors()) {
        assert_eq!(
            (&want.name, want.dtype, &want.shape, want.bytes),
            (&got.name, got.dtype, &got.shape, got.bytes)
        );
    }
    // Nothing is left beside it.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    (folder, new)
}

#[test]
fn metadata_of_every_type_comes_back() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/gguf/values.gguf"
    );
    let source = Checkpoint::open(file).unwrap();
    let (_folder, new) = rewritten(&source, "f16", false);
    let mut want = source.meta.clone();
    want.set("general.file_type", Value::U32(1));
    want.set("general.quantization_version", Value::U32(2));
    assert_eq!(new.meta, want);
    // The file's own alignment holds for the new one.
    assert!(new.tensors().iter().all(|t| t.offset.is_multiple_of(64)));
    for (old, new_tensor) in source.tensors().iter().zip(new.tensors()) {
        if old.dtype == new_tensor.dtype {
            assert_eq!(source.data(old).unwrap(), new.data(new_tensor).unwrap());
        }
    }
}

#[test]
fn tensors_are_the_blocks_of_their_values() {
    let source = Checkpoint::from_bytes(LLAMA.gguf(3)).unwrap();
    let (_folder, new) = rewritten(&source, "q4_k", true);
    for (old, new_tensor) in source.tensors().iter().zip(new.tensors()) {
        let matrix = old.shape.len() > 1;
        let want = if matrix { DType::Q4_K } else { DType::F32 };
        assert_eq!(new_tensor.dtype, want, "{}", old.name);
        let blocks = source.data(old).unwrap();
        let want = convert(old.dtype, &blocks, old.elements(), want).unwrap();
        assert!(*new.data(new_tensor).unwrap() == *want, "{}", old.name);
    }
}

/// The types that llama.cpp gives the tensors of a model of 30 layers, 12 heads, 4 of them for keys.
#[test]
fn mixes_are_llama_cpps() {
    let model = Tiny {
        layers: 30,
        heads: 12,
        kv_heads: 4,
        types: &[DType::F16],
        ..LLAMA
    };
    let source = Checkpoint::from_bytes(model.gguf(1)).unwrap();
    let types = |name: &str| -> HashMap<String, DType> {
        let recipe = Recipe {
            mix: Mix::named(name).unwrap(),
            pure: false,
            replace: false,
        };
        let changes = quantize::changes(&source, &recipe).unwrap().into_iter();
        changes.map(|c| (c.tensor.name, c.tensor.dtype)).collect()
    };
    let layers = |types: &HashMap<String, DType>, part: &str, dtype: DType| -> Vec<usize> {
        let has = |layer: &usize| types[&format!("blk.{layer}.{part}.weight")] == dtype;
        (0..30).filter(has).collect()
    };
    let m = types("Q4_K_M");
    let ends = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29];
    assert_eq!(layers(&m, "attn_v", DType::Q6_K), ends);
    assert_eq!(layers(&m, "ffn_down", DType::Q6_K), ends);
    assert_eq!(layers(&m, "attn_v", DType::Q4_K).len(), 16);
    assert_eq!(layers(&m, "attn_q", DType::Q4_K).len(), 30);
    assert_eq!(m["output.weight"], DType::Q6_K);
    assert_eq!(m["token_embd.weight"], DType::Q4_K);
    assert_eq!(m["blk.7.attn_norm.weight"], DType::F32);
    let s = types("q4_k_s");
    assert_eq!(layers(&s, "attn_v", DType::Q5_K), [0, 1, 2, 3]);
    assert_eq!(layers(&s, "ffn_down", DType::Q5_K), [0, 1, 2]);
    let m = types("q3_k_m");
    assert_eq!(layers(&m, "attn_v", DType::Q5_K), [0, 1]);
    assert_eq!(layers(&m, "ffn_down", DType::Q5_K), [0]);
    assert_eq!(layers(&m, "ffn_down", DType::Q4_K).len(), 29);
    assert_eq!(layers(&m, "attn_output", DType::Q4_K).len(), 30);
    let half = types("f16");
    assert!(half.values().all(|t| matches!(t, DType::F16 | DType::F32)));
}

#[test]
fn rows_that_are_no_super_blocks_get_smaller_blocks() {
    let model = Tiny {
        width: 96,
        ffn: 256,
        tied: true,
        types: &[DType::F32],
        ..LLAMA
    };
    let source = Checkpoint::from_bytes(model.gguf(2)).unwrap();
    for (name, narrow, whole, output) in [
        ("q2_k", DType::Q4_0, DType::Q3_K, DType::Q8_0),
        ("q4_k", DType::Q5_0, DType::Q6_K, DType::Q8_0),
        ("q5_k_s", DType::Q5_1, DType::Q5_K, DType::Q8_0),
        ("q6_k", DType::Q8_0, DType::Q6_K, DType::Q8_0),
        ("iq4_xs", DType::IQ4_NL, DType::IQ4_XS, DType::Q8_0),
        ("q4_0", DType::Q4_0, DType::Q4_0, DType::Q8_0),
    ] {
        let (_folder, new) = rewritten(&source, name, false);
        let dtype = |tensor: &str| new.need(tensor).unwrap().dtype;
        assert_eq!(dtype("blk.0.attn_q.weight"), narrow, "{name}");
        assert_eq!(dtype("blk.2.ffn_down.weight"), whole, "{name}");
        assert_eq!(dtype("token_embd.weight"), output, "{name}");
    }
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, LLAMA.gguf(1)).unwrap();
    let source = Checkpoint::open(&path).unwrap();
    let recipe = Recipe {
        mix: Mix::named("q8_0").unwrap(),
        pure: false,
        replace: true,
    };
    let mut go_on = |_, _| true;
    // Its own file, even by another way.
    let own = folder.path().join(".").join("model.gguf");
    let itself = quantize::write(&source, Vec::new(), &recipe, &own, &mut go_on);
    assert!(matches!(itself, Err(Error::Itself { .. })), "{itself:?}");
    let other = folder.path().join("other.gguf");
    let stopped = quantize::write(&source, Vec::new(), &recipe, &other, &mut |done, _| {
        done < 100_000
    });
    assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::write(&other, "mine").unwrap();
    let kept = Recipe {
        replace: false,
        ..recipe
    };
    let taken = quantize::write(&source, Vec::new(), &kept, &other, &mut go_on);
    assert!(matches!(taken, Err(Error::Exists { .. })), "{taken:?}");
    assert_eq!(std::fs::read(&other).unwrap(), b"mine");
    quantize::write(&source, Vec::new(), &recipe, &other, &mut go_on).unwrap();
    assert!(Checkpoint::open(&other).is_ok());
    let nowhere = folder.path().join("no/such/folder.gguf");
    let nowhere = quantize::write(&source, Vec::new(), &recipe, &nowhere, &mut go_on);
    assert!(matches!(nowhere, Err(Error::Io { .. })), "{nowhere:?}");
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let bytes = LLAMA.gguf_with(1, |g| {
        let mut values = vec![0.5f32; 64];
        values[40] = f32::NAN;
        let bytes = bytemuck::cast_slice(&values).to_vec();
        g.tensor("blk.9.bad.weight", &[2, 32], DType::F32, bytes);
    });
    let source = Checkpoint::from_bytes(bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        mix: Mix::named("q4_0").unwrap(),
        pure: false,
        replace: false,
    };
    let path = folder.path().join("new.gguf");
    let error = quantize::write(&source, Vec::new(), &recipe, &path, &mut |_, _| true).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`blk.9.bad.weight`") && text.contains("NaN"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Whatever a checkpoint comes from, a folder with tensors that are computed included: the file that
/// is written of it describes the same model.
#[test]
fn folders_become_files() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    for name in [
        "gemma-3",
        "gpt-oss",
        "granite-3",
        "llama-3.1",
        "olmo-2",
        "phi-4-mini",
        "qwen2.5",
        "qwen3-moe",
        "smollm3",
    ] {
        let source = Checkpoint::open(families.join(name)).unwrap();
        let (_folder, new) = rewritten(&source, "q8_0", false);
        let config = |c: &Checkpoint| Description::new(c).unwrap().config;
        assert_eq!(config(&source), config(&new), "{name}");
        for (old, new_tensor) in source.tensors().iter().zip(new.tensors()) {
            let rows = 0..old.rows_cols().0;
            let values = dequantize(old.dtype, &source.rows(old, rows).unwrap()).unwrap();
            let back = dequantize(new_tensor.dtype, &new.data(new_tensor).unwrap()).unwrap();
            let zero = values.iter().all(|x| *x == 0.0);
            let lost = if zero { 0.0 } else { error(&values, &back) };
            assert!(lost < 1e-3, "{name}: {} is {lost:.1e} off", old.name);
        }
    }
}
