//! The cache folder: `models/NAME/` holds a model's files, its manifest and, while it is being
//! pulled, what has arrived so far.
//!
//! A model exists once its manifest does. The manifest is written last, every file gets its final
//! name only when it is whole, checked and on the disk, and one lock per name keeps processes
//! apart, so a pull may be killed at any moment.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Progress;
use super::source::{is_file_name, is_plain_name};
use crate::{Error, Result};

/// The folder inside a model's folder that holds an unfinished pull.
const UNFINISHED: &str = ".pull";
const MANIFEST: &str = "manifest.json";
/// A manifest larger than this many bytes is not ours.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// OmniMini's cache folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The folder that `OMNIMINI_HOME` names, else `omnimini` in the platform's cache folder.
    ///
    /// Nothing is created until something is pulled.
    ///
    /// # Errors
    /// [`Error::Io`] where the user has no home folder and `OMNIMINI_HOME` is not set.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os("OMNIMINI_HOME").filter(|value| !value.is_empty()) {
            Some(root) => Self::at(root),
            None => match etcetera::base_strategy::choose_native_strategy() {
                Ok(platform) => Self::at(platform.cache_dir().join("omnimini")),
                Err(e) => Err(Error::Io {
                    action: "find a home folder (set OMNIMINI_HOME) for",
                    path: "omnimini".into(),
                    source: io::Error::other(e),
                }),
            },
        }
    }

    /// A cache folder at `root`, made absolute.
    ///
    /// # Errors
    /// [`Error::Io`] where `root` is relative and there is no current folder.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let root = std::path::absolute(&root).map_err(io_error("find", &root))?;
        Ok(Self { root })
    }

    /// The cache folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds all models, one folder each.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(super) fn model(&self, name: &str) -> PathBuf {
        self.models().join(name)
    }

    /// Where an unfinished pull of `name` keeps what has arrived.
    pub(super) fn unfinished(&self, name: &str) -> PathBuf {
        self.model(name).join(UNFINISHED)
    }

    /// The manifest of `name`, or `None` where no such model was pulled.
    pub(super) fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        let path = self.model(name).join(MANIFEST);
        let mut text = String::new();
        let read = File::open(&path).and_then(|f| f.take(MANIFEST_LIMIT).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => {}
            Err(source) => {
                return Err(Error::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        }
        let damaged = |detail: String| {
            let (name, path) = (name.into(), path.clone());
            Error::DamagedModel { name, path, detail }
        };
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|e| damaged(format!("not a manifest: {e}")))?;
        let inside = |file: &FileRecord| file.name.split('/').all(is_file_name);
        let files_ok = manifest.files.iter().all(inside);
        if manifest.name != name
            || !files_ok
            || manifest.files.is_empty() != manifest.path.is_some()
        {
            return Err(damaged("it does not describe this model".into()));
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest, which makes the model exist.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let folder = self.model(&manifest.name);
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let path = folder.join(MANIFEST);
        let part = folder.join(format!("{MANIFEST}.part"));
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            sync_folder(&folder)
        };
        write().map_err(io_error("write", &path))
    }

    /// The names of all folders that may hold a model, in order.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let folder = self.models();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(Error::Io {
                    action: "list",
                    path: folder,
                    source,
                });
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_plain_name(name)).collect();
        names.sort();
        Ok(names)
    }

    /// Takes the lock of `name` if it is free.
    pub(super) fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        // Lock files stay: removing one while another process opens it would give two owners.
        let path = folder.join(format!("{name}.lock"));
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = open.map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(io_error("lock", &path)(e)),
        }
    }

    /// Takes the lock of `name`, waiting for another process to be done with it.
    pub(super) fn lock(&self, name: &str, progress: &mut dyn Progress) -> Result<Lock> {
        let mut told = false;
        loop {
            if let Some(lock) = self.try_lock(name)? {
                return Ok(lock);
            }
            if !told {
                progress.notice(&format!(
                    "another process is pulling {name}; waiting for it"
                ));
                told = true;
            }
            if progress.cancelled() {
                return Err(Error::PullStopped { name: name.into() });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A taken lock: given back when it is dropped, and by the system when the process dies.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread starts just now holds a copy for a
        // moment. If this fails, closing is all that is left.
        let _ = self.0.unlock();
    }
}

/// What is written beside a pulled model: where it came from and what it must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the model is called.
    pub name: String,
    /// Where it came from, as [`super::resolve`] understands it.
    pub source: String,
    /// The commit of a Hugging Face repository that the files are of.
    #[serde(default)]
    pub commit: Option<String>,
    /// The model's files in its folder, the one to open first; empty if `path` is set.
    pub files: Vec<FileRecord>,
    /// The file or folder of a model that is used where it lies.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The size of all files in bytes.
    pub size: u64,
    /// The SHA-256 of the file, if the model is one file of ours.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The licence's name, where known.
    #[serde(default)]
    pub licence: Option<String>,
    /// Where the terms are to be read that the user was shown at the pull.
    #[serde(default)]
    pub terms_shown: Option<String>,
    /// When it was pulled: UTC, as in `2026-01-31T12:00:00Z`.
    pub pulled: String,
}

/// One file of a pulled model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name in the model's folder, or its path from there.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

/// A file on its way: everything written to it is hashed, and it gets its final name only whole.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
    len: u64,
}

/// Why [`Part::append`] ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The reader failed: what has arrived is good.
    Read(io::Error),
    /// The disk failed, or the caller asked to stop.
    Fatal(Error),
}

impl Part {
    /// Starts `path` anew.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(io_error("write", &path))?;
        Ok(Self {
            path,
            file,
            hash: Sha256::new(),
            len: 0,
        })
    }

    /// Goes on with what `path` holds, if it is there.
    pub(super) fn resume(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        let open = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let mut file = open.map_err(io_error("write", &path))?;
        let (hash, len) = hash_reader(&mut file).map_err(io_error("read", &path))?;
        Ok(Self {
            path,
            file,
            hash,
            len,
        })
    }

    /// How many bytes are there, all of them good.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Forgets everything that was written.
    pub(super) fn restart(&mut self) -> Result<()> {
        *self = Self::create(std::mem::take(&mut self.path))?;
        Ok(())
    }

    /// Writes what `reader` gives until its end or until the file has `limit` bytes, telling
    /// `progress` how many bytes the file has, which counts from `offset`.
    pub(super) fn append(
        &mut self,
        reader: &mut dyn Read,
        limit: u64,
        offset: u64,
        progress: &mut dyn Progress,
    ) -> Result<(), Stop> {
        let mut reader = reader.take(limit.saturating_sub(self.len));
        let mut buffer = vec![0; 256 << 10];
        loop {
            if progress.cancelled() {
                return Err(Stop::Fatal(Error::PullStopped {
                    name: String::new(),
                }));
            }
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Stop::Read(e)),
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            self.file
                .write_all(bytes)
                .map_err(|e| Stop::Fatal(io_error("write", &self.path)(e)))?;
            self.hash.update(bytes);
            self.len += n as u64;
            progress.update(offset + self.len);
        }
    }

    /// Checks the file against what is known of it, and gives it its final name `target`.
    ///
    /// # Errors
    /// [`Error::WrongBytes`] where it is another file, which then is deleted.
    pub(super) fn finish(
        self,
        target: &Path,
        size: Option<u64>,
        sha256: Option<&str>,
    ) -> Result<FileRecord> {
        let name = target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let got = hex(&self.hash.finalize());
        let wrong = match (size, sha256) {
            (Some(size), _) if size != self.len => {
                Some(("size", size.to_string(), self.len.to_string()))
            }
            (_, Some(want)) if !want.eq_ignore_ascii_case(&got) => {
                Some(("sha256", want.to_owned(), got.clone()))
            }
            _ => None,
        };
        if let Some((property, want, got)) = wrong {
            drop(self.file);
            fs::remove_file(&self.path).map_err(io_error("delete", &self.path))?;
            return Err(Error::WrongBytes {
                what: name,
                property,
                want,
                got,
            });
        }
        self.file
            .sync_all()
            .map_err(io_error("write", &self.path))?;
        drop(self.file);
        fs::rename(&self.path, target).map_err(io_error("write", target))?;
        let folder = target.parent().unwrap_or(target);
        sync_folder(folder).map_err(io_error("write", folder))?;
        Ok(FileRecord {
            name,
            size: self.len,
            sha256: got,
        })
    }
}

/// The record of a file that is there already, if it is the one wanted.
pub(super) fn record_of(path: &Path, size: Option<u64>, sha256: &str) -> Option<FileRecord> {
    let mut file = File::open(path).ok()?;
    let there = file.metadata().ok()?;
    if !there.is_file() || size.is_some_and(|size| size != there.len()) {
        return None;
    }
    let (hash, size) = hash_reader(&mut file).ok()?;
    let got = hex(&hash.finalize());
    let name = path.file_name()?.to_str()?.to_owned();
    got.eq_ignore_ascii_case(sha256).then_some(FileRecord {
        name,
        size,
        sha256: got,
    })
}

fn hash_reader(reader: &mut dyn Read) -> io::Result<(Sha256, u64)> {
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hash, len)),
            Ok(n) => {
                hash.update(buffer.get(..n).unwrap_or_default());
                len += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from(b"0123456789abcdef"[d as usize]))
        .collect()
}

/// Makes a rename in `folder` last through a power cut. Windows has no such call, and needs none.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// Deletes a folder and everything in it, if it is there. Links are deleted, not followed.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("delete", folder)(e)),
        _ => Ok(()),
    }
}

/// Deletes what a model's folder has beside its files: an earlier pull that was not finished may have
/// been of another state of the repository, and a folder's weights are whatever lies there.
pub(super) fn prune(folder: &Path, files: &[FileRecord]) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(io_error("read", folder))?;
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let wanted = files.iter().any(|file| *file.name == *name) || name == MANIFEST;
        if path.is_file() && !wanted {
            fs::remove_file(&path).map_err(io_error("delete", &path))?;
        }
    }
    Ok(())
}

/// Turns the system's error on `path` into ours; a full disk has its own.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull { path },
        _ => Error::Io {
            action,
            path,
            source,
        },
    }
}

/// The time now, as `2026-01-31T12:00:00Z`.
pub(super) fn now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    date(since.as_secs())
}

/// The civil date of a count of seconds since 1970 in UTC.
fn date(seconds: u64) -> String {
    let (mut days, in_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (h, m, s) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{:02}T{h:02}:{m:02}:{s:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), want);
        }
    }

    #[test]
    fn a_part_goes_on_where_it_stopped_and_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("m.part"), dir.path().join("m.gguf"));
        let want = hex(&Sha256::digest(b"hello world"));
        let mut part = Part::create(path.clone()).unwrap();
        part.append(&mut &b"hello"[..], 99, 0, &mut ()).unwrap();
        drop(part);
        let mut part = Part::resume(path.clone()).unwrap();
        assert_eq!(part.len(), 5);
        part.append(&mut &b" world and more"[..], 11, 0, &mut ())
            .unwrap();
        let record = part.finish(&target, Some(11), Some(&want)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"hello world");
        assert_eq!(record, record_of(&target, None, &want).unwrap());
        assert_eq!(record_of(&target, Some(10), &want), None);
        assert!(!path.exists());

        let part = Part::create(path.clone()).unwrap();
        let error = part.finish(&target, None, Some(&want)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::WrongBytes {
                    property: "sha256",
                    ..
                }
            ),
            "{error}"
        );
        assert!(!path.exists() && target.exists());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_has_its_own_error() {
        let mut part = Part::create("/dev/full".into()).unwrap();
        let stop = part.append(&mut &[0; 9][..], 9, 0, &mut ()).unwrap_err();
        assert!(
            matches!(stop, Stop::Fatal(Error::DiskFull { .. })),
            "{stop:?}"
        );
    }

    #[test]
    fn manifests_that_are_damaged_or_point_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        assert_eq!(home.manifest("m").unwrap(), None);
        let good = Manifest {
            name: "m".into(),
            source: "hf:a/b".into(),
            commit: None,
            files: vec![FileRecord {
                name: "m.gguf".into(),
                size: 1,
                sha256: "0".into(),
            }],
            path: None,
            size: 1,
            sha256: None,
            licence: None,
            terms_shown: None,
            pulled: now(),
        };
        home.write_manifest(&good).unwrap();
        assert_eq!(home.manifest("m").unwrap(), Some(good.clone()));
        let path = home.model("m").join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        for bad in [
            text.replace("m.gguf", "../m.gguf"),
            text.replace("m.gguf", "/etc/passwd"),
            text.replace("\"name\": \"m\"", "\"name\": \"n\""),
            text.replace("\"files\"", "\"file\""),
            text[..40].to_owned(),
            String::new(),
        ] {
            fs::write(&path, bad).unwrap();
            let error = home.manifest("m").unwrap_err();
            assert!(matches!(error, Error::DamagedModel { .. }), "{error}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(
            home.manifest("m"),
            Err(Error::DamagedModel { .. })
        ));
    }
}
