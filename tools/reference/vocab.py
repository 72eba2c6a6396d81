"""Tokenises with the makers' own libraries, from the vocabulary in a GGUF file.

Byte-level BPE goes through Hugging Face `tokenizers`, SentencePiece through Google's
`sentencepiece`; neither shares code with OmniMini.
"""

from __future__ import annotations

from typing import Callable

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


class Vocabulary:
    """A GGUF file's tokenizer: `encode(text, special)` gives ids, BOS first where the model has it."""

    def __init__(self, fields: dict):
        self.tokens: list[str] = fields["tokenizer.ggml.tokens"]
        self.types: list[int] = fields["tokenizer.ggml.token_type"]
        self.add_bos: bool = fields.get("tokenizer.ggml.add_bos_token", False)
        self.bos: int = fields["tokenizer.ggml.bos_token_id"]
        self.eos: int = fields["tokenizer.ggml.eos_token_id"]
        self.control = {t: i for i, t in enumerate(self.tokens) if self.types[i] == CONTROL}
        kind = fields["tokenizer.ggml.model"]
        if kind == "gpt2":
            self._plain = _byte_level_bpe(self, fields)
        elif kind == "llama":
            self._plain = _sentencepiece(self, fields)
        else:
            raise ValueError(f"tokenizer {kind!r} is not known here")

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of `text`; control tokens written in it are parsed only if `special`."""
        ids = [self.bos] if self.add_bos else []
        for piece in self._split(text) if special else [text]:
            if special and piece in self.control:
                ids.append(self.control[piece])
            elif piece:
                ids += self._plain(piece)
        return ids

    def _split(self, text: str) -> list[str]:
        import re

        longest_first = sorted(self.control, key=len, reverse=True)
        return re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)


def _byte_level_bpe(vocab: Vocabulary, fields: dict) -> Callable[[str], list[int]]:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    pre = fields["tokenizer.ggml.pre"]
    if pre != "smollm":
        raise ValueError(f"pre-tokenizer {pre!r} is not known here")
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE({t: i for i, t in enumerate(vocab.tokens)}, merges))
    # As in the model's own tokenizer.json: each digit alone, then GPT-2's pattern.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.add_tokens(
        [AddedToken(t, normalized=False) for i, t in enumerate(vocab.tokens) if vocab.types[i] == USER_DEFINED]
    )
    return lambda text: bpe.encode(text, add_special_tokens=False).ids


def _sentencepiece(vocab: Vocabulary, fields: dict) -> Callable[[str], list[int]]:
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    unknown = fields["tokenizer.ggml.unknown_token_id"]
    for i, (token, score) in enumerate(zip(vocab.tokens, fields["tokenizer.ggml.scores"])):
        kind = UNKNOWN if i == unknown else vocab.types[i]
        if kind == USER_DEFINED:
            # The file writes Gemma's tokens for runs of spaces with real spaces.
            token = token.replace(" ", "\u2581")
        model.pieces.add(piece=token, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type = proto.TrainerSpec.BPE
    spec.byte_fallback = True
    spec.unk_id, spec.bos_id, spec.eos_id = unknown, vocab.bos, vocab.eos
    spec.pad_id = fields["tokenizer.ggml.padding_token_id"]
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    return lambda text: processor.encode(text)
