//! Files and folders of Hugging Face repositories.
//!
//! The hf-hub crate knows the endpoint, the saved token, the addresses and the repository's list.
//! The bytes are fetched here: hf-hub 0.5 checks neither size nor hash, appends a whole file to a
//! part where a server ignores the range, asks past the end of a part that is whole, lets the
//! server's reply name a path on this machine, and lets a transport compress a resumed part.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;

use super::folder::files_of;
use super::source::{is_file_name, is_folder, is_gguf, last_part};
use super::store::{FileRecord, Part, Stop, record_of};
use super::{Progress, PullOptions, Target};
use crate::{Error, Result};

/// A connection that says nothing for this long is given up.
const SILENCE: Duration = Duration::from_mins(1);
/// How often a transfer may break off in a row without a new byte.
const ATTEMPTS: u32 = 3;
/// A repository's list that is larger than this many bytes is not read.
const LIST_LIMIT: u64 = 64 << 20;
/// The quantisation that is taken where a repository has several and none was named.
const USUAL: &str = "q4_k_m";

/// What the list of a repository says.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

/// One file of it.
#[derive(Debug, Clone, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// What is known of a large file.
#[derive(Debug, Clone, Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

struct Client {
    api: Api,
    agent: Agent,
    token: Option<String>,
}

/// A file to fetch, and its path in the model's folder.
#[derive(Debug, Clone)]
struct Wanted {
    sibling: Sibling,
    name: String,
}

/// Fetches the wanted file (all its parts, if it is split) or folder, and says which commit it is of.
/// `wanted` is repository, revision and file.
pub(super) fn pull(
    target: &Target,
    wanted: (&str, Option<&str>, Option<&str>),
    progress: &mut dyn Progress,
    options: &PullOptions,
) -> Result<(Vec<FileRecord>, String)> {
    let (repo, revision, file) = wanted;
    let client = Client::new(options)?;
    progress.step(&format!("look up hf:{repo}"), None);
    let listing = client.list(repo, revision)?;
    let files = choose(&listing.siblings, repo, file)?;
    // By commit, so that all files are of one state even if the branch moves on meanwhile.
    let at_commit = Repo::with_revision(repo.into(), RepoType::Model, listing.sha.clone());
    let at_commit = client.api.repo(at_commit);
    let mut records = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let count = if files.len() > 1 {
            format!(" ({} of {})", i + 1, files.len())
        } else {
            String::new()
        };
        progress.step(&format!("fetch {}{count}", file.name), file.sibling.size);
        let flat = file.name.replace('/', "-");
        let part = format!("{}-{flat}.part", short(&listing.sha));
        let unfinished = target.unfinished.join(part);
        records.push(client.fetch(&at_commit, file, target, unfinished, progress)?);
    }
    Ok((records, listing.sha))
}

impl Client {
    fn new(options: &PullOptions) -> Result<Self> {
        let set = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        // Not `Cache::from_env`, which panics where there is no home folder.
        let cache = match (set("HF_HOME"), etcetera::home_dir()) {
            (Some(folder), _) => Path::new(&folder).join("hub"),
            (None, Ok(home)) => home.join(".cache/huggingface/hub"),
            (None, Err(_)) => "hub".into(),
        };
        let cache = Cache::new(cache);
        let token = options
            .hf_token
            .clone()
            .or_else(|| set("HF_TOKEN"))
            .or_else(|| cache.token());
        let token = token.map(|token| token.trim().to_owned());
        let bad = |text: &str, problem: &str| Error::BadSource {
            text: text.into(),
            problem: problem.into(),
        };
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(bad("HF_TOKEN", "it holds characters that no token has"));
        }
        let mut builder = ApiBuilder::from_cache(cache)
            .with_token(token.clone())
            .with_user_agent("omnimini", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = options.hf_endpoint.clone().or_else(|| set("HF_ENDPOINT")) {
            let uri: Option<ureq::http::Uri> = endpoint.parse().ok();
            if !uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https"))) {
                return Err(bad(
                    &endpoint,
                    "HF_ENDPOINT is an address such as https://HOST",
                ));
            }
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').into());
        }
        let api = builder.build().map_err(|e| Error::BadReply {
            what: "from Hugging Face".into(),
            detail: e.to_string(),
        })?;
        let agent = Agent::config_builder()
            // The token goes to the endpoint, never to where it sends us for the bytes.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("omnimini/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            api,
            agent: agent.into(),
            token,
        })
    }

    /// The files of a repository, and the commit that they are of.
    fn list(&self, repo: &str, revision: Option<&str>) -> Result<Listing> {
        let revision = revision.unwrap_or("main");
        let what = format!("hf:{repo}@{revision}");
        let of = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
        let request = self.api.repo(of).info_request().query("blobs", "true");
        let request = request
            .config()
            .timeout_connect(Some(SILENCE))
            .timeout_global(Some(SILENCE));
        let mut response = request.build().call().map_err(|e| explain(e, &what))?;
        let body = response
            .body_mut()
            .with_config()
            .limit(LIST_LIMIT)
            .read_to_vec();
        let body = body.map_err(|e| explain(e, &what))?;
        let bad = |detail: String| Error::BadReply {
            what: what.clone(),
            detail,
        };
        let listing: Listing = serde_json::from_slice(&body)
            .map_err(|e| bad(format!("the endpoint sent no list of a repository ({e})")))?;
        // It becomes part of addresses and of file names.
        if listing.sha.len() < 7 || !listing.sha.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(bad("the endpoint sent a commit that is none".into()));
        }
        Ok(listing)
    }

    /// Fetches one file, going on with what `unfinished` holds.
    fn fetch(
        &self,
        repo: &ApiRepo,
        wanted: &Wanted,
        target: &Target,
        unfinished: PathBuf,
        progress: &mut dyn Progress,
    ) -> Result<FileRecord> {
        let Wanted {
            sibling: file,
            name,
        } = wanted;
        let path = target.file(name)?;
        let named = |record: FileRecord| FileRecord {
            name: name.clone(),
            ..record
        };
        let sha256 = file.lfs.as_ref().and_then(|lfs| lfs.sha256.as_deref());
        if let Some(sha256) = sha256
            && let Some(record) = record_of(&path, file.size, sha256)
        {
            return Ok(named(record));
        }
        let url = repo.url(&encode(&file.rfilename));
        let mut part = Part::resume(unfinished)?;
        if file.size.is_some_and(|size| part.len() > size) {
            part.restart()?;
        }
        let mut failures = 0;
        while file.size != Some(part.len()) {
            let before = part.len();
            progress.update(before);
            match self.transfer(&url, name, file.size, &mut part, progress) {
                Ok(()) => break,
                Err(Transfer::Broken(error)) => {
                    failures = if part.len() > before { 1 } else { failures + 1 };
                    if failures >= ATTEMPTS {
                        return Err(error);
                    }
                    log::warn!("{error}; trying again");
                    std::thread::sleep(Duration::from_millis(250 << failures));
                }
                Err(Transfer::Fatal(error)) => return Err(error),
            }
        }
        part.finish(&path, file.size, sha256).map(named)
    }

    /// One request for what `part` lacks.
    fn transfer(
        &self,
        url: &str,
        name: &str,
        size: Option<u64>,
        part: &mut Part,
        progress: &mut dyn Progress,
    ) -> Result<(), Transfer> {
        // A compressed reply would have its own ranges.
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if part.len() > 0 {
            request = request.header("Range", format!("bytes={}-", part.len()));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            // The server has less than we hold: what we hold is of another file.
            Err(ureq::Error::StatusCode(416)) if part.len() > 0 => {
                part.restart().map_err(Transfer::Fatal)?;
                return self.transfer(url, name, size, part, progress);
            }
            Err(error) => {
                let error = explain(error, name);
                return Err(match error {
                    Error::Unreachable { .. } => Transfer::Broken(error),
                    error => Transfer::Fatal(error),
                });
            }
        };
        let whole = if part.len() == 0 {
            response.body().content_length()
        } else {
            let range = response
                .headers()
                .get("Content-Range")
                .and_then(|v| v.to_str().ok());
            match (response.status().as_u16(), range.and_then(parse_range)) {
                (206, Some((start, whole))) if start == part.len() => whole,
                // The server starts over, so we do.
                _ => {
                    part.restart().map_err(Transfer::Fatal)?;
                    if response.status().as_u16() != 200 {
                        return Err(Transfer::Broken(Error::Unreachable {
                            what: name.into(),
                            detail: "the server sent another part than asked for".into(),
                        }));
                    }
                    response.body().content_length()
                }
            }
        };
        if let (Some(want), Some(got)) = (size, whole)
            && want != got
        {
            return Err(Transfer::Fatal(Error::WrongBytes {
                what: name.into(),
                property: "size",
                want: want.to_string(),
                got: got.to_string(),
            }));
        }
        let end = size.or(whole);
        // One byte more than expected, so that a longer file is noticed.
        let limit = end.map_or(u64::MAX, |end| end.saturating_add(1));
        let detail = match part.append(&mut response.body_mut().as_reader(), limit, 0, progress) {
            Ok(()) if end.is_none_or(|end| part.len() >= end) => return Ok(()),
            Ok(()) => "the connection broke off".into(),
            Err(Stop::Read(e)) => format!("the connection broke off ({e})"),
            Err(Stop::Fatal(error)) => return Err(Transfer::Fatal(error)),
        };
        Err(Transfer::Broken(Error::Unreachable {
            what: name.into(),
            detail,
        }))
    }
}

/// How a transfer failed.
enum Transfer {
    /// Worth another try from where it stopped.
    Broken(Error),
    /// Nothing that another try would mend.
    Fatal(Error),
}

/// The files to fetch: the wanted one, or the only GGUF, or the one of the usual quantisation, with
/// the other parts of a split file; or the wanted folder, or the repository's own where it has no
/// GGUF file.
fn choose(siblings: &[Sibling], repo: &str, file: Option<&str>) -> Result<Vec<Wanted>> {
    // A projector for images goes with a model and is none.
    let is_model = |name: &str| {
        is_gguf(Path::new(name)) && !last_part(name).to_ascii_lowercase().contains("mmproj")
    };
    let names = siblings.iter().map(|sibling| sibling.rfilename.as_str());
    let models: Vec<&str> = names
        .filter(|name| is_model(name) && split_of(name).is_none_or(|(_, part, _)| part == 1))
        .collect();
    let whole = folder(siblings, "/");
    let missing = |what: String| Error::NotFound {
        what,
        hint: match (models.as_slice(), whole.is_empty()) {
            ([], true) => {
                "the repository has no GGUF file, and no config.json with safetensors files".into()
            }
            ([], false) => format!("hf:{repo} alone fetches what the repository has"),
            (some, true) => format!("the repository has {}", some.join(", ")),
            (some, false) => format!(
                "the repository has {}, and hf:{repo}:/ fetches its safetensors files",
                some.join(", ")
            ),
        },
    };
    let usual = |name: &&str| name.to_ascii_lowercase().contains(USUAL);
    let usual: Vec<&str> = models.iter().copied().filter(usual).collect();
    let chosen = match (file, models.as_slice(), usual.as_slice()) {
        (Some(path), ..) if is_folder(path) => {
            let files = folder(siblings, path);
            if files.is_empty() {
                let what = format!("a model's folder {path} in hf:{repo}");
                return Err(missing(what));
            }
            return Ok(files);
        }
        (Some(file), ..) => file,
        (None, [only], _) | (None, _, [only]) => only,
        (None, [], _) if !whole.is_empty() => return Ok(whole),
        _ => {
            return Err(missing(format!(
                "a usual choice among the files of hf:{repo}"
            )));
        }
    };
    let parts: Vec<String> = match split_of(chosen) {
        Some((stem, _, count)) => {
            // No further than the first that must be missing.
            let parts = 1..=count.min(siblings.len() + 1);
            parts
                .map(|i| format!("{stem}-{i:05}-of-{count:05}.gguf"))
                .collect()
        }
        None => vec![chosen.into()],
    };
    let find = |name: &String| {
        let found = siblings.iter().find(|sibling| sibling.rfilename == *name);
        match found {
            Some(sibling) if name.split('/').all(is_file_name) => Ok(Wanted {
                sibling: sibling.clone(),
                name: last_part(name).into(),
            }),
            _ => Err(missing(format!("{name} in hf:{repo}"))),
        }
    };
    parts.iter().map(find).collect()
}

/// The files of a model's folder in a repository; `/` is all of it. None where it is no model's.
fn folder(siblings: &[Sibling], path: &str) -> Vec<Wanted> {
    let path = path.trim_start_matches('/');
    let inside = |sibling: &Sibling| {
        Some((
            sibling.clone(),
            sibling.rfilename.strip_prefix(path)?.to_owned(),
        ))
    };
    let inside: Vec<(Sibling, String)> = siblings.iter().filter_map(inside).collect();
    let names: Vec<&str> = inside.iter().map(|(_, name)| name.as_str()).collect();
    let wanted = files_of(&names).into_iter().filter_map(|name| {
        let (sibling, _) = inside.iter().find(|(_, other)| other == name)?;
        Some(Wanted {
            sibling: sibling.clone(),
            name: name.into(),
        })
    });
    wanted.collect()
}

/// Reads `STEM-00002-of-00005.gguf` as stem, part and count.
fn split_of(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let number = |text: &str| {
        let plain = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<usize>().ok()).flatten()
    };
    let (part, count) = (number(part)?, number(count)?);
    (1..=count).contains(&part).then_some((stem, part, count))
}

/// Reads `bytes 5-9/10` as the first byte and, where it is said, the whole size.
fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, whole.parse().ok()))
}

/// A path as it stands in an address.
fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// Makes one sentence of a failed request.
fn explain(error: ureq::Error, what: &str) -> Error {
    let what = what.to_owned();
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => Error::Denied { what, status },
        ureq::Error::StatusCode(404) => Error::NotFound {
            what,
            hint: "check owner, repository, revision and file".into(),
        },
        ureq::Error::StatusCode(status @ (408 | 429 | 500..=599)) => {
            let detail = format!("the server answers with status {status}; try again in a while");
            Error::BadReply { what, detail }
        }
        ureq::Error::StatusCode(status) => Error::BadReply {
            what,
            detail: format!("the server answers with status {status}"),
        },
        error @ (ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)) => Error::Unreachable {
            what,
            detail: error.to_string(),
        },
        error => Error::BadReply {
            what,
            detail: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn files(names: &[&str]) -> Vec<Sibling> {
        let sibling = |n: &&str| Sibling {
            rfilename: (*n).into(),
            size: None,
            lfs: None,
        };
        names.iter().map(sibling).collect()
    }

    fn chosen(names: &[&str], file: Option<&str>) -> Result<Vec<String>> {
        Ok(choose(&files(names), "o/r", file)?
            .into_iter()
            .map(|wanted| wanted.sibling.rfilename)
            .collect())
    }

    #[test]
    fn the_right_file_is_chosen() {
        let one = &["README.md", "mmproj-F16.gguf", "m.Q8_0.GGUF"];
        assert_eq!(chosen(one, None).unwrap(), ["m.Q8_0.GGUF"]);
        let several = &["m-Q8_0.gguf", "m-Q4_K_M.gguf", "x/y.gguf"];
        assert_eq!(chosen(several, None).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(several, Some("x/y.gguf")).unwrap(), ["x/y.gguf"]);
        let split = &[
            "d/m-00001-of-00002.gguf",
            "d/m-00002-of-00002.gguf",
            "d/m-00003-of-00002.gguf",
        ];
        let both = ["d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"];
        assert_eq!(chosen(&split[..2], None).unwrap(), both);
        assert_eq!(chosen(&split[..2], Some(both[1])).unwrap(), both);
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |names: &[&str], file| chosen(names, file).unwrap_err().to_string();
        assert!(message(&["a.bin"], None).contains("no GGUF file"));
        let several = message(&["a.gguf", "b.gguf"], None);
        assert!(several.contains("a.gguf, b.gguf"), "{several}");
        assert!(
            message(&["a.gguf"], Some("b.gguf")).starts_with("b.gguf in hf:o/r does not exist")
        );
        let half = message(&["m-00001-of-00003.gguf", "m-00002-of-00003.gguf"], None);
        assert!(half.starts_with("m-00003-of-00003.gguf"), "{half}");
        // A count that no repository has does not make a list of that length.
        assert!(chosen(&["m-00001-of-99999.gguf"], None).is_err());
    }

    #[test]
    fn ranges_and_addresses() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes */10", "items 5-9/10", "bytes -5/10"] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
        assert_eq!(encode("a b/ä?#%.gguf"), "a%20b/%C3%A4%3F%23%25.gguf");
    }
}
