"""The families: for each a small configuration of the true structure, in its makers' own spelling.

`config` is what `config.json` holds: the keys are those of the published file, whose settings are
kept (RoPE bases and scalings, epsilons, multipliers, the pattern of layers, tied or not), and
whose sizes are small. Windows and original context lengths are small, too, where a short text
would not tell them from none.
"""

from dataclasses import dataclass, field

from tokens import Bpe, Spm, WordPiece

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass
class Family:
    """A row of the table."""

    name: str
    config: dict
    # () -> the tokenizer; it has SIZE tokens.
    vocabulary: object
    # What the weights are stored in.
    dtype: str = "bfloat16"
    # Patterns of parameter names, and what multiplies their random values.
    gains: dict = field(default_factory=dict)
    # The deviation that logits are brought to, by the gain of the last norm.
    spread: float = 2.0
    # Lengths of the two texts. The second is scored at every eighth position and the last eight.
    lengths: tuple = (40, 200)
    # Bytes in a shard at most.
    shard: int | None = None
    # How the weights are quantised: "mxfp4", "fp8", "fp8-tensor", "fp8-channel".
    quantised: str | None = None
    # Changes of the configuration that must move the logits: the fixture can tell them.
    tells: dict = field(default_factory=dict)
    # False where ggml's makers' converter does not know the family, or loses a part of it.
    gguf: bool = True
    # What llama.cpp does not do, changed before it is compared.
    peer: dict = field(default_factory=dict)
    chat: str | None = None
    chat_file: bool = False
    # Of an embedding model: "mean", "cls" or "lasttoken".
    pooling: str | None = None
    # The attributes of the makers' class, where `config.json` calls them otherwise.
    native: dict | None = None


def llama(**changes):
    """What the configurations of Llama's line share."""
    return {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 280, "eos_token_id": 281, "hidden_act": "silu", "hidden_size": 96,
        "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 131072,
        "mlp_bias": False, "model_type": "llama", "num_attention_heads": 3, "num_hidden_layers": 3,
        "num_key_value_heads": 1, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0", "use_cache": True, "vocab_size": 288,
    } | changes


def llama3_scaling(factor):
    return {
        "factor": factor, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    }


def without(config, *keys):
    return {k: v for k, v in config.items() if k not in keys}


def llama_words():
    return Bpe("llama-bpe", ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                             "<|end_header_id|>", "<|eot_id|>"], "<|begin_of_text|>", "<|eot_id|>", add_bos=True)


def chatml_words(pre, normalizer=None):
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return lambda: Bpe(pre, controls, None, "<|im_end|>", normalizer=normalizer)


FAMILIES = [
    Family(
        "llama-3.2",
        llama(head_dim=16, num_attention_heads=6, num_key_value_heads=2, rope_scaling=llama3_scaling(32.0), tie_word_embeddings=True),
        llama_words, chat=LLAMA3, chat_file=True,
        tells={"rope_scaling": None, "rope_theta": 10000.0, "rms_norm_eps": 1e-2},
    ),
    Family(
        "gemma-3",
        {
            "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
            "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid",
            "eos_token_id": [1, 5], "final_logit_softcapping": None, "head_dim": 32,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 64, "initializer_range": 0.02,
            "intermediate_size": 64, "max_position_embeddings": 131072, "model_type": "gemma3_text",
            "num_attention_heads": 4, "num_hidden_layers": 6, "num_key_value_heads": 1, "pad_token_id": 0,
            "query_pre_attn_scalar": 32, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1000000,
            "sliding_window": 16, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
            "transformers_version": "4.50.0.dev0", "use_cache": True, "vocab_size": 288,
        },
        lambda: Spm(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
                    "<bos>", "<eos>", prefix=False),
        chat=GEMMA,
        tells={"sliding_window": 4096, "rope_scaling": None, "rope_local_base_freq": 1000000,
               "sliding_window_pattern": 2, "query_pre_attn_scalar": 64, "hidden_activation": "silu"},
    ),
]
