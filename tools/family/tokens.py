"""Tiny tokenizers of each family's true kind: as `tokenizer.json`, and as GGUF metadata.

A vocabulary has SIZE tokens: the bytes, a few merges, and the family's control tokens.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from text import PATTERNS  # noqa: E402  The makers' own patterns, as the tokenizers' corpus uses them.

SIZE = 288
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
TEXTS = ["Hello, world!", "the heron in the reeds  stares at 1234 fish\n", "naïve café 日本 😀", "  it's\tall over\r\n\n"]

# What `tokenizer.ggml.pre` calls a pattern that another family's name stands for, too.
SAME_PATTERN = {"dbrx": "llama-bpe", "refact": "smollm", "smaug-bpe": "llama-bpe"}

MERGES = [
    "Ġ t", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ a", "Ġ s", "a t", "e n", "o r",
    "Ġ w", "i t", "e s", "a n", "o u", "l l", "in g", "Ġ in", "e d", "a r", "s t", "l e",
]
PIECES = "▁ e t a o i n s h r d l u ▁t he ▁the in er re".split()
PIECE_MERGES = ["▁ t", "h e", "▁t he", "i n", "e r", "r e"]
WORDS = "the a of and to in is it heron fish reed world hello star".split()


def byte_alphabet():
    """The character that byte-level BPE writes for each byte, in the order of GPT-2's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


class Bpe:
    """Byte-level BPE: bytes, merges, control tokens."""

    def __init__(self, pre, controls, bos, eos, add_bos=False, normalizer=None):
        self.pre, self.add_bos, self.normalizer = pre, add_bos, normalizer
        plain = byte_alphabet() + [m.replace(" ", "") for m in MERGES]
        controls = controls + [f"<|reserved_{i}|>" for i in range(SIZE - len(plain) - len(controls))]
        self.tokens = plain + controls
        self.types = [NORMAL] * len(plain) + [CONTROL] * len(controls)
        self.bos, self.eos = self.tokens.index(bos) if bos else None, self.tokens.index(eos)

    def json(self):
        split = [
            {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
            for p in PATTERNS[SAME_PATTERN.get(self.pre, self.pre)]
        ]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        vocab = {t: i for i, t in enumerate(self.tokens) if self.types[i] == NORMAL}
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added(self),
            "normalizer": self.normalizer and {"type": self.normalizer},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": split + [level]},
            "post_processor": template(self) if self.add_bos else level,
            "decoder": level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                "ignore_merges": False, "vocab": vocab, "merges": [m.split(" ") for m in MERGES],
            },
        }

    def gguf(self, writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(MERGES)
        specials(self, writer)


class Spm:
    """SentencePiece's BPE with bytes to fall back on: control tokens, bytes, pieces."""

    def __init__(self, controls, bos, eos, prefix):
        self.add_bos, self.prefix = True, prefix
        bytes_ = [f"<0x{b:02X}>" for b in range(256)]
        more = SIZE - len(controls) - 256 - len(PIECES)
        pieces = PIECES + list("wfcgpb,.!mky"[:more])
        assert len(pieces) == more + len(PIECES), "too few letters"
        self.tokens = controls + bytes_ + pieces
        self.types = [UNKNOWN if t == "<unk>" else CONTROL for t in controls] + [BYTE] * 256 + [NORMAL] * len(pieces)
        ranks = {m.replace(" ", ""): -float(i) for i, m in enumerate(PIECE_MERGES)}
        last = -float(len(PIECE_MERGES))
        self.scores = [0.0 if t != NORMAL else ranks.get(w, last) for w, t in zip(self.tokens, self.types)]
        self.bos, self.eos, self.unk = (self.tokens.index(t) for t in (bos, eos, "<unk>"))

    def json(self):
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        prepend = [{"type": "Prepend", "prepend": "▁"}] if self.prefix else []
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if self.prefix else []
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added(self),
            "normalizer": {"type": "Sequence", "normalizers": prepend + [spaces]},
            "pre_tokenizer": None,
            "post_processor": template(self),
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}, *strip,
            ]},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                "vocab": {t: i for i, t in enumerate(self.tokens)},
                "merges": [m.split(" ") for m in PIECE_MERGES],
            },
        }

    def gguf(self, writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(self.tokens)
        writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        writer.add_add_space_prefix(self.prefix)
        writer.add_unk_token_id(self.unk)
        specials(self, writer)


class WordPiece:
    """BERT's: control tokens, characters that begin and that continue a word, words."""

    def __init__(self):
        letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
        controls = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        known = letters + ["##" + c for c in letters] + list(".,!?'-:;()") + WORDS + ["##s", "##ing", "##ed"]
        unused = [f"[unused{i}]" for i in range(SIZE - len(set(known)) - len(controls))]
        self.tokens = controls + list(dict.fromkeys(known)) + unused
        self.types = [CONTROL] * len(controls) + [NORMAL] * (SIZE - len(controls))
        self.bos, self.eos, self.add_bos = 2, 3, True

    def json(self):
        ends = {n: {"id": n, "ids": [self.tokens.index(n)], "tokens": [n]} for n in ("[CLS]", "[SEP]")}
        piece = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}  # noqa: E731
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added(self),
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [piece("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, piece("[SEP]")],
                "pair": [piece("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, piece("[SEP]"),
                         {"Sequence": {"id": "B", "type_id": 1}}, piece("[SEP]")],
                "special_tokens": ends,
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(self.tokens)}},
        }

    def gguf(self, writer):
        # ggml's makers write a word's beginning as "▁" and leave what continues one bare.
        def bare(token, kind):
            if kind == CONTROL:
                return token
            return token[2:] if token.startswith("##") else "▁" + token

        writer.add_token_type_count(2)
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("bert-bge")
        writer.add_token_list([bare(t, k) for t, k in zip(self.tokens, self.types)])
        writer.add_token_types(self.types)
        for name, token in {"unk": 1, "sep": 3, "pad": 0, "mask": 4}.items():
            getattr(writer, f"add_{name}_token_id")(token)
        specials(self, writer)


def added(vocabulary):
    """The control tokens, as `tokenizer.json` lists them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [i for i, t in enumerate(vocabulary.types) if t in (CONTROL, UNKNOWN)]
    return [{"id": i, "content": vocabulary.tokens[i], **flags} for i in special]


def template(vocabulary):
    """The processor that puts BOS first."""
    bos = vocabulary.tokens[vocabulary.bos]
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    a, b = ({"Sequence": {"id": s, "type_id": i}} for i, s in enumerate("AB"))
    return {
        "type": "TemplateProcessing", "single": [first, a], "pair": [first, a, b],
        "special_tokens": {bos: {"id": bos, "ids": [vocabulary.bos], "tokens": [bos]}},
    }


def specials(vocabulary, writer):
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(vocabulary.add_bos)


def write(vocabulary, folder, chat_template, chat_file):
    """Writes `tokenizer.json`, `tokenizer_config.json` and, if so told, `chat_template.jinja`."""
    text = json.dumps(vocabulary.json(), ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    config = {
        "added_tokens_decoder": {
            str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added(vocabulary)
        },
        "bos_token": None if vocabulary.bos is None else vocabulary.tokens[vocabulary.bos],
        "eos_token": vocabulary.tokens[vocabulary.eos],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if chat_template and chat_file:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    elif chat_template:
        config["chat_template"] = chat_template
    text = json.dumps(config, ensure_ascii=False, indent=1)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def texts(folder):
    """A few texts in the tokens of Hugging Face's library."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS]
