//! Hugging Face folders: `config.json`, safetensors files, and what a tokenizer is made from.
//!
//! A folder is read as if it had been converted: its description becomes GGUF's metadata, and its
//! tensors get GGUF's names and order of rows. Everything above knows one vocabulary only. Nothing is
//! converted ahead of time: rows are made as they are asked for.

mod config;
mod family;
mod pooling;
mod rows;
mod tensors;

pub(super) use rows::Recipe;

use std::collections::BTreeMap;

use super::{Metadata, Source};
use crate::error::{Error, FileProblem, Result, reason, shown};
use crate::tensor::TensorInfo;
use rows::Raw;
use serde_json::Value as Json;

/// The files of a folder that anything is read from, by name; the description of a part of a model is
/// `PART/config.json`.
pub type Files = BTreeMap<String, Source>;

/// Endings of their names.
const ENDINGS: [&str; 3] = [".json", ".jinja", ".safetensors"];

/// Opens what a folder holds.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn files(folder: &std::path::Path) -> Result<Files> {
    let io = |source| Error::Io {
        action: "read",
        path: folder.to_owned(),
        source,
    };
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        if ENDINGS.iter().any(|end| name.ends_with(end)) {
            files.insert(name, Source::open(&entry.path())?);
            continue;
        }
        let part = entry.path().join("config.json");
        if part.is_file() {
            files.insert(format!("{name}/config.json"), Source::open(&part)?);
        }
    }
    Ok(files)
}

/// What a folder comes to.
pub(super) struct Folder {
    pub(super) meta: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    /// How each of them is made.
    pub(super) recipes: Vec<Recipe>,
    /// The safetensors files.
    pub(super) sources: Vec<Source>,
}

/// A problem of a file.
fn problem(file: &str, problem: FileProblem) -> Error {
    Error::File {
        file: file.into(),
        problem,
    }
}

/// A JSON file's content.
fn json(source: &Source) -> Result<Json> {
    serde_json::from_slice(&source.bytes(0..source.len())?).map_err(|e| {
        let reason = reason(e);
        problem(source.name(), FileProblem::Json { reason })
    })
}

/// Reads a folder's description and the heads of its safetensors files.
///
/// # Errors
/// [`Error::File`] where a file is missing or damaged, [`Error::Architecture`] for a family we do not
/// know, [`Error::Config`] for numbers that make no model.
pub(super) fn read(name: &str, files: &Files) -> Result<Folder> {
    let missing = |wanted: &'static str| problem(name, FileProblem::NoFile { wanted });
    let config = json(
        files
            .get("config.json")
            .ok_or_else(|| missing("config.json"))?,
    )?;
    let (sources, raws) = heads(name, files)?;
    let family = family::find(&config)?;
    let mut meta = config::metadata(family, &config)?;
    let folder = std::path::Path::new(name).file_name();
    let folder = folder.and_then(|f| f.to_str()).unwrap_or(name);
    meta.insert("general.name".into(), super::Value::String(folder.into()));
    if let Some(number) = pooling::read(files)? {
        let key = format!("{}.pooling_type", family.arch);
        meta.insert(key, super::Value::U32(number));
    }
    if let Some(tokens) = pooling::longest(files)? {
        let key = format!("{}.{}", family.arch, super::LONGEST_TEXT);
        meta.insert(key, super::Value::U32(tokens));
    }
    let (tensors, recipes) = tensors::translate(family, &config, &raws, name)?;
    Ok(Folder {
        meta: Metadata(meta),
        tensors,
        recipes,
        sources,
    })
}

/// Tensors as the files name them.
type Raws = BTreeMap<String, Raw>;

/// Reads the heads of all safetensors files: those of the index, or those that are there.
fn heads(name: &str, files: &Files) -> Result<(Vec<Source>, Raws)> {
    let mut shards: Vec<String> = Vec::new();
    let index = files
        .iter()
        .find(|(n, _)| n.ends_with(".safetensors.index.json"));
    let mut owners = BTreeMap::new();
    if let Some((_, source)) = index {
        let index = json(source)?;
        let map = index["weight_map"].as_object().ok_or_else(|| {
            let reason = "it has no `weight_map`".into();
            problem(source.name(), FileProblem::Json { reason })
        })?;
        for (tensor, shard) in map {
            let shard = shard.as_str().unwrap_or_default().to_string();
            owners.insert(tensor.clone(), shard.clone());
            shards.push(shard);
        }
        shards.sort_unstable();
        shards.dedup();
        let count = shards.len() as u64;
        if let Some(missing) = shards.iter().find(|s| !files.contains_key(*s)) {
            let name = shown(missing);
            let missing = FileProblem::MissingFile { name, count };
            return Err(problem(source.name(), missing));
        }
    } else {
        let safetensors = |n: &&String| n.ends_with(".safetensors");
        shards.extend(files.keys().filter(safetensors).cloned());
    }
    if shards.is_empty() {
        let wanted = "*.safetensors";
        return Err(problem(name, FileProblem::NoFile { wanted }));
    }
    let sources: Vec<Source> = shards
        .iter()
        .filter_map(|s| files.get(s))
        .cloned()
        .collect();
    let mut raws = Raws::new();
    for (file, source) in sources.iter().enumerate() {
        for (tensor, raw) in head(source, file)? {
            if raws.insert(tensor.clone(), raw).is_some() {
                let name = shown(&tensor);
                let what = "tensor";
                return Err(problem(
                    source.name(),
                    FileProblem::Duplicate { what, name },
                ));
            }
        }
    }
    if let Some((tensor, shard)) = owners.iter().find(|(t, _)| !raws.contains_key(*t)) {
        let reason = format!("the index says that it holds `{}`", shown(tensor));
        let shard = files.get(shard).map_or(name, Source::name);
        return Err(problem(shard, FileProblem::Safetensors { reason }));
    }
    Ok((sources, raws))
}

/// The tensors of one safetensors file, which is number `file`.
fn head(source: &Source, file: usize) -> Result<Vec<(String, Raw)>> {
    let bytes = source.bytes(0..source.len())?;
    let damaged = |reason: String| problem(source.name(), FileProblem::Safetensors { reason });
    // The head is behind its length, of 8 bytes.
    let (size, meta) = match safetensors::SafeTensors::read_metadata(&bytes) {
        Ok(read) => read,
        Err(safetensors::SafeTensorError::MetadataIncompleteBuffer) => {
            let what = "its tensors".to_string();
            let (want, bytes) = (announced(&bytes), source.len());
            let truncated = FileProblem::Truncated { what, want, bytes };
            return Err(problem(source.name(), truncated));
        }
        Err(e) => return Err(damaged(reason(e))),
    };
    let data = size as u64 + 8;
    let raw = |info: &safetensors::tensor::TensorInfo| Raw {
        file,
        offset: data + info.data_offsets.0 as u64,
        dtype: info.dtype,
        shape: info.shape.clone(),
    };
    let tensors = meta.tensors();
    Ok(tensors.into_iter().map(|(n, i)| (n, raw(i))).collect())
}

/// Bytes that a safetensors file should have by its head, which is behind its length.
fn announced(bytes: &[u8]) -> u64 {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return 8;
    };
    let length = u64::from_le_bytes(*length);
    let end = 8u64.saturating_add(length);
    let head = usize::try_from(length).ok().and_then(|n| rest.get(..n));
    let head: Json = serde_json::from_slice(head.unwrap_or_default()).unwrap_or_default();
    let tensors = head.as_object().into_iter().flat_map(|o| o.values());
    let ends = tensors.filter_map(|t| t["data_offsets"][1].as_u64());
    end.saturating_add(ends.max().unwrap_or(0))
}
