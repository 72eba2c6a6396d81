//! The repository's own rules: who may import whom, what every file opens with, how long it may
//! be, and that tables, files and the pages that name them agree. It only reads text; no GPU.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use omnimini::kernel::KERNELS;
use omnimini::kernel::catalog::{caps, catalog};
use omnimini::quant::FORMATS;
use omnimini::shader::{ComposeError, Dialect, Variant, compose};
use regex::Regex;

/// The modules from top to bottom: a module imports only from rows below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "server", "web"],
    &["bench"],
    &["session"],
    &["engine"],
    &["gpu", "image", "text"],
    // Below `gpu`, which asks it for the cache folder.
    &["hub"],
    &["plan"],
    &["kernel", "model"],
    &["graph", "quantize"],
    &["format"],
    &["quant", "shader"],
    &["error"],
    &["caps", "rope", "tensor"],
];

/// What a module knows nothing of, though it lies below.
const BLIND: &[(&str, &[&str])] = &[
    ("session", &["graph", "kernel", "plan", "quant", "shader"]),
    ("engine", &["hub", "image", "text"]),
    ("gpu", &["format", "graph", "model", "plan"]),
    ("text", &["graph", "hub", "kernel", "model", "plan"]),
    ("hub", &["graph", "kernel", "model", "plan"]),
    ("plan", &["format", "model", "shader"]),
    ("kernel", &["format"]),
    ("model", &["shader"]),
    ("graph", &["format", "shader"]),
];

/// Names of wgpu outside `src/gpu/`, and why they are there.
const WGPU: &[(&str, &[&str], &str)] = &[
    (
        "src/engine/",
        &["Buffer", "CommandEncoder", "ComputePassDescriptor"],
        "it records steps into passes, over buffers that gpu made",
    ),
    (
        "src/engine/profile.rs",
        &[
            "BufferDescriptor",
            "BufferUsages",
            "Features",
            "QuerySetDescriptor",
            "QueryType",
        ],
        "it puts timestamps between launches",
    ),
];

/// What only some files may say, by the beginnings of their paths; and why.
const ONLY: &[(&str, &[&str], &str)] = &[
    (
        r"\b(std::fs|fs::|File::|memmap2)",
        &[
            "src/cli/",
            "src/format/",
            "src/gpu/memory.rs",
            "src/gpu/store.rs",
            "src/hub/",
        ],
        "format and hub touch files, gpu/store.rs its caches, gpu/memory.rs the system's account of \
         its memory, and the program its arguments",
    ),
    (
        r"\b(std::net|ureq::|hf_hub::)",
        &["src/hub/"],
        "only hub speaks to a network",
    ),
    (
        r"\bunsafe (\{|fn|impl)",
        &[
            "src/format/source.rs",
            "src/gpu/device.rs",
            "src/gpu/memory.rs",
            "src/gpu/pipelines.rs",
            "src/main.rs",
        ],
        "unsafe code stands in the memory map, in gpu/device.rs for wgpu's word on matrix units, in \
         gpu/memory.rs for the driver's word on its memory, in \
         gpu/pipelines.rs for the driver's own code and unchecked shader modules, and in main.rs for \
         an environment variable",
    ),
    (
        r"\basync (fn|move|\{)",
        &["src/cli/", "src/engine/", "src/gpu/", "src/session.rs"],
        "what lies below gpu waits for nothing",
    ),
    (
        r"\b(Instant|SystemTime|std::thread|std::env)\b",
        &[
            "src/bench/",
            "src/cli/",
            "src/engine/",
            "src/gpu/",
            "src/hub/",
            "src/main.rs",
            "src/session.rs",
        ],
        "plan and what is below are functions of their arguments: no clock, thread or environment",
    ),
    (
        r"\banyhow::",
        &["src/cli/"],
        "errors of the library are variants of omnimini::Error",
    ),
];

/// Lines of a file at most, and columns where no formatter sees to them.
const LIMITS: &[(&str, usize, usize)] = &[(".rs", 800, usize::MAX), (".wgsl", 300, 120)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository, by its path from the root: what git tracks, and what lies there
/// where git or its folder is not at hand.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = listed
        .ok()
        .filter(|o| o.status.success() && !o.stdout.is_empty());
    let mut found = Vec::new();
    match listed {
        Some(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            found.extend(text.lines().map(String::from));
        }
        None => walk(root(), "", &mut found),
    }
    found.retain(|f| root().join(f).is_file());
    found.sort();
    assert!(found.len() > 100, "the repository's files are not here");
    found
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let skipped = [
            "target",
            "node_modules",
            "__pycache__",
            "corpus",
            "artifacts",
        ];
        if name.starts_with('.') || skipped.iter().any(|s| name.starts_with(s)) {
            continue;
        }
        let (path, at) = (folder.join(&name), format!("{prefix}{name}"));
        if path.is_dir() {
            walk(&path, &format!("{at}/"), found);
        } else {
            found.push(at);
        }
    }
}

fn with_ending(ending: &str) -> impl Iterator<Item = (String, String)> {
    let files = files().into_iter().filter(move |f| f.ends_with(ending));
    files.map(|f| {
        let text = std::fs::read_to_string(root().join(&f)).unwrap();
        (f, text)
    })
}

/// Files of the library with their code: comments and the tests at the end are blank.
fn sources() -> Vec<(String, String)> {
    let sources = with_ending(".rs").filter(|(f, _)| f.starts_with("src/"));
    let code = |(file, text): (String, String)| {
        let tests = Regex::new(r"(?ms)^#\[cfg\(test\)\]\n(#\[.*?\]\n)?mod ").unwrap();
        let end = tests.find(&text).map_or(text.len(), |m| m.start());
        let line = |l: &str| l.split("//").next().unwrap_or_default().to_string();
        let lines: Vec<_> = text[..end].lines().map(line).collect();
        (file, lines.join("\n"))
    };
    sources.map(code).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The module that a file of `src/` belongs to.
fn module(file: &str) -> &str {
    let path = file.strip_prefix("src/").unwrap();
    path.split(['/', '.']).next().unwrap()
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The modules that code names by `crate::`, with the place of each.
fn imports(code: &str) -> Vec<(usize, String)> {
    let start = Regex::new(r"\bcrate::").unwrap();
    let mut found = Vec::new();
    for hit in start.find_iter(code) {
        let rest = &code[hit.end()..];
        let items = match rest.strip_prefix('{') {
            // A group: its members at depth one.
            Some(group) => {
                let mut depth = 1;
                let end = group.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0
                });
                let mut depth = 0;
                let split = |c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0 && c == ','
                };
                group[..end.unwrap()].split(split).collect()
            }
            None => vec![rest],
        };
        for item in items {
            let name: String = item
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            // The crate's face gives these from modules of its own.
            let name = match name.as_str() {
                "Error" | "Result" => "error".into(),
                _ => name,
            };
            found.push((line_of(code, hit.start()), name));
        }
    }
    found
}

#[test]
fn imports_point_downward() {
    let chain = Regex::new(r"\b(?:super::)+").unwrap();
    let rank = |module: &str| LAYERS.iter().position(|row| row.contains(&module));
    let mut problems = Vec::new();
    for (file, code) in sources() {
        let own = module(&file);
        if own == "lib" {
            continue;
        }
        let Some(layer) = rank(own) else {
            problems.push(format!(
                "{file}:1: `{own}` has no row in LAYERS of tests/tidy.rs; give it one"
            ));
            continue;
        };
        let blind = BLIND
            .iter()
            .find(|(m, _)| *m == own)
            .map_or(&[][..], |b| b.1);
        for (line, name) in imports(&code) {
            if name == own || name.is_empty() {
                continue;
            }
            let problem = match rank(&name) {
                None => "is no module: name it by its own path",
                Some(r) if r <= layer => {
                    "does not lie below: move what is shared down, or hand it over as an argument"
                }
                Some(_) if blind.contains(&name.as_str()) => {
                    "is none of its business (BLIND): hand over what it needs"
                }
                Some(_) => continue,
            };
            problems.push(format!(
                "{file}:{line}: `{own}` imports `{name}`, which {problem}"
            ));
        }
        // `super::` must not lead out of a module, past the rule above.
        let depth = file.strip_prefix("src/").unwrap().matches('/').count()
            + usize::from(!file.ends_with("/mod.rs"));
        for (i, line) in code.lines().enumerate() {
            for hit in chain.find_iter(line) {
                if hit.as_str().matches("super").count() >= depth {
                    problems.push(format!(
                        "{file}:{}: `super` leads to the crate's root; write `crate::`",
                        i + 1
                    ));
                }
            }
        }
    }
    none(&problems);
}

#[test]
fn some_things_have_one_place() {
    let only: Vec<_> = ONLY
        .iter()
        .map(|(pattern, paths, why)| (Regex::new(pattern).unwrap(), *paths, *why))
        .collect();
    let wgpu = Regex::new(r"\bwgpu::(\w+)").unwrap();
    let mut problems = Vec::new();
    for (file, code) in sources() {
        let allowed = |paths: &[&str]| paths.iter().any(|p| file.starts_with(p));
        for (pattern, paths, why) in &only {
            if allowed(paths) {
                continue;
            }
            for hit in pattern.find_iter(&code) {
                let line = line_of(&code, hit.start());
                problems.push(format!("{file}:{line}: `{}`: {why}", hit.as_str()));
            }
        }
        if file.starts_with("src/gpu/") {
            continue;
        }
        for hit in wgpu.captures_iter(&code) {
            let name = &hit[1];
            let known = |(path, names, _): &(&str, &[&str], &str)| {
                file.starts_with(path) && names.contains(&name)
            };
            if !WGPU.iter().any(known) {
                problems.push(format!(
                    "{file}:{}: only src/gpu names `wgpu::{name}`: ask it for what you need, or \
                     give the name a row in WGPU of tests/tidy.rs with its reason",
                    line_of(&code, hit.get(0).unwrap().start())
                ));
            }
        }
    }
    none(&problems);
}

#[test]
fn unsafe_blocks_say_why_they_are_sound() {
    let mut problems = Vec::new();
    for (file, text) in with_ending(".rs").filter(|(f, _)| f.starts_with("src/")) {
        let lines: Vec<_> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let reasons = &lines[i.saturating_sub(8)..i];
            if code.contains("unsafe {") && !reasons.iter().any(|l| l.contains("// SAFETY:")) {
                problems.push(format!(
                    "{file}:{}: put a `// SAFETY:` comment above this block",
                    i + 1
                ));
            }
        }
    }
    none(&problems);
}

#[test]
fn files_open_with_what_they_are() {
    let mut problems = Vec::new();
    for (file, text) in with_ending(".rs") {
        // The tests' and benches' own binaries included: a reader meets them first.
        let first = text.lines().find(|l| !l.starts_with("#!"));
        if !first.is_some_and(|l| l.starts_with("//! ")) {
            problems.push(format!("{file}:1: open with `//!` and what the file is"));
        }
    }
    for (file, text) in with_ending(".wgsl") {
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".wgsl");
        let header: Vec<_> = text.lines().take_while(|l| l.starts_with("// ")).collect();
        let has = |start: &str| header.iter().any(|l| l.starts_with(start));
        let folder = file.strip_prefix("shaders/").unwrap();
        let wanted: &[(bool, String)] = match folder.split_once('/').map(|f| f.0) {
            None => &[
                (
                    has(&format!("// {name}: ")),
                    format!("`// {name}: ` and what it computes"),
                ),
                (
                    has("// bindings  0 params"),
                    "`// bindings  0 params   1 …`".into(),
                ),
                (
                    has("// launch    "),
                    "`// launch    (x, y, z) workgroups of …`".into(),
                ),
            ],
            Some("lib") => &[(!header.is_empty(), "`// ` and what it gives".into())],
            Some(folder) => &[
                (
                    folder != "quant" || has(&format!("// {name}: ")),
                    format!("`// {name}: ` and the formula of an element"),
                ),
                (
                    header.iter().any(|l| l.contains("Interface")),
                    "`Interface` and what every file of the folder gives".into(),
                ),
            ],
        };
        for (_, what) in wanted.iter().filter(|(is, _)| !is) {
            problems.push(format!("{file}:1: the header lacks {what}"));
        }
    }
    none(&problems);
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for (ending, most, columns) in LIMITS {
        let (mut count, mut total) = (0, 0);
        for (file, text) in with_ending(ending) {
            let lines = text.lines().count();
            (count, total) = (count + 1, total + lines);
            if lines > *most {
                problems.push(format!(
                    "{file}:{most}: {lines} lines; split it by what it does"
                ));
            }
            for (i, line) in text.lines().enumerate() {
                let width = line.chars().count();
                if width > *columns {
                    problems.push(format!(
                        "{file}:{}: {width} columns; wrap it at {columns}",
                        i + 1
                    ));
                }
            }
        }
        println!("{count} files {ending}, {total} lines");
    }
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    if map.lines().count() > 150 {
        problems.push("ARCHITECTURE.md:150: a map has 150 lines at most".into());
    }
    none(&problems);
}

/// Pictures of pages open, are large enough to read and small enough to fetch.
#[test]
fn pictures_can_be_seen() {
    let shown = Regex::new(r"!\[([^\]]+)\]\(([^)]+)\)").unwrap();
    let mut seen = 0;
    for (file, text) in with_ending(".md") {
        for c in shown.captures_iter(&text) {
            let path = root().join(&file).parent().unwrap().join(&c[2]);
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let picture = image::load_from_memory(&bytes);
            let picture = picture.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let (width, kib) = (picture.width(), bytes.len() >> 10);
            assert!(
                width >= 600 && kib <= 512,
                "{file}: {width} pixels, {kib} KiB"
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "the README shows the program at work");
}

#[test]
fn pages_name_what_is_there() {
    // A path or an item between backticks, a link, or a command at the start of a line.
    let span =
        Regex::new(r"`([\w./*-]+/[\w./*-]*|\w+::\w+)`|\]\(([^)#\s:]+)|^(tools/\w+)").unwrap();
    let sources = sources();
    let declares = |module_name: &str, item: &str| {
        let declared =
            format!(r"\bpub (const |static |struct |enum |trait |(async )?fn |use .*\b){item}\b");
        let declared = Regex::new(&declared).unwrap();
        let mut of_module = sources.iter().filter(|(f, _)| module(f) == module_name);
        of_module.any(|(_, code)| declared.is_match(code))
    };
    let mut problems = Vec::new();
    for (file, text) in with_ending(".md").filter(|(f, _)| f != "CHANGELOG.md") {
        let bases = [
            root().into(),
            root().join(&file).parent().unwrap().to_path_buf(),
        ];
        let exists = |path: &str| {
            // Of a pattern, the folder.
            let fixed = match path.split_once('*') {
                Some((before, _)) => before.rsplit_once('/').map_or("", |(folder, _)| folder),
                None => path,
            };
            bases.iter().any(|base| base.join(fixed).exists())
        };
        for (i, line) in text.lines().enumerate() {
            for c in span.captures_iter(line) {
                let name = c.iter().skip(1).flatten().next().unwrap().as_str();
                let there = match name.split_once("::") {
                    Some((of, item)) => !LAYERS.concat().contains(&of) || declares(of, item),
                    None => exists(name),
                };
                if !there {
                    problems.push(format!(
                        "{file}:{}: `{name}` is not there: correct it",
                        i + 1
                    ));
                }
            }
        }
    }
    none(&problems);
}

#[test]
fn no_file_knows_where_it_was_written() {
    // Put together here, so that this file does not hold them.
    let forbidden = [
        (
            [r"(?m)(^|[\s=:(,;\[{", r#""'`])/(home|root|work|Users)/\w"#].concat(),
            "a path of somebody's machine: make it relative, or an argument",
        ),
        (
            [
                "(?i)(pypi",
                r"\.org|pythonhosted",
                r"\.org|npmjs",
                r"\.(org|com)|anaconda",
                r"\.org|",
            ]
            .concat()
                + &[
                    "static\\.crates",
                    r"\.io|index\.crates",
                    r"\.io|proxy\.golang",
                    r"\.org)",
                ]
                .concat(),
            "a package registry's host: pip, npm and cargo know theirs",
        ),
        (
            [r"\b(192\.", r"168|169\.", r"254)\.\d"].concat(),
            "an address of somebody's network: make it an argument",
        ),
    ];
    let forbidden = forbidden.map(|(p, what)| (Regex::new(&p).unwrap(), what));
    let settings = [
        ".npmrc",
        "pip.conf",
        ".pypirc",
        ".cargo/config.toml",
        ".netrc",
    ];
    let mut problems = Vec::new();
    for file in files() {
        if settings.iter().any(|s| file.ends_with(s)) {
            problems.push(format!(
                "{file}:1: settings of somebody's machine; remove the file"
            ));
        }
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else {
            continue; // Bytes, such as a GGUF file.
        };
        for (pattern, what) in &forbidden {
            for hit in pattern.find_iter(&text) {
                let line = line_of(&text, hit.start());
                problems.push(format!(
                    "{file}:{line}: `{}` is {what}",
                    hit.as_str().trim()
                ));
            }
        }
        if file.ends_with("Cargo.lock") {
            let index = r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
            for (i, line) in text.lines().enumerate() {
                if line.starts_with("source = ") && line != index {
                    problems.push(format!(
                        "{file}:{}: a source of its own; lock it against the public index",
                        i + 1
                    ));
                }
            }
        }
    }
    none(&problems);
}

fn shaders(folder: &str) -> BTreeSet<String> {
    let name = |f: String| {
        let name = f.strip_prefix("shaders/")?.strip_suffix(".wgsl")?;
        let own = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        (own == folder).then(|| name.to_string())
    };
    files().into_iter().filter_map(name).collect()
}

#[test]
fn tables_and_files_agree() {
    let kernels: BTreeSet<String> = KERNELS.iter().map(|k| k.name.into()).collect();
    assert_eq!(
        kernels,
        shaders(""),
        "src/kernel/mod.rs: the rows of KERNELS are not the kernels of shaders/"
    );
    let formats: BTreeSet<String> = FORMATS.iter().map(|f| f.wgsl.into()).collect();
    assert_eq!(
        formats,
        shaders("quant"),
        "src/quant/mod.rs: the rows of FORMATS are not the files of shaders/quant/"
    );
    let file = |f: &String| {
        f.strip_prefix("src/quant/")
            .map(|f| f.trim_end_matches(".rs").to_string())
    };
    let rust: BTreeSet<String> = files().iter().filter_map(file).collect();
    let mut problems = Vec::new();
    for format in &FORMATS {
        let name = format.wgsl.trim_start_matches("quant/");
        if !rust.contains(name) && !["f32", "f16", "bf16"].contains(&name) {
            problems.push(format!(
                "src/quant/mod.rs:1: {name} has no src/quant/{name}.rs"
            ));
        }
        if format.name.to_lowercase() != name {
            problems.push(format!(
                "src/quant/mod.rs:1: {} is read by {name}.wgsl",
                format.name
            ));
        }
    }
    none(&problems);
}

#[test]
fn every_importable_file_can_be_imported_and_is() {
    let mut used: BTreeSet<String> = BTreeSet::new();
    let import = Regex::new(r"(?m)^import package::(\w+)").unwrap();
    for (_, caps) in caps() {
        for d in catalog(&caps) {
            used.extend(
                d.variant
                    .modules
                    .iter()
                    .map(|(_, file, _)| (*file).to_string()),
            );
        }
    }
    let mut problems = Vec::new();
    for (file, text) in with_ending(".wgsl") {
        // What no variant sets is a file of lib/.
        for c in import.captures_iter(&text) {
            used.insert(format!("lib/{}", &c[1]));
        }
        let name = file
            .strip_prefix("shaders/")
            .unwrap()
            .trim_end_matches(".wgsl");
        if !name.contains('/') {
            continue;
        }
        let leaked: &'static str = name.to_string().leak();
        let variant = Variant::default().module("it", leaked, &[]);
        let composed = compose("tidy", "import package::it::{x};", &variant, Dialect::Naga);
        if matches!(composed, Err(ComposeError::NoModule { module, .. }) if module == "it") {
            problems.push(format!("{file}:1: give it a row in FILES of src/shader.rs"));
        }
    }
    for name in shaders("lib")
        .into_iter()
        .chain(shaders("quant"))
        .chain(shaders("input"))
        .chain(shaders("output"))
        .chain(shaders("kv"))
    {
        if !used.contains(&name) {
            problems.push(format!(
                "shaders/{name}.wgsl:1: no variant of src/kernel/catalog.rs imports it; add one, or remove it"
            ));
        }
    }
    none(&problems);
}
