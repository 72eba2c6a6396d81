//! Experts that are stored together: `gate_up_proj` and `down_proj` of all of a layer's experts, as
//! transformers 5 saves Qwen3-MoE where it is told not to keep the published names.

use std::collections::BTreeMap;

use omnimini::caps::Precision;
use omnimini::format::{Checkpoint, Files, Source};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{F32, cases, error, folder, options};

/// A tensor in two bytes an element.
#[derive(Clone)]
struct Halves {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Halves {
    /// `[a, b]` as `[b, a]`.
    fn turned(&self) -> Self {
        let (rows, cols) = (self.shape[0], self.shape[1]);
        let at = |row: usize, col: usize| 2 * (row * cols + col);
        let pairs = (0..cols).flat_map(|col| (0..rows).map(move |row| at(row, col)));
        Self {
            shape: vec![cols, rows],
            bytes: pairs
                .flat_map(|i| [self.bytes[i], self.bytes[i + 1]])
                .collect(),
        }
    }

    /// Matrices one after the other along a new first side.
    fn stacked(parts: &[Self]) -> Self {
        Self {
            shape: [&[parts.len()], &parts[0].shape[..]].concat(),
            bytes: parts.iter().flat_map(|p| p.bytes.clone()).collect(),
        }
    }

    /// Rows of one under those of the other.
    fn above(&self, other: &Self) -> Self {
        Self {
            shape: vec![self.shape[0] + other.shape[0], self.shape[1]],
            bytes: [&self.bytes[..], &other.bytes].concat(),
        }
    }
}

/// The files of `qwen3-moe` with each layer's experts in two tensors, `change`d before they are joined.
fn joined(change: impl Fn(Halves) -> Halves) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder("qwen3-moe")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        files.insert(
            name.clone(),
            Source::memory(name, std::fs::read(&path).unwrap()),
        );
    }
    let bytes = std::fs::read(folder("qwen3-moe").join("model.safetensors")).unwrap();
    let published = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = BTreeMap::new();
    // By layer and part: the experts in their order.
    let mut experts: BTreeMap<(String, String), BTreeMap<usize, Halves>> = BTreeMap::new();
    for (name, view) in published.tensors() {
        assert_eq!(view.dtype(), Dtype::BF16, "{name}");
        let tensor = Halves {
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        match name.split_once(".experts.") {
            Some((layer, rest)) => {
                let (number, part) = rest.split_once('.').unwrap();
                let of_part = experts.entry((layer.into(), part.into())).or_default();
                of_part.insert(number.parse().unwrap(), tensor);
            }
            None => assert!(tensors.insert(name, tensor).is_none()),
        }
    }
    let parts = |layer: &String, part: &str| -> Vec<Halves> {
        let of_part = &experts[&(layer.clone(), format!("{part}.weight"))];
        of_part.values().cloned().collect()
    };
    for (layer, _) in experts
        .keys()
        .filter(|(_, part)| part == "down_proj.weight")
    {
        let (gates, ups) = (parts(layer, "gate_proj"), parts(layer, "up_proj"));
        let pairs = gates
            .iter()
            .zip(&ups)
            .map(|(gate, up)| change(gate.above(up)));
        let gate_up = Halves::stacked(&pairs.collect::<Vec<_>>());
        tensors.insert(format!("{layer}.experts.gate_up_proj"), gate_up);
        let downs: Vec<_> = parts(layer, "down_proj").into_iter().map(&change).collect();
        tensors.insert(
            format!("{layer}.experts.down_proj"),
            Halves::stacked(&downs),
        );
    }
    let views = tensors.iter().map(|(name, t)| {
        let view = TensorView::new(Dtype::BF16, t.shape.clone(), &t.bytes);
        (name.clone(), view.unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    let name = "model.safetensors";
    files.insert(name.into(), Source::memory(name, bytes));
    files
}

#[test]
fn experts_that_are_stored_together_are_the_same_experts() {
    let published = Checkpoint::open(folder("qwen3-moe")).unwrap();
    let plain = joined(|matrix| matrix);
    let turned = joined(|matrix| matrix.turned());
    for files in [plain, turned] {
        let checkpoint = Checkpoint::from_folder("the folder", files).unwrap();
        assert_eq!(checkpoint.tensors().len(), published.tensors().len());
        for tensor in published.tensors() {
            let same = checkpoint.need(&tensor.name).unwrap();
            assert_eq!((same.dtype, &same.shape), (tensor.dtype, &tensor.shape));
            let rows = 0..tensor.rows_cols().0;
            let ours = checkpoint.rows(same, rows.clone()).unwrap();
            let name = &tensor.name;
            assert!(ours == published.rows(tensor, rows).unwrap(), "{name}");
        }
        let case = &cases(&folder("qwen3-moe"))[0];
        let error = error(&checkpoint, case, &options(Precision::F32, case)).unwrap();
        assert!(error < F32, "{error:.1e}");
    }
}

#[test]
fn experts_of_another_width_are_named() {
    let narrow = |matrix: Halves| Halves {
        shape: vec![matrix.shape[0] * 2, matrix.shape[1] / 2],
        ..matrix
    };
    let error = Checkpoint::from_folder("the folder", joined(narrow)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`model.layers.0.mlp.experts.down_proj` is [8, 128, 16]")
            && text.contains("`hidden_size` 64"),
        "{text}"
    );
}
