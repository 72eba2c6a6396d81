"""The second truth: llama.cpp on the same file written out in F32, on the CPU.

Runs the tools of a llama.cpp build (llama-quantize, llama-server, llama-perplexity) that the
caller names; only the differences it finds are kept.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Iterator

NEAR_TIE = 0.05
# Float32 all the way: no accelerator, no f16 in attention or its cache.
F32 = ["--device", "none", "-ngl", "0", "-fa", "off", "-ctk", "f32", "-ctv", "f32"]


def compare(tools: Path, model: Path, text: Path, fixture: dict, threads: int) -> dict:
    """Returns how far llama.cpp is from `fixture`, as README.md beside this file says."""
    with tempfile.TemporaryDirectory() as folder:
        f32 = Path(folder) / "f32.gguf"
        run(tools / "llama-quantize", "--allow-requantize", model, f32, "F32", str(threads))
        with server(tools, f32, threads) as ask:
            ids = all(
                ask("tokenize", content=p["text"], add_special=True, parse_special=p["special"])["tokens"]
                == p["ids"]
                for p in fixture["prompts"]
            )
            text_ids = ask("tokenize", content=text.read_text("utf-8"), add_special=True, parse_special=False)
            ids = ids and len(text_ids["tokens"]) == fixture["perplexity"]["text_tokens"]
            best = [d for p in fixture["prompts"] if (d := best_difference(ask, p)) is not None]
            by_name = {p["name"]: p for p in fixture["prompts"]}
            greedy = sum(greedy_agrees(ask, by_name[g["prompt"]], g) for g in fixture["greedy"])
        size = fixture["perplexity"]["context"]
        out = run(
            *[tools / "llama-perplexity", "-m", f32, "-f", text, "-c", size, "-b", size, "-ub", size],
            *["--chunks", fixture["perplexity"]["chunks"], "-t", threads, *F32],
        )
        perplexity = float(re.search(r"PPL = ([0-9.]+)", out).group(1))
    return {
        "llama_cpp": version(tools),
        "ids_equal": ids,
        "best_compared": len(best),
        "best_max_difference": round(max(best), 6),
        "greedy_agree": greedy,
        "perplexity": perplexity,
        "perplexity_ratio": round(perplexity / fixture["perplexity"]["perplexity"], 7),
    }


def best_difference(ask, prompt: dict) -> float | None:
    """The largest difference of a logprob over the prompt's ten best.

    None where the server keeps the numbers back: the first token ends inside a character.
    """
    answer = complete(ask, prompt["ids"], 1, n_probs=4 * len(prompt["best"]))
    if "completion_probabilities" not in answer:
        return None
    theirs = {t["id"]: t["logprob"] for t in answer["completion_probabilities"][0]["top_logprobs"]}
    return max(abs(theirs[i] - logprob) for i, logprob in prompt["best"])


def greedy_agrees(ask, prompt: dict, greedy: dict) -> bool:
    """Whether both chose the same tokens up to a near tie or the end."""
    theirs = complete(ask, prompt["ids"], len(greedy["ids"]), return_tokens=True)["tokens"]
    for a, b, two in zip(greedy["ids"], theirs, greedy["best_two"]):
        if two[0][1] - two[1][1] < NEAR_TIE:
            return True
        if a != b:
            return False
    # The server leaves the token that ends an answer out of its list.
    return len(theirs) >= len(greedy["ids"]) - 1


def complete(ask, ids: list[int], tokens: int, **options) -> dict:
    """What the server answers to `ids`, greedily."""
    answer = ask("completion", prompt=ids, n_predict=tokens, temperature=0, cache_prompt=False, **options)
    if answer["tokens_evaluated"] != len(ids):
        raise ValueError(f"{len(ids)} ids were given, {answer['tokens_evaluated']} evaluated")
    return answer


@contextlib.contextmanager
def server(tools: Path, model: Path, threads: int) -> Iterator:
    """Runs llama-server on a free port and yields `ask(path, **fields)`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [tools / "llama-server", "-m", model, "--host", "127.0.0.1", "--port", port, *F32]
    command += ["-c", 4096, "-np", 1, "-t", threads, "-tb", threads]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str, **fields):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/{path}",
            json.dumps(fields).encode() if fields else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"llama-server ended with {process.returncode}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                ask("health")
                break
            time.sleep(1)
        yield ask
    finally:
        process.terminate()
        process.wait()


def version(tools: Path) -> str:
    return " ".join(re.findall(r"version: (.*)", run(tools / "llama-server", "--version")))


def run(*command) -> str:
    result = subprocess.run(
        list(map(str, command)), check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return result.stdout
