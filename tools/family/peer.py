"""The GGUF files, by ggml's makers' converter, and what llama.cpp computes from them."""

import copy
import dataclasses
import logging
import shutil

import folder as folders
import reference
from llamacpp import LlamaCpp

TYPES = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}


def convert(family, folder, path, dtype):
    """Writes `path` from the folder, the tokenizer's metadata put down plainly."""
    import conversion
    import gguf

    logging.disable(logging.WARNING)
    name = family.config["architectures"][0]
    kind = conversion.get_model_class(name)
    # A class that only hands over to another.
    kind = getattr(kind, "Ministral3Model", kind)

    class Plain(kind):
        model_arch = kind.model_arch

        def set_vocab(self):
            family.vocabulary().gguf(self.gguf_writer)
            if family.chat:
                self.gguf_writer.add_chat_template(family.chat)

    ftype = getattr(gguf.LlamaFileType, TYPES[dtype])
    # transformers would read nomic's own names as its defaults.
    options = {"hparams": dict(family.config)} if family.native else {}
    Plain(folder, ftype, path, model_name=family.name, **options).write()


def compare(family, path, kept, data):
    """llama.cpp's worst difference from the kept numbers, and the texts that it tokenises otherwise."""
    worst = 0.0
    for case in kept["cases"]:
        peer = LlamaCpp(path, max(256, -(-len(case["ids"]) // 256) * 256), bool(family.pooling))
        try:
            if family.pooling:
                ours, truth = peer.sentence(case["ids"]), case["sentence"]
            else:
                ours, truth = peer.logits(case["ids"], case["rows"]), case["logits"]
            worst = max(worst, reference.difference(ours, reference.read(data, truth)))
            other = [t["text"] for t in kept["texts"] if peer.tokenize(t["text"]) != t["ids"]]
        finally:
            peer.close()
    return worst, other


def plain(family, folder, scratch, kept, data):
    """The family in a float32 GGUF file without what llama.cpp does not do, and the numbers to hold it to."""
    # Some kinds of FP8 are read by the converter, too: one more reader of what is stored.
    if not family.peer and family.quantised in (None, "fp8", "fp8-channel"):
        source, other = folder, family
    else:
        config = {k: v for k, v in family.config.items() if k != "quantization_config"} | family.peer
        other = dataclasses.replace(family, config=config, quantised=None)
        source = scratch / family.name
        shutil.copytree(folder, source)
        model = reference.load(family, folder, **family.peer)
        for path in source.glob("model*"):
            path.unlink()
        model.save_pretrained(source)
        folders.text(source / "config.json", config)
        if family.peer:
            kept, data = copy.deepcopy(kept), bytearray()
            for case in kept["cases"]:
                logits = reference.logits(model, case["ids"], case["rows"])
                case["logits"] = {"offset": len(data), "shape": list(logits.shape)}
                data += logits.tobytes()
    convert(other, source, scratch / "f32.gguf", "float32")
    return kept, data, scratch / "f32.gguf"


def apart(path, other):
    """The names of tensors whose values differ between two GGUF files of other types."""
    import gguf
    import numpy as np

    def values(file):
        return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(file).tensors}

    one, two = values(path), values(other)
    return [n for n in one.keys() | two.keys() if n not in one or n not in two or not np.array_equal(one[n], two[n])]
