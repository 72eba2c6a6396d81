//! Composes a kernel's WGSL from its files, imports and constants.
//!
//! A `.wgsl` file is plain WGSL plus WESL's item import
//! (`import package::weight::{Group, load as load_a};`). A [`Variant`] says which file each import
//! means, and gives values to the `override`s, which become `const`s. There are no conditionals:
//! where two variants differ otherwise, they are two kernels. The syntax is a subset of WESL's
//! (<https://github.com/wgsl-tooling-wg/wesl-spec>), so that its composer can replace this one.
//!
//! Imported files are pasted once per import name, with their module-level names prefixed by it:
//! one quantisation file can so serve two weights of one kernel, each with its own binding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A value for an `override` of a kernel or of one of its modules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Const {
    /// `u32`.
    U(u32),
    /// `f32`.
    F(f32),
    /// `bool`.
    B(bool),
}

impl Eq for Const {}

impl std::hash::Hash for Const {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::U(v) => (0, *v).hash(state),
            Self::F(v) => (1, v.to_bits()).hash(state),
            Self::B(v) => (2, u32::from(*v)).hash(state),
        }
    }
}

impl fmt::Display for Const {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U(v) => write!(f, "{v}u"),
            Self::F(v) => write!(f, "{v:?}f"),
            Self::B(v) => write!(f, "{v}"),
        }
    }
}

/// Values for the `override`s of one file.
pub type Consts = Vec<(&'static str, Const)>;

/// What makes one pipeline out of a kernel: constants, and a file for each import name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Values for the kernel's own `override`s.
    pub consts: Consts,
    /// `(import name, file, values for that file's overrides)`.
    pub modules: Vec<(&'static str, &'static str, Consts)>,
}

impl Variant {
    /// A variant with these constants and no modules.
    pub fn new(consts: &[(&'static str, Const)]) -> Self {
        Self {
            consts: consts.to_vec(),
            modules: Vec::new(),
        }
    }

    /// Adds: `name` means `file`, whose overrides take `consts`.
    pub fn module(
        mut self,
        name: &'static str,
        file: &'static str,
        consts: &[(&'static str, Const)],
    ) -> Self {
        self.modules.push((name, file, consts.to_vec()));
        self
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for (name, value) in &self.consts {
            write!(f, "{sep}{name}={value}")?;
            sep = " ";
        }
        for (name, file, _) in &self.modules {
            write!(f, "{sep}{name}={file}")?;
            sep = " ";
        }
        Ok(())
    }
}

/// Which front end will read the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// naga, inside wgpu on native backends: refuses `enable subgroups;`.
    Naga,
    /// A browser's compiler: demands it.
    Browser,
}

/// Why a kernel could not be composed: always a mistake in this repository, found by its tests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// An import names a module that the variant does not set and that is no file.
    #[error("`{file}` imports `{module}`, which is neither set by the variant nor a file")]
    NoModule {
        /// Importing file.
        file: String,
        /// Name after `package::`.
        module: String,
    },
    /// An `override` has neither a default nor a value in the variant.
    #[error("`{file}` needs a value for `{name}`")]
    NoValue {
        /// File that declares it.
        file: String,
        /// The override.
        name: String,
    },
    /// The variant sets something that the file does not declare.
    #[error("`{file}` declares no override `{name}`")]
    Unknown {
        /// File it was set for.
        file: String,
        /// The constant.
        name: String,
    },
    /// An import, override or declaration that is not of the expected form.
    #[error("`{file}` has a malformed line: {line}")]
    Malformed {
        /// The file.
        file: String,
        /// The line.
        line: String,
    },
}

/// Every importable file under `shaders/`, by its path without the ending.
const FILES: &[(&str, &str)] = &[
    (
        "input/add_norm",
        include_str!("../shaders/input/add_norm.wgsl"),
    ),
    ("input/norm", include_str!("../shaders/input/norm.wgsl")),
    ("input/plain", include_str!("../shaders/input/plain.wgsl")),
    ("kv/f16", include_str!("../shaders/kv/f16.wgsl")),
    ("kv/f16_wide", include_str!("../shaders/kv/f16_wide.wgsl")),
    ("kv/f32", include_str!("../shaders/kv/f32.wgsl")),
    ("kv/f32_wide", include_str!("../shaders/kv/f32_wide.wgsl")),
    ("kv/q4_0", include_str!("../shaders/kv/q4_0.wgsl")),
    ("kv/q4_0_wide", include_str!("../shaders/kv/q4_0_wide.wgsl")),
    ("kv/q8_0", include_str!("../shaders/kv/q8_0.wgsl")),
    ("kv/q8_0_wide", include_str!("../shaders/kv/q8_0_wide.wgsl")),
    ("lib/cache", include_str!("../shaders/lib/cache.wgsl")),
    ("lib/codes", include_str!("../shaders/lib/codes.wgsl")),
    (
        "lib/combine_add",
        include_str!("../shaders/lib/combine_add.wgsl"),
    ),
    (
        "lib/combine_glu",
        include_str!("../shaders/lib/combine_glu.wgsl"),
    ),
    ("lib/eight", include_str!("../shaders/lib/eight.wgsl")),
    (
        "lib/element_f16",
        include_str!("../shaders/lib/element_f16.wgsl"),
    ),
    (
        "lib/element_f32",
        include_str!("../shaders/lib/element_f32.wgsl"),
    ),
    ("lib/fit", include_str!("../shaders/lib/fit.wgsl")),
    ("lib/gelu", include_str!("../shaders/lib/gelu.wgsl")),
    (
        "lib/gelu_tanh",
        include_str!("../shaders/lib/gelu_tanh.wgsl"),
    ),
    ("lib/half", include_str!("../shaders/lib/half.wgsl")),
    ("lib/hadamard", include_str!("../shaders/lib/hadamard.wgsl")),
    (
        "lib/hadamard_lanes",
        include_str!("../shaders/lib/hadamard_lanes.wgsl"),
    ),
    ("lib/head", include_str!("../shaders/lib/head.wgsl")),
    (
        "lib/head_lanes",
        include_str!("../shaders/lib/head_lanes.wgsl"),
    ),
    (
        "lib/matrix_16",
        include_str!("../shaders/lib/matrix_16.wgsl"),
    ),
    ("lib/matrix_8", include_str!("../shaders/lib/matrix_8.wgsl")),
    (
        "lib/plus_none",
        include_str!("../shaders/lib/plus_none.wgsl"),
    ),
    (
        "lib/plus_vectors",
        include_str!("../shaders/lib/plus_vectors.wgsl"),
    ),
    (
        "lib/reduce_none",
        include_str!("../shaders/lib/reduce_none.wgsl"),
    ),
    (
        "lib/reduce_shared",
        include_str!("../shaders/lib/reduce_shared.wgsl"),
    ),
    (
        "lib/reduce_subgroup",
        include_str!("../shaders/lib/reduce_subgroup.wgsl"),
    ),
    ("lib/rope", include_str!("../shaders/lib/rope.wgsl")),
    (
        "lib/rope_lanes",
        include_str!("../shaders/lib/rope_lanes.wgsl"),
    ),
    (
        "lib/rope_none",
        include_str!("../shaders/lib/rope_none.wgsl"),
    ),
    ("lib/rows", include_str!("../shaders/lib/rows.wgsl")),
    (
        "lib/rows_int8",
        include_str!("../shaders/lib/rows_int8.wgsl"),
    ),
    (
        "lib/rows_lanes",
        include_str!("../shaders/lib/rows_lanes.wgsl"),
    ),
    ("lib/sampler", include_str!("../shaders/lib/sampler.wgsl")),
    (
        "lib/scores_lanes",
        include_str!("../shaders/lib/scores_lanes.wgsl"),
    ),
    ("lib/sharpen", include_str!("../shaders/lib/sharpen.wgsl")),
    ("lib/silu", include_str!("../shaders/lib/silu.wgsl")),
    (
        "lib/silu_clamped",
        include_str!("../shaders/lib/silu_clamped.wgsl"),
    ),
    (
        "lib/tokens_all",
        include_str!("../shaders/lib/tokens_all.wgsl"),
    ),
    (
        "lib/tokens_routed",
        include_str!("../shaders/lib/tokens_routed.wgsl"),
    ),
    ("lib/source", include_str!("../shaders/lib/source.wgsl")),
    ("lib/words", include_str!("../shaders/lib/words.wgsl")),
    (
        "lib/words_wide",
        include_str!("../shaders/lib/words_wide.wgsl"),
    ),
    ("output/act", include_str!("../shaders/output/act.wgsl")),
    (
        "output/act_bias",
        include_str!("../shaders/output/act_bias.wgsl"),
    ),
    ("output/add", include_str!("../shaders/output/add.wgsl")),
    (
        "output/add_bias",
        include_str!("../shaders/output/add_bias.wgsl"),
    ),
    ("output/bias", include_str!("../shaders/output/bias.wgsl")),
    ("output/glu", include_str!("../shaders/output/glu.wgsl")),
    (
        "output/softcap",
        include_str!("../shaders/output/softcap.wgsl"),
    ),
    ("output/store", include_str!("../shaders/output/store.wgsl")),
    ("quant/bf16", include_str!("../shaders/quant/bf16.wgsl")),
    ("quant/f16", include_str!("../shaders/quant/f16.wgsl")),
    ("quant/f32", include_str!("../shaders/quant/f32.wgsl")),
    (
        "quant/f8_e4m3",
        include_str!("../shaders/quant/f8_e4m3.wgsl"),
    ),
    ("quant/iq4_nl", include_str!("../shaders/quant/iq4_nl.wgsl")),
    ("quant/iq4_xs", include_str!("../shaders/quant/iq4_xs.wgsl")),
    ("quant/mxfp4", include_str!("../shaders/quant/mxfp4.wgsl")),
    ("quant/q2_k", include_str!("../shaders/quant/q2_k.wgsl")),
    ("quant/q3_k", include_str!("../shaders/quant/q3_k.wgsl")),
    ("quant/q4_0", include_str!("../shaders/quant/q4_0.wgsl")),
    ("quant/q4_1", include_str!("../shaders/quant/q4_1.wgsl")),
    ("quant/q4_k", include_str!("../shaders/quant/q4_k.wgsl")),
    ("quant/q5_0", include_str!("../shaders/quant/q5_0.wgsl")),
    ("quant/q5_1", include_str!("../shaders/quant/q5_1.wgsl")),
    ("quant/q5_k", include_str!("../shaders/quant/q5_k.wgsl")),
    ("quant/q6_k", include_str!("../shaders/quant/q6_k.wgsl")),
    ("quant/q8_0", include_str!("../shaders/quant/q8_0.wgsl")),
];

/// The text of an importable file.
fn file(name: &str) -> Option<&'static str> {
    FILES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, text)| *text)
}

/// Composes `source` (the kernel `name`) for `variant`.
///
/// # Errors
/// A [`ComposeError`] when imports or overrides do not fit; the tests compose every variant.
pub fn compose(
    name: &str,
    source: &str,
    variant: &Variant,
    dialect: Dialect,
) -> Result<String, ComposeError> {
    let mut composer = Composer {
        variant,
        enables: Vec::new(),
        done: BTreeSet::new(),
        text: String::new(),
    };
    let body = composer.file(name, source, "", &variant.consts)?;
    let uses_subgroups = composer.text.contains("subgroup") || body.contains("subgroup");
    if dialect == Dialect::Browser && uses_subgroups {
        composer.enables.push("enable subgroups;".into());
    }
    composer.enables.sort();
    composer.enables.dedup();
    let mut out = composer.enables.join("\n");
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&composer.text);
    out.push_str(&body);
    Ok(out)
}

struct Composer<'a> {
    variant: &'a Variant,
    enables: Vec<String>,
    /// Import names pasted already.
    done: BTreeSet<String>,
    text: String,
}

impl Composer<'_> {
    /// The body of one file with imports resolved and names prefixed; what it imports is appended
    /// to `self.text` first, for WGSL needs no order but readers do.
    fn file(
        &mut self,
        name: &str,
        source: &str,
        prefix: &str,
        consts: &Consts,
    ) -> Result<String, ComposeError> {
        let malformed = |line: &str| ComposeError::Malformed {
            file: name.into(),
            line: line.into(),
        };
        // Names to replace in this file: its own declarations, and what it imports.
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut body = String::new();
        let mut used = Vec::new();
        for line in source.lines() {
            if let Some(rest) = line.strip_prefix("import package::") {
                let (module, items) = rest
                    .trim_end_matches(';')
                    .rsplit_once("::")
                    .ok_or_else(|| malformed(line))?;
                let items = items.trim_start_matches('{').trim_end_matches('}');
                let import = self.import(name, prefix, module)?;
                for item in items.split(',').map(str::trim).filter(|i| !i.is_empty()) {
                    let (item, local) = item.split_once(" as ").unwrap_or((item, item));
                    names.insert(local.into(), format!("{import}{item}"));
                }
            } else if line.starts_with("enable ") {
                self.enables.push(line.into());
            } else if let Some(rest) = line.strip_prefix("override ") {
                let (constant, rest) = rest.split_once(':').ok_or_else(|| malformed(line))?;
                let rest = rest.split_once(';').ok_or_else(|| malformed(line))?.0;
                let (ty, default) = rest.split_once('=').unwrap_or((rest, ""));
                let value = consts.iter().find(|(n, _)| *n == constant);
                used.push(constant.to_string());
                let value = match value {
                    Some((_, value)) => value.to_string(),
                    None if default.is_empty() => {
                        return Err(ComposeError::NoValue {
                            file: name.into(),
                            name: constant.into(),
                        });
                    }
                    None => default.trim().into(),
                };
                declare(&mut names, constant, prefix);
                for part in ["const ", constant, ": ", ty.trim(), " = ", &value, ";\n"] {
                    body.push_str(part);
                }
            } else {
                if let Some(declared) = declared_name(line) {
                    declare(&mut names, declared, prefix);
                }
                body.push_str(line);
                body.push('\n');
            }
        }
        if let Some((unknown, _)) = consts.iter().find(|(n, _)| !used.iter().any(|u| u == n)) {
            return Err(ComposeError::Unknown {
                file: name.into(),
                name: (*unknown).into(),
            });
        }
        Ok(rename(&body, &names))
    }

    /// Pastes the file that `module` means, once, and returns the prefix of its names.
    ///
    /// What was imported as `rows_b` finds `weight_b` behind its own import of `weight`, where the
    /// variant sets that: so one file serves several weights of a kernel.
    fn import(&mut self, from: &str, importer: &str, module: &str) -> Result<String, ComposeError> {
        let suffixed = importer
            .trim_end_matches('_')
            .rsplit_once('_')
            .map(|(_, suffix)| format!("{module}_{suffix}"))
            .filter(|name| self.variant.modules.iter().any(|(n, ..)| n == name));
        let module = suffixed.as_deref().unwrap_or(module);
        let prefix = format!("{}_", module.replace("::", "_"));
        if !self.done.insert(module.into()) {
            return Ok(prefix);
        }
        let set = self.variant.modules.iter().find(|(n, ..)| *n == module);
        let path = set.map_or_else(|| format!("lib/{module}"), |(_, f, _)| (*f).to_string());
        let source = file(&path).ok_or_else(|| ComposeError::NoModule {
            file: from.into(),
            module: module.into(),
        })?;
        let none = Consts::new();
        let body = self.file(&path, source, &prefix, set.map_or(&none, |(.., c)| c))?;
        self.text.push_str(&body);
        Ok(prefix)
    }
}

fn declare(names: &mut BTreeMap<String, String>, name: &str, prefix: &str) {
    if !prefix.is_empty() {
        names.insert(name.into(), format!("{prefix}{name}"));
    }
}

/// The name that a line declares at module level; such lines start in the first column.
fn declared_name(line: &str) -> Option<&str> {
    let mut rest = line;
    // Attributes come first: `@group(0) @binding(BINDING) var<storage, read> w: …`.
    while let Some(attribute) = rest.strip_prefix('@') {
        let end = attribute.find([' ', '('])?;
        rest = match attribute.as_bytes()[end] {
            b'(' => attribute[end..].split_once(')')?.1,
            _ => &attribute[end..],
        }
        .trim_start();
    }
    let (keyword, after) = rest.split_at(rest.find([' ', '<'])?);
    let after = match keyword {
        "var" if after.starts_with('<') => after.split_once('>')?.1,
        "var" | "fn" | "struct" | "const" | "alias" => after,
        _ => return None,
    };
    let after = after.trim_start();
    let end = after
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(after.len());
    Some(&after[..end])
}

/// Replaces identifiers, but not members (`.name`, and their declarations) nor anything in comments.
fn rename(text: &str, names: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    let mut in_struct = false;
    for line in text.lines() {
        in_struct = (in_struct && line != "}") || line.starts_with("struct ");
        let (mut code, comment) = line.split_at(line.find("//").unwrap_or(line.len()));
        let mut previous = ' ';
        while let Some(c) = code.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let end = if is_word(c) {
                code.find(|c| !is_word(c)).unwrap_or(code.len())
            } else {
                c.len_utf8()
            };
            let (token, rest) = code.split_at(end);
            match names.get(token) {
                Some(_) if previous == '.' || (in_struct && rest.starts_with(':')) => {
                    out.push_str(token);
                }
                Some(new) => out.push_str(new),
                _ => out.push_str(token),
            }
            previous = c;
            code = rest;
        }
        out.push_str(comment);
        out.push('\n');
    }
    out
}
