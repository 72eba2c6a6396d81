"""Long positions: the frequencies of every RoPE scaling, and logits of windows far into a text.

`rope/` and `rope-phi/` are folders of two layers. A case of `rope/reference.json` says what to change
in a folder's `config.json`, and where a window of tokens stands; there is nothing before the window.
"""

import json

import folder as folders
import numpy as np
import reference
import tokens
import torch
from models import PHI4_LONG, PHI4_SHORT, PHI35_LONG, PHI35_SHORT, Family, llama, llama3_scaling, llama_words
from models import longrope, o200k_words, phi3
from transformers import LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

WINDOW, KEPT = 48, 8
STARTS = [0, 4096 - 24, 32768 - 24, 131072 - WINDOW]

GPT_OSS = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
           "rope_type": "yarn", "truncate": False}
QWEN = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
OLMO = {"attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0,
        "original_max_position_embeddings": 8192, "rope_type": "yarn"}
MINISTRAL = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "mscale": 1.0, "mscale_all_dim": 1.0,
             "original_max_position_embeddings": 16384, "rope_type": "yarn"}

LLAMA = Family("rope", llama(num_hidden_layers=2, intermediate_size=64, tie_word_embeddings=True), llama_words)
PHI = Family(
    "rope-phi",
    phi3(num_hidden_layers=2, intermediate_size=64, num_key_value_heads=1, tie_word_embeddings=True,
         original_max_position_embeddings=4096, max_position_embeddings=131072, partial_rotary_factor=0.75,
         bos_token_id=281, eos_token_id=282, pad_token_id=281,
         rope_scaling=longrope(PHI4_SHORT[::4], PHI4_LONG[::4])),
    o200k_words,
)

# (name, folder, changes of its config.json, where its windows start)
CASES = [
    ("none", LLAMA, {"rope_theta": 10000.0}, STARTS),
    ("linear", LLAMA, {"rope_theta": 1000000.0, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}, STARTS),
    ("dynamic", LLAMA, {"rope_theta": 10000.0, "max_position_embeddings": 4096,
                        "rope_scaling": {"factor": 4.0, "rope_type": "dynamic"}}, STARTS),
    ("yarn", LLAMA, {"rope_theta": 1000000.0, "rope_scaling": QWEN}, STARTS),
    ("yarn-untruncated", LLAMA, {"rope_theta": 150000.0, "rope_scaling": GPT_OSS}, STARTS),
    ("llama3", LLAMA, {"rope_scaling": llama3_scaling(32.0)}, STARTS),
    ("longrope-partial", PHI, {}, [*STARTS[:2], 4096 - WINDOW, *STARTS[2:]]),
    ("longrope", PHI, {"partial_rotary_factor": 1.0,
                       "rope_scaling": longrope(PHI35_SHORT[::3], PHI35_LONG[::3])},
     [*STARTS[:2], 4096 - WINDOW, *STARTS[2:]]),
]

# Published settings: (name, head size, base, scaling, longest context, text length or None, rotated part).
PUBLISHED = [
    ("llama-3.2-1b", 64, 500000.0, llama3_scaling(32.0), 131072, None, 1.0),
    ("llama-3.1-8b", 128, 500000.0, llama3_scaling(8.0), 131072, None, 1.0),
    ("qwen3", 128, 1000000.0, None, 40960, None, 1.0),
    ("qwen2.5-yarn", 128, 1000000.0, QWEN, 32768, None, 1.0),
    ("gpt-oss-20b", 64, 150000.0, GPT_OSS, 131072, None, 1.0),
    ("olmo-3-7b", 128, 500000.0, OLMO, 65536, None, 1.0),
    ("ministral-3-3b", 128, 1000000.0, MINISTRAL, 262144, None, 1.0),
    ("gemma-3-4b-global", 256, 1000000.0, {"factor": 8.0, "rope_type": "linear"}, 131072, None, 1.0),
    ("gemma-3-4b-local", 256, 10000.0, None, 131072, None, 1.0),
    ("phi-3.5-mini-short", 96, 10000.0, longrope(PHI35_SHORT, PHI35_LONG), 131072, 4096, 1.0),
    ("phi-3.5-mini-long", 96, 10000.0, longrope(PHI35_SHORT, PHI35_LONG), 131072, 4097, 1.0),
    ("phi-4-mini-short", 128, 10000.0, longrope(PHI4_SHORT, PHI4_LONG), 131072, 4096, 0.75),
    ("phi-4-mini-long", 128, 10000.0, longrope(PHI4_SHORT, PHI4_LONG), 131072, 4097, 0.75),
    ("dynamic-4096", 128, 10000.0, {"factor": 4.0, "rope_type": "dynamic"}, 4096, 4096, 1.0),
    ("dynamic-32768", 128, 10000.0, {"factor": 4.0, "rope_type": "dynamic"}, 4096, 32768, 1.0),
    ("dynamic-131072", 128, 10000.0, {"factor": 4.0, "rope_type": "dynamic"}, 4096, 131072, 1.0),
]


def frequencies(size, base, scaling, longest, length, part):
    """Frequencies and the factor of cosine and sine, by transformers."""
    heads = 4
    shape = {"hidden_size": heads * size, "num_attention_heads": heads, "rope_theta": base,
             "max_position_embeddings": longest, "rope_scaling": dict(scaling) if scaling else None}
    if scaling and "long_factor" in scaling:
        config = Phi3Config(**shape, partial_rotary_factor=part, original_max_position_embeddings=4096)
    else:
        config = LlamaConfig(**shape)
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        return LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)


def exactly(rotary, of=None):
    """A forward pass of `rotary` whose angles are float64 where the makers' are float32."""
    def forward(x, position_ids, layer_type=None):
        if layer_type:
            of(x, position_ids, layer_type)
            inverse = getattr(rotary, f"{layer_type}_inv_freq")
            factor = getattr(rotary, f"{layer_type}_attention_scaling")
        else:
            of(x, position_ids)  # It may choose other frequencies.
            inverse, factor = rotary.inv_freq, rotary.attention_scaling
        angles = position_ids[..., None].double() * inverse.double()
        angles = torch.cat((angles, angles), -1)
        return (angles.cos() * factor).float(), (angles.sin() * factor).float()

    return forward


@torch.no_grad()
def window(model, ids, start):
    positions = torch.arange(start, start + len(ids))[None]
    out = model(torch.tensor([ids]), position_ids=positions, use_cache=False)
    return out.logits[0, -KEPT:].numpy()


def results(root):
    """Each case's window: name, folder, changes, start, ids, logits, frequencies, and how far exact angles are."""
    for name, family, changes, starts in CASES:
        for start in starts:
            ids = reference.random_ids(family, WINDOW, start)
            model = reference.load(family, root / family.name, **changes)
            logits = window(model, ids, start)
            rotary = model.model.rotary_emb
            inverse, factor = rotary.inv_freq.clone(), float(rotary.attention_scaling)
            rotary.forward = exactly(rotary, rotary.forward)
            exact = reference.difference(window(model, ids, start), logits)
            yield name, family, changes, start, ids, logits, inverse, factor, exact


def make(root, versions):
    for family in (LLAMA, PHI):
        folders.write(family, root / family.name)
    arrays, cases, published = reference.Arrays(), [], []
    for name, family, changes, start, ids, logits, inverse, factor, exact in results(root):
        cases.append({
            "name": name, "folder": family.name, "config": changes, "start": start, "ids": ids,
            "rows": list(range(WINDOW - KEPT, WINDOW)), "logits": arrays.add(logits),
            "inv_freq": arrays.add(inverse), "attention_factor": factor,
            "exact_angles_difference": float(f"{exact:.2g}"),
        })
    for name, size, base, scaling, longest, length, part in PUBLISHED:
        inverse, factor = frequencies(size, base, scaling, longest, length, part)
        published.append({
            "name": name, "head_size": size, "rope_theta": base, "rope_scaling": scaling,
            "max_position_embeddings": longest, "partial_rotary_factor": part, "text_length": length,
            "inv_freq": arrays.add(inverse), "attention_factor": float(factor),
        })
    target = root / LLAMA.name
    arrays.write(target / "reference.bin")
    folders.text(target / "reference.json", {
        "command": "tools/families rope", "versions": versions, "precision": "float32, eager attention",
        "cases": cases, "published": published,
    })
    reference.compact(target / "reference.json")


def check(root):
    """How far what transformers computes now is from what is kept."""
    target, worst = root / LLAMA.name, 0.0
    kept = json.loads((target / "reference.json").read_text(encoding="utf-8"))
    data = (target / "reference.bin").read_bytes()
    for case, now in zip(kept["cases"], results(root), strict=True):
        worst = max(worst, reference.difference(now[5], reference.read(data, case["logits"])),
                    reference.difference(now[6], reference.read(data, case["inv_freq"])))
    for row, now in zip(kept["published"], PUBLISHED, strict=True):
        inverse, factor = frequencies(*now[1:])
        worst = max(worst, reference.difference(inverse, reference.read(data, row["inv_freq"])),
                    abs(factor - row["attention_factor"]))
    return worst


def size(root):
    return sum(f.stat().st_size for n in ("rope", "rope-phi") for f in (root / n).rglob("*") if f.is_file())
