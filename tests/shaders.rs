//! Every kernel in every variant, with no GPU: it composes, naga validates it, its bindings are
//! those of its launch and of its header, its parameters those of its row, it keeps within the
//! limits of the adapters it is for, and SPIR-V, MSL and HLSL can be written.
//!
//! With `OMNIMINI_DUMP_WGSL=DIR` the composed texts are left there for other compilers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashSet;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, ShaderStage, StorageAccess, TypeInner};
use omnimini::caps::Caps;
use omnimini::kernel::catalog::{caps, catalog};
use omnimini::kernel::{Access, Dispatch, KERNELS};
use omnimini::shader::{Const, Dialect};
use regex::Regex;

/// Every variant once, with the first abilities that ask for it.
fn every() -> Vec<(&'static str, Caps, Dispatch)> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (name, caps) in caps() {
        for d in catalog(&caps) {
            if seen.insert((d.kernel.name, d.variant.clone())) {
                all.push((name, caps.clone(), d));
            }
        }
    }
    all
}

#[test]
fn catalog_covers_every_kernel() {
    let all = every();
    for kernel in KERNELS {
        assert!(
            all.iter().any(|(.., d)| d.kernel.name == kernel.name),
            "{}",
            kernel.name
        );
    }
    println!("{} variants of {} kernels", all.len(), KERNELS.len());
}

#[test]
fn every_variant_validates_and_translates() {
    let dump = std::env::var_os("OMNIMINI_DUMP_WGSL").map(std::path::PathBuf::from);
    for (n, (name, caps, d)) in every().iter().enumerate() {
        let wgsl = d.kernel.compose(&d.variant, Dialect::Naga).unwrap();
        let fail = |what: &str| -> ! {
            panic!(
                "{} for {name} ({}): {what}\n{wgsl}",
                d.kernel.name, d.variant
            )
        };
        let module =
            naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|e| fail(&e.emit_to_string(&wgsl)));
        let mut validator = Validator::new(
            ValidationFlags::all(),
            Capabilities::SUBGROUP
                | Capabilities::SHADER_FLOAT16_IN_FLOAT32
                | Capabilities::SHADER_FLOAT16
                | Capabilities::COOPERATIVE_MATRIX
                | Capabilities::SHADER_INT64,
        );
        validator
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all());
        let info = validator
            .validate(&module)
            .unwrap_or_else(|e| fail(&e.emit_to_string(&wgsl)));
        bindings_match(&module, d);
        header_matches(&module, d);
        limits_hold(&module, d, caps);
        writes(&module, &info, d);
        // 64-bit integers and matrices are naga's own; no browser has them.
        let native = ["u64", "coop_mat"].iter().any(|word| wgsl.contains(word));
        if let Some(dir) = dump.as_ref().filter(|_| !native) {
            std::fs::create_dir_all(dir).unwrap();
            let wgsl = d.kernel.compose(&d.variant, Dialect::Browser).unwrap();
            std::fs::write(dir.join(format!("{}.{n}.wgsl", d.kernel.name)), wgsl).unwrap();
        }
    }
}

/// Bindings are those of the launch, in number and access; the parameters have the row's names in
/// the row's order, and each is the `u32` or `f32` that the launch gives.
fn bindings_match(module: &naga::Module, d: &Dispatch) {
    let name = d.kernel.name;
    let mut found = HashSet::new();
    for (_, var) in module.global_variables.iter() {
        let Some(binding) = var.binding else { continue };
        let n = binding.binding;
        assert_eq!(binding.group, 0);
        assert!(found.insert(n), "{name}: binding {n} twice");
        if n == 0 {
            params_match(module, var, d);
            continue;
        }
        let AddressSpace::Storage { access } = var.space else {
            panic!("{name}: binding {n} is no storage");
        };
        let bound = d.bindings.get(n as usize - 1);
        let (resource, wanted) = bound.unwrap_or_else(|| panic!("{name}: nothing is bound at {n}"));
        let writes = access.contains(StorageAccess::STORE);
        assert_eq!(writes, *wanted == Access::Write, "{name}: {resource}");
    }
    assert!(found.contains(&0), "{name}: no parameters at binding 0");
    assert_eq!(found.len() - 1, d.bindings.len(), "{name} ({})", d.variant);
}

fn params_match(module: &naga::Module, var: &naga::GlobalVariable, d: &Dispatch) {
    let name = d.kernel.name;
    assert_eq!(var.space, AddressSpace::Uniform);
    let TypeInner::Struct { members, .. } = &module.types[var.ty].inner else {
        panic!("{name}: Params is no struct");
    };
    let names: Vec<_> = members.iter().map(|m| m.name.as_deref().unwrap()).collect();
    assert_eq!(names, d.kernel.params, "{name}: Params is not its row's");
    assert_eq!(d.params.len(), names.len(), "{name}");
    for (i, (m, value)) in members.iter().zip(&d.params).enumerate() {
        assert_eq!(m.offset, 4 * i as u32, "{name}.{}", names[i]);
        let TypeInner::Scalar(scalar) = module.types[m.ty].inner else {
            panic!("{name}.{} is no u32 or f32", names[i]);
        };
        let want = match value {
            Const::U(_) => ScalarKind::Uint,
            Const::F(_) => ScalarKind::Float,
            Const::B(_) => panic!("{name}.{}: a uniform can't be a bool", names[i]),
        };
        assert_eq!(
            (scalar.kind, scalar.width),
            (want, 4),
            "{name}.{}",
            names[i]
        );
    }
}

/// The part of a kernel's header that begins with `key`, lines that go on joined.
fn header(source: &str, key: &str) -> String {
    let lines = source.lines().take_while(|l| l.starts_with("//"));
    let mut part = String::new();
    let mut inside = false;
    for line in lines.map(|l| &l[2..]) {
        if !line.starts_with("    ") {
            inside = line.trim_start().starts_with(&format!("{key}  "));
        }
        if inside {
            part.push_str(line.trim_start().trim_start_matches(key));
            part.push(' ');
        }
    }
    part
}

/// What the header says of bindings and launch is so: numbered bindings by their name, access and
/// type, others by the constant or the module that they come from.
fn header_matches(module: &naga::Module, d: &Dispatch) {
    let (name, source) = (d.kernel.name, d.kernel.source);
    let text = header(source, "bindings");
    let numbered = Regex::new(r"\b(\d+) (\w+) (read_write|read|write)\b ?(\w*)").unwrap();
    let mut numbered: Vec<_> = numbered.captures_iter(&text).collect();
    for (_, var) in module.global_variables.iter() {
        let Some(n) = var.binding.map(|b| b.binding).filter(|n| *n > 0) else {
            continue;
        };
        let AddressSpace::Storage { access } = var.space else {
            continue;
        };
        let writes = access.contains(StorageAccess::STORE);
        let own = var.name.as_deref().unwrap();
        let says = |access: &str| {
            assert_eq!(
                access != "read",
                writes,
                "shaders/{name}.wgsl: the header says `{own}` is {access}"
            );
        };
        if let Some(at) = numbered.iter().position(|c| c[1] == n.to_string()) {
            let entry = numbered.remove(at);
            assert_eq!(
                &entry[2], own,
                "shaders/{name}.wgsl: the header's binding {n}"
            );
            says(&entry[3]);
            let kind = match &entry[4] {
                "f32" => Some(ScalarKind::Float),
                "u32" => Some(ScalarKind::Uint),
                _ => None,
            };
            assert!(
                kind.is_none_or(|k| element(module, var.ty) == Some(k)),
                "shaders/{name}.wgsl: the header says `{own}` is {}",
                &entry[4]
            );
            continue;
        }
        let constant = Regex::new(&format!(r"@binding\(([A-Z]\w*)\) var<[^>]*> {own}:")).unwrap();
        if let Some(c) = constant.captures(source) {
            let access = Regex::new(&format!(r"\b{} (read_write|read|write)\b", &c[1])).unwrap();
            let access = access.captures(&text).unwrap_or_else(|| {
                panic!(
                    "shaders/{name}.wgsl: say `{} write …` of `{own}` in the header",
                    &c[1]
                )
            });
            says(&access[1]);
            continue;
        }
        // `weight_a_w` is the `w` of the module `weight_a`, one of the weights; a weight that is read
        // in words has its `w` in `words_a`.
        let modules = d.variant.modules.iter().map(|(m, ..)| *m);
        let from = modules.filter(|m| own.starts_with(&format!("{m}_")));
        let from = from.max_by_key(|m| m.len()).unwrap_or(own);
        let family = match from.split('_').next().unwrap() {
            "words" => "weight",
            family => family,
        };
        assert!(
            Regex::new(&format!(r"\b{family}(s|'s)?\b"))
                .unwrap()
                .is_match(&text),
            "shaders/{name}.wgsl: the header's bindings lack those of the module `{from}`"
        );
    }
    assert!(
        numbered.is_empty(),
        "shaders/{name}.wgsl: the header has a binding that is not there: {numbered:?}"
    );
    let size = Regex::new(r"workgroups? of (\w+)").unwrap();
    let launch = header(source, "launch");
    let size = size.captures(&launch).unwrap_or_else(|| {
        panic!("shaders/{name}.wgsl: say `workgroups of N` at `launch` in the header")
    });
    let size = match size[1].parse() {
        Ok(number) => number,
        Err(_) => constant(module, &size[1]).unwrap_or_else(|| {
            panic!(
                "shaders/{name}.wgsl: `launch` names `{}`, no constant",
                &size[1]
            )
        }),
    };
    let [entry] = module.entry_points.as_slice() else {
        panic!("{name}: one entry point");
    };
    assert_eq!((&*entry.name, entry.stage), ("main", ShaderStage::Compute));
    assert_eq!(entry.workgroup_size, [size, 1, 1], "{name}");
}

/// A `u32` constant of the kernel, or of a module: its name is prefixed there.
fn constant(module: &naga::Module, name: &str) -> Option<u32> {
    let named = |is: &dyn Fn(&str) -> bool| {
        let mut all = module.constants.iter().map(|(_, c)| c);
        let found = all.find(|c| c.name.as_deref().is_some_and(is))?;
        match module.global_expressions[found.init] {
            naga::Expression::Literal(naga::Literal::U32(value)) => Some(value),
            _ => None,
        }
    };
    named(&|n| n == name).or_else(|| named(&|n| n.ends_with(&format!("_{name}"))))
}

/// The scalar that an array is made of.
fn element(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Option<ScalarKind> {
    match module.types[ty].inner {
        TypeInner::Array { base, .. } => element(module, base),
        ref other => other.scalar_kind(),
    }
}

/// A variant keeps within the limits of what it was catalogued for: WebGPU's defaults, and more
/// workgroup memory beside matrix units.
fn limits_hold(module: &naga::Module, d: &Dispatch, most: &Caps) {
    let name = d.kernel.name;
    let mut layouts = naga::proc::Layouter::default();
    layouts.update(module.to_ctx()).unwrap();
    let shared = module.global_variables.iter().map(|(_, var)| var);
    let shared = shared.filter(|var| var.space == AddressSpace::WorkGroup);
    let memory: u32 = shared
        .map(|var| layouts[var.ty].size.next_multiple_of(16))
        .sum();
    assert!(
        memory <= most.workgroup_memory,
        "{name}: {memory} bytes of workgroup memory"
    );
    let invocations: u32 = module.entry_points[0].workgroup_size.iter().product();
    assert!(
        invocations <= most.max_invocations,
        "{name}: {invocations} invocations"
    );
    assert!(
        d.bindings.len() <= most.max_storage_buffers as usize,
        "{name} binds {} buffers",
        d.bindings.len()
    );
    assert!(
        d.grid.iter().all(|n| (1..=most.max_groups).contains(n)),
        "{name}: {:?}",
        d.grid
    );
}

fn writes(module: &naga::Module, info: &naga::valid::ModuleInfo, d: &Dispatch) {
    use naga::back::{hlsl, msl, spv};
    let name = d.kernel.name;
    let options = spv::Options {
        lang_version: (1, 3),
        ..Default::default()
    };
    spv::write_vec(module, info, &options, None).unwrap_or_else(|e| panic!("{name}: SPIR-V: {e}"));
    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        ..Default::default()
    };
    msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{name}: MSL: {e}"));
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let mut text = String::new();
    let written = hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
        .write(module, info, None);
    // naga has no matrix units for DX12, and offers none there.
    let matrix = name == "matmul_matrix";
    assert_eq!(
        written.is_err(),
        matrix,
        "{name}: HLSL: {:?}",
        written.err()
    );
}
