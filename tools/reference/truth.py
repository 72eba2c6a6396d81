"""Float32 truth: a GGUF file dequantised and run by transformers, its configuration checked."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM

BEST = 10
GREEDY_TOKENS = 48
# End of answer: the file's own end of sequence, and the chat templates' end of turn.
END_OF_ANSWER = ("<|im_end|>", "<|endoftext|>", "<eos>", "<end_of_turn>")


class Truth:
    """A model in f32 with eager attention, and what the fixtures ask of it."""

    def __init__(self, path: Path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        check_config(self.model, self.fields)
        check_weights(self.model, reader)

    @torch.no_grad()
    def next_logprobs(self, ids: list[int]) -> torch.Tensor:
        """Logprobs (f64, [vocabulary]) of the token after `ids`, with no cache."""
        out = self.model(torch.tensor([ids]), use_cache=False, logits_to_keep=1)
        return torch.log_softmax(out.logits[0, -1].double(), -1)

    def best(self, ids: list[int], count: int = BEST) -> list[list]:
        """The `count` best next tokens as [id, logprob], best first."""
        return pairs(self.next_logprobs(ids), count)

    @torch.no_grad()
    def greedy(self, ids: list[int], ends: set[int]) -> dict:
        """Greedy ids up to GREEDY_TOKENS or an end of answer (kept), and each step's best two."""
        out_ids, best_two = [], []
        step, cache = torch.tensor([ids]), None
        while len(out_ids) < GREEDY_TOKENS and not (out_ids and out_ids[-1] in ends):
            out = self.model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            two = pairs(torch.log_softmax(out.logits[0, -1].double(), -1), 2)
            out_ids.append(two[0][0])
            best_two.append(two)
            step = torch.tensor([[two[0][0]]])
        # The cache must not have changed the answer: the last step once more without it.
        again = self.best(ids + out_ids[:-1], 2)
        worst = max(abs(a[1] - b[1]) for a, b in zip(again, best_two[-1]))
        if worst > 1e-3 or again[0][0] != out_ids[-1]:
            raise ValueError(f"transformers' cache moves a logprob by {worst}")
        return {"ids": out_ids, "best_two": best_two}

    @torch.no_grad()
    def token_nll(self, tokens: list[int], add_bos: bool, bos: int, context: int) -> list[float]:
        """Nats of each token but the first of the first `context`, BOS first where the model has it."""
        window = tokens[:context]
        if add_bos:
            window = [bos] + window[1:]
        logits = self.model(torch.tensor([window]), use_cache=False).logits[0, :-1]
        targets = torch.tensor(window[1:])[:, None]
        scored = torch.log_softmax(logits.double(), -1).gather(1, targets)
        return [round(-n, 5) for n in scored[:, 0].tolist()]

    @torch.no_grad()
    def perplexity(self, tokens: list[int], add_bos: bool, bos: int, context: int, chunks: int) -> dict:
        """Perplexity as llama.cpp defines it.

        The whole text's tokens (BOS first where the model has it) are cut into windows of
        `context`; a window's first token is replaced by BOS where the model has it; the logits at
        its positions context/2 to context-2 are scored by the tokens that follow them.
        """
        chunks = min(chunks, len(tokens) // context)
        first = context // 2
        nll = []
        for c in range(chunks):
            window = tokens[c * context : (c + 1) * context]
            targets = torch.tensor(window[first + 1 :])
            if add_bos:
                window = [bos] + window[1:]
            logits = self.model(
                torch.tensor([window]), use_cache=False, logits_to_keep=context - first
            ).logits[0, :-1]
            scored = torch.log_softmax(logits.double(), -1).gather(1, targets[:, None])
            nll.append(-scored.sum().item())
        count = chunks * (context - first - 1)
        return {
            "context": context,
            "chunks": chunks,
            "add_bos": add_bos,
            "tokens": count,
            "perplexity": round(math.exp(sum(nll) / count), 6),
            "chunk_nll": [round(n, 5) for n in nll],
        }


def pairs(logprobs: torch.Tensor, count: int) -> list[list]:
    top = torch.topk(logprobs, count)
    return [[int(i), round(float(p), 6)] for p, i in zip(top.values, top.indices)]


def check_config(model, fields: dict) -> None:
    """Fails where transformers read the file's description otherwise than it is meant."""
    config, arch = model.config, fields["general.architecture"]
    want = {
        "hidden_size": fields[f"{arch}.embedding_length"],
        "num_hidden_layers": fields[f"{arch}.block_count"],
        "intermediate_size": fields[f"{arch}.feed_forward_length"],
        "num_attention_heads": fields[f"{arch}.attention.head_count"],
        "num_key_value_heads": fields[f"{arch}.attention.head_count_kv"],
        "rms_norm_eps": fields[f"{arch}.attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": True,
    }
    base = fields[f"{arch}.rope.freq_base"]
    layers, rope = want["num_hidden_layers"], config.rope_parameters
    if arch == "gemma3":
        head = fields["gemma3.attention.key_length"]
        want |= {
            "head_dim": head,
            "query_pre_attn_scalar": head,
            "sliding_window": fields["gemma3.attention.sliding_window"],
            "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)],
            "hidden_activation": "gelu_pytorch_tanh",
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        }
        got = (rope["full_attention"]["rope_theta"], rope["sliding_attention"]["rope_theta"])
        assert got == (base, 10000.0), f"RoPE bases {got}"
        scale = float(model.model.embed_tokens.embed_scale)
        assert abs(scale - math.sqrt(want["hidden_size"])) < 1e-5, f"embedding scale {scale}"
    else:
        want |= {"hidden_act": "silu", "head_dim": want["hidden_size"] // want["num_attention_heads"]}
        assert rope["rope_theta"] == base and rope["rope_type"] == "default", f"RoPE {rope}"
    for name, value in want.items():
        got = getattr(config, name)
        assert got == value, f"{name} is {got}, the file says {value}"
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr(), "not tied"
    assert all(p.dtype == torch.float32 for p in model.parameters()), "not f32"
    assert config._attn_implementation == "eager"


def check_weights(model, reader: gguf.GGUFReader) -> None:
    """Fails where a loaded weight is not the file's, dequantised (Gemma's norms are stored + 1)."""
    gemma = "gemma3" in type(model).__module__
    tensors = {t.name: t for t in reader.tensors}
    names = {
        "token_embd.weight": "embed_tokens.weight",
        "output_norm.weight": "norm.weight",
        "blk.3.attn_norm.weight": "layers.3.input_layernorm.weight",
        "blk.3.attn_v.weight": "layers.3.self_attn.v_proj.weight",
        "blk.3.attn_output.weight": "layers.3.self_attn.o_proj.weight",
        "blk.3.ffn_down.weight": "layers.3.mlp.down_proj.weight",
    }
    weights = dict(model.model.named_parameters())
    for ours, theirs in names.items():
        tensor = tensors[ours]
        want = gguf.dequantize(tensor.data, tensor.tensor_type)
        if gemma and ours.endswith("norm.weight"):
            want = want - 1.0
        got = weights[theirs].numpy(force=True)
        assert numpy.array_equal(got, want.reshape(got.shape)), f"{ours} was not read right"
