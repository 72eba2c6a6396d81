"""The GGUF files, by ggml's makers' converter, and what llama.cpp computes from them."""

import copy
import ctypes
import dataclasses
import logging
import shutil
import sys
from pathlib import Path

import folder as folders
import reference

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


class LlamaCpp:
    """A GGUF file in llama.cpp on the CPU, with a float32 cache."""

    def __init__(self, path, context, pooling=False):
        import llama_cpp

        self.api = api = llama_cpp
        # Kept, so that it is not collected while llama.cpp calls it.
        said = []
        self.quiet = api.llama_log_callback(lambda level, text, data: said.append((level, text)))
        api.llama_log_set(self.quiet, ctypes.c_void_p(0))
        options = api.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            # Levels from 3 on are warnings and errors.
            why = "".join(text.decode() for level, text in said if level > 2)
            raise ValueError(f"llama.cpp does not load {path}: {why}")
        options = api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, context, context
        options.n_threads = options.n_threads_batch = 2
        options.type_k = options.type_v = 0  # float32
        options.flash_attn_type = 0  # off
        options.swa_full = True
        options.embeddings = pooling
        self.context = api.llama_init_from_model(self.model, options)
        if not self.context:
            raise ValueError(f"llama.cpp makes no context for {path}")

    def close(self):
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)

    def run(self, ids, embeddings=False):
        """Decodes the text at once."""
        api = self.api
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        result = api.llama_decode(self.context, batch)
        api.llama_batch_free(batch)
        if result != 0:
            raise ValueError(f"llama_decode answers {result}")

    def logits(self, ids, rows):
        import numpy as np

        self.run(ids)
        width = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        row = lambda i: self.api.llama_get_logits_ith(self.context, i)[:width]  # noqa: E731
        return np.array([row(i) for i in rows])

    def sentence(self, ids):
        import numpy as np

        self.run(ids, embeddings=True)
        width = self.api.llama_model_n_embd(self.model)
        vector = np.array(self.api.llama_get_embeddings_seq(self.context, 0)[:width])
        return vector / np.linalg.norm(vector)

    def tokenize(self, text):
        data, out = text.encode(), (ctypes.c_int32 * 512)()
        vocab = self.api.llama_model_get_vocab(self.model)
        count = self.api.llama_tokenize(vocab, data, len(data), out, 512, True, True)
        return list(out[:count])


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


def add_paths(llama_cpp):
    """Where the converter and the library's Python binding lie, in a source folder of llama-cpp-python."""
    sys.path[:0] = [str(Path(llama_cpp)), str(Path(llama_cpp) / "vendor/llama.cpp"),
                    str(Path(llama_cpp) / "vendor/llama.cpp/gguf-py")]


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
