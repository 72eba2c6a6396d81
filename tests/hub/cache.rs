//! The cache folder: names, paths, damage, removal.

use std::fs;

use omnimini::Error;
use omnimini::hub::{Home, PullOptions, find, list, pull, remove, resolve};

use crate::{Cache, Heard, model_bytes};

#[test]
fn an_empty_cache_answers() {
    let cache = Cache::new();
    assert_eq!(list(&cache.home).unwrap(), []);
    let error = find(&cache.home, "smollm2-135m-instruct")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("omnimini pull smollm2-135m-instruct"),
        "{error}"
    );
    let error = find(&cache.home, "no-such").unwrap_err().to_string();
    assert!(
        error.contains("smollm2-135m-instruct, gemma-3-270m"),
        "{error}"
    );
    let error = find(&cache.home, "no/such.gguf").unwrap_err();
    assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    assert!(matches!(
        remove(&cache.home, "no-such"),
        Err(Error::NotPulled { .. })
    ));
    for name in ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\\b"] {
        assert!(
            matches!(remove(&cache.home, name), Err(Error::BadSource { .. })),
            "{name}"
        );
    }
    assert!(!cache.home.root().exists(), "asking creates nothing");
}

#[test]
fn a_path_is_used_where_it_lies_and_may_get_a_name() {
    let cache = Cache::new();
    let file = cache.beside("models").join("Mine v2.gguf");
    fs::write(&file, model_bytes(1, 64)).unwrap();
    let text = file.to_str().unwrap();
    assert_eq!(find(&cache.home, text).unwrap(), file);

    let source = resolve(text).unwrap();
    let options = PullOptions {
        name: Some("mine".into()),
        ..PullOptions::default()
    };
    assert_eq!(pull(&cache.home, &source, &mut (), &options).unwrap(), file);
    assert_eq!(
        pull(&cache.home, &source, &mut (), &PullOptions::default()).unwrap(),
        file
    );
    assert_eq!(find(&cache.home, "mine").unwrap(), file);
    assert_eq!(find(&cache.home, "Mine-v2").unwrap(), file);
    let models = list(&cache.home).unwrap();
    assert_eq!(models.len(), 2);
    assert!(
        models
            .iter()
            .all(|m| m.file == file && m.manifest.size == 64)
    );

    // Its name is now known, and named where another one is asked for.
    let error = find(&cache.home, "yours").unwrap_err().to_string();
    assert!(error.contains("mine"), "{error}");

    remove(&cache.home, "mine").unwrap();
    assert!(file.exists(), "the file was never ours");
    assert!(matches!(
        find(&cache.home, "mine"),
        Err(Error::UnknownModel { .. })
    ));
    fs::remove_file(&file).unwrap();
    let error = find(&cache.home, "Mine-v2").unwrap_err();
    assert!(matches!(error, Error::DamagedModel { .. }), "{error}");
    assert!(list(&cache.home).unwrap()[0].damage.is_some());
    let error = pull(&cache.home, &source, &mut (), &PullOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn a_name_belongs_to_one_source() {
    let cache = Cache::new();
    let folder = cache.beside("models");
    for name in ["a.gguf", "b.gguf"] {
        fs::write(folder.join(name), model_bytes(1, 64)).unwrap();
    }
    let options = PullOptions {
        name: Some("m".into()),
        ..PullOptions::default()
    };
    let from = |name: &str| resolve(folder.join(name).to_str().unwrap()).unwrap();
    pull(&cache.home, &from("a.gguf"), &mut (), &options).unwrap();
    let error = pull(&cache.home, &from("b.gguf"), &mut (), &options).unwrap_err();
    assert!(
        matches!(&error, Error::NameTaken { from, .. } if from.ends_with("a.gguf")),
        "{error}"
    );
    for name in ["", "..", "a/b", "-x"] {
        let options = PullOptions {
            name: Some(name.into()),
            ..PullOptions::default()
        };
        let error = pull(&cache.home, &from("a.gguf"), &mut (), &options).unwrap_err();
        assert!(matches!(error, Error::BadSource { .. }), "{error}");
    }
}

#[test]
fn a_damaged_manifest_hides_no_other_model_and_can_be_removed() {
    let cache = Cache::new();
    let file = cache.beside("models").join("m.gguf");
    fs::write(&file, model_bytes(1, 64)).unwrap();
    let source = resolve(file.to_str().unwrap()).unwrap();
    let named = |name: &str| PullOptions {
        name: Some(name.into()),
        ..PullOptions::default()
    };
    for name in ["a", "b"] {
        pull(&cache.home, &source, &mut (), &named(name)).unwrap();
    }
    fs::write(cache.home.models().join("a/manifest.json"), "{").unwrap();
    fs::create_dir(cache.home.models().join("c")).unwrap();
    fs::write(cache.home.models().join("stray"), "").unwrap();
    let names: Vec<_> = list(&cache.home)
        .unwrap()
        .into_iter()
        .map(|m| m.manifest.name)
        .collect();
    assert_eq!(names, ["b"]);
    let error = find(&cache.home, "a").unwrap_err();
    assert!(error.to_string().contains("omnimini rm a"), "{error}");
    remove(&cache.home, "a").unwrap();
    remove(&cache.home, "c").unwrap();
    // A pull repairs as well.
    fs::write(cache.home.models().join("b/manifest.json"), "{").unwrap();
    pull(&cache.home, &source, &mut (), &named("b")).unwrap();
    assert_eq!(find(&cache.home, "b").unwrap(), file);
}

#[test]
fn a_home_that_is_a_file_is_one_sentence() {
    let cache = Cache::new();
    let file = cache.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let home = Home::at(&file).unwrap();
    let source = resolve("hf:o/r").unwrap();
    let error = pull(
        &home,
        &source,
        &mut Heard::default(),
        &PullOptions::default(),
    )
    .unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().starts_with("cannot create"), "{error}");
    assert!(list(&home).is_err() || list(&home).unwrap().is_empty());
}
