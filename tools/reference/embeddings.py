#!/usr/bin/env python3
"""Vectors of texts by a real embedding model, as its makers' code gives them: for `tests/embed.rs`.

  python tools/reference/embeddings.py FOLDER OUT.json

FOLDER is a folder of BERT's structure with mean pooling, such as `tools/vocabularies` leaves in the cache
folder; transformers runs it in float32. What to install is in tests/fixtures/families/README.md.
"""

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

PACKAGES = ["torch", "transformers", "tokenizers"]
LONG = "The river rose after three days of rain, and the ferry could not cross. "
# Those that mean the same stand beside each other; then odd ones, one of many tokens, and one of too many.
TEXTS = [
    "A cat is sleeping on the sofa.",
    "The kitten naps on the couch.",
    "The central bank raised interest rates again.",
    "Borrowing money became more expensive after the monetary authority's decision.",
    "How do I bake sourdough bread?",
    "Instructions for making a loaf with a wild yeast starter.",
    "Die Katze schläft auf dem Sofa.",
    "def quicksort(xs): return xs if len(xs) < 2 else ...",
    "",
    "naïve café — 日本語 😀 [SEP]",
    "x",
    LONG * 12,
    LONG * 20,
]


def main(folder, out):
    """Writes the vectors of TEXTS."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    # A longer text is cut, its end marker kept.
    longest = json.loads((Path(folder) / "sentence_bert_config.json").read_text())["max_seq_length"]
    rows = []
    for text in TEXTS:
        # A marker in a text is text.
        ids = tokenizer(text, split_special_tokens=True, truncation=True, max_length=longest)["input_ids"]
        with torch.inference_mode():
            states = model(torch.tensor([ids])).last_hidden_state[0]
        vector = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
        rows.append({"text": text, "ids": ids, "vector": [float(f"{v:.8g}") for v in vector.tolist()]})
    weights = (Path(folder) / "model.safetensors").read_bytes()
    report = {
        "command": "tools/reference/embeddings.py",
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
        "sha256": hashlib.sha256(weights).hexdigest(),
        "texts": rows,
    }
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in report.pop("texts"))
    head = json.dumps(report, indent=1)[:-2]
    Path(out).write_text(f'{head},\n "texts": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
