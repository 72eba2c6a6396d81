//! What a model takes and what of it fits, as `inspect`, `run` and `bench` say it.

use serde_json::Value;

use crate::common::tiny::{LLAMA, Tiny};
use crate::{A, TINY, file, has_fields, omnimini, run};

/// A tiny model whose matrices are floats.
fn floats() -> String {
    let types = &[omnimini::tensor::DType::F32];
    file("floats.gguf", &Tiny { types, ..LLAMA }.gguf(7))
}

fn estimates(report: &Value) -> &[Value] {
    report["memory"]["estimates"].as_array().unwrap()
}

#[test]
fn inspect_says_what_a_model_takes() {
    let report = run(&["inspect", &TINY, "--json"]).json();
    has_fields(
        "inspect",
        &report["memory"],
        &["adapter", "available", "estimates"],
    );
    let [one] = estimates(&report) else {
        panic!("{report}")
    };
    let fields = [
        "quant", "kv", "context", "weights", "cache", "buffers", "total", "fits",
    ];
    has_fields("inspect", one, &fields);
    assert_eq!((&one["quant"], &one["kv"]), (&Value::Null, &"f16".into()));
    // Three layers, two heads of 64 for keys and values each, two bytes, 4096 tokens.
    let cache = 3 * 2 * 64 * 2 * 2 * 4096;
    assert_eq!(
        (&one["context"], &one["cache"]),
        (&4096.into(), &cache.into())
    );
    let sum: u64 = ["weights", "cache", "buffers"]
        .iter()
        .map(|part| one[part].as_u64().unwrap())
        .sum();
    assert_eq!(one["total"], sum);
    // Weights lie on the device as they do in the file, but for padding and the vectors' type.
    let (there, here) = (
        one["weights"].as_f64().unwrap(),
        report["bytes"].as_f64().unwrap(),
    );
    assert!((there / here - 1.0).abs() < 0.01, "{there} {here}");
    let asked = ["--ctx", "512", "--kv", "q8_0", "--quant", "q4_0"];
    let report = run(&[&["inspect", &TINY, "--json"], &asked[..]].concat()).json();
    let [one] = estimates(&report) else {
        panic!("{report}")
    };
    assert_eq!(
        (&one["quant"], &one["kv"]),
        (&"q4_0".into(), &"q8_0".into())
    );
    assert_eq!(one["context"], 512);
    assert!(one["total"].as_u64().unwrap() < sum);
}

#[test]
fn no_device_is_needed_for_it() {
    let inspect = |adapter: &[&str]| {
        let args = [&["inspect", &TINY, "--json", "--memory", "8GiB"], adapter].concat();
        omnimini(&args)
            .env("VK_DRIVER_FILES", "/nosuch")
            .env("VK_ICD_FILENAMES", "/nosuch")
            .output()
            .unwrap()
    };
    if cfg!(target_os = "linux") {
        let report: Value = serde_json::from_slice(&inspect(&[]).stdout).unwrap();
        let memory = &report["memory"];
        assert_eq!(
            (&memory["adapter"], &memory["available"]),
            (&Value::Null, &(8_u64 << 30).into())
        );
        assert_eq!(memory["estimates"][0]["fits"], true);
        assert_eq!(inspect(&["--adapter", "0"]).status.code(), Some(1));
    }
}

#[test]
fn fit_is_a_table_of_every_quality() {
    let path = floats();
    let args = ["inspect", &path, "--fit", "--memory", "13MB"];
    let report = run(&[&args[..], &["--json"]].concat()).json();
    let all = estimates(&report);
    // Six types of weights, three of the cache, one context: the model knows 4096 tokens.
    assert_eq!(all.len(), 18);
    for one in all {
        let fits = one["total"].as_u64().unwrap() <= 13_000_000;
        assert_eq!(one["fits"], fits);
    }
    let text = run(&args).data();
    let start = text.find("memory on ").unwrap();
    let table: Vec<&str> = text[start..].lines().take(20).collect();
    assert!(table[0].ends_with(", which has 13.0 MB for it"), "{text}");
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(table[1]),
        ["--quant", "--kv", "weights", "at", "4096"]
    );
    assert_eq!(words(table[2])[..5], ["as", "stored", "f16", "9.3", "MB"]);
    assert!(table[2].ends_with(" MB)"), "{text}");
    assert!(table[3].ends_with(" MB)"), "{text}");
    assert_eq!(words(table[4])[..2], ["f16", "f16"]);
    assert!(table[4].ends_with(" MB"), "{text}");
    assert!(text.contains("what is in parentheses does not fit"));
    assert!(table.iter().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_best_that_fits_is_run() {
    let path = floats();
    let args = [
        "run",
        "-m",
        &path,
        "--raw",
        "-n",
        "2",
        "--logit-bias",
        A,
        "--fit",
    ];
    let with = |more: &[&str]| run(&[&args[..], more, &["hi"]].concat());
    let done = with(&[]);
    assert!(
        done.err
            .starts_with("fits: the weights as stored, --kv f16, --ctx 4096: "),
        "{done:#?}"
    );
    assert_eq!(done.data(), "aa\n");
    let done = with(&["--memory", "13MB"]);
    assert!(
        done.err
            .starts_with("fits: --quant f16, --kv f16, --ctx 4096: "),
        "{done:#?}"
    );
    assert!(
        done.err.lines().next().unwrap().ends_with(" of 13.0 MB"),
        "{done:#?}"
    );
    assert_eq!(done.data(), "aa\n");
    // What is asked for is kept.
    let done = with(&["--memory", "13MB", "--kv", "q8_0", "--ctx", "1000"]);
    assert!(
        done.err
            .starts_with("fits: the weights as stored, --kv q8_0, --ctx 1000: "),
        "{done:#?}"
    );
    let bench = [
        "bench", "-m", &path, "-p", "0", "-n", "2", "-r", "1", "--fit", "--memory", "12MB",
    ];
    let done = run(&bench);
    assert!(
        done.err
            .contains("\nfits: the weights as stored, --kv f16, --ctx 512: "),
        "{done:#?}"
    );
    assert_eq!(done.code, Some(0));
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let path = floats();
    let refused = |more: &[&str]| {
        let done = run(&[&["run", "-m", &path, "--raw"], more, &["hi"]].concat());
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:#?}");
        assert_eq!(done.err.lines().count(), 1, "{done:#?}");
        done.err
    };
    let text = refused(&["--memory", "14MB"]);
    for part in [
        "9.3 MB for its weights, 6.3 MB for a context of 4096 tokens",
        "this device has 14.0 MB for it; --quant f16 or --kv q8_0 or --ctx 2048 would fit",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = refused(&["--memory", "1kB", "--fit"]);
    assert!(text.contains("choose a smaller model"), "{text}");
}
