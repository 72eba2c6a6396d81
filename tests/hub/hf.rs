//! `hf:` sources against a local server: what arrives, what is resumed, what is refused.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use omnimini::hub::{PullOptions, find, list, pull, resolve};
use omnimini::{Error, Result};
use serde_json::json;

use crate::server::{Reply, Request, Server};
use crate::{Cache, Heard, model_bytes, sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository's list as the endpoint writes it, with what it says of each file.
pub(crate) fn listing(files: &[(&str, &[u8])]) -> Reply {
    let siblings = files.iter().map(|(name, bytes)| {
        let lfs = json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 135});
        json!({"rfilename": name, "size": bytes.len(), "blobId": "b", "lfs": lfs})
    });
    let siblings: Vec<_> = siblings.collect();
    Reply::new(
        200,
        json!({"id": "o/r", "sha": COMMIT, "siblings": siblings}).to_string(),
    )
}

/// Serves `o/r` at its main branch with one file, `m.gguf`; `serve` answers for the file.
fn one_file(bytes: &[u8], serve: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    let list = listing(&[("m.gguf", bytes)]);
    Server::new(move |request| match request.path.as_str() {
        "/api/models/o/r/revision/main?blobs=true" => list.clone(),
        path if path == format!("/o/r/resolve/{COMMIT}/m.gguf") => serve(request),
        _ => Reply::new(404, "no such page"),
    })
}

pub(crate) fn options(server: &Server) -> PullOptions {
    let hf_token = Some("hf_test".into());
    PullOptions {
        hf_endpoint: Some(server.url()),
        hf_token,
        ..PullOptions::default()
    }
}

pub(crate) fn pull_from(cache: &Cache, server: &Server, source: &str) -> Result<PathBuf> {
    pull(
        &cache.home,
        &resolve(source).unwrap(),
        &mut (),
        &options(server),
    )
}

/// Where each request for the file began.
fn starts(server: &Server) -> Vec<Option<usize>> {
    let requests = server.requests();
    let files = requests
        .iter()
        .filter(|request| request.path.contains("/resolve/"));
    files.map(Request::start).collect()
}

#[test]
fn a_file_is_pulled_once() {
    let (cache, bytes) = (Cache::new(), model_bytes(1, 700_000));
    let served = bytes.clone();
    let server = one_file(&bytes, move |request| Reply::file(request, &served));
    let mut heard = Heard::default();
    let source = resolve("hf:o/r").unwrap();
    let path = pull(&cache.home, &source, &mut heard, &options(&server)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(cache.files(), ["r/m.gguf", "r/manifest.json"]);
    assert_eq!(
        heard.steps.last().unwrap(),
        &("fetch m.gguf".into(), Some(700_000))
    );
    assert_eq!(heard.updates.last(), Some(&700_000));

    let models = list(&cache.home).unwrap();
    let [model] = models.as_slice() else {
        panic!("{models:?}")
    };
    assert_eq!(model.file, path);
    assert_eq!(model.manifest.source, "hf:o/r");
    assert_eq!(model.manifest.commit.as_deref(), Some(COMMIT));
    assert_eq!(model.manifest.sha256, Some(sha256(&bytes)));
    assert_eq!(model.manifest.size, 700_000);
    assert_eq!(
        (model.damage.as_ref(), model.manifest.files.len()),
        (None, 1)
    );

    // The token went along, and the transport was asked not to compress.
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.header("authorization"), Some("Bearer hf_test"));
    }
    assert_eq!(requests[1].header("accept-encoding"), Some("identity"));

    // Once more: nothing is asked for. By name and by source it is found.
    assert_eq!(pull_from(&cache, &server, "hf:o/r").unwrap(), path);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(find(&cache.home, "r").unwrap(), path);
    assert_eq!(find(&cache.home, "hf:o/r").unwrap(), path);
    let error = find(&cache.home, "hf:other/r").unwrap_err().to_string();
    assert!(error.contains("omnimini pull hf:other/r"), "{error}");
}

#[test]
fn a_revision_and_an_odd_path_are_asked_for() {
    let (cache, bytes) = (Cache::new(), model_bytes(2, 100));
    let (list, served) = (listing(&[("sub dir/m Ä.gguf", &bytes)]), bytes.clone());
    let server = Server::new(move |request| match request.path.as_str() {
        "/api/models/o/r/revision/refs%2Fpr%2F7?blobs=true" => list.clone(),
        path if path == format!("/o/r/resolve/{COMMIT}/sub%20dir/m%20%C3%84.gguf") => {
            Reply::file(request, &served)
        }
        _ => Reply::new(404, ""),
    });
    let path = pull_from(&cache, &server, "hf:o/r@refs/pr/7:sub dir/m Ä.gguf").unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(path.ends_with("models/m/m Ä.gguf"), "{}", path.display());
}

#[test]
fn all_parts_of_a_split_file_are_pulled() {
    let cache = Cache::new();
    let parts = [model_bytes(1, 5000), model_bytes(2, 6000)];
    let names = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
    let list = listing(&[
        (names[0], &parts[0]),
        ("README.md", b"hello"),
        (names[1], &parts[1]),
    ]);
    let server = Server::new(move |request| {
        match names.iter().position(|name| request.path.ends_with(name)) {
            Some(i) => Reply::file(request, &parts[i]),
            None => list.clone(),
        }
    });
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert!(
        path.ends_with("r/m-00001-of-00002.gguf"),
        "{}",
        path.display()
    );
    let files = [
        "r/m-00001-of-00002.gguf",
        "r/m-00002-of-00002.gguf",
        "r/manifest.json",
    ];
    assert_eq!(cache.files(), files);
    let model = &list_one(&cache).manifest;
    assert_eq!(
        (model.size, model.sha256.as_ref(), model.files.len()),
        (11_000, None, 2)
    );
}

pub(crate) fn list_one(cache: &Cache) -> omnimini::hub::Model {
    let mut models = list(&cache.home).unwrap();
    assert_eq!(models.len(), 1);
    models.remove(0)
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let (cache, bytes) = (Cache::new(), model_bytes(3, 300_000));
    let (served, count) = (bytes.clone(), AtomicUsize::new(0));
    let server = one_file(&bytes, move |request| {
        let reply = Reply::file(request, &served);
        if count.fetch_add(1, Ordering::SeqCst) < 2 {
            reply.cut(100_000)
        } else {
            reply
        }
    });
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(starts(&server), [None, Some(100_000), Some(200_000)]);
}

#[test]
fn a_later_pull_goes_on_where_the_last_one_ended() {
    let (cache, bytes) = (Cache::new(), model_bytes(4, 300_000));
    let served = bytes.clone();
    let cut = one_file(&bytes, move |request| match request.start() {
        None => Reply::file(request, &served).cut(123_456),
        Some(_) => Reply::file(request, &served).cut(0),
    });
    let error = pull_from(&cache, &cut, "hf:o/r").unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { what, .. } if what == "m.gguf"),
        "{error}"
    );
    assert_eq!(
        starts(&cut).len(),
        3,
        "it is tried so often without a new byte"
    );
    assert_eq!(cache.files(), ["r/.pull/0123456789ab-m.gguf.part"]);
    assert!(list(&cache.home).unwrap().is_empty());

    let served = bytes.clone();
    let whole = one_file(&bytes, move |request| Reply::file(request, &served));
    let path = pull_from(&cache, &whole, "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(starts(&whole), [Some(123_456)]);
    assert_eq!(cache.files(), ["r/m.gguf", "r/manifest.json"]);
}

#[test]
fn a_part_that_is_whole_is_not_asked_for_again() {
    let (cache, bytes) = (Cache::new(), model_bytes(5, 5_000));
    let server = one_file(&bytes, |_| Reply::new(500, ""));
    let part = cache.home.models().join("r/.pull/0123456789ab-m.gguf.part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &bytes).unwrap();
    pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(starts(&server), []);
}

#[test]
fn a_server_without_ranges_makes_it_start_over() {
    let (cache, bytes) = (Cache::new(), model_bytes(6, 200_000));
    let (served, count) = (bytes.clone(), AtomicUsize::new(0));
    let server = one_file(&bytes, move |_| {
        let reply = Reply::new(200, served.clone());
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            reply.cut(50_000)
        } else {
            reply
        }
    });
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(starts(&server), [None, Some(50_000)]);
}

#[test]
fn an_old_part_of_something_longer_is_dropped() {
    let (cache, bytes) = (Cache::new(), model_bytes(7, 1_000));
    // This endpoint says nothing of sizes, so only the status 416 shows it.
    let list = json!({"sha": COMMIT, "siblings": [{"rfilename": "m.gguf"}]}).to_string();
    let served = bytes.clone();
    let server = Server::new(move |request| {
        if request.path.contains("/api/") {
            Reply::new(200, list.clone())
        } else {
            Reply::file(request, &served)
        }
    });
    let part = cache.home.models().join("r/.pull/0123456789ab-m.gguf.part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, [7; 5_000]).unwrap();
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(starts(&server), [Some(5_000), None]);
    assert_eq!(list_one(&cache).manifest.sha256, Some(sha256(&bytes)));
}

#[test]
fn another_file_than_listed_is_thrown_away() {
    let bytes = model_bytes(8, 4_000);
    let longer = model_bytes(8, 4_001);
    let other = model_bytes(9, 4_000);
    // A chunked reply has no length of its own.
    let mut chunked = b"fa1\r\n".to_vec();
    chunked.extend_from_slice(&longer);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let chunked = Reply::new(200, chunked).with("Transfer-Encoding", "chunked");
    for (reply, property) in [
        (Reply::new(200, longer), "size"),
        (Reply::new(200, &bytes[..3_999]), "size"),
        (Reply::new(200, other), "sha256"),
        (chunked, "size"),
    ] {
        let cache = Cache::new();
        let server = one_file(&bytes, move |_| reply.clone());
        let error = pull_from(&cache, &server, "hf:o/r").unwrap_err();
        assert!(
            matches!(&error, Error::WrongBytes { property: p, .. } if *p == property),
            "{error}"
        );
        let left = cache.files();
        assert!(!left.contains(&"r/m.gguf".to_owned()), "{left:?}");

        let served = bytes.clone();
        let server = one_file(&bytes, move |request| Reply::file(request, &served));
        assert_eq!(
            fs::read(pull_from(&cache, &server, "hf:o/r").unwrap()).unwrap(),
            bytes
        );
    }
}

#[test]
fn refusals_are_one_sentence() {
    let bytes = model_bytes(10, 100);
    for (status, want) in [
        (401, "set HF_TOKEN"),
        (403, "accept the model's terms"),
        (
            404,
            "does not exist: check owner, repository, revision and file",
        ),
        (429, "try again in a while"),
        (500, "status 500"),
        (418, "status 418"),
    ] {
        let refusing = [
            Server::new(move |_| Reply::new(status, "<html>no</html>")),
            one_file(&bytes, move |_| Reply::new(status, "")),
        ];
        for server in refusing {
            let cache = Cache::new();
            let error = pull_from(&cache, &server, "hf:o/r")
                .unwrap_err()
                .to_string();
            assert!(error.contains(want) && !error.contains('\n'), "{error}");
            assert!(list(&cache.home).unwrap().is_empty());
        }
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_named_in_one_sentence() {
    let cache = Cache::new();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let pull_at = |endpoint: &str| {
        let options = PullOptions {
            hf_endpoint: Some(endpoint.into()),
            ..PullOptions::default()
        };
        pull(&cache.home, &resolve("hf:o/r").unwrap(), &mut (), &options).unwrap_err()
    };
    let error = pull_at(&format!("http://127.0.0.1:{port}"));
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("check the network"), "{error}");
    for nonsense in ["", "nonsense", "ftp://x", "http://", "/tmp"] {
        let error = pull_at(nonsense);
        assert!(
            matches!(error, Error::BadSource { .. }),
            "{nonsense}: {error}"
        );
    }
}

#[test]
fn a_token_stays_with_the_endpoint() {
    let (cache, bytes) = (Cache::new(), model_bytes(11, 9_000));
    let served = bytes.clone();
    let store = Server::new(move |request| Reply::file(request, &served));
    // Another host by name, though the same machine.
    let place = format!("http://localhost:{}/blob", store.port);
    let server = one_file(&bytes, move |_| {
        Reply::new(302, "").with("Location", place.clone())
    });
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    let requests = store.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), None);
}

#[test]
fn hostile_lists_are_refused() {
    let bytes = model_bytes(12, 50);
    let file = |name: &str| json!({"sha": COMMIT, "siblings": [{"rfilename": name}]}).to_string();
    let mut lists: Vec<String> = [
        "../../../evil.gguf/..",
        "../../evil.gguf",
        "/etc/evil.gguf",
        "a/..\\..\\evil.gguf",
        "C:evil.gguf",
        ".gguf",
        "evil\n.gguf",
        "evil\u{0}.gguf",
    ]
    .map(file)
    .to_vec();
    for commit in ["../../../../tmp", "a", "", "main?x=1234567"] {
        lists.push(json!({"sha": commit, "siblings": [{"rfilename": "m.gguf"}]}).to_string());
    }
    lists.extend([
        "<html>".into(),
        "{}".into(),
        "[]".into(),
        "null".into(),
        String::new(),
    ]);
    lists.push(json!({"sha": COMMIT, "siblings": []}).to_string());
    for list in lists {
        let (cache, reply) = (Cache::new(), Reply::new(200, list.clone()));
        let served = bytes.clone();
        let server = Server::new(move |request| {
            if request.path.contains("/api/") {
                reply.clone()
            } else {
                Reply::file(request, &served)
            }
        });
        let error = pull_from(&cache, &server, "hf:o/r").expect_err(&list);
        assert!(
            matches!(error, Error::BadReply { .. } | Error::NotFound { .. }),
            "{list}: {error}"
        );
        assert!(
            starts(&server).is_empty() && cache.files().is_empty(),
            "{list}"
        );
    }
}

#[test]
fn a_stopped_pull_keeps_what_arrived() {
    let (cache, bytes) = (Cache::new(), model_bytes(13, 2_000_000));
    let served = bytes.clone();
    let server = one_file(&bytes, move |request| Reply::file(request, &served));
    let mut heard = Heard {
        stop_after: Some(3),
        ..Heard::default()
    };
    let source = resolve("hf:o/r").unwrap();
    let error = pull(&cache.home, &source, &mut heard, &options(&server)).unwrap_err();
    assert!(
        matches!(&error, Error::PullStopped { name } if name == "r"),
        "{error}"
    );
    assert_eq!(cache.files(), ["r/.pull/0123456789ab-m.gguf.part"]);
    let path = pull_from(&cache, &server, "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert!(starts(&server)[1].unwrap() > 0);
}
