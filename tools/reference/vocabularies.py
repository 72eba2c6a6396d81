#!/usr/bin/env python3
"""Ids of the corpus by the makers' own libraries, for the real vocabularies in a folder.

  python tools/reference/vocabularies.py FOLDER

`tools/vocabularies` fills the folder and calls this. For NAME.gguf the tokenizer is put together as
its makers' `tokenizer.json` has it and saved as NAME.json; for NAME.model and NAME.tekken likewise.
NAME.ids has `texts` and their `ids`, no special token parsed, and as `gguf` those that the GGUF file
gives where they are others.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import corpus
import text as patterns

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"
TEXTS = corpus.TEXTS + [b.decode(errors="replace") for b in corpus.BYTES] + corpus.MARKED

split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
DIGITS = pre_tokenizers.Digits(individual_digits=True)

# As the models' own tokenizer.json files have it: what cuts, what normalises, whether merges are
# ignored where a piece is a token.
BYTE_LEVEL = {
    "llama-bpe": ([split(patterns.PATTERNS["llama-bpe"][0]), BYTES], None, True),
    "qwen2": ([split(patterns.PATTERNS["qwen2"][0]), BYTES], normalizers.NFC(), False),
    "gpt-2": ([GPT2], None, False),
    "starcoder": ([DIGITS, GPT2], None, False),
    "refact": ([DIGITS, GPT2], None, False),
    "command-r": ([DIGITS, GPT2], normalizers.NFC(), False),
    "mpt": ([GPT2], normalizers.NFC(), False),
    "falcon": ([pre_tokenizers.Punctuation("contiguous"), GPT2, pre_tokenizers.Digits(individual_digits=False),
                split("[0-9][0-9][0-9]")], None, False),
    "deepseek-coder": ([*(split(p) for p in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+")),
                        DIGITS, BYTES], None, False),
}


def byte_level(fields: dict, cuts, normalizer, whole: bool) -> Tokenizer:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=whole)
    return finish(model, pre_tokenizers.Sequence(cuts), normalizer, decoders.ByteLevel(), tokens, types)


def finish(model, pre, normalizer, decoder, tokens, types) -> Tokenizer:
    """A tokenizer with its added tokens."""
    tokenizer = Tokenizer(model)
    if pre:
        tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoder
    marks = [AddedToken(t, normalized=False, special=True) for t, y in zip(tokens, types) if y == CONTROL]
    tokenizer.add_special_tokens(marks)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, y in zip(tokens, types) if y == USER_DEFINED])
    return tokenizer


def sentencepiece_bpe(tokens, scores, types, prefix: bool) -> Tokenizer:
    """As transformers converts SentencePiece's models: every pair that makes a token is a merge."""
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = []
    for token, score, kind in zip(tokens, scores, types):
        if kind not in (NORMAL, USER_DEFINED):
            continue
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in vocab and right in vocab:
                merges.append((-score, vocab[left], vocab[right], (left, right)))
    model = models.BPE(vocab, [m[-1] for m in sorted(merges)], unk_token=tokens[types.index(UNKNOWN)],
                       fuse_unk=True, byte_fallback=True)
    space = normalizers.Replace(" ", SPACE)
    normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), space]) if prefix else space
    decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return finish(model, None, normalizer, decoder, tokens, types)


def gemma(tokens, types, merges) -> Tokenizer:
    model = models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    cuts = pre_tokenizers.Split(" ", "merged_with_previous")
    return finish(model, cuts, normalizers.Replace(" ", SPACE), decoder, tokens, types)


def bert(tokens: list[str]) -> Tokenizer:
    """The GGUF file writes words with U+2581 before them, and what is inside words without a sign."""
    plain = lambda t: t[1:] if t[0] == SPACE else t if t[0] == "[" and t[-1] == "]" else "##" + t
    tokens = [plain(t) for t in tokens]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]",
                                           max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in tokens])
    return tokenizer


def unigram(fields: dict) -> Tokenizer:
    """As XLM-RoBERTa's tokenizer.json has it."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    scores = fields["tokenizer.ggml.scores"]
    table = bytes(b & 255 for b in fields["tokenizer.ggml.precompiled_charsmap"])
    model = models.Unigram([(t, float(s)) for t, s in zip(tokens, scores)], unk_id=types.index(UNKNOWN))
    normalizer = normalizers.Sequence(
        [normalizers.Precompiled(table), normalizers.Replace(Regex(" {2,}"), " ")])
    pre = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")])
    return finish(model, pre, normalizer, decoders.Metaspace(), tokens, types)


def unigram_ids(fields: dict) -> list[list[int]]:
    """By SentencePiece itself, which composes text otherwise than Hugging Face's library."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    names = [fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type")]
    for token, score, kind in zip(*names):
        model.pieces.add(piece=token, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type = proto.TrainerSpec.UNIGRAM
    spec.unk_id = fields["tokenizer.ggml.unknown_token_id"]
    spec.bos_id, spec.eos_id = fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]
    spec.pad_id = fields["tokenizer.ggml.padding_token_id"]
    model.normalizer_spec.name = "nmt_nfkc"
    model.normalizer_spec.precompiled_charsmap = bytes(b & 255 for b in fields["tokenizer.ggml.precompiled_charsmap"])
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = True
    model.normalizer_spec.escape_whitespaces = True
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    return [processor.encode(text) for text in TEXTS]


def tekken(file: Path) -> Tokenizer:
    """Mistral's own format: tokens in the order of their ranks, which are also their merges."""
    data = json.loads(file.read_text())
    count, special = data["config"]["default_vocab_size"], data["config"]["default_num_special_tokens"]
    ranks = [base64.b64decode(entry["token_bytes"]) for entry in data["vocab"][: count - special]]
    known = {token: i for i, token in enumerate(ranks)}
    letters = bytes_to_unicode()
    written = lambda token: "".join(letters[b] for b in token)
    merges = []
    for token in ranks:
        if len(token) > 1:
            merges += [(written(left), written(right)) for left, right in pairs(token, known)]
    names = [f"<SPECIAL_{i}>" for i in range(special)]
    for entry in data.get("special_tokens") or []:
        names[entry["rank"]] = entry["token_str"]
    names[:3] = ["<unk>", "<s>", "</s>"]
    vocab = {t: i for i, t in enumerate(names)} | {written(t): i + special for i, t in enumerate(ranks)}
    model = models.BPE(vocab, merges, ignore_merges=True)
    cuts = pre_tokenizers.Sequence([split(data["config"]["pattern"]), BYTES])
    types = [CONTROL] * special + [NORMAL] * len(ranks)
    return finish(model, cuts, None, decoders.ByteLevel(), names + [written(t) for t in ranks], types)


def pairs(token: bytes, known: dict[bytes, int]):
    """The last pair that merging by rank makes a token of."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        ranked = [(known.get(parts[i] + parts[i + 1], 1 << 40), i) for i in range(len(parts) - 1)]
        rank, at = min(ranked)
        if rank == 1 << 40:
            return
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) == 2:
        yield tuple(parts)


def bytes_to_unicode() -> list[str]:
    """GPT-2's alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def of(file: Path) -> Tokenizer | None:
    """The tokenizer of a file, as far as its structure is known here."""
    name = file.name.removesuffix(file.suffix)
    if file.suffix == ".json":
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    if file.suffix == ".tekken":
        return tekken(file)
    if file.suffix == ".model":
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        ids = range(processor.get_piece_size())
        kinds = [UNKNOWN if processor.is_unknown(i) else CONTROL if processor.is_control(i) else
                 BYTE if processor.is_byte(i) else NORMAL for i in ids]
        return sentencepiece_bpe([processor.id_to_piece(i) for i in ids],
                                 [processor.get_score(i) for i in ids], kinds, True)
    reader = GGUFReader(file)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    kind = fields["tokenizer.ggml.model"]
    if name in BYTE_LEVEL:
        return byte_level(fields, *BYTE_LEVEL[name])
    if kind == "llama" and name != "phi-3":
        return sentencepiece_bpe(tokens, fields["tokenizer.ggml.scores"], types, True)
    if kind == "gemma4":
        merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
        return gemma(tokens, types, merges)
    if kind == "bert":
        return bert(tokens)
    if kind == "t5":
        return unigram(fields)
    return None


def main() -> None:
    folder = Path(sys.argv[1])
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".gguf", ".model", ".tekken", ".json")]
    given = {f.name.removesuffix(f.suffix) for f in files if f.suffix != ".json"}
    for file in files:
        name = file.name.removesuffix(file.suffix)
        if file.suffix == ".json" and name in given:
            continue  # Made here.
        tokenizer = of(file)
        if tokenizer is None:
            continue
        if file.suffix != ".json":
            tokenizer.save(str(folder / f"{name}.json"), pretty=False)
        tokenizer.encode_special_tokens = True
        ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
        made = {"texts": TEXTS, "ids": ids}
        if file.suffix == ".gguf":
            fields = {key: field.contents() for key, field in GGUFReader(file).fields.items()}
            if fields["tokenizer.ggml.model"] == "t5":
                made["gguf"] = unigram_ids(fields)
        (folder / f"{name}.ids").write_text(json.dumps(made), encoding="utf-8")
        print(f"{name}: {sum(map(len, ids))} ids", file=sys.stderr)


if __name__ == "__main__":
    main()
