//! Every kernel in every variant, with no GPU: it composes, naga validates it, its bindings and
//! parameters are those of its launch, and SPIR-V, MSL and HLSL can be written.
//!
//! With `OMNIMINI_DUMP_WGSL=DIR` the composed texts are left there for other compilers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashSet;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, StorageAccess, TypeInner};
use omnimini::kernel::catalog::{caps, catalog};
use omnimini::kernel::{Access, Dispatch, KERNELS};
use omnimini::shader::{Const, Dialect};

fn every() -> Vec<(&'static str, Dispatch)> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (name, caps) in caps() {
        for d in catalog(&caps) {
            if seen.insert((d.kernel.name, d.variant.clone())) {
                all.push((name, d));
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
            all.iter().any(|(_, d)| d.kernel.name == kernel.name),
            "{}",
            kernel.name
        );
    }
    println!("{} variants of {} kernels", all.len(), KERNELS.len());
}

#[test]
fn every_variant_validates_and_translates() {
    let dump = std::env::var_os("OMNIMINI_DUMP_WGSL").map(std::path::PathBuf::from);
    for (n, (caps, d)) in every().iter().enumerate() {
        let wgsl = d.kernel.compose(&d.variant, Dialect::Naga).unwrap();
        let fail = |what: &str| -> ! {
            panic!(
                "{} for {caps} ({}): {what}\n{wgsl}",
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

/// Bindings are those of the launch, in number and access, within WebGPU's default of eight; the
/// parameters have the row's names in the row's order, four bytes each.
fn bindings_match(module: &naga::Module, d: &Dispatch) {
    let mut storage = 0;
    let mut found = HashSet::new();
    for (_, var) in module.global_variables.iter() {
        let Some(binding) = var.binding else { continue };
        assert_eq!(binding.group, 0);
        assert!(
            found.insert(binding.binding),
            "{}: binding {} twice",
            d.kernel.name,
            binding.binding
        );
        if binding.binding == 0 {
            assert_eq!(var.space, AddressSpace::Uniform);
            let TypeInner::Struct { members, .. } = &module.types[var.ty].inner else {
                panic!("{}: Params is no struct", d.kernel.name);
            };
            let names: Vec<_> = members.iter().map(|m| m.name.as_deref().unwrap()).collect();
            assert_eq!(names, d.kernel.params, "{}", d.kernel.name);
            assert_eq!(d.params.len(), names.len(), "{}", d.kernel.name);
            for ((i, m), value) in members.iter().enumerate().zip(&d.params) {
                assert_eq!(m.offset, 4 * i as u32, "{}", d.kernel.name);
                let kind = module.types[m.ty].inner.scalar_kind().unwrap();
                let want = match value {
                    Const::U(_) => naga::ScalarKind::Uint,
                    Const::F(_) => naga::ScalarKind::Float,
                    Const::B(_) => naga::ScalarKind::Bool,
                };
                assert_eq!(kind, want, "{}.{}", d.kernel.name, names[i]);
            }
            continue;
        }
        storage += 1;
        let AddressSpace::Storage { access } = var.space else {
            panic!(
                "{}: binding {} is no storage",
                d.kernel.name, binding.binding
            );
        };
        let (resource, wanted) = d.bindings[binding.binding as usize - 1];
        let writes = access.contains(StorageAccess::STORE);
        assert_eq!(
            writes,
            wanted == Access::Write,
            "{}: {resource}",
            d.kernel.name
        );
    }
    assert_eq!(
        storage,
        d.bindings.len(),
        "{} ({})",
        d.kernel.name,
        d.variant
    );
    assert!(storage <= 8, "{} binds {storage} buffers", d.kernel.name);
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
