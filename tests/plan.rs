//! Plans as data, with no GPU: what is fused, and how many launches a token costs.

#![expect(clippy::unwrap_used, reason = "tests")]

use omnimini::format::Checkpoint;
use omnimini::kernel::attention::{KvShape, KvType, PAGE};
use omnimini::kernel::catalog::caps;
use omnimini::kernel::{Access, Dispatch, Resource};
use omnimini::model::{Description, Head};
use omnimini::plan::{Plan, longest, plan};

mod common;
use common::tiny::{GEMMA, LLAMA, Tiny};

/// Whether a launch writes nothing that it binds otherwise, within a plan's buffers.
fn apart(plan: &Plan, what: &str) {
    for d in &plan.dispatches {
        for (i, (r, access)) in d.bindings.iter().enumerate() {
            let others = d.bindings.iter().enumerate();
            let twice = others.filter(|(j, _)| *j != i).any(|(_, (o, _))| o == r);
            assert!(!(twice && *access == Access::Write), "{what}: {d}");
            if let Resource::Slot(s) = r {
                assert!(*s < plan.slots.len(), "{what}: {d}");
            }
        }
    }
}

fn plans(tiny: &Tiny, context: usize, tokens: usize) -> Vec<(&'static str, Plan)> {
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(1)).unwrap();
    let graph = Description::new(&checkpoint)
        .unwrap()
        .graph(&checkpoint, Head::Last, 4096)
        .unwrap();
    let kv = KvShape {
        dtype: KvType::F16,
        stride: context / PAGE,
        ahead: 128,
    };
    caps()
        .into_iter()
        .map(|(name, caps)| (name, plan(&graph, &caps, kv, tokens).unwrap()))
        .collect()
}

#[test]
fn a_token_costs_at_most_six_launches_a_layer() {
    for tiny in [&LLAMA, &GEMMA] {
        for context in [512, 4096] {
            for (name, plan) in plans(tiny, context, 1) {
                for layer in 1..tiny.layers {
                    let prefix = format!("blk.{layer}.");
                    let of_layer = plan
                        .dispatches
                        .iter()
                        .filter(|d| d.label.starts_with(&prefix));
                    let labels: Vec<_> = of_layer.map(|d| d.label.as_str()).collect();
                    assert!(labels.len() <= 6, "{} on {name}: {labels:?}", tiny.arch);
                    assert!(labels.len() >= 5, "{} on {name}: {labels:?}", tiny.arch);
                }
                // All that is outside the layers: embedding, the last norms, the output.
                assert!(
                    plan.dispatches.len() <= 6 * tiny.layers + 4,
                    "{name}: {plan}"
                );
            }
        }
    }
}

#[test]
fn no_launch_writes_what_it_reads_elsewhere() {
    for tiny in [&LLAMA, &GEMMA] {
        for tokens in [1, 64] {
            for (name, plan) in plans(tiny, 1024, tokens) {
                apart(&plan, name);
            }
        }
    }
}

/// Every family, as its folder says it: what a token costs, and what WebGPU lets a launch bind.
#[test]
fn every_family_is_planned_within_limits() {
    let folders = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut families = 0;
    for entry in std::fs::read_dir(folders).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(checkpoint) = Checkpoint::open(&folder) else {
            continue;
        };
        let Ok(model) = Description::new(&checkpoint) else {
            continue;
        };
        families += 1;
        let encodes = model.is_encoder();
        let head = if encodes { Head::Hidden } else { Head::Last };
        let graph = model.graph(&checkpoint, head, 512).unwrap();
        let kv = KvShape {
            dtype: KvType::F16,
            stride: 512 / PAGE,
            ahead: 128,
        };
        // A norm of whole q and k is a launch of its own; experts are routed, go in two halves, and
        // are summed.
        let config = &model.config;
        let most = match config.arch {
            _ if config.experts.is_some() => 8,
            "olmo2" => 7,
            _ => 6,
        };
        for (name, caps) in caps() {
            let what = format!("{} on {name}", folder.display());
            // An encoder takes whole texts alone.
            for tokens in [1, 64].into_iter().filter(|t| !encodes || *t > 1) {
                let plan = plan(&graph, &caps, kv, tokens).unwrap();
                apart(&plan, &what);
                for d in &plan.dispatches {
                    let storage = d.bindings.len();
                    assert!(
                        storage <= caps.max_storage_buffers as usize,
                        "{what}: {storage} in {d}"
                    );
                }
                for layer in (0..config.layers).filter(|_| tokens == 1) {
                    let prefix = format!("blk.{layer}.");
                    let of_layer = plan.dispatches.iter();
                    let of_layer = of_layer.filter(|d| d.label.starts_with(&prefix));
                    let labels: Vec<_> = of_layer.map(|d| d.label.as_str()).collect();
                    assert!(labels.len() <= most, "{what}: {labels:?}");
                }
            }
        }
    }
    assert!(families >= 20, "{families} families");
}

/// At 131072 tokens decode is in many parts, which take little memory.
#[test]
fn a_long_context_is_attended_in_parts() {
    let wide = Tiny {
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        layers: 1,
        ..LLAMA
    };
    for (name, plan) in plans(&wide, 131_072, 1) {
        let of = |kernel: &str| {
            let mut all = plan.dispatches.iter();
            all.find(|d| d.kernel.name.starts_with(kernel))
                .unwrap()
                .clone()
        };
        let (decode, combine) = (of("attention_decode"), of("attention_combine"));
        let parts = decode.grid[1];
        assert!((64..=128).contains(&parts), "{name}: {parts} parts");
        // A short text launches one.
        assert_eq!(decode.positions, Some((1, 131_072 / parts)), "{name}");
        assert_eq!(combine.constant("SPLITS"), Some(parts), "{name}");
        let bytes: usize = plan.slots.iter().sum();
        assert!(bytes < 4 << 20, "{name}: {bytes} bytes");
    }
}

#[test]
fn a_chunk_is_as_long_as_its_buffers_fit() {
    let checkpoint = Checkpoint::from_bytes(LLAMA.gguf(1)).unwrap();
    let graph = Description::new(&checkpoint).unwrap();
    let graph = graph.graph(&checkpoint, Head::Last, 4096).unwrap();
    let kv = KvShape {
        dtype: KvType::F16,
        stride: 128,
        ahead: 512,
    };
    // The widest value is q, k and v together: 768 floats a token.
    for (binding, tokens) in [(2 << 20, 512), (1 << 20, 256), (400_000, 128), (4096, 16)] {
        for (name, mut caps) in caps() {
            caps.max_binding = binding.max(64 << 10);
            let plan = longest(&graph, &caps, kv, 512).unwrap();
            let want = if binding < 64 << 10 { 16 } else { tokens };
            assert_eq!(plan.tokens, want, "{name}, {binding}");
        }
    }
}

#[test]
fn plans_are_as_they_were() {
    for tiny in [&LLAMA, &GEMMA] {
        let small = Tiny { layers: 2, ..*tiny };
        for (name, plan) in plans(&small, 4096, 1) {
            if ["software", "subgroups-32"].contains(&name) {
                insta::assert_snapshot!(format!("{}-decode-{name}", tiny.arch), plan);
            }
        }
        let (_, plan) = plans(&small, 4096, 64).remove(0);
        insta::assert_snapshot!(format!("{}-prompt", tiny.arch), plan);
    }
}

/// Products take biases, sums and the activation into themselves; all layers share one layer's keys and
/// values.
#[test]
fn an_encoder_costs_ten_launches_a_layer() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/fixtures/families/minilm");
    let checkpoint = Checkpoint::open(folder).unwrap();
    let graph = Description::new(&checkpoint).unwrap();
    let graph = graph.graph(&checkpoint, Head::Hidden, 64).unwrap();
    let kv = KvShape {
        dtype: KvType::F16,
        stride: 2,
        ahead: 64,
    };
    for (name, caps) in caps() {
        let plan = plan(&graph, &caps, kv, 64).unwrap();
        // Beside them the embedding and its norm; inputs in eight bits are made once for all who want them.
        let products = |d: &&Dispatch| d.kernel.name != "quantize";
        assert_eq!(
            plan.dispatches.iter().filter(products).count(),
            2 + 2 * 10,
            "{name}"
        );
        let bound = plan.dispatches.iter().flat_map(|d| &d.bindings);
        let other = |r: &Resource| matches!(r, Resource::Kv(layer) if *layer > 0);
        assert!(!bound.map(|(r, _)| r).any(other), "{name}");
        if name == "software" {
            insta::assert_snapshot!("bert-prompt", plan);
        }
    }
}
