"""Writes a family's folder as its makers publish theirs."""

import copy
import json
import re
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
    return getattr(transformers, family.built or family.config["architectures"][0])


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
    replaced = {in_memory(name) for name in stored}
    weights.round_to(model, dtype, replaced)
    if family.pooling is None:
        set_spread(family, model)
        weights.round_to(model, dtype, replaced)
    save(family, model, stored, dtype, folder)
    vocabulary = family.vocabulary()
    assert len(vocabulary.tokens) == tokens.SIZE == family.text["vocab_size"], family.name
    tokens.write(vocabulary, folder, family.chat, family.chat_file)
    text(folder / "config.json", family.config)
    if family.pooling is None:
        text(folder / "generation_config.json", {
            "bos_token_id": family.text.get("bos_token_id", vocabulary.bos), "do_sample": True, "eos_token_id": family.eos,
            "temperature": 0.6, "top_p": 0.9,
            "transformers_version": family.config.get("transformers_version", transformers.__version__),
        })


def text(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@torch.no_grad()
def set_spread(family, model):
    """Brings the logits to the family's deviation: neither flat nor saturated."""
    ids = torch.randint(0, tokens.SIZE, (1, 64), generator=torch.Generator().manual_seed(1))
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        config.final_logit_softcapping = None
    logits = model(ids, use_cache=False).logits
    if cap:
        config.final_logit_softcapping = cap
    gain, scale = weights.final_norm(model), family.spread / logits.std()
    # Gemma's norms multiply by one more than their weight.
    one = 1.0 if "gemma" in family.config["model_type"] else 0.0
    gain.copy_((gain + one) * scale - one)


def in_memory(name):
    """transformers' name of the parameter that a stored tensor belongs to."""
    name = name.removesuffix("_blocks").removesuffix("_scales")
    if name.startswith("language_model.model."):
        return name.replace("language_model.model.", "model.language_model.")
    return f"model.{name}" if name.startswith(("vision_tower.", "multi_modal_projector.")) else name


PROJECTION = r"(?<!transformer\.)layers\.\d+\..*(q|k|v|o|gate|up|down)_proj\.weight$"


@torch.no_grad()
def quantise(family, model, generator):
    """What is stored instead of some parameters; these get the values that it stands for."""
    stored, parameters = {}, dict(model.named_parameters())
    if family.quantised == "mxfp4":
        for name, p in parameters.items():
            if name.endswith(("gate_up_proj", "down_proj")):
                exponents = (-4, -3) if "gate_up" in name else (-7, -5)
                experts, inputs, outputs = p.shape
                blocks, scales = weights.random_mxfp4((experts, outputs, inputs), exponents, generator)
                p.copy_(weights.from_mxfp4(blocks, scales).transpose(1, 2))
                stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    elif family.quantised:
        for name, p in parameters.items():
            if not re.search(PROJECTION, name):
                continue
            block = {"fp8": (128, 128), "fp8-channel": (1, p.shape[1])}.get(family.quantised)
            codes, scales = weights.to_fp8(p, block)
            p.copy_(weights.from_fp8(codes, scales, block))
            name = name.replace("model.language_model.", "language_model.model.")
            stored[name] = codes
            if family.quantised == "fp8":
                stored[f"{name}_scale_inv"] = scales.bfloat16()
            elif family.quantised == "fp8-channel":
                stored[f"{name}_scale"] = scales.bfloat16()
            elif family.quantised == "fp8-single":
                stored[f"{name}_scale_inv"] = scales.bfloat16().reshape(())
                stored[name.replace("weight", "activation_scale")] = torch.tensor(0.02).bfloat16()
            else:
                stored[f"{name}_scale"] = scales.bfloat16().reshape(1)
                # What activations would be divided by; who keeps them in floats needs it not.
                stored[name.replace("weight", "input_scale")] = torch.tensor([0.02]).bfloat16()
    return stored


@torch.no_grad()
def dequantise(family, found):
    """The tensors of a folder by transformers' names of parameters, in float32."""
    values = {}
    for name, data in found.items():
        if name.endswith("_blocks"):
            scales = found[name.replace("_blocks", "_scales")]
            values[in_memory(name)] = weights.from_mxfp4(data, scales).transpose(1, 2)
        elif data.dtype == torch.float8_e4m3fn:
            if family.quantised == "fp8":
                values[name] = weights.from_fp8(data, found[f"{name}_scale_inv"], (128, 128))
            else:
                scale = found.get(f"{name}_scale", found.get(f"{name}_scale_inv"))
                values[in_memory(name)] = data.float() * scale.float()
        elif not name.endswith(("_scales", "_scale", "_scale_inv")):
            values[in_memory(name)] = data.float()
    return values


def save(family, model, stored, dtype, folder):
    """The safetensors files, under the names that the makers' files have."""
    original = copy.deepcopy(model)
    original.to(dtype).save_pretrained(folder, max_shard_size=family.shard or "1GB")
    # The configuration as transformers 5 spells it, for who reads either.
    (folder / "config.json").rename(folder / "config.v5.json")
    (folder / "generation_config.json").unlink(missing_ok=True)
    path, extra = folder / "model.safetensors", dict(stored)
    if family.config["model_type"] == "bert":
        # The published files keep a buffer of older versions, and so does this one.
        count = family.config["max_position_embeddings"]
        extra["embeddings.position_ids"] = torch.arange(count)[None]
    if extra:
        gone = {in_memory(n) for n in extra}
        kept = {n: t for n, t in load_file(path).items() if in_memory(n) not in gone}
        save_file(kept | extra, path, {"format": "pt"})
    if family.pooling:
        sentence_transformer(family, folder)


def sentence_transformer(family, folder):
    """The files that say how a sentence's vector is made of its tokens'."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    kinds = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    width = family.config.get("hidden_size") or family.config["n_embd"]
    modes = {f"pooling_mode_{k}": k == kinds[family.pooling] for k in kinds.values()}
    text(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width} | modes)
    parts = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    text(folder / "modules.json", [
        {"idx": int(i), "name": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, path, kind in parts
    ])


def files(folder):
    """The folder's tensors by name, from all its shards."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= load_file(path)
    return found


def fill(family, model, folder):
    """The model with the folder's weights in float32: by transformers' own loader, but where they are quantised."""
    if not family.quantised:
        return model_class(family).from_pretrained(
            folder, config=model.config, dtype=torch.float32, attn_implementation="eager").eval()
    absent, strange = model.load_state_dict(dequantise(family, files(folder)), strict=False)
    if strange or set(absent) - {"lm_head.weight"}:
        raise ValueError(f"{family.name}: absent {absent}, strange {strange}")
    return model.eval()


@torch.no_grad()
def zero(model, pattern):
    """Sets the parameters whose names match to zero."""
    found = [p for name, p in model.named_parameters() if re.search(pattern, name)]
    assert found, pattern
    for p in found:
        p.zero_()
