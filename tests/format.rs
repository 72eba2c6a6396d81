//! Checkpoint files: real ones, those of ggml's own writer, and hostile ones.
//!
//! The fixtures are made by tools/fixtures/quants.py and tools/fixtures/gguf_files.py.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use omnimini::Error;
use omnimini::error::FileProblem;
use omnimini::format::{Array, Checkpoint, Source, Value};
use omnimini::quant::{FORMATS, Format, Layout, dequantize, repack_rows, unpack};
use omnimini::tensor::DType;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

#[path = "common/alloc.rs"]
mod alloc;
#[path = "format/folders.rs"]
mod folders;
#[path = "format/hostile.rs"]
mod hostile;
#[path = "format/hostile_folders.rs"]
mod hostile_folders;

const MIB: usize = 1 << 20;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn values_file() -> Vec<u8> {
    std::fs::read(fixture("gguf/values.gguf")).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Opens bytes as the program would, holds every outcome to what is promised for any bytes at
/// all, and gives what was wrong with them.
fn outcome(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let file = bytes.len();
    let bytes = bytes.to_vec();
    let (result, peak) = alloc::peak(|| Checkpoint::from_bytes(bytes));
    assert!(
        peak.bytes <= 64 * MIB + file,
        "{} bytes for a file of {file}",
        peak.bytes
    );
    match &result {
        Ok(checkpoint) => {
            for tensor in checkpoint.tensors() {
                let data = checkpoint.data(tensor).unwrap();
                let (rows, cols) = tensor.rows_cols();
                assert_eq!(
                    rows * Format::of(tensor.dtype).row_bytes(cols).unwrap(),
                    data.len()
                );
                assert_eq!(checkpoint.rows(tensor, 0..rows).unwrap(), data);
            }
        }
        Err(error) => assert_sentence(error),
    }
    result
}

/// One line, of bearable length, that says which file and ends with what to do.
fn assert_sentence(error: &Error) {
    let sentence = error.to_string();
    assert!(sentence.chars().all(|c| !c.is_control()), "{sentence:?}");
    assert!(sentence.len() < 600, "{sentence}");
    if let Error::File { file, .. } = error {
        assert!(sentence.starts_with(file.as_str()), "{sentence}");
        let advice = sentence.contains([';', ':']) && !sentence.ends_with('.');
        assert!(advice, "{sentence}");
    }
}

fn problem(bytes: &[u8]) -> FileProblem {
    match outcome(bytes) {
        Err(Error::File { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

// ---- formats ----

#[test]
fn every_format_agrees_with_ggml_bit_by_bit() {
    let file = Checkpoint::open(fixture("quants.gguf")).unwrap();
    for format in FORMATS.iter().filter(|f| f.in_gguf()) {
        let blocks = file.need(format.name).unwrap();
        assert_eq!(blocks.dtype, format.dtype);
        let (rows, cols) = blocks.rows_cols();
        let data = file.data(blocks).unwrap();
        let values = file.need(&format!("{}.values", format.name)).unwrap();
        assert_eq!(values.shape, blocks.shape);
        let want = dequantize(DType::F32, &file.data(values).unwrap()).unwrap();
        let got = dequantize(format.dtype, &data).unwrap();
        assert_eq!(bits(&got), bits(&want), "{}", format.name);

        let layout = Layout::new(format.dtype, rows, cols);
        let mut planes = vec![0; layout.bytes];
        repack_rows(format.dtype, &data, rows, cols, &mut planes).unwrap();
        let got = unpack(&layout, &planes).unwrap();
        assert_eq!(bits(&got), bits(&want), "{} on the GPU", format.name);
    }
}

// ---- files of ggml's writer ----

#[test]
fn every_metadata_type_is_read() {
    let file = Checkpoint::open(fixture("gguf/values.gguf")).unwrap();
    let meta = &file.meta;
    let want = [
        ("uint8", Value::U8(200), Array::U8(vec![0, 255])),
        ("int8", Value::I8(-100), Array::I8(vec![-128, 127])),
        ("uint16", Value::U16(60_000), Array::U16(vec![0, u16::MAX])),
        (
            "int16",
            Value::I16(-30_000),
            Array::I16(vec![i16::MIN, i16::MAX]),
        ),
        (
            "uint32",
            Value::U32(4_000_000_000),
            Array::U32(vec![0, u32::MAX]),
        ),
        (
            "int32",
            Value::I32(-2_000_000_000),
            Array::I32(vec![i32::MIN, i32::MAX]),
        ),
        (
            "uint64",
            Value::U64(18_000_000_000_000_000_000),
            Array::U64(vec![0, u64::MAX]),
        ),
        (
            "int64",
            Value::I64(-9_000_000_000_000_000_000),
            Array::I64(vec![i64::MIN, i64::MAX]),
        ),
        ("float32", Value::F32(0.15625), Array::F32(vec![-1.5, 3.25])),
        ("float64", Value::F64(0.1), Array::F64(vec![-1e300, 1e-300])),
        (
            "bool",
            Value::Bool(true),
            Array::Bool(vec![true, false, true]),
        ),
    ];
    for (name, one, many) in want {
        assert_eq!(meta.value(&format!("one.{name}")), Some(&one));
        assert_eq!(
            meta.value(&format!("many.{name}")),
            Some(&Value::Array(many))
        );
    }
    assert_eq!(meta.str("one.string").unwrap(), "héllo 世界");
    let strings = meta.strings("many.string").unwrap();
    assert_eq!(
        strings.iter().collect::<Vec<_>>(),
        ["", "a", "é", "世界", "a\nb"]
    );
    assert_eq!((strings.get(3), strings.get(5)), (Some("世界"), None));
    let nested = Array::Arrays(vec![
        Array::Arrays(vec![Array::I32(vec![1, 2]), Array::I32(vec![3])]),
        Array::Arrays(vec![Array::I32(vec![4, 5, 6])]),
    ]);
    assert_eq!(meta.value("many.array"), Some(&Value::Array(nested)));
    assert_eq!(meta.u32("general.alignment").unwrap(), 64);
    assert!(meta.iter().len() >= 26);
}

#[test]
fn getters_convert_and_name_what_is_wrong() {
    let file = Checkpoint::open(fixture("gguf/values.gguf")).unwrap();
    let meta = &file.meta;
    assert_eq!(meta.u32("one.uint8").unwrap(), 200);
    assert_eq!(meta.u64("one.uint32").unwrap(), 4_000_000_000);
    assert_eq!(meta.get::<usize>("one.uint16").unwrap(), 60_000);
    assert_eq!(meta.get::<i32>("one.int8").unwrap(), -100);
    assert_eq!(meta.f32("one.float64").unwrap().to_bits(), 0.1f32.to_bits());
    assert!(meta.bool("one.bool").unwrap());
    assert_eq!(*meta.i32s("many.uint16").unwrap(), [0, 65535]);
    assert!(matches!(meta.i32s("many.int32").unwrap(), Cow::Borrowed(_)));
    assert_eq!(*meta.u32s("many.uint8").unwrap(), [0, 255]);
    assert_eq!(*meta.f32s("many.float32").unwrap(), [-1.5, 3.25]);
    assert_eq!(meta.find::<u32>("absent").unwrap(), None);

    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert_sentence(&error);
        error.to_string()
    };
    assert_eq!(
        refused(meta.u32("absent").map(drop)),
        "the model's metadata has no `absent` (an unsigned 32-bit number); \
         the file is incomplete, or not a model that OmniMini knows"
    );
    assert_eq!(
        refused(meta.find::<u32>("one.int8").map(drop)),
        "the model's metadata key `one.int8` should be an unsigned 32-bit number, \
         and is -100 (i8); convert the model again"
    );
    assert!(refused(meta.str("many.bool").map(drop)).contains("an array of 3 booleans"));
    assert!(refused(meta.f32("one.string").map(drop)).contains("\"héllo 世界\""));
    assert!(refused(meta.i32s("many.uint32").map(drop)).contains("2 u32 numbers"));
    assert!(refused(meta.u32s("many.int8").map(drop)).contains("2 i8 numbers"));
    assert!(refused(meta.strings("one.uint8").map(drop)).contains("an array of strings"));
    assert!(refused(file.need("absent").map(drop)).contains("no tensor `absent`"));
}

#[test]
fn tensors_have_row_major_shapes_and_their_bytes() {
    let file = Checkpoint::open(fixture("gguf/values.gguf")).unwrap();
    let shapes: &[(&str, DType, &[usize])] = &[
        ("one", DType::F32, &[5]),
        ("two", DType::F32, &[3, 7]),
        ("three", DType::F32, &[2, 3, 4]),
        ("four", DType::F32, &[2, 1, 3, 2]),
        ("half", DType::F16, &[2, 3]),
        ("blocks", DType::Q8_0, &[2, 64]),
    ];
    assert_eq!(file.tensors().len(), shapes.len());
    for &(name, dtype, shape) in shapes {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (dtype, shape));
        assert!(tensor.offset.is_multiple_of(64));
        let values = dequantize(dtype, &file.data(tensor).unwrap()).unwrap();
        assert_eq!(values.len(), tensor.elements());
        if dtype != DType::Q8_0 {
            let want: Vec<f32> = (0..tensor.elements()).map(|i| i as f32).collect();
            assert_eq!(values, want, "{name}");
        }
        // Its pages come back when they are read again.
        file.release(tensor, 0..tensor.rows_cols().0);
        assert_eq!(
            dequantize(dtype, &file.data(tensor).unwrap()).unwrap(),
            values
        );
    }
    let two = file.tensor("two").unwrap();
    let row = dequantize(DType::F32, &file.rows(two, 1..2).unwrap()).unwrap();
    assert_eq!(row, [7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0]);
    for rows in [0..4, 3..4, usize::MAX..usize::MAX, 0..usize::MAX] {
        assert_sentence(&file.rows(two, rows).unwrap_err());
    }
    #[expect(clippy::reversed_empty_ranges, reason = "hostile ranges")]
    let reversed = file.rows(two, 2..1);
    assert_sentence(&reversed.unwrap_err());
    // A description that is not this checkpoint's own.
    let mut forged = two.clone();
    forged.offset = u64::MAX - 3;
    assert_sentence(&file.data(&forged).unwrap_err());
    file.release(&forged, 0..1);
    forged.file = 9;
    assert_sentence(&file.data(&forged).unwrap_err());
    file.release(&forged, 0..1);
}

#[test]
fn version_2_reads_the_same() {
    let bytes = values_file();
    let three = outcome(&bytes).unwrap();
    let mut bytes = bytes;
    bytes[4] = 2;
    let two = outcome(&bytes).unwrap();
    assert_eq!(two.meta, three.meta);
    assert_eq!(two.tensors(), three.tensors());
}

#[test]
fn other_versions_and_byte_orders_are_refused() {
    let mut bytes = values_file();
    for version in [0, 1, 4, 255] {
        bytes[4] = version;
        let version = u32::from(version);
        assert_eq!(problem(&bytes), FileProblem::Version { version });
    }
    let error = Checkpoint::open(fixture("gguf/big_endian.gguf")).unwrap_err();
    assert!(error.to_string().contains("big-endian"), "{error}");
}

#[test]
fn unread_types_are_named() {
    let error = Checkpoint::open(fixture("gguf/iq2_xxs.gguf")).unwrap_err();
    assert_sentence(&error);
    assert!(
        error.to_string().contains("tensor `t` as IQ2_XXS"),
        "{error}"
    );
}

// ---- split files ----

fn shard(no: usize) -> PathBuf {
    fixture(&format!("gguf/split-{no:05}-of-00003.gguf"))
}

/// A folder with these of the three shards under these numbers.
fn shards(pairs: &[(usize, usize)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in pairs {
        let to = folder.path().join(format!("split-{to:05}-of-00003.gguf"));
        std::fs::copy(shard(*from), to).unwrap();
    }
    folder
}

fn open_problem(path: impl AsRef<Path>) -> FileProblem {
    let error = Checkpoint::open(path).unwrap_err();
    assert_sentence(&error);
    match error {
        Error::File { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn split_files_open_by_any_name() {
    for no in 1..=3 {
        let file = Checkpoint::open(shard(no)).unwrap();
        assert_eq!(file.files().len(), 3);
        assert_eq!(file.meta.u32("llama.block_count").unwrap(), 5);
        assert_eq!(file.tensors().len(), 5);
        for i in 0..5 {
            let tensor = file.tensor(&format!("t{i}")).unwrap();
            let values = dequantize(DType::F32, &file.data(tensor).unwrap()).unwrap();
            assert_eq!(values, [i as f32; 8]);
        }
    }
    let sources: Vec<_> = (1..=3)
        .map(|no| Source::memory(format!("shard {no}"), std::fs::read(shard(no)).unwrap()))
        .collect();
    assert_eq!(
        Checkpoint::from_sources(sources).unwrap().tensors().len(),
        5
    );
}

#[test]
fn missing_shards_are_named() {
    let folder = shards(&[(1, 1), (3, 3)]);
    let path = folder.path().join("split-00003-of-00003.gguf");
    let want = FileProblem::MissingShard {
        missing: 2,
        count: 3,
        name: "split-00002-of-00003.gguf".into(),
    };
    assert_eq!(open_problem(&path), want);
    // The path itself is wrong.
    let absent = folder.path().join("split-00002-of-00003.gguf");
    let error = Checkpoint::open(&absent).unwrap_err();
    assert!(matches!(error, Error::Io { path, .. } if path == absent));
}

#[test]
fn shards_out_of_place_are_refused() {
    let swapped = shards(&[(1, 1), (3, 2), (2, 3)]);
    let want = FileProblem::ShardOrder {
        no: 2,
        count: 3,
        got_no: 3,
        got_count: 3,
    };
    assert_eq!(
        open_problem(swapped.path().join("split-00001-of-00003.gguf")),
        want
    );

    let folder = tempfile::tempdir().unwrap();
    let renamed = folder.path().join("model.gguf");
    std::fs::copy(shard(2), &renamed).unwrap();
    assert_eq!(
        open_problem(&renamed),
        FileProblem::ShardName { no: 2, count: 3 }
    );
    let lone = std::fs::read(shard(2)).unwrap();
    assert_eq!(problem(&lone), FileProblem::LoneShard { no: 2, count: 3 });

    // Files that were never split, under such names.
    let folder = tempfile::tempdir().unwrap();
    for no in 1..=2 {
        let name = folder.path().join(format!("a-{no:05}-of-00002.gguf"));
        std::fs::copy(fixture("gguf/values.gguf"), name).unwrap();
    }
    let problem = open_problem(folder.path().join("a-00001-of-00002.gguf"));
    assert!(matches!(
        problem,
        FileProblem::ShardOrder { got_count: 1, .. }
    ));
    let alone = folder.path().join("b-00001-of-00001.gguf");
    std::fs::copy(fixture("gguf/values.gguf"), &alone).unwrap();
    assert_eq!(Checkpoint::open(alone).unwrap().tensors().len(), 6);
}

#[test]
fn shards_must_have_all_tensors_and_none_twice() {
    let sources = |edit: &dyn Fn(usize, &mut Vec<u8>)| {
        let sources = (1..=3).map(|no| {
            let mut bytes = std::fs::read(shard(no)).unwrap();
            edit(no, &mut bytes);
            Source::memory(format!("shard {no}"), bytes)
        });
        match Checkpoint::from_sources(sources.collect()).unwrap_err() {
            Error::File { problem, .. } => problem,
            other => panic!("{other}"),
        }
    };
    let announced = sources(&|no, bytes| {
        let key = b"split.tensors.count";
        let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
        if no == 1 {
            bytes[at] = 6;
        }
    });
    assert_eq!(announced, FileProblem::ShardTensors { want: 6, got: 5 });
    let twice = sources(&|no, bytes| {
        let at = bytes.windows(2).rposition(|w| w == b"t4");
        if let (3, Some(at)) = (no, at) {
            bytes[at + 1] = b'0';
        }
    });
    let name = "t0".into();
    assert_eq!(
        twice,
        FileProblem::Duplicate {
            what: "tensor",
            name
        }
    );
}

// ---- real models ----

/// A model of the folder that `OMNIMINI_TEST_MODELS` names; says so where there is none.
fn real_model(name: &str) -> Option<Checkpoint> {
    let path = std::env::var_os("OMNIMINI_TEST_MODELS").map(|folder| Path::new(&folder).join(name));
    match path {
        Some(path) if path.exists() => Some(Checkpoint::open(path).unwrap()),
        _ => {
            println!("skipped: {name} is not in the folder of OMNIMINI_TEST_MODELS");
            None
        }
    }
}

#[test]
fn smollm2_is_read() {
    let Some(file) = real_model("smollm2-135m-instruct.gguf") else {
        return;
    };
    assert_eq!(file.meta.str("general.architecture").unwrap(), "llama");
    assert_eq!(
        file.meta.strings("tokenizer.ggml.tokens").unwrap().len(),
        49_152
    );
    let embedding = file.need("token_embd.weight").unwrap();
    assert_eq!(embedding.rows_cols(), (49_152, 576));
    assert_repacks(&file);
}

#[test]
fn gemma_3_is_read() {
    let Some(file) = real_model("gemma-3-270m.gguf") else {
        return;
    };
    assert_eq!(file.meta.str("general.architecture").unwrap(), "gemma3");
    assert_eq!(
        file.meta.strings("tokenizer.ggml.tokens").unwrap().len(),
        262_144
    );
    let embedding = file.need("token_embd.weight").unwrap();
    assert_eq!(embedding.rows_cols(), (262_144, 640));
    assert_repacks(&file);
}

/// Every tensor of a model survives the way to the GPU's layout.
fn assert_repacks(file: &Checkpoint) {
    let (mut source, mut repacking) = (0, std::time::Duration::ZERO);
    for tensor in file.tensors() {
        let data = file.data(tensor).unwrap();
        let (rows, cols) = tensor.rows_cols();
        let layout = Layout::new(tensor.dtype, rows, cols);
        let mut planes = vec![0; layout.bytes];
        let start = std::time::Instant::now();
        repack_rows(tensor.dtype, &data, rows, cols, &mut planes).unwrap();
        repacking += start.elapsed();
        source += data.len();
        let want = dequantize(tensor.dtype, &data).unwrap();
        assert!(want.iter().all(|value| value.is_finite()));
        let got = unpack(&layout, &planes).unwrap();
        assert!(bits(&got) == bits(&want), "{}", tensor.name);
        file.release(tensor, 0..tensor.rows_cols().0);
    }
    let rate = source as f64 / 1e9 / repacking.as_secs_f64();
    println!(
        "{} tensors, {source} bytes repacked at {rate:.2} GB/s",
        file.tensors().len()
    );
}
