"""Writes a family's folder as its makers publish theirs."""

import copy
import json
import zlib

import tokens
import torch
import transformers
import weights
from safetensors.torch import load_file, save_file


def native_config(config):
    """transformers' own configuration, from what `config.json` holds."""
    kind = transformers.models.auto.configuration_auto.CONFIG_MAPPING[config["model_type"]]
    # Copied: transformers writes into the dictionaries that it is given.
    return kind.from_dict(copy.deepcopy(without_quantisation(config)))


def without_quantisation(config):
    return {k: v for k, v in config.items() if k != "quantization_config"}


def model_class(family):
    name = family.config["architectures"][0]
    return getattr(transformers, name)


def empty(family, config=None):
    """A model in float32 with eager attention, from a configuration."""
    config = native_config(config or family.native or family.config)
    config._attn_implementation = "eager"
    config.dtype = torch.float32
    return model_class(family)(config).float().eval()


def write(family, folder):
    """Makes the folder, from the family's name alone: the same name gives the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        if old.is_file():
            old.unlink()
    dtype = getattr(torch, family.dtype)
    generator = torch.Generator().manual_seed(zlib.crc32(family.name.encode()))
    model = empty(family)
    weights.randomise(model, family, generator)
    stored = quantise(family, model, generator)
    weights.round_to(model, dtype)
    if family.pooling is None:
        set_spread(family, model)
        weights.round_to(model, dtype)
    save(family, model, stored, dtype, folder)
    vocabulary = family.vocabulary()
    assert len(vocabulary.tokens) == tokens.SIZE == family.config["vocab_size"], family.name
    tokens.write(vocabulary, folder, family.chat, family.chat_file)
    text(folder / "config.json", family.config)
    if family.pooling is None:
        ends = family.config["eos_token_id"]
        text(folder / "generation_config.json", {
            "bos_token_id": family.config["bos_token_id"], "do_sample": True,
            "eos_token_id": ends if isinstance(ends, list) else [ends], "temperature": 0.6, "top_p": 0.9,
            "transformers_version": family.config.get("transformers_version", transformers.__version__),
        })


def text(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@torch.no_grad()
def set_spread(family, model):
    """Brings the logits to the family's deviation: neither flat nor saturated."""
    ids = torch.randint(0, tokens.SIZE, (1, 64), generator=torch.Generator().manual_seed(1))
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap:
        model.config.final_logit_softcapping = None
    logits = model(ids, use_cache=False).logits
    if cap:
        model.config.final_logit_softcapping = cap
    gain, scale = weights.final_norm(model), family.spread / logits.std()
    # Gemma's norms multiply by one more than their weight.
    one = 1.0 if "gemma" in family.config["model_type"] else 0.0
    gain.copy_((gain + one) * scale - one)


def quantise(family, model, generator):
    """What is stored instead of some parameters, by name; they get the values that it stands for."""
    return {}


def save(family, model, stored, dtype, folder):
    """The safetensors files, under the names that the makers' files have."""
    shard = family.shard or "1GB"
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    model.float()
    # The configuration as transformers 5 spells it, for who reads either.
    (folder / "config.json").rename(folder / "config.v5.json")


def files(folder):
    """The folder's tensors by name, from all its shards."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= load_file(path)
    return found


def fill(family, model, folder):
    """Fills a model in float32 from the folder's files, by transformers' own loader."""
    loaded = model_class(family).from_pretrained(
        folder, config=model.config, dtype=torch.float32, attn_implementation="eager")
    return loaded.eval()
