#!/usr/bin/env python3
"""Makes `tests/fixtures/reference/text.json`: the corpus in the makers' tokens and pieces.

See README.md beside this file for how to run it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from pathlib import Path

import corpus
import vocab

FIXTURE = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "reference" / "text.json"
MODELS = ["smollm2-135m-instruct", "gemma-3-270m"]
PACKAGES = ["gguf", "tokenizers", "sentencepiece"]

WORDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + WORDS


def cased(ending: str, digits: str) -> str:
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{lead}{UPPER}*{LOWER}+{ending}|{lead}{UPPER}+{LOWER}*{ending}"
        rf"|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{WORDS}"
    )


# As the models' own tokenizer.json files split, look-ahead and all.
PATTERNS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [CL100K % "{1,3}"],
    "qwen2": [CL100K % ""],
    "gpt-4o": [cased(ENDINGS + "?", "{1,3}")],
    "tekken": [cased("", "")],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|" + WORDS,
    ],
}


def pieces(patterns: list[str], text: str) -> list[int]:
    """Bytes of each piece."""
    from tokenizers import Regex, pre_tokenizers

    split = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    found = pre_tokenizers.Sequence(split).pre_tokenize_str(text)
    return [len(piece.encode()) for piece, _ in found]


def main() -> None:
    from gguf import GGUFReader

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder with NAME.gguf")
    args = parser.parse_args()
    texts = corpus.TEXTS + [b.decode(errors="replace") for b in corpus.BYTES]
    ids = {}
    for model in MODELS:
        reader = GGUFReader(args.models / f"{model}.gguf")
        words = vocab.Vocabulary({name: field.contents() for name, field in reader.fields.items()})
        words.add_bos = False
        ids[model] = [words.encode(text) for text in texts]
    rows = {
        "command": "tools/reference/text.py --models DIR",
        "versions": {"python": platform.python_version()}
        | {p: importlib.metadata.version(p) for p in PACKAGES},
        "texts": texts,
        "bytes": [list(b) for b in corpus.BYTES],
        "ids": ids,
        "pieces": {name: [pieces(p, t) for t in texts] for name, p in PATTERNS.items()},
    }
    dump = lambda value: json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    lines = []
    for key, value in rows.items():
        if isinstance(value, list):
            inner = ",\n".join(dump(v) for v in value)
            lines.append(f"{dump(key)}: [\n{inner}\n]")
        elif key in ("ids", "pieces"):
            inner = ",\n".join(f"{dump(k)}: {dump(v)}" for k, v in value.items())
            lines.append(f"{dump(key)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{dump(key)}: {dump(value)}")
    FIXTURE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
