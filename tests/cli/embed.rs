//! `embed`: vectors as lines, as JSON and compared, from arguments, files and standard input.

use std::path::Path;

use crate::{TINY, file, has_fields, run, run_with};

/// A small encoder of BERT's structure.
fn minilm() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/fixtures/families/minilm");
    folder.to_str().unwrap().into()
}

fn vector(line: &str) -> Vec<f32> {
    line.split(' ').map(|v| v.parse().unwrap()).collect()
}

#[test]
fn texts_come_from_everywhere() {
    let (model, texts) = (minilm(), ["The heron stares.", "naïve café"]);
    let lines = run(&["embed", "-m", &model, texts[0], texts[1]]).data();
    let vectors: Vec<Vec<f32>> = lines.lines().map(vector).collect();
    assert_eq!(vectors.len(), 2);
    for v in &vectors {
        let length: f32 = v.iter().map(|v| v * v).sum();
        assert!(v.len() == 96 && (length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_ne!(vectors[0], vectors[1]);
    let path = file("texts.txt", texts.join("\r\n").as_bytes());
    assert_eq!(run(&["embed", "-m", &model, "--file", &path]).data(), lines);
    let gguf = format!("{model}/model.gguf");
    let input = texts.join("\n");
    for args in [
        &["embed", "-m", &model][..],
        &["embed", "-m", &model, "--file", "-"],
        &["embed", "-m", &gguf],
    ] {
        assert_eq!(run_with(args, &input).data(), lines, "{args:?}");
    }
    let report = run(&["embed", "-m", &model, "--json", texts[0], texts[1]]).json();
    let rows = report.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (i, (row, vector)) in rows.iter().zip(&vectors).enumerate() {
        has_fields("embed", row, &["index", "embedding", "tokens", "cut"]);
        assert_eq!((&row["index"], &row["cut"]), (&i.into(), &0.into()));
        let embedding: Vec<f32> = serde_json::from_value(row["embedding"].clone()).unwrap();
        assert_eq!(embedding, *vector);
        assert!(row["tokens"].as_u64() > Some(4));
    }
}

#[test]
fn texts_are_compared() {
    let (model, long) = (minilm(), "reeds ".repeat(60));
    let args = ["embed", "-m", &model, "--similarity", "--truncate"];
    let done = run(&[&args[..], &["one", "another", &long, "one"]].concat());
    assert!(done.err.contains("text 3 was cut"), "{}", done.err);
    let table = done.data();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 4, "{table}");
    for (i, row) in rows.iter().enumerate() {
        let cosines: Vec<f32> = row[1..5].iter().map(|v| v.parse().unwrap()).collect();
        assert!((cosines[i] - 1.0).abs() < 2e-3, "{table}");
        for (j, cosine) in cosines.iter().enumerate() {
            assert_eq!(row[1 + j], rows[j][1 + i], "{table}");
            assert!(cosine.abs() <= 1.001, "{table}");
        }
    }
    // The same text twice.
    assert_eq!((rows[0][4], rows[1][5]), ("1.000", "another"), "{table}");
    assert!(table.contains("reeds reeds"), "{table}");
}

#[test]
fn pooling_is_the_models_or_asked_for() {
    let model = minilm();
    let of = |pooling: &[&str]| {
        let args = ["embed", "-m", &model, "The heron stares."];
        run(&[&args, pooling].concat()).data()
    };
    let [mean, cls, last] = ["mean", "cls", "last"].map(|p| of(&["--pooling", p]));
    assert_eq!(of(&[]), mean);
    assert!(mean != cls && cls != last && mean != last);
    // A model that was not made for it says so.
    let done = run(&["embed", "-m", &TINY, "abc"]);
    assert!(done.err.contains("does not say how"), "{}", done.err);
    let asked = run(&["embed", "-m", &TINY, "--pooling", "last", "abc"]);
    assert!(!asked.err.contains("does not say how"), "{}", asked.err);
    assert_eq!(asked.data(), done.data());
}

#[test]
fn what_cannot_be_embedded_is_said() {
    let (model, long) = (minilm(), "reeds ".repeat(60));
    let failure = |args: &[&str]| {
        let done = run(args);
        assert_eq!((done.code, &done.out[..]), (Some(1), ""), "{done:#?}");
        done.err
    };
    let said = failure(&["embed", "-m", &model, "short", &long]);
    assert!(
        said.contains("text 2 has") && said.contains("--truncate"),
        "{said}"
    );
    assert!(said.contains("and 64 are the most"), "{said}");
    let said = failure(&["embed", "-m", &model, "--similarity", "one"]);
    assert!(said.contains("give two or more"), "{said}");
    let said = failure(&["embed", "-m", &model]);
    assert!(said.contains("no text"), "{said}");
    for command in [
        &["run", "-m", &model, "hi"][..],
        &["bench", "-m", &model, "--ctx", "64"],
        &["chat", "-m", &model],
    ] {
        let said = failure(command);
        assert!(
            said.contains("`minilm` is an encoder"),
            "{command:?}: {said}"
        );
        assert!(said.contains("omnimini embed"), "{command:?}: {said}");
    }
    let report = run(&["inspect", &model, "--json"]).json();
    assert_eq!(report["config"]["pooling"], "mean");
    assert_eq!(report["config"]["causal"], false);
}
