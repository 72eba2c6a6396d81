"""The makers' numbers: what transformers computes from a folder, and the files that keep it."""

import json
import zlib

import folder as folders
import numpy as np
import tokens
import torch
import weights


class Arrays:
    """The arrays of one `reference.bin`: float32, little-endian, one after the other."""

    def __init__(self):
        self.parts, self.size = [], 0

    def add(self, values):
        """Where the array is to be found, for `reference.json`."""
        data = np.ascontiguousarray(values, dtype="<f4")
        row = {"offset": self.size, "shape": list(data.shape)}
        self.parts.append(data.tobytes())
        self.size += data.nbytes
        return row

    def write(self, path):
        path.write_bytes(b"".join(self.parts))


def read(data, row):
    """The array that a row of `reference.json` names."""
    count = int(np.prod(row["shape"]))
    return np.frombuffer(data, "<f4", count, row["offset"]).reshape(row["shape"])


def load(family, folder, **changes):
    """The model in float32 with eager attention, its weights from the folder."""
    config = (family.native or family.config) | changes
    model = folders.empty(family, config)
    return folders.fill(family, model, folder)


def random_ids(family, length, salt):
    """Token ids, fixed by the family's name; BOS first where the tokenizer puts it."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{family.name} {salt}".encode()))
    ids = torch.randint(0, tokens.SIZE, (length,), generator=generator).tolist()
    vocabulary = family.vocabulary()
    if vocabulary.add_bos:
        ids[0] = vocabulary.bos
    return ids


def rows_of(length, all_rows):
    """The positions whose logits are kept: all, or every eighth and the last eight."""
    return [i for i in range(length) if all_rows or i % 8 == 0 or i >= length - 8]


@torch.no_grad()
def logits(model, ids, rows):
    return model(torch.tensor([ids]), use_cache=False).logits[0, rows].numpy()


def difference(ours, truth):
    """‖ours − truth‖ / ‖truth‖, over all of it."""
    truth = np.asarray(truth, np.float64)
    return float(np.linalg.norm(np.asarray(ours, np.float64) - truth) / np.linalg.norm(truth))


def cases(family):
    """Names, token ids and kept positions of the two texts."""
    for name, length in zip(("short", "long"), family.lengths):
        yield name, random_ids(family, length, name), rows_of(length, name == "short")


def of_decoder(family, folder, arrays):
    """Two texts' logits, and how far each change in `tells` would move them."""
    model = load(family, folder)
    found, texts = [], list(cases(family))
    for name, ids, rows in texts:
        kept = logits(model, ids, rows)
        found.append({"name": name, "ids": ids, "rows": rows, "logits": arrays.add(kept)})
    told = {}
    for key, value in family.tells.items():
        if key.startswith("zero "):
            changed = load(family, folder)
            folders.zero(changed, key.removeprefix("zero "))
        else:
            changed = load(family, folder, **{key: value})
        told[key] = round(difference(logits(changed, *texts[1][1:]), kept), 6)
        if told[key] < 1e-2:
            raise ValueError(f"{family.name}: {key} = {value} moves the logits by {told[key]} only")
    return {"logits_deviation": round(float(kept.std()), 4), "told_by": told, "cases": found}


@torch.no_grad()
def of_encoder(family, folder, arrays):
    """Last hidden states and sentence vectors of three texts."""
    model, found = load(family, folder), []
    for length in family.lengths:
        ids = random_ids(family, length, length)
        if family.pooling != "lasttoken":
            ids[-1] = family.vocabulary().eos
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
        row = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[family.pooling]
        found.append({
            "name": f"{length} tokens", "ids": ids, "hidden": arrays.add(hidden.numpy()),
            "sentence": arrays.add((row / row.norm()).numpy()),
        })
    return {"pooling": family.pooling, "cases": found}


def make(family, folder, versions):
    """Writes `reference.json` and `reference.bin`."""
    arrays = Arrays()
    body = (of_encoder if family.pooling else of_decoder)(family, folder, arrays)
    arrays.write(folder / "reference.bin")
    head = {"family": family.name, "command": f"tools/families {family.name}", "versions": versions,
            "weights": family.quantised or family.dtype, "precision": "float32, eager attention",
            "gguf": family.gguf}
    folders.text(folder / "reference.json", head | body | {"texts": tokens.texts(folder)})
    compact(folder / "reference.json")


def compact(path):
    """Lists of numbers in one line each."""
    import re

    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\[\s+((?:-?[\d.e+-]+,\s+)*-?[\d.e+-]+)\s+\]",
                  lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    path.write_text(text, encoding="utf-8")


def check(family, folder):
    """How far what transformers computes now is from what is kept."""
    if json.loads((folder / "config.json").read_text(encoding="utf-8")) != family.config:
        raise ValueError(f"{family.name}: config.json is not what tools/family/models.py says: make it again")
    kept = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    data, worst = (folder / "reference.bin").read_bytes(), 0.0
    model = load(family, folder)
    for case in kept["cases"]:
        if family.pooling:
            with torch.no_grad():
                now = model(torch.tensor([case["ids"]])).last_hidden_state[0].numpy()
            worst = max(worst, difference(now, read(data, case["hidden"])))
        else:
            now = logits(model, case["ids"], case["rows"])
            worst = max(worst, difference(now, read(data, case["logits"])))
    return worst
