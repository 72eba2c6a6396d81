"""llama.cpp on the CPU, through llama-cpp-python's bindings; of Python it needs numpy and what those import."""

import ctypes
import functools
import os
import sys
from pathlib import Path

import numpy as np


def add_paths(llama_cpp):
    """Where the converter and the library's Python binding lie, in a source folder of llama-cpp-python."""
    sys.path[:0] = [str(Path(llama_cpp)), str(Path(llama_cpp) / "vendor/llama.cpp"),
                    str(Path(llama_cpp) / "vendor/llama.cpp/gguf-py")]


class Library(ctypes.CDLL):
    """A library of which functions that it lacks are missed only when they are called."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            def missing(*_):
                raise ValueError(f"{self._name} has no {name}")

            return missing


# What llama.cpp says: [(level, text)].
SAID = []


@functools.cache
def bindings():
    """llama-cpp-python's bindings, which name every function of the llama.cpp beside them, to the
    library that LLAMA_CPP_LIB_PATH names: any of the same release will do."""
    whole, ctypes.CDLL = ctypes.CDLL, Library
    try:
        import llama_cpp
    finally:
        ctypes.CDLL = whole
    # Kept, so that it is not collected while llama.cpp calls it.
    llama_cpp.quiet = llama_cpp.llama_log_callback(lambda level, text, data: SAID.append((level, text)))
    llama_cpp.llama_log_set(llama_cpp.quiet, ctypes.c_void_p(0))
    # Libraries that are not built for one machine have a backend for each.
    folder = os.environ.get("LLAMA_CPP_LIB_PATH")
    if folder:
        llama_cpp.llama_cpp._lib.ggml_backend_load_all_from_path(folder.encode())
    return llama_cpp


class LlamaCpp:
    """A GGUF file in llama.cpp on the CPU, with a float32 cache."""

    def __init__(self, path, context, pooling=False):
        self.api = api = bindings()
        SAID.clear()
        options = api.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            # Levels from 3 on are warnings and errors.
            why = "".join(text.decode() for level, text in SAID if level > 2)
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
        self.run(ids)
        width = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        row = lambda i: self.api.llama_get_logits_ith(self.context, i)[:width]  # noqa: E731
        return np.array([row(i) for i in rows])

    def sentence(self, ids):
        self.run(ids, embeddings=True)
        width = self.api.llama_model_n_embd(self.model)
        vector = np.array(self.api.llama_get_embeddings_seq(self.context, 0)[:width])
        return vector / np.linalg.norm(vector)

    def tokenize(self, text):
        data, out = text.encode(), (ctypes.c_int32 * 512)()
        vocab = self.api.llama_model_get_vocab(self.model)
        count = self.api.llama_tokenize(vocab, data, len(data), out, 512, True, True)
        return list(out[:count])
