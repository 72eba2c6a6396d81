//! Hostile files: wrong kinds, sizes that overflow, and damage at random.

use super::{MIB, alloc, assert_sentence, open_problem, outcome, problem, values_file};
use omnimini::Error;
use omnimini::error::FileProblem;
use omnimini::format::Checkpoint;
use omnimini::quant::FORMATS;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// A GGUF file, put together piece by piece.
#[derive(Clone, Default)]
struct File(Vec<u8>);

impl File {
    fn new(tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn u32(self, x: u32) -> Self {
        self.bytes(&x.to_le_bytes())
    }
    fn u64(self, x: u64) -> Self {
        self.bytes(&x.to_le_bytes())
    }
    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    fn key(self, key: &str, id: u32) -> Self {
        self.text(key).u32(id)
    }
    fn tensor(self, name: &str, dims: &[u64], id: u32, offset: u64) -> Self {
        let file = self.text(name).u32(dims.len() as u32);
        let file = dims.iter().fold(file, |file, &dim| file.u64(dim));
        file.u32(id).u64(offset)
    }
    /// Up to the alignment, and then this many bytes of tensors.
    fn data(mut self, bytes: usize) -> Vec<u8> {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self.0
    }
}

fn one_tensor(dims: &[u64], id: u32, offset: u64) -> FileProblem {
    problem(&File::new(1, 0).tensor("t", dims, id, offset).data(64))
}

#[test]
fn huge_counts_are_refused_before_memory_is_taken() {
    let too_many = |problem| matches!(problem, FileProblem::TooMany { .. });
    for count in [1, 1 << 16, 1 << 32, 1 << 61, u64::MAX] {
        assert!(too_many(problem(&File::new(count, 0).0)), "{count} tensors");
        assert!(too_many(problem(&File::new(0, count).0)), "{count} keys");
    }
    // More than any model has, though the file would have room.
    assert!(too_many(problem(&File::new(1 << 17, 0).data(4 * MIB))));
    assert!(too_many(problem(&File::new(0, 1 << 17).data(4 * MIB))));
    for count in [5, 1 << 32, 1 << 61, 1 << 63, u64::MAX] {
        for id in 0..=12 {
            let file = File::new(0, 1).key("k", 9).u32(id).u64(count).u32(0);
            let problem = problem(&file.0);
            let truncated = matches!(problem, FileProblem::Truncated { .. });
            assert!(too_many(problem) || truncated, "{count} of type {id}");
        }
        let name = File::new(0, 1).u64(count).data(0);
        assert!(outcome(&name).is_err());
        let string = File::new(0, 1).key("k", 8).u64(count);
        assert!(matches!(problem(&string.0), FileProblem::Truncated { .. }));
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    let size = |problem| matches!(problem, FileProblem::TensorSize { .. });
    assert!(size(one_tensor(&[1 << 32, 1 << 32], 0, 0)));
    assert!(size(one_tensor(&[u64::MAX], 0, 0)));
    assert!(size(one_tensor(&[1 << 62], 0, 0)));
    assert!(size(one_tensor(&[1 << 21; 4], 12, 0)));
    assert!(matches!(
        one_tensor(&[1 << 40], 2, 0),
        FileProblem::Truncated { .. }
    ));
    // Offsets that wrap round.
    let last = u64::MAX - 31;
    assert!(matches!(
        one_tensor(&[8], 0, last),
        FileProblem::Truncated { .. }
    ));
}

#[test]
fn misplaced_tensors_are_refused() {
    let past = one_tensor(&[17], 0, 0);
    assert_eq!(
        past,
        FileProblem::Truncated {
            what: "tensor `t`".into(),
            want: 132,
            bytes: 128
        }
    );
    assert!(matches!(
        one_tensor(&[8], 0, 64),
        FileProblem::Truncated { .. }
    ));
    let want = FileProblem::Misaligned {
        tensor: "t".into(),
        offset: 4,
        alignment: 32,
    };
    assert_eq!(one_tensor(&[8], 0, 4), want);
    let two = |at| {
        let file = File::new(2, 0)
            .tensor("a", &[9], 0, 0)
            .tensor("b", &[8], 0, at);
        outcome(&file.data(128)).map(drop)
    };
    assert!(two(64).is_ok());
    for at in [0, 32] {
        let error = two(at).unwrap_err().to_string();
        assert!(error.contains("`a` and `b` in the same place"), "{error}");
    }
}

#[test]
fn bad_shapes_and_types_are_refused() {
    assert_eq!(
        one_tensor(&[4, 0], 0, 0),
        FileProblem::ZeroDimension { tensor: "t".into() }
    );
    let dims = FileProblem::Dimensions {
        tensor: "t".into(),
        dims: 5,
    };
    assert_eq!(one_tensor(&[1; 5], 0, 0), dims);
    for format in &FORMATS {
        if format.block > 1 && format.in_gguf() {
            let columns = format.block as u64 - 8;
            let problem = one_tensor(&[columns, 2], format.id, 0);
            assert!(
                matches!(problem, FileProblem::TensorColumns { .. }),
                "{}",
                format.name
            );
        }
    }
    for (id, name) in [
        (16, Some("IQ2_XXS")),
        (28, Some("F64")),
        (40, Some("NVFP4")),
        (99, None),
    ] {
        let tensor = "t".to_owned();
        assert_eq!(
            one_tensor(&[8], id, 0),
            FileProblem::TensorType { tensor, id, name }
        );
    }
    // A scalar is a tensor of no dimensions.
    let scalar = outcome(&File::new(1, 0).tensor("s", &[], 0, 0).data(4)).unwrap();
    assert_eq!(scalar.tensors()[0].rows_cols(), (1, 1));
}

#[test]
fn bad_metadata_is_refused() {
    let twice = File::new(0, 2)
        .key("k", 7)
        .bytes(&[1])
        .key("k", 7)
        .bytes(&[1]);
    let want = FileProblem::Duplicate {
        what: "metadata key",
        name: "k".into(),
    };
    assert_eq!(problem(&twice.0), want);
    let boolean = File::new(0, 1).key("k", 7).bytes(&[2]);
    assert_eq!(
        problem(&boolean.0),
        FileProblem::Boolean {
            key: "k".into(),
            value: 2
        }
    );
    let booleans = File::new(0, 1).key("k", 9).u32(7).u64(2).bytes(&[1, 255]);
    assert_eq!(
        problem(&booleans.0),
        FileProblem::Boolean {
            key: "k".into(),
            value: 255
        }
    );
    let unknown = File::new(0, 1).key("k", 13).u64(0);
    assert_eq!(
        problem(&unknown.0),
        FileProblem::ValueType {
            key: "k".into(),
            id: 13
        }
    );
    let unknown = File::new(0, 1).key("k", 9).u32(77).u64(0);
    assert_eq!(
        problem(&unknown.0),
        FileProblem::ValueType {
            key: "k".into(),
            id: 77
        }
    );
    let mut nested = File::new(0, 1).key("k", 9);
    for _ in 0..100 {
        nested = nested.u32(9).u64(1);
    }
    let limit = 4;
    assert_eq!(
        problem(&nested.0),
        FileProblem::Nesting {
            key: "k".into(),
            limit
        }
    );
    let many = File::new(0, 1)
        .key("k", 9)
        .u32(9)
        .u64(1 << 17)
        .data(2 * MIB);
    assert!(matches!(
        problem(&many),
        FileProblem::TooMany {
            what: "nested arrays",
            ..
        }
    ));
    for value in [0, 3, 48] {
        let alignment = File::new(0, 1).key("general.alignment", 4).u32(value);
        assert!(
            matches!(problem(&alignment.0), FileProblem::Alignment { .. }),
            "{value}"
        );
    }
    let alignment = File::new(0, 1).key("general.alignment", 8).text("32");
    assert!(matches!(
        problem(&alignment.0),
        FileProblem::Alignment { .. }
    ));
    let huge = File::new(1, 1).key("general.alignment", 4).u32(1 << 31);
    let huge = huge.tensor("t", &[8], 0, 0).data(64);
    assert!(matches!(problem(&huge), FileProblem::Truncated { .. }));
}

#[test]
fn bad_text_is_refused_and_shown_safely() {
    let bad = [b'a', 0xff, 0x1b, b'['];
    let files = [
        File::new(0, 1).u64(4).bytes(&bad).u32(7).bytes(&[1]),
        File::new(0, 1).key("k", 8).u64(4).bytes(&bad),
        File::new(0, 1).key("k", 9).u32(8).u64(1).u64(4).bytes(&bad),
        File::new(1, 0)
            .u64(4)
            .bytes(&bad)
            .u32(1)
            .u64(8)
            .u32(0)
            .u64(0),
    ];
    for file in files {
        let problem = problem(&file.data(64));
        assert!(matches!(problem, FileProblem::Text { .. }), "{problem}");
    }
    // Half a character in one string and half in the next is no text either.
    let halves = File::new(0, 1).key("k", 9).u32(8).u64(2);
    let halves = halves.u64(1).bytes(&[0xc3]).u64(1).bytes(&[0xa9]);
    assert!(matches!(problem(&halves.0), FileProblem::Text { .. }));
    let evil = "\u{1b}[2J\u{202e}\r\n".repeat(20);
    let types = File::new(1, 0).tensor(&evil, &[8], 99, 0).data(32);
    assert!(matches!(problem(&types), FileProblem::TensorType { .. }));
    let long = File::new(1, 0)
        .tensor(&"x".repeat(257), &[8], 0, 0)
        .data(32);
    assert!(matches!(problem(&long), FileProblem::TooMany { .. }));
    let twice = File::new(2, 0)
        .tensor("t", &[8], 0, 0)
        .tensor("t", &[8], 0, 32)
        .data(64);
    assert!(matches!(
        problem(&twice),
        FileProblem::Duplicate { what: "tensor", .. }
    ));
}

#[test]
fn other_files_are_named() {
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]);
    let safetensors = safetensors::serialize([("a", tensor.unwrap())], None).unwrap();
    let cases: &[(&[u8], &str)] = &[
        (b"", "is empty"),
        (b"GG", "ends in the middle of its first four bytes"),
        (b"\x00\x01", "ends in the middle of its first four bytes"),
        (b"Once upon a time there was a model.\n", "a text file"),
        (
            "Es war einmal ein schönes Modell.".as_bytes(),
            "a text file",
        ),
        (
            b"\n  <!DOCTYPE html><html><body>404</body></html>",
            "a web page",
        ),
        (b"<html>", "a web page"),
        (b"{\"error\": \"not found\"}", "a JSON text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer",
        ),
        (b"PK\x03\x04\x14\x00", "a ZIP archive"),
        (b"\x80\x02\x8a\x0a", "a Python pickle"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"tjgg\x03\x00\x00\x00", "from before GGUF"),
        (&safetensors, "a safetensors file"),
        (
            b"\x7fELF\x02\x01\x01\x00",
            "its first bytes are [7f, 45, 4c, 46]",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (bytes, want) in cases {
        let from_memory = outcome(bytes).unwrap_err().to_string();
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert_sentence(&error);
        let error = error.to_string();
        assert!(
            error.contains("model.gguf is") || error.contains("model.gguf ends"),
            "{error}"
        );
        assert!(
            error.contains(want) && from_memory.contains(want),
            "{want}: {error}"
        );
    }
    let wanted = "config.json";
    let folder_problem = open_problem(folder.path());
    assert_eq!(folder_problem, FileProblem::NoFile { wanted });
    let absent = Checkpoint::open(folder.path().join("absent.gguf")).unwrap_err();
    assert!(matches!(absent, Error::Io { action: "read", .. }));
}

#[test]
fn files_cut_anywhere_are_refused() {
    let bytes = values_file();
    let whole = outcome(&bytes).unwrap();
    let end = whole
        .tensors()
        .iter()
        .map(|t| t.offset + t.bytes)
        .max()
        .unwrap();
    for len in 0..end as usize {
        let error = outcome(&bytes[..len]).unwrap_err();
        // From the first 24 bytes on, it says that the file is incomplete.
        if len >= 24 {
            assert!(
                error.to_string().contains("fetch it again"),
                "{len}: {error}"
            );
        }
    }
    assert!(outcome(&bytes[..end as usize]).is_ok());
}

#[test]
fn every_flipped_bit_is_survived() {
    let mut bytes = values_file();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = outcome(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn the_largest_headers_take_little_memory() {
    let name = |i: u64, len: usize| format!("{i:0len$}");
    let mut tensors = File::new(1 << 16, 0);
    for i in 0..1 << 16 {
        tensors = tensors.tensor(&name(i, 256), &[1, 1, 1, 1], 0, i * 32);
    }
    let mut keys = File::new(0, 1 << 16);
    for i in 0..1 << 16 {
        keys = keys.key(&name(i, 5), 9).u32(8).u64(0);
    }
    let mut arrays = File::new(0, 1).key("k", 9).u32(9).u64(1 << 16);
    for _ in 0..1 << 16 {
        arrays = arrays.u32(8).u64(1).u64(0);
    }
    let strings = File::new(0, 1)
        .key("k", 9)
        .u32(8)
        .u64(1 << 20)
        .bytes(&vec![0; 8 << 20]);
    let booleans = File::new(0, 1)
        .key("k", 9)
        .u32(7)
        .u64(32 << 20)
        .bytes(&vec![1; 32 << 20]);
    for file in [tensors, keys, arrays, strings, booleans] {
        assert!(outcome(&file.data((1 << 16) * 32)).is_ok());
    }
}

#[test]
fn a_large_vocabulary_takes_few_allocations() {
    const TOKENS: usize = 262_144;
    let mut file = File::new(0, 3)
        .key("tokenizer.ggml.tokens", 9)
        .u32(8)
        .u64(TOKENS as u64);
    for i in 0..TOKENS {
        file = file.text(&format!("▁token{i}"));
    }
    file = file
        .key("tokenizer.ggml.scores", 9)
        .u32(6)
        .u64(TOKENS as u64);
    file = file.bytes(&vec![0; TOKENS * 4]);
    file = file
        .key("tokenizer.ggml.token_type", 9)
        .u32(5)
        .u64(TOKENS as u64);
    let bytes = file.bytes(&vec![0; TOKENS * 4]).0;
    let size = bytes.len();
    let start = std::time::Instant::now();
    let (checkpoint, peak) = alloc::peak(|| Checkpoint::from_bytes(bytes).unwrap());
    println!(
        "{TOKENS} tokens in {:.1?}, {peak:?}, file {size} bytes",
        start.elapsed()
    );
    assert!(peak.count < 100 && peak.bytes < size);
    let tokens = checkpoint.meta.strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), TOKENS);
    assert_eq!(tokens.get(TOKENS - 1), Some("▁token262143"));
    assert_eq!(tokens.iter().nth(777), Some("▁token777"));
}

// ---- random damage ----

#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Number(prop::sample::Index, u64),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Copy(prop::sample::Index, prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<prop::sample::Index>;
        let number = prop_oneof![
            any::<u64>(),
            0..300u64,
            (0..64u32, -2..3i64).prop_map(|(bit, by)| (1u64 << bit).wrapping_add_signed(by)),
        ];
        prop_oneof![
            (at(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (at(), number).prop_map(|(at, number)| Self::Number(at, number)),
            (at(), 1..64usize).prop_map(|(at, len)| Self::Remove(at, len)),
            (at(), prop::collection::vec(any::<u8>(), 1..32))
                .prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (at(), at(), 1..64usize).prop_map(|(from, to, len)| Self::Copy(from, to, len)),
            at().prop_map(Self::Cut),
        ]
    }

    fn apply(self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        let clip = |at: usize, n: usize| at..(at + n).min(len);
        match self {
            Self::Set(at, byte) => bytes[at.index(len)] = byte,
            Self::Number(at, number) => {
                let range = clip(at.index(len), 8);
                let n = range.len();
                bytes[range].copy_from_slice(&number.to_le_bytes()[..n]);
            }
            Self::Remove(at, n) => drop(bytes.drain(clip(at.index(len), n))),
            Self::Insert(at, new) => {
                let at = at.index(len);
                bytes.splice(at..at, new);
            }
            Self::Copy(from, to, n) => {
                let piece = bytes[clip(from.index(len), n)].to_vec();
                let range = clip(to.index(len), piece.len());
                let n = range.len();
                bytes[range].copy_from_slice(&piece[..n]);
            }
            Self::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        // Integration tests have no lib.rs beside them, where proptest would look.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/fixtures/format.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn damaged_files_never_panic(damage in prop::collection::vec(Damage::any(), 1..6)) {
        let mut bytes = values_file();
        for damage in damage {
            damage.apply(&mut bytes);
        }
        let _ = outcome(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), magic: bool) {
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"GGUF\x03\0\0\0");
        }
        let _ = outcome(&bytes);
    }
}
