#!/usr/bin/env python3
"""Makes `tests/fixtures/reference/*.json`: what both models answer in float32.

See README.md beside this file for how to run it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import prompts
import vocab

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "reference"
TEXT = FIXTURES / "text.txt"
MODELS = ["smollm2-135m-instruct", "gemma-3-270m"]
CONTEXT, CHUNKS = 512, 8
PACKAGES = ["torch", "transformers", "gguf", "tokenizers", "sentencepiece", "numpy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder with NAME.gguf")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one (default: both)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--llama-cpp", type=Path, metavar="BIN", help="folder of a llama.cpp build's tools: the second truth"
    )
    args = parser.parse_args()
    for model in args.model or MODELS:
        make(model, args)


def make(model: str, args: argparse.Namespace) -> None:
    import torch

    import truth

    torch.set_num_threads(args.threads)
    path = args.models / f"{model}.gguf"
    text = TEXT.read_text(encoding="utf-8")
    log(f"{model}: reading {path}")
    f32 = truth.Truth(path)
    words = vocab.Vocabulary(f32.fields)
    ends = {words.eos} | {words.control[t] for t in truth.END_OF_ANSWER if t in words.control}

    rows = prompts.prompts(model, text)
    for row in rows:
        row["ids"] = words.encode(row["text"], row["special"])
        row["best"] = f32.best(row["ids"])
        log(f"{model}: {row['name']}: {len(row['ids'])} tokens, then {words.tokens[row['best'][0][0]]!r}")
    by_name = {row["name"]: row for row in rows}
    greedy = []
    for name in prompts.GREEDY:
        greedy.append({"prompt": name, **f32.greedy(by_name[name]["ids"], ends)})
        log(f"{model}: {name}: {''.join(words.tokens[i] for i in greedy[-1]['ids'])}")
    tokens = words.encode(text)
    perplexity = f32.perplexity(tokens, words.add_bos, words.bos, CONTEXT, CHUNKS)
    perplexity["token_nll"] = f32.token_nll(tokens, words.add_bos, words.bos, CONTEXT)
    perplexity["first_ids"] = tokens[:32]
    perplexity["text_tokens"] = len(tokens)
    log(f"{model}: perplexity {perplexity['perplexity']} over {perplexity['tokens']} tokens")

    fixture = {
        "model": model,
        "file_sha256": sha256(path),
        "text_sha256": sha256(TEXT),
        "command": f"tools/reference/make.py --models DIR --model {model}",
        "versions": {"python": platform.python_version()}
        | {p: importlib.metadata.version(p) for p in PACKAGES},
        "precision": "file dequantised to f32, f32 activations, eager attention; log-softmax in f64",
        "second_truth": None,
        "prompts": rows,
        "greedy": greedy,
        "perplexity": perplexity,
    }
    del f32
    write(FIXTURES / f"{model}.json", fixture)
    if args.llama_cpp:
        import peer

        log(f"{model}: the second truth")
        fixture["second_truth"] = peer.compare(args.llama_cpp, path, TEXT, fixture, args.threads)
        write(FIXTURES / f"{model}.json", fixture)
        log(f"{model}: {json.dumps(fixture['second_truth'])}")


def write(path: Path, fixture: dict) -> None:
    """Writes one line for each field, prompt and answer, so that a change reads well in a diff."""
    lines = []
    for key, value in fixture.items():
        if isinstance(value, list):
            inner = ",\n".join("    " + json.dumps(v, ensure_ascii=False) for v in value)
            lines.append(f"  {json.dumps(key)}: [\n{inner}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
