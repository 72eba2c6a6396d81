//! What `--json` gives: fields that scripts count on, each named in the command's help.

use std::fs;

use omnimini::format::Checkpoint;
use omnimini::graph::reference::evaluate;
use omnimini::model::{Description, Head};
use serde_json::Value;

use crate::common::tiny::Floats;
use crate::{A, FOLDER, TINY, TOKEN, file, has_fields, omnimini, run, run_with};

/// What this model's tokenizer puts before a text: a space, as `▁` in bytes.
const SPACE: [u32; 3] = [229, 153, 132];

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// `run --raw --json` on the tiny model, which says `a`.
fn answer(more: &[&str]) -> Value {
    let args = ["run", "-m", &TINY, "--raw", "--json", "--logit-bias", A];
    run(&[&args, more].concat()).json()
}

#[test]
fn run_gives_its_answer() {
    let report = answer(&["-n", "5", "--logprobs", "3", "abc"]);
    let fields = [
        "text",
        "tokens",
        "finish_reason",
        "usage",
        "timings",
        "adapter",
        "logprobs",
    ];
    has_fields("run", &report, &fields);
    assert_eq!(report["text"], "aaaaa");
    assert_eq!(ids(&report["tokens"]), [TOKEN; 5]);
    assert_eq!(report["finish_reason"], "length");
    let usage = serde_json::json!({"prompt_tokens": 7, "cached_tokens": 0,
        "completion_tokens": 5, "total_tokens": 12});
    assert_eq!(report["usage"], usage);
    let timings = [
        "prompt_ms",
        "prompt_per_second",
        "generation_ms",
        "generation_per_second",
    ];
    has_fields("run", &report["timings"], &timings);
    assert!(
        timings
            .iter()
            .all(|t| report["timings"][t].as_f64().unwrap() > 0.0)
    );
    let logprobs = report["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 5);
    for logprob in logprobs {
        has_fields("run", logprob, &["id", "logprob", "top"]);
        assert_eq!(logprob["id"], TOKEN);
        let top: Vec<(u32, f32)> = serde_json::from_value(logprob["top"].clone()).unwrap();
        assert_eq!(top.len(), 3);
        assert!(
            top.windows(2).all(|w| w[0].1 >= w[1].1) && top[0].1 <= 0.0,
            "{top:?}"
        );
    }
    let report = answer(&["-n", "1", "abc"]);
    has_fields("run", &report, &fields[..6]);
}

#[test]
fn tokens_and_usage_agree_however_an_answer_ends() {
    // At a stop text, with tokens made beyond it.
    let report = answer(&["-n", "100", "--stop", "aaa", "abc"]);
    assert_eq!(
        (&report["text"], &report["finish_reason"]),
        (&"".into(), &"stop".into())
    );
    assert_eq!(ids(&report["tokens"]), [TOKEN; 3]);
    assert_eq!(report["usage"]["completion_tokens"], 3);
    // In the middle of a stop text, which is then a part of the answer.
    let report = answer(&["-n", "5", "--stop", "aaab", "abc"]);
    assert_eq!(
        (&report["text"], &report["finish_reason"]),
        (&"aaaaa".into(), &"length".into())
    );
    assert_eq!(ids(&report["tokens"]), [TOKEN; 5]);
    // In the middle of a character: 0xE4 begins one of three bytes.
    let args = [
        "run",
        "-m",
        &TINY,
        "--raw",
        "--json",
        "--logit-bias",
        "231=10000",
        "-n",
        "1",
        "a",
    ];
    let report = run(&args).json();
    assert_eq!(report["text"], "\u{fffd}");
    assert_eq!(ids(&report["tokens"]), [231]);
    assert_eq!(report["usage"]["completion_tokens"], 1);
    // By the model's own end, which is among the tokens.
    let args = [
        "run",
        "-m",
        &TINY,
        "--raw",
        "--json",
        "--logit-bias",
        "2=10000",
        "a",
    ];
    let report = run(&args).json();
    assert_eq!(
        (&report["text"], &report["finish_reason"]),
        (&"".into(), &"stop".into())
    );
    assert_eq!(ids(&report["tokens"]), [2]);
}

#[test]
fn the_text_alone_goes_to_standard_output() {
    let done = run(&["run", "-m", &TINY, "-n", "5", "--logit-bias", A, "hi"]);
    assert!(
        done.err.contains("5 tokens, cut there") && done.err.contains("tokens/s"),
        "{done:#?}"
    );
    assert_eq!(done.err.lines().count(), 1, "{done:#?}");
    assert_eq!(done.data(), "aaaaa\n");
    let done = run(&[
        "run",
        "-m",
        &TINY,
        "-n",
        "5",
        "--logit-bias",
        A,
        "--json",
        "-v",
        "hi",
    ]);
    assert!(
        done.err.contains("tiny.gguf on "),
        "-v says what is done: {done:#?}"
    );
    assert_eq!(done.json()["text"], "aaaaa");
}

#[test]
fn a_prompt_comes_from_where_it_is_said() {
    let prompt = "two\nlines";
    let path = file("prompt.txt", prompt.as_bytes());
    let broken = file("broken.txt", format!("{prompt}\n").as_bytes());
    let args = ["run", "-m", &TINY, "--json", "-n", "1"];
    let count = |report: Value| report["usage"]["prompt_tokens"].as_u64().unwrap();
    let with = |more: &[&str], input| count(run_with(&[&args, more].concat(), input).json());
    let want = with(&[prompt], "unread");
    assert_eq!(with(&["--prompt-file", &path], "unread"), want);
    assert_eq!(with(&["-"], prompt), want);
    assert_eq!(with(&[], prompt), want);
    // The line break that ends a program's output is not part of a question; a raw prompt and a
    // file are taken as they are.
    assert_eq!(with(&[], "two\nlines\r\n"), want);
    assert_eq!(with(&["--prompt-file", &broken], ""), want + 1);
    let raw = with(&["--raw", prompt], "");
    assert_eq!(with(&["--raw"], "two\nlines\n"), raw + 1);
    assert_eq!(with(&["--raw", "--prompt-file", &broken], ""), raw + 1);
    // The template and a system text add to it.
    assert!(raw < want);
    assert!(with(&["--system", "Be brief.", prompt], "") > want);
    // Control tokens are parsed only where that is asked for.
    let plain = with(&["--raw", "<s>x</s>"], "");
    assert_eq!(with(&["--raw", "--special", "<s>x</s>"], ""), 6);
    assert_eq!(plain, 12);
}

#[test]
fn the_same_seed_draws_the_same() {
    let draw = |seed| {
        let args = [
            "run", "-m", &TINY, "--raw", "--json", "-n", "12", "-t", "1.5", "--top-k", "40",
        ];
        let args = [&args[..], &["--ignore-end", "--seed", seed, "hi"]].concat();
        ids(&run(&args).json()["tokens"])
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn tokenize_gives_ids() {
    let tokenize = |more: &[&str], input| {
        let report = run_with(
            &[&["tokenize", "-m", &TINY, "--json"], more].concat(),
            input,
        )
        .json();
        has_fields("tokenize", &report, &["ids"]);
        ids(&report["ids"])
    };
    let ab = [&SPACE[..], &[TOKEN, TOKEN + 1]].concat();
    assert_eq!(tokenize(&["ab"], ""), ab);
    assert_eq!(tokenize(&["--bos", "ab"], ""), [&[1], &ab[..]].concat());
    assert_eq!(tokenize(&["-"], "ab"), ab);
    assert_eq!(tokenize(&[], "ab"), ab);
    assert_eq!(tokenize(&["--file", &file("ab.txt", b"ab")], ""), ab);
    // SentencePiece begins anew after a marker.
    let a = [&[1], &SPACE[..], &[TOKEN]].concat();
    assert_eq!(tokenize(&["--special", "<s>a"], ""), a);
    assert_eq!(tokenize(&["<s>"], "").len(), 6);
    // As tiktoken has it.
    let args = ["--tokenizer", "cl100k_base", "hello world"];
    assert_eq!(tokenize(&args, ""), [15339, 1917]);
    let text = run(&["tokenize", "-m", &TINY, "--special", "<s>a"]).data();
    assert!(text.starts_with("      1  \"<s>\"\n"), "{text}");
    assert!(text.ends_with("    100  \"a\"\n"), "{text}");
}

#[test]
fn perplexity_is_as_llama_cpp_defines_it() {
    let n = 8;
    let path = file(
        "ppl.txt",
        b"It was a dark and stormy night; the rain fell in torrents.",
    );
    let args = [
        "perplexity",
        "-m",
        &TINY,
        "--ctx",
        "8",
        "--kv",
        "f32",
        "--json",
        "--chunks",
        "2",
        &path,
    ];
    let report = run(&args).json();
    has_fields("perplexity", &report, &["perplexity", "tokens"]);

    let checkpoint = Checkpoint::open(&*TINY).unwrap();
    let description = Description::new(&checkpoint).unwrap();
    let graph = description.graph(&checkpoint, Head::Last, 4096).unwrap();
    let floats = Floats::new(&checkpoint);
    let args = ["tokenize", "-m", &TINY, "--bos", "--json", "--file", &path];
    let tokens = ids(&run(&args).json()["ids"]);
    let (mut sum, mut count) = (0.0, 0);
    for window in tokens.chunks_exact(n).take(2) {
        let mut window = window.to_vec();
        window[0] = 1;
        for i in n / 2..n - 1 {
            let logits = evaluate(&graph, &floats, &window[..=i]);
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let norm = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
            sum += norm - logits[window[i + 1] as usize];
            count += 1;
        }
    }
    assert_eq!(report["tokens"], count);
    let (got, want) = (
        report["perplexity"].as_f64().unwrap().ln(),
        sum / f64::from(count),
    );
    assert!(
        (got - want).abs() < 1e-3,
        "{got} nats a token, and {want} by the definition"
    );

    let done = run(&[
        "perplexity",
        "-m",
        &TINY,
        "--ctx",
        "8",
        "--chunks",
        "2",
        &path,
    ]);
    assert_eq!(
        done.err.lines().count(),
        2,
        "a line of progress for each window: {done:#?}"
    );
    assert!(done.data().starts_with("perplexity "));
}

#[test]
fn bench_gives_rates_beside_the_bandwidth() {
    let fields = [
        "model_filename",
        "model_type",
        "model_size",
        "backends",
        "gpu_info",
        "driver",
        "copy_gb_s",
        "n_prompt",
        "n_gen",
        "n_depth",
        "avg_ts",
        "stddev_ts",
        "median_ts",
        "samples_ts",
    ];
    let bench = |more: &[&str]| {
        run(&[
            &["bench", "-m", &TINY, "-p", "16", "-n", "4", "-r", "2"],
            more,
        ]
        .concat())
    };
    for args in [
        &["-o", "json"][..],
        &["--json"],
        &["--json", "--adapter", "all"],
    ] {
        let report = bench(args).json();
        let results = report.as_array().unwrap();
        let tests: Vec<_> = results
            .iter()
            .map(|r| (&r["n_prompt"], &r["n_gen"]))
            .collect();
        assert!(
            tests.starts_with(&[(&16.into(), &0.into()), (&0.into(), &4.into())]),
            "{tests:?}"
        );
        for result in results {
            has_fields("bench", result, &fields);
            let samples: Vec<f64> = serde_json::from_value(result["samples_ts"].clone()).unwrap();
            assert_eq!(samples.len(), 2);
            let mean = samples.iter().sum::<f64>() / 2.0;
            assert!((result["avg_ts"].as_f64().unwrap() - mean).abs() < 1e-6 * mean);
            assert!(result["copy_gb_s"].as_f64().unwrap() > 0.0);
        }
    }
    // A depth is measured on a filled cache, beyond the model's own context (4096), too.
    let report = bench(&["--json", "-d", "100,5000"]).json();
    let tests = report.as_array().unwrap().iter();
    let tests: Vec<_> = tests
        .map(|r| (r["n_depth"].clone(), r["n_gen"].clone()))
        .collect();
    let want = [(100, 0), (100, 4), (5000, 0), (5000, 4)];
    assert_eq!(tests, want.map(|(d, n)| (d.into(), n.into())));
    let table = bench(&["-d", "100"]).data();
    assert!(table.contains("| tg4 @ d100 |"), "{table}");
    let csv = bench(&["-o", "csv"]).data();
    let mut lines = csv.lines();
    assert_eq!(lines.next().unwrap(), fields[..13].join(","));
    assert_eq!(lines.count(), 2);
    let table = bench(&[]).data();
    let columns: Vec<usize> = table
        .lines()
        .map(|line| line.matches('|').count())
        .collect();
    assert_eq!(columns, [8; 4], "{table}");
    assert!(
        table.contains(" GB/s |") && table.contains("| pp16 |") && table.contains(" ± "),
        "{table}"
    );
    // One test alone, and an adapter that fails.
    let args = [
        "bench", "-m", &TINY, "-p", "0", "-n", "4", "-r", "1", "--json",
    ];
    assert_eq!(run(&args).json().as_array().unwrap().len(), 1);
    assert_eq!(bench(&["--adapter", "nosuch"]).code, Some(1));
}

#[test]
fn devices_gives_what_adapter_takes() {
    let report = run(&["devices", "--json"]).json();
    let fields = [
        "index",
        "name",
        "backend",
        "kind",
        "driver",
        "subgroups",
        "memory",
        "f16",
        "cooperative_matrix",
        "max_binding",
        "max_buffer",
        "workgroup_memory",
        "max_invocations",
        "max_storage_buffers",
        "max_groups",
    ];
    let adapters = report.as_array().unwrap();
    assert!(!adapters.is_empty());
    for adapter in adapters {
        has_fields("devices", adapter, &fields);
        let (index, name) = (
            adapter["index"].to_string(),
            adapter["name"].as_str().unwrap(),
        );
        let on = |wanted: &str| {
            let args = [
                "run",
                "-m",
                &TINY,
                "-n",
                "1",
                "--json",
                "--adapter",
                wanted,
                "hi",
            ];
            run(&args).json()["adapter"].as_str().unwrap().to_owned()
        };
        assert!(on(&index).starts_with(name));
        assert!(on(&name[1..name.len() - 1].to_uppercase()).contains(name));
    }
    let text = run(&["devices"]).data();
    assert!(
        text.starts_with("0  ") && text.contains("f16") && text.contains("MiB"),
        "{text}"
    );
}

#[test]
fn inspect_gives_what_is_in_a_file() {
    let report = run(&["inspect", &TINY, "--json"]).json();
    let fields = [
        "file", "config", "bytes", "types", "memory", "metadata", "tensors",
    ];
    has_fields("inspect", &report, &fields);
    assert_eq!(report["config"]["layers"], 3);
    assert_eq!(report["metadata"]["general.architecture"], "llama");
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["len"], 300);
    let tensors = report["tensors"].as_array().unwrap();
    has_fields("inspect", &tensors[0], &["name", "dtype", "shape", "bytes"]);
    assert_eq!(tensors[0]["shape"], serde_json::json!([300, 256]));
    let bytes: u64 = tensors.iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["bytes"], bytes);
    // A file of an architecture that is not known can still be looked into.
    let mut bytes = fs::read(&*TINY).unwrap();
    let at = bytes.windows(5).position(|w| w == b"llama").unwrap();
    bytes[at..at + 5].copy_from_slice(b"lemma");
    let path = file("lemming.gguf", &bytes);
    assert_eq!(
        run(&["inspect", &path, "--json"]).json()["config"],
        Value::Null
    );
    let text = run(&["inspect", &path]).data();
    assert!(
        text.contains("architecture is `lemma`") && text.contains("blk.0.attn_q"),
        "{text}"
    );
}

#[test]
fn a_model_is_pulled_listed_used_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let here = |args: &[&str]| {
        let output = omnimini(args)
            .env("OMNIMINI_HOME", home.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            text,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, err) = here(&["list"]);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(err.contains("omnimini pull"), "{err}");
    assert_eq!(here(&["list", "--json"]).1.trim(), "[]");
    assert_eq!(here(&["pull", &TINY, "--name", "mine"]).1.trim(), *TINY);
    let pulled: Value =
        serde_json::from_str(&here(&["pull", &TINY, "--name", "mine", "--json"]).1).unwrap();
    let listed: Value = serde_json::from_str(&here(&["list", "--json"]).1).unwrap();
    assert_eq!(listed, Value::Array(vec![pulled.clone()]));
    let fields = [
        "name",
        "source",
        "commit",
        "files",
        "path",
        "size",
        "sha256",
        "licence",
        "terms_shown",
        "pulled",
        "file",
        "damage",
    ];
    has_fields("list", &pulled, &fields);
    assert_eq!(
        (&pulled["name"], &pulled["file"]),
        (&"mine".into(), &Value::from(TINY.as_str()))
    );
    assert!(here(&["list"]).1.starts_with("mine "));
    assert_eq!(here(&["inspect", "mine", "--json"]).0, Some(0));
    let (code, out, err) = here(&["rm", "mine"]);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(err.starts_with("removed mine"), "{err}");
    assert_eq!(here(&["rm", "mine"]).0, Some(1));
    assert!(
        fs::exists(&*TINY).unwrap(),
        "a file that is used where it lies stays there"
    );
}

#[test]
fn quantize_says_what_became_of_each_tensor() {
    let output = FOLDER.join("quantised.gguf");
    let output = output.to_str().unwrap();
    let args = ["quantize", &TINY, output, "--type", "Q4_K_M", "--force"];
    let report = run(&[&args[..], &["--json"]].concat()).json();
    let fields = ["file", "file_type", "bytes", "bits_per_weight", "tensors"];
    has_fields("quantize", &report, &fields);
    assert_eq!(report["file_type"], "q4_k_m");
    let bits = report["bits_per_weight"].as_f64().unwrap();
    assert!((4.5..7.0).contains(&bits), "{bits}");
    let tensors = report["tensors"].as_array().unwrap();
    let fields = ["name", "shape", "before", "dtype", "bytes"];
    has_fields("quantize", &tensors[0], &fields);
    let sum: u64 = tensors.iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["bytes"], sum);
    // What was written runs.
    let args = ["run", "-m", output, "--raw", "--json", "--logit-bias", A];
    let answer = run(&[&args[..], &["-n", "3", "abc"]].concat()).json();
    assert_eq!(answer["text"], "aaa");
    // And is not written over.
    let again = run(&["quantize", &TINY, output, "--type", "q8_0"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("is there already") && again.err.lines().count() == 1);
}
