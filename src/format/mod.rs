//! Checkpoints: bytes on disk, in memory or behind ranges, indexed into metadata and tensors.

mod folder;
mod gguf;
mod metadata;
mod source;
#[cfg(not(target_arch = "wasm32"))]
mod write;

pub use folder::Files;
pub use metadata::{Array, FromValue, Metadata, Strings, Value};
pub use source::Source;
#[cfg(not(target_arch = "wasm32"))]
pub use write::GgufWriter;

use crate::error::{FileProblem, shown};
use crate::tensor::TensorInfo;
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
#[cfg(not(target_arch = "wasm32"))]
use std::path::{Path, PathBuf};

/// Key, behind the architecture's name, of the longest text that an embedding model is given. Ours: GGUF has
/// none.
pub(crate) const LONGEST_TEXT: &str = "longest_text";

/// A model's file or files, indexed: metadata by key, tensors by name.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Metadata, of the first file where there are several.
    pub meta: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    files: Vec<Source>,
    /// How each tensor of a Hugging Face folder is made; none for GGUF.
    recipes: Vec<folder::Recipe>,
    /// The folder's files.
    folder: Files,
}

impl Checkpoint {
    /// Opens a GGUF file, or all files of a split one (`…-00001-of-00003.gguf`) by the path of
    /// any of them, or a Hugging Face folder by its own path or that of a file in it.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::File`] if one is damaged, incomplete or
    /// of another kind, or if a shard is missing.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let inside = path
            .extension()
            .is_some_and(|e| e == "json" || e == "safetensors");
        if let Some(folder) = path.parent().filter(|_| inside && path.is_file()) {
            let here = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            return Self::from_folder(&here.display().to_string(), folder::files(here)?);
        }
        if path.is_dir() {
            return Self::from_folder(&path.display().to_string(), folder::files(path)?);
        }
        let Some(name) = ShardName::of(path) else {
            let checkpoint = Self::index(vec![Source::open(path)?])?;
            let (no, count) = checkpoint.split()?.unwrap_or((0, 1));
            return match count {
                1 => Ok(checkpoint),
                _ => Err(checkpoint.problem(0, FileProblem::ShardName { no: no + 1, count })),
            };
        };
        // The named file comes first, so that a wrong path is the one that is reported.
        drop(Source::open(path)?);
        let files = (1..=name.count)
            .map(|no| {
                let shard = name.path(no);
                if shard.exists() {
                    return Source::open(&shard);
                }
                let problem = FileProblem::MissingShard {
                    missing: no,
                    count: name.count,
                    name: name.file_name(no),
                };
                let file = path.display().to_string();
                Err(Error::File { file, problem })
            })
            .collect::<Result<_>>()?;
        Self::from_sources(files)
    }

    /// A GGUF file that is in memory.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged, incomplete or of another kind.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::from_sources(vec![Source::memory("the model in memory", bytes)])
    }

    /// One file, or all shards of a split one in order.
    ///
    /// # Errors
    /// [`Error::File`] if one is damaged, incomplete, of another kind or in another's place.
    pub fn from_sources(files: Vec<Source>) -> Result<Self> {
        let checkpoint = Self::index(files)?;
        match checkpoint.split()? {
            Some((no, count)) if count != checkpoint.files.len() as u64 => {
                let no = no + 1;
                Err(checkpoint.problem(0, FileProblem::LoneShard { no, count }))
            }
            _ => Ok(checkpoint),
        }
    }

    /// A Hugging Face folder: `config.json`, `*.safetensors` (and their index, where there are several)
    /// and a tokenizer's files, by name. `name` stands for it in messages.
    ///
    /// # Errors
    /// [`Error::File`] where a file is missing or damaged, [`Error::Architecture`] for a family that is
    /// not known, [`Error::Config`] for a description that makes no model.
    pub fn from_folder(name: &str, files: Files) -> Result<Self> {
        let read = folder::read(name, &files)?;
        let names = read.tensors.iter().map(|t| t.name.clone());
        Ok(Self {
            meta: read.meta,
            by_name: names.zip(0..).collect(),
            tensors: read.tensors,
            files: read.sources,
            recipes: read.recipes,
            folder: files,
        })
    }

    /// Whether it is a Hugging Face folder, whose metadata says nothing of a tokenizer.
    pub fn is_folder(&self) -> bool {
        !self.folder.is_empty()
    }

    /// A file of the folder, such as `tokenizer.json`.
    pub fn file(&self, name: &str) -> Option<&Source> {
        self.folder.get(name)
    }

    /// Reads all headers, and checks that the files belong together.
    fn index(files: Vec<Source>) -> Result<Self> {
        let mut checkpoint = Self {
            meta: Metadata::default(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            files,
            recipes: Vec::new(),
            folder: Files::new(),
        };
        let count = checkpoint.files.len() as u64;
        for file in 0..checkpoint.files.len() {
            let source = &checkpoint.files[file];
            let header = gguf::parse(&source.bytes(0..source.len())?, file)
                .map_err(|problem| checkpoint.problem(file, problem))?;
            source.release(0..header.data);
            if count > 1 {
                let no = file as u64;
                let (got_no, got_count) = split(&header.meta)?.unwrap_or((0, 1));
                if (got_no, got_count) != (no, count) {
                    let problem = FileProblem::ShardOrder {
                        no: no + 1,
                        count,
                        got_no: got_no + 1,
                        got_count,
                    };
                    return Err(checkpoint.problem(file, problem));
                }
            }
            if file == 0 {
                checkpoint.meta = header.meta;
            }
            for tensor in header.tensors {
                let i = checkpoint.tensors.len();
                if checkpoint.by_name.insert(tensor.name.clone(), i).is_some() {
                    let name = shown(&tensor.name);
                    let what = "tensor";
                    return Err(checkpoint.problem(file, FileProblem::Duplicate { what, name }));
                }
                checkpoint.tensors.push(tensor);
            }
        }
        let got = checkpoint.tensors.len() as u64;
        if count > 1
            && let Some(want) = checkpoint.meta.find("split.tensors.count")?
            && want != got
        {
            return Err(checkpoint.problem(0, FileProblem::ShardTensors { want, got }));
        }
        Ok(checkpoint)
    }

    fn problem(&self, file: usize, problem: FileProblem) -> Error {
        let file = self.files.get(file).map_or("the model", Source::name);
        Error::File {
            file: file.into(),
            problem,
        }
    }

    fn split(&self) -> Result<Option<(u64, u64)>> {
        split(&self.meta)
    }

    /// All tensors, in the files' order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of a name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// The tensor of a name, which the model needs.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn need(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name)
            .ok_or_else(|| Error::MissingTensor { name: name.into() })
    }

    /// The files it is made of.
    pub fn files(&self) -> &[Source] {
        &self.files
    }

    /// Whether `path` leads to one of these files.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn has_file(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        let names = self.files.iter().map(|file| Path::new(file.name()));
        let same = |name: &Path| real(name).is_some_and(|file| real(path) == Some(file));
        names.into_iter().any(same)
    }

    /// A tensor's bytes: rows of blocks, as [`crate::quant`] reads them.
    ///
    /// # Errors
    /// [`Error::File`] if they do not lie in the file; those of [`Checkpoint::tensors`] do.
    pub fn data(&self, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        self.rows(tensor, 0..tensor.rows_cols().0)
    }

    /// The bytes of some of a tensor's rows (see [`TensorInfo::rows_cols`]).
    ///
    /// # Errors
    /// [`Error::File`] if there are no such rows.
    pub fn rows(&self, tensor: &TensorInfo, rows: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let (count, cols) = tensor.rows_cols();
        let row = tensor.bytes / count.max(1) as u64;
        let start = row.saturating_mul(rows.start as u64);
        let end = row.saturating_mul(rows.end as u64);
        let outside = || {
            let what = format!("tensor `{}`", shown(&tensor.name));
            let (want, bytes) = (end, tensor.bytes);
            self.problem(tensor.file, FileProblem::Truncated { what, want, bytes })
        };
        if end > tensor.bytes {
            return Err(outside());
        }
        if let Some(recipe) = self.recipe(tensor) {
            return recipe.rows(&self.files, cols, rows);
        }
        let source = self.files.get(tensor.file).ok_or_else(outside)?;
        let from_start = |at: u64| tensor.offset.saturating_add(at);
        source.bytes(from_start(start)..from_start(end))
    }

    /// Says that some rows of a tensor will not be read again soon: they are on the GPU now, and their
    /// pages may leave memory.
    pub fn release(&self, tensor: &TensorInfo, rows: Range<usize>) {
        let (count, cols) = tensor.rows_cols();
        if let Some(recipe) = self.recipe(tensor) {
            recipe.release(&self.files, cols, rows);
            return;
        }
        let row = tensor.bytes / count.max(1) as u64;
        let at = |row_no: usize| {
            tensor
                .offset
                .saturating_add(row.saturating_mul(row_no as u64))
        };
        if let Some(source) = self.files.get(tensor.file) {
            source.release(at(rows.start)..at(rows.end));
        }
    }

    /// How a folder's tensor is made.
    fn recipe(&self, tensor: &TensorInfo) -> Option<&folder::Recipe> {
        self.recipes.get(*self.by_name.get(&tensor.name)?)
    }
}

/// A shard's number, from 0, and the number of shards, if the metadata has them.
fn split(meta: &Metadata) -> Result<Option<(u64, u64)>> {
    let no = meta.find("split.no")?;
    let count = meta.find("split.count")?;
    // Tools write a count of 0 for a file that was never split.
    Ok(no.zip(count).filter(|&(_, count): &(u64, u64)| count > 0))
}

/// The parts of a shard's path: `stem-00001-of-00003.gguf`.
#[cfg(not(target_arch = "wasm32"))]
struct ShardName {
    folder: PathBuf,
    stem: String,
    count: u64,
}

#[cfg(not(target_arch = "wasm32"))]
impl ShardName {
    fn of(path: &Path) -> Option<Self> {
        let number = |text: &str| match text.len() {
            5 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u64>().ok(),
            _ => None,
        };
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, no) = rest.rsplit_once('-')?;
        let (no, count) = (number(no)?, number(count)?);
        (1..=count).contains(&no).then(|| Self {
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
            stem: stem.to_owned(),
            count,
        })
    }

    fn file_name(&self, no: u64) -> String {
        format!("{}-{no:05}-of-{:05}.gguf", self.stem, self.count)
    }

    fn path(&self, no: u64) -> PathBuf {
        self.folder.join(self.file_name(no))
    }
}
