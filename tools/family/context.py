"""Whole contexts: the logits at the end of 131072 tokens, by the makers' code and its own cache.

The text is no file: token n is `(x(n+1) >> 16) % 288`, where x(0) is `seed` and x(n+1) is
`(1664525 * x(n) + 1013904223) % 2^32`.
"""

import json

import folder as folders
import reference
import tokens
import torch
from models import GEMMA, Family, Spm, llama, llama3_scaling, llama_words
from transformers import DynamicCache

LENGTH, CHUNK, KEPT, SEED = 131072, 512, 8, 1

FAMILIES = [
    Family(
        "context-llama",
        llama(hidden_size=32, intermediate_size=32, num_attention_heads=2, num_hidden_layers=1,
              rope_scaling=llama3_scaling(32.0), tie_word_embeddings=True),
        llama_words,
    ),
    Family(
        "context-gemma",
        {
            "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
            "bos_token_id": 2, "eos_token_id": [1, 5], "final_logit_softcapping": None, "head_dim": 16,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 32, "initializer_range": 0.02,
            "intermediate_size": 32, "layer_types": ["sliding_attention", "full_attention"],
            "max_position_embeddings": 131072, "model_type": "gemma3_text", "num_attention_heads": 2,
            "num_hidden_layers": 2, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 16,
            "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1000000.0,
            "sliding_window": 512, "torch_dtype": "bfloat16", "transformers_version": "4.55.0.dev0",
            "use_cache": True, "vocab_size": 288,
        },
        lambda: Spm(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
                    "<bos>", "<eos>", prefix=False),
        chat=GEMMA,
    ),
]


def text(length=LENGTH, seed=SEED):
    ids, x = [], seed
    for _ in range(length):
        x = (1664525 * x + 1013904223) % (1 << 32)
        ids.append((x >> 16) % tokens.SIZE)
    return ids


@torch.no_grad()
def end_of(model, ids):
    """Logits at the last positions; the text goes through the cache in chunks."""
    cache = DynamicCache(config=model.config)
    for at in range(0, len(ids), CHUNK):
        out = model(torch.tensor([ids[at:at + CHUNK]]), cache=cache, use_cache=True, logits_to_keep=KEPT)
    return out.logits[0].numpy()


def make(root, versions):
    ids = text()
    for family in FAMILIES:
        target, arrays = root / family.name, reference.Arrays()
        folders.write(family, target)
        cases = []
        for length in (8192, 32768, LENGTH):
            model = reference.load(family, target)
            logits = end_of(model, ids[:length])
            cases.append({
                "name": f"{length} tokens", "length": length, "seed": SEED, "rows": list(range(length - KEPT, length)),
                "logits": arrays.add(logits),
            })
        arrays.write(target / "reference.bin")
        folders.text(target / "reference.json", {
            "family": family.name, "command": "tools/families context", "versions": versions,
            "precision": f"float32, eager attention, a cache filled by chunks of {CHUNK}",
            "first_ids": ids[:16], "cases": cases, "texts": tokens.texts(target),
        })
        reference.compact(target / "reference.json")


def check(root):
    """How far what transformers computes now is from what is kept, of the shorter texts."""
    worst, ids = 0.0, text()
    for family in FAMILIES:
        target = root / family.name
        kept = json.loads((target / "reference.json").read_text(encoding="utf-8"))
        data, model = (target / "reference.bin").read_bytes(), reference.load(family, target)
        for case in kept["cases"][:2]:
            now = end_of(model, ids[:case["length"]])
            worst = max(worst, reference.difference(now, reference.read(data, case["logits"])))
    return worst
