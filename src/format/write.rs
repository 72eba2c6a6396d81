//! GGUF files, version 3: the header at once, then the tensors' bytes as they come.
//!
//! A file grows under another name beside its own and takes that only when it is whole and on the
//! disk, so that a program that stops in between leaves nothing that looks like a model.

use super::gguf::{self, ALIGNMENT};
use super::metadata::{Array, Metadata, Value};
use crate::quant::Format;
use crate::tensor::TensorInfo;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A GGUF file under way.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    /// The name it grows under; taken away where it never becomes whole.
    partial: PathBuf,
    file: Option<BufWriter<File>>,
    /// Whether a file of that name may be replaced.
    replace: bool,
    alignment: u64,
    /// Bytes of the tensors still to come, the next one last.
    wanted: Vec<u64>,
    /// Bytes of the file so far.
    at: u64,
}

impl GgufWriter {
    /// Begins the file `path`: writes its metadata and the list of its tensors, of which name, type
    /// and shape count. A file of that name is replaced only if `replace` says so.
    ///
    /// # Errors
    /// [`Error::Exists`] where the name is taken, [`Error::Io`] where it cannot be written,
    /// [`Error::Columns`] where a tensor's rows are no whole blocks.
    pub fn create(
        path: &Path,
        replace: bool,
        meta: &Metadata,
        tensors: &[TensorInfo],
    ) -> Result<Self> {
        refuse_taken(path, replace)?;
        let alignment = gguf::alignment(&meta.0).unwrap_or(ALIGNMENT);
        let (header, mut wanted) = header(meta, tensors, alignment)?;
        wanted.reverse();
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(io("write", &partial))?;
        let mut writer = Self {
            path: path.to_owned(),
            partial,
            replace,
            file: Some(BufWriter::with_capacity(1 << 20, file)),
            alignment,
            wanted,
            at: 0,
        };
        writer.put(&header)?;
        writer.align()?;
        Ok(writer)
    }

    /// Appends to the tensors' bytes: rows of blocks, one tensor after another in the list's order,
    /// in pieces of any size.
    ///
    /// # Errors
    /// [`Error::Io`] where they cannot be written, [`Error::Length`] where they are too many.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Some(left) = self.wanted.last_mut() else {
                let (want, got) = (0, bytes.len());
                let what = "the end of the tensors";
                return Err(Error::Length { what, want, got });
            };
            let n = bytes
                .len()
                .min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= n as u64;
            let (now, later) = bytes.split_at(n);
            bytes = later;
            self.put(now)?;
            if self.wanted.last() == Some(&0) {
                self.wanted.pop();
                self.align()?;
            }
        }
        Ok(())
    }

    /// Ends the file, waits until it is on the disk, and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`] where that fails, [`Error::Exists`] where the name was taken meanwhile,
    /// [`Error::Length`] where tensors' bytes are missing.
    pub fn finish(mut self) -> Result<()> {
        let missing: u64 = self.wanted.iter().sum();
        if missing > 0 {
            return Err(Error::Length {
                what: "the tensors that are missing",
                want: missing as usize,
                got: 0,
            });
        }
        refuse_taken(&self.path, self.replace)?;
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let failed = io("write", &self.partial);
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(&failed)?;
        drop(file);
        std::fs::rename(&self.partial, &self.path).map_err(io("write", &self.path))?;
        // The name lasts once the folder is on the disk; not every system can wait for that.
        if let Some(Ok(folder)) = self.path.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Every tensor begins at a multiple of the alignment, and so the file ends.
    fn align(&mut self) -> Result<()> {
        let padding = self.at.next_multiple_of(self.alignment) - self.at;
        self.put(&vec![0; padding as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(io("write", &self.partial)),
            None => Ok(()),
        }
    }
}

impl Drop for GgufWriter {
    fn drop(&mut self) {
        // Where it was finished there is nothing of that name.
        let _ = std::fs::remove_file(&self.partial);
    }
}

fn refuse_taken(path: &Path, replace: bool) -> Result<()> {
    if path.exists() && !replace {
        let path = path.to_owned();
        return Err(Error::Exists { path });
    }
    Ok(())
}

fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// A file up to its tensors' bytes, without the padding behind it, and the bytes of each tensor.
fn header(meta: &Metadata, tensors: &[TensorInfo], alignment: u64) -> Result<(Vec<u8>, Vec<u64>)> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((meta.0.len() as u64).to_le_bytes());
    for (key, value) in &meta.0 {
        string(&mut out, key);
        put_value(&mut out, value);
    }
    let mut sizes = Vec::with_capacity(tensors.len());
    let mut offset = 0u64;
    for tensor in tensors {
        let format = Format::of(tensor.dtype);
        let (rows, cols) = tensor.rows_cols();
        let overflow = Error::Overflow { what: "tensor" };
        let bytes = rows.checked_mul(format.row_bytes(cols)?).ok_or(overflow)? as u64;
        string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        // The file has the fastest dimension first.
        for dim in tensor.shape.iter().rev() {
            out.extend((*dim as u64).to_le_bytes());
        }
        out.extend(format.id.to_le_bytes());
        out.extend(offset.to_le_bytes());
        sizes.push(bytes);
        offset = offset.saturating_add(bytes).next_multiple_of(alignment);
    }
    Ok((out, sizes))
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A value behind the number of its type.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    fn typed<const N: usize>(out: &mut Vec<u8>, id: u32, bytes: [u8; N]) {
        out.extend(id.to_le_bytes());
        out.extend(bytes);
    }
    match value {
        Value::U8(x) => typed(out, 0, x.to_le_bytes()),
        Value::I8(x) => typed(out, 1, x.to_le_bytes()),
        Value::U16(x) => typed(out, 2, x.to_le_bytes()),
        Value::I16(x) => typed(out, 3, x.to_le_bytes()),
        Value::U32(x) => typed(out, 4, x.to_le_bytes()),
        Value::I32(x) => typed(out, 5, x.to_le_bytes()),
        Value::F32(x) => typed(out, 6, x.to_le_bytes()),
        Value::Bool(x) => typed(out, 7, [u8::from(*x)]),
        Value::String(text) => {
            typed(out, 8, []);
            string(out, text);
        }
        Value::Array(array) => {
            typed(out, 9, []);
            put_array(out, array);
        }
        Value::U64(x) => typed(out, 10, x.to_le_bytes()),
        Value::I64(x) => typed(out, 11, x.to_le_bytes()),
        Value::F64(x) => typed(out, 12, x.to_le_bytes()),
    }
}

/// An array: the number of its elements' type, their number, and each.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn each<T>(out: &mut Vec<u8>, id: u32, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
        out.extend(id.to_le_bytes());
        out.extend((items.len() as u64).to_le_bytes());
        for item in items {
            put(out, item);
        }
    }
    match array {
        Array::U8(items) => each(out, 0, items, |out, x| out.push(*x)),
        Array::I8(items) => each(out, 1, items, |out, x| out.extend(x.to_le_bytes())),
        Array::U16(items) => each(out, 2, items, |out, x| out.extend(x.to_le_bytes())),
        Array::I16(items) => each(out, 3, items, |out, x| out.extend(x.to_le_bytes())),
        Array::U32(items) => each(out, 4, items, |out, x| out.extend(x.to_le_bytes())),
        Array::I32(items) => each(out, 5, items, |out, x| out.extend(x.to_le_bytes())),
        Array::F32(items) => each(out, 6, items, |out, x| out.extend(x.to_le_bytes())),
        Array::Bool(items) => each(out, 7, items, |out, x| out.push(u8::from(*x))),
        Array::Strings(items) => {
            let items: Vec<&str> = items.iter().collect();
            each(out, 8, &items, |out, text| string(out, text));
        }
        Array::Arrays(items) => each(out, 9, items, put_array),
        Array::U64(items) => each(out, 10, items, |out, x| out.extend(x.to_le_bytes())),
        Array::I64(items) => each(out, 11, items, |out, x| out.extend(x.to_le_bytes())),
        Array::F64(items) => each(out, 12, items, |out, x| out.extend(x.to_le_bytes())),
    }
}
