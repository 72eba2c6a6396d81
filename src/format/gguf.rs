//! GGUF versions 2 and 3, little-endian: header, metadata, tensor list.
//!
//! The layout is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//! Nothing here trusts the file: every count is held against the bytes that are there before
//! anything is allocated by it, and against limits that no real file comes near.

use super::metadata::{Array, Metadata, Strings, Value};
use crate::error::{FileProblem, shown};
use crate::quant::{Format, other_type};
use crate::tensor::TensorInfo;
use std::collections::btree_map::{BTreeMap, Entry};

type Result<T> = std::result::Result<T, FileProblem>;

/// Limits on what takes more memory than file. Real files have some dozens of keys and a few
/// thousand tensors, and no nested arrays.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_NESTED: u64 = 1 << 16;
const MAX_DEPTH: usize = 4;
const MAX_DIMS: u32 = 4;
/// Bytes of a metadata key: the format's own limit.
const MAX_KEY: u64 = (1 << 16) - 1;
/// Bytes of a tensor's name; ggml's limit is 64.
const MAX_NAME: u64 = 256;

/// Where tensors start, unless `general.alignment` says otherwise.
pub(super) const ALIGNMENT: u64 = 32;

/// What a GGUF file says of itself.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) meta: Metadata,
    /// In the file's order, offsets from the file's start.
    pub(super) tensors: Vec<TensorInfo>,
    /// Where the header ends and the first tensor may start.
    pub(super) data: u64,
}

/// Reads the header at the start of a file of `bytes`, which is number `file` of its checkpoint.
pub(super) fn parse(bytes: &[u8], file: usize) -> Result<Header> {
    check_kind(bytes)?;
    let mut reader = Reader {
        bytes,
        at: 4,
        nested: 0,
    };
    check_version(reader.u32("the version")?)?;
    let tensors = reader.u64("the number of tensors")?;
    let keys = reader.u64("the number of metadata keys")?;
    // A tensor takes 24 bytes at least: length of its name, dimensions, type, offset. A key takes
    // 13: length, type, value.
    reader.limit("tensors", tensors, 24, MAX_TENSORS)?;
    reader.limit("metadata keys", keys, 13, MAX_KEYS)?;

    let meta = reader.metadata(keys)?;
    let alignment = alignment(&meta)?;
    let mut tensors = (0..tensors)
        .map(|_| reader.tensor(file, alignment))
        .collect::<Result<Vec<_>>>()?;

    let data = (reader.at as u64).next_multiple_of(alignment);
    place(&mut tensors, data, bytes.len() as u64)?;
    Ok(Header {
        meta: Metadata(meta),
        tensors,
        data,
    })
}

fn check_version(version: u32) -> Result<()> {
    match version {
        2 | 3 => Ok(()),
        // A small number with its bytes turned round.
        _ if version != 0 && version.trailing_zeros() >= 16 => Err(FileProblem::BigEndian),
        _ => Err(FileProblem::Version { version }),
    }
}

pub(super) fn alignment(meta: &BTreeMap<String, Value>) -> Result<u64> {
    match meta.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(&Value::U32(got)) if got.is_power_of_two() => Ok(u64::from(got)),
        Some(other) => Err(FileProblem::Alignment {
            got: other.to_string(),
        }),
    }
}

/// Turns offsets from `data` into offsets from the file's start, and checks that every tensor
/// lies in the file and none on another.
fn place(tensors: &mut [TensorInfo], data: u64, file_bytes: u64) -> Result<()> {
    for tensor in tensors.iter_mut() {
        let start = data.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        match start.zip(end) {
            Some((start, end)) if end <= file_bytes => tensor.offset = start,
            _ => {
                return Err(FileProblem::Truncated {
                    what: format!("tensor `{}`", shown(&tensor.name)),
                    want: end.unwrap_or(u64::MAX),
                    bytes: file_bytes,
                });
            }
        }
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            return Err(FileProblem::Overlap {
                first: shown(&pair[0].name),
                second: shown(&pair[1].name),
            });
        }
    }
    Ok(())
}

/// A place in the file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Arrays within arrays so far.
    nested: u64,
}

impl<'a> Reader<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn truncated(&self, what: &str, len: u64) -> FileProblem {
        FileProblem::Truncated {
            what: what.into(),
            want: (self.at as u64).saturating_add(len),
            bytes: self.bytes.len() as u64,
        }
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        if len > self.left() {
            return Err(self.truncated(what, len));
        }
        // Fits: it is not more than the slice has.
        let (start, end) = (self.at, self.at + len as usize);
        self.at = end;
        Ok(&self.bytes[start..end])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Holds a count against what the rest of the file can have and against a fixed limit.
    fn limit(&self, what: &'static str, count: u64, bytes_each: u64, most: u64) -> Result<()> {
        let limit = most.min(self.left() / bytes_each);
        if count > limit {
            return Err(FileProblem::TooMany { what, count, limit });
        }
        Ok(())
    }

    fn string(&mut self, what: &str, most: u64) -> Result<&'a str> {
        let len = self.u64(what)?;
        if len > most {
            return Err(FileProblem::TooMany {
                what: "bytes in a name",
                count: len,
                limit: most,
            });
        }
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| FileProblem::Text {
            what: format!("{what} ({})", shown(bytes)),
        })
    }

    fn metadata(&mut self, keys: u64) -> Result<BTreeMap<String, Value>> {
        let mut meta = BTreeMap::new();
        for _ in 0..keys {
            let key = self.string("a metadata key", MAX_KEY)?;
            let id = self.u32("a metadata value")?;
            let value = self.value(key, id)?;
            match meta.entry(key.to_owned()) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(_) => {
                    return Err(FileProblem::Duplicate {
                        what: "metadata key",
                        name: shown(key),
                    });
                }
            };
        }
        Ok(meta)
    }

    fn value(&mut self, key: &str, id: u32) -> Result<Value> {
        let what = "a metadata value";
        Ok(match id {
            0 => Value::U8(self.array::<1>(what)?[0]),
            1 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            7 => Value::Bool(boolean(key, self.array::<1>(what)?[0])?),
            8 => Value::String(self.string(what, u64::MAX)?.to_owned()),
            9 => Value::Array(self.values(key, 1)?),
            10 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            id => return Err(unknown_type(key, id)),
        })
    }

    fn values(&mut self, key: &str, depth: usize) -> Result<Array> {
        let id = self.u32("an array's type")?;
        let count = self.u64("an array's length")?;
        Ok(match id {
            0 => Array::U8(self.numbers(count, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(count, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(count, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(count, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(count, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(count, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(count, f32::from_le_bytes)?),
            7 => {
                let bytes = self.take(count, "a metadata array")?;
                // Checked first: collecting results would not know its length.
                for &byte in bytes {
                    boolean(key, byte)?;
                }
                Array::Bool(bytes.iter().map(|&byte| byte == 1).collect())
            }
            8 => Array::Strings(self.strings(key, count)?),
            9 => Array::Arrays(self.arrays(key, count, depth)?),
            10 => Array::U64(self.numbers(count, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(count, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(count, f64::from_le_bytes)?),
            id => return Err(unknown_type(key, id)),
        })
    }

    fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        number: fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let bytes = self.take(count.saturating_mul(N as u64), "a metadata array")?;
        let (numbers, _) = bytes.as_chunks::<N>();
        Ok(numbers.iter().copied().map(number).collect())
    }

    fn arrays(&mut self, key: &str, count: u64, depth: usize) -> Result<Vec<Array>> {
        if depth == MAX_DEPTH {
            return Err(FileProblem::Nesting {
                key: shown(key),
                limit: MAX_DEPTH,
            });
        }
        // An array takes 12 bytes at least: its type and length.
        self.limit("nested arrays", count, 12, MAX_NESTED - self.nested)?;
        self.nested += count;
        (0..count).map(|_| self.values(key, depth + 1)).collect()
    }

    /// Walks the strings twice, first for their length, so that they take no more memory than
    /// they need.
    fn strings(&mut self, key: &str, count: u64) -> Result<Strings> {
        let what = "an array of strings";
        self.limit("strings", count, 8, u64::MAX)?;
        let start = self.at;
        let mut total = 0;
        for _ in 0..count {
            let len = self.u64(what)?;
            self.take(len, what)?;
            total += len;
        }
        // Ends of strings are kept as 32 bits.
        if total > u64::from(u32::MAX) {
            return Err(FileProblem::TooMany {
                what: "bytes in an array of strings",
                count: total,
                limit: u64::from(u32::MAX),
            });
        }
        self.at = start;
        let mut strings = Strings::with_capacity(count as usize, total as usize);
        for i in 0..count {
            let len = self.u64(what)?;
            let bytes = self.take(len, what)?;
            match std::str::from_utf8(bytes) {
                Ok(string) => strings.push(string),
                Err(_) => {
                    return Err(FileProblem::Text {
                        what: format!("string {i} of `{}`", shown(key)),
                    });
                }
            }
        }
        Ok(strings)
    }

    /// A tensor's row of the list; its offset is still from the start of the tensors.
    fn tensor(&mut self, file: usize, alignment: u64) -> Result<TensorInfo> {
        let what = "the list of tensors";
        let name = self.string("a tensor's name", MAX_NAME)?;
        let tensor = || shown(name);
        let dims = self.u32(what)?;
        if dims > MAX_DIMS {
            return Err(FileProblem::Dimensions {
                tensor: tensor(),
                dims,
            });
        }
        let mut shape = Vec::with_capacity(dims as usize);
        for _ in 0..dims {
            let dim = self.u64(what)?;
            if dim == 0 {
                return Err(FileProblem::ZeroDimension { tensor: tensor() });
            }
            shape.push(
                usize::try_from(dim).map_err(|_| FileProblem::TensorSize { tensor: tensor() })?,
            );
        }
        // The file has the fastest dimension first.
        shape.reverse();
        let id = self.u32(what)?;
        let format = Format::by_id(id).ok_or_else(|| FileProblem::TensorType {
            tensor: tensor(),
            id,
            name: other_type(id),
        })?;
        let columns = shape.last().copied().unwrap_or(1);
        if !columns.is_multiple_of(format.block) {
            return Err(FileProblem::TensorColumns {
                tensor: tensor(),
                dtype: format.dtype,
                columns: columns as u64,
                block: format.block,
            });
        }
        // Every later product of these (elements, bytes of rows, floats) must fit as well.
        let bytes = shape
            .iter()
            .try_fold(1usize, |product, &dim| product.checked_mul(dim))
            .filter(|elements| elements.checked_mul(size_of::<f32>()).is_some())
            .map(|elements| elements / format.block)
            .and_then(|blocks| blocks.checked_mul(format.block_bytes))
            .ok_or_else(|| FileProblem::TensorSize { tensor: tensor() })?;
        let offset = self.u64(what)?;
        if !offset.is_multiple_of(alignment) {
            return Err(FileProblem::Misaligned {
                tensor: tensor(),
                offset,
                alignment,
            });
        }
        Ok(TensorInfo {
            name: name.to_owned(),
            dtype: format.dtype,
            shape,
            file,
            offset,
            bytes: bytes as u64,
        })
    }
}

fn boolean(key: &str, byte: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(FileProblem::Boolean {
            key: shown(key),
            value,
        }),
    }
}

fn unknown_type(key: &str, id: u32) -> FileProblem {
    FileProblem::ValueType {
        key: shown(key),
        id,
    }
}

/// Starts of files that people hand over instead, with what to do.
const KINDS: &[(&[u8], &str, &str)] = &[
    (
        b"version https://git-lfs",
        "a Git LFS pointer, the note that stands for a large file",
        "fetch the real file with `git lfs pull`, or pull the model by name",
    ),
    (
        b"PK\x03\x04",
        "a ZIP archive (a PyTorch checkpoint or a Python wheel, perhaps)",
        "unpack or convert it, and give the path of a .gguf file",
    ),
    (
        b"\x80\x02",
        "a Python pickle (an old PyTorch checkpoint)",
        "convert the model to GGUF",
    ),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (
        b"\x28\xb5\x2f\xfd",
        "a Zstandard archive",
        "unpack it first",
    ),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (
        b"FUGG",
        "a GGUF file with its bytes turned round",
        "get the little-endian file",
    ),
    (
        b"lmgg",
        "a ggml file from before GGUF",
        "convert the model again with a current converter",
    ),
    (
        b"fmgg",
        "a ggml file from before GGUF",
        "convert the model again with a current converter",
    ),
    (
        b"tjgg",
        "a ggml file from before GGUF",
        "convert the model again with a current converter",
    ),
    (
        b"algg",
        "a ggml adapter from before GGUF",
        "convert it again with a current converter",
    ),
    (b"\x89HDF", "an HDF5 file", "convert the model to GGUF"),
];

/// Refuses what is not GGUF, and says what it seems to be.
fn check_kind(bytes: &[u8]) -> Result<()> {
    const MODEL: &str = "give the path of a .gguf file";
    if bytes.starts_with(b"GGUF") {
        return Ok(());
    }
    if bytes.is_empty() {
        return Err(FileProblem::Empty);
    }
    let other = |found, advice| Err(FileProblem::OtherKind { found, advice });
    if let Some((_, found, advice)) = KINDS.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return other(found, advice);
    }
    // A safetensors file: the length of its JSON header, then the header.
    if let Some((length, json)) = bytes.split_first_chunk::<8>()
        && u64::from_le_bytes(*length) <= json.len() as u64
        && json.starts_with(b"{")
    {
        return other("a safetensors file", "convert the model to GGUF");
    }
    let start = &bytes[..bytes.len().min(512)];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = text.trim_ascii_start();
    if text.starts_with(b"<") {
        return other(
            "a web page",
            "its address gives a page instead of the file: fetch it again",
        );
    }
    if text.starts_with(b"{") || text.starts_with(b"[") {
        return other("a JSON text", MODEL);
    }
    // The piece may end within a character.
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_some() => "",
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    };
    let printable = |c: char| !c.is_control() || c.is_ascii_whitespace();
    if bytes.len() >= 4 && !valid.is_empty() && valid.chars().all(printable) {
        return other("a text file", MODEL);
    }
    let mut first = [0; 4];
    match bytes.get(..4) {
        Some(bytes) => first.copy_from_slice(bytes),
        None => {
            return Err(FileProblem::Truncated {
                what: "its first four bytes".into(),
                want: 4,
                bytes: bytes.len() as u64,
            });
        }
    }
    Err(FileProblem::Unknown { start: first })
}
