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
    # How the weights are quantised: "mxfp4", "fp8" by blocks, "fp8-single", "fp8-tensor", "fp8-channel".
    quantised: str | None = None
    # Changes of the configuration that must move the logits, and parameters ("zero PATTERN") without
    # which they must move: the fixture tells them.
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
    # The makers' class, where it is not the first of `architectures`.
    built: str | None = None
    # How far llama.cpp may be off in float32.
    confirmed: float = 1e-3

    @property
    def text(self):
        """The configuration of the language model, which those that see nest."""
        return self.config.get("text_config", self.config)

    @property
    def eos(self):
        """The ends of answers."""
        ends = self.config.get("eos_token_id", self.text.get("eos_token_id"))
        return ends if isinstance(ends, list) else [ends]


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


def spm_words():
    return Spm(["<unk>", "<s>", "</s>"], "<s>", "</s>", prefix=True)


def o200k_words():
    return Bpe("gpt-4o", ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|end|>", "<|user|>", "<|assistant|>"],
               None, "<|return|>")


def qwen(model_type, architecture, **changes):
    """What the configurations of Qwen 2.5 and 3 share."""
    return {
        "architectures": [architecture], "attention_dropout": 0.0, "bos_token_id": 280, "eos_token_id": 282,
        "hidden_act": "silu", "hidden_size": 96, "initializer_range": 0.02, "intermediate_size": 96,
        "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": model_type,
        "num_attention_heads": 6, "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1", "use_cache": True, "use_sliding_window": False, "vocab_size": 288,
    } | changes


def qwen3(**changes):
    return qwen("qwen3", "Qwen3ForCausalLM", **{
        "attention_bias": False, "head_dim": 32, "num_attention_heads": 3, "num_key_value_heads": 1,
        "rope_scaling": None, "sliding_window": None, "max_position_embeddings": 40960,
        "transformers_version": "4.51.0"} | changes)


def phi3(**changes):
    """What the configurations of Phi-3.5-mini and Phi-4-mini share."""
    return {
        "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 3, "hidden_act": "silu", "hidden_size": 96,
        "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 8192,
        "model_type": "phi3", "num_attention_heads": 3, "num_hidden_layers": 3, "num_key_value_heads": 3,
        "original_max_position_embeddings": 256, "pad_token_id": 0, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.3", "use_cache": True, "vocab_size": 288,
    } | changes


def longrope(short, long):
    return {"long_factor": long, "short_factor": short, "type": "longrope"}


def bert(**changes):
    """What the configurations of BERT's encoders share."""
    return {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 96, "initializer_range": 0.02, "intermediate_size": 128,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "model_type": "bert", "num_attention_heads": 3,
        "num_hidden_layers": 2, "pad_token_id": 0, "position_embedding_type": "absolute",
        "transformers_version": "4.8.2", "type_vocab_size": 2, "use_cache": True, "vocab_size": 288,
    } | changes


# The published factors of LongRoPE: of Phi-3.5-mini for heads of 96, of Phi-4-mini for 96 of 128.
PHI35_LONG = [
    1.0800000429153442, 1.1100000143051147, 1.1399999856948853, 1.340000033378601, 1.5899999141693115,
    1.600000023841858, 1.6200000047683716, 2.620000123977661, 3.2300000190734863, 3.2300000190734863,
    4.789999961853027, 7.400000095367432, 7.700000286102295, 9.09000015258789, 12.199999809265137,
    17.670000076293945, 24.46000099182129, 28.57000160217285, 30.420000076293945, 30.840002059936523,
    32.590003967285156, 32.93000411987305, 42.320003509521484, 44.96000289916992, 50.340003967285156,
    50.45000457763672, 57.55000305175781, 57.93000411987305, 58.21000289916992, 60.1400032043457,
    62.61000442504883, 62.62000274658203, 62.71000289916992, 63.1400032043457, 63.1400032043457,
    63.77000427246094, 63.93000411987305, 63.96000289916992, 63.970001220703125, 64.02999877929688,
    64.06999969482422, 64.08000183105469, 64.12000274658203, 64.41000366210938, 64.4800033569336,
    64.51000213623047, 64.52999877929688, 64.83999633789062,
]
PHI35_SHORT = [
    1.0, 1.0199999809265137, 1.0299999713897705, 1.0299999713897705, 1.0499999523162842, 1.0499999523162842,
    1.0499999523162842, 1.0499999523162842, 1.0499999523162842, 1.0699999332427979, 1.0999999046325684,
    1.1099998950958252, 1.1599998474121094, 1.1599998474121094, 1.1699998378753662, 1.2899998426437378,
    1.339999794960022, 1.679999828338623, 1.7899998426437378, 1.8199998140335083, 1.8499997854232788,
    1.8799997568130493, 1.9099997282028198, 1.9399996995925903, 1.9899996519088745, 2.0199997425079346,
    2.0199997425079346, 2.0199997425079346, 2.0199997425079346, 2.0199997425079346, 2.0199997425079346,
    2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914,
    2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0299997329711914, 2.0799996852874756,
    2.0899996757507324, 2.189999580383301, 2.2199995517730713, 2.5899994373321533, 2.729999542236328,
    2.749999523162842, 2.8399994373321533,
]
PHI4_LONG = [
    1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898,
    2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424,
    6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252,
    16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23,
    32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
]
PHI4_SHORT = [1.0] * 48

def compressed(strategy, activations):
    """FP8 as compressed-tensors ships it: a scale for each tensor, or for each row of it."""
    kind = {"num_bits": 8, "symmetric": True, "type": "float"}
    return {
        "config_groups": {"group_0": {
            "input_activations": activations | kind, "targets": ["Linear"],
            "weights": {"dynamic": False, "strategy": strategy} | kind}},
        "format": "float-quantized", "ignore": ["lm_head"], "kv_cache_scheme": None,
        "quant_method": "compressed-tensors", "quantization_status": "compressed",
    }


GRANITE = {
    "architectures": ["GraniteForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attention_multiplier": 0.0625, "bos_token_id": 280, "embedding_multiplier": 12.0, "eos_token_id": 280,
    "hidden_act": "silu", "hidden_size": 96, "initializer_range": 0.02, "intermediate_size": 96,
    "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "granite",
    "num_attention_heads": 3, "num_hidden_layers": 3, "num_key_value_heads": 1, "pad_token_id": 280,
    "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000000.0,
    "tie_word_embeddings": True, "torch_dtype": "float16", "transformers_version": "4.49.0",
    "use_cache": True, "vocab_size": 288,
}

MINISTRAL_ROPE = {
    "beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "llama_4_scaling_beta": 0.1,
    "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 64,
    "rope_theta": 1000000.0, "rope_type": "yarn", "type": "yarn",
}

GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_logit_softcapping": 6.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
    "final_logit_softcapping": 8.0, "head_dim": 16, "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 96, "initializer_range": 0.02,
    "intermediate_size": 64, "max_position_embeddings": 8192, "model_type": "gemma2",
    "num_attention_heads": 6, "num_hidden_layers": 4, "num_key_value_heads": 2, "pad_token_id": 0,
    "query_pre_attn_scalar": 16, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 16,
    "torch_dtype": "bfloat16", "transformers_version": "4.42.4", "use_cache": True, "vocab_size": 288,
}

GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
    "eos_token_id": 282, "experts_per_token": 4, "head_dim": 16, "hidden_act": "silu", "hidden_size": 64,
    "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 64,
    "layer_types": ["sliding_attention", "full_attention"] * 2, "max_position_embeddings": 131072,
    "model_type": "gpt_oss", "num_attention_heads": 6, "num_experts_per_tok": 4, "num_hidden_layers": 4,
    "num_key_value_heads": 2, "num_local_experts": 6, "output_router_logits": False, "pad_token_id": 281,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                   "model.embed_tokens", "lm_head"],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                     "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": False},
    "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 16, "swiglu_limit": 7.0,
    "tie_word_embeddings": False, "transformers_version": "4.55.0.dev0", "use_cache": True, "vocab_size": 288,
}

OLMO2 = {
    "architectures": ["Olmo2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 280, "eos_token_id": 280, "hidden_act": "silu", "hidden_size": 96,
    "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 4096,
    "model_type": "olmo2", "num_attention_heads": 6, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "pad_token_id": 281, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 500000,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.47.0",
    "use_cache": True, "vocab_size": 288,
}

# As nomic's own code names them; `native` is what transformers' class calls the same.
NOMIC = {
    "activation_function": "swiglu", "architectures": ["NomicBertModel"], "attn_pdrop": 0.0, "bos_token_id": None,
    "causal": False, "dense_seq_output": True, "embd_pdrop": 0.0, "eos_token_id": None,
    "fused_bias_fc": True, "fused_dropout_add_ln": True, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12, "max_trained_positions": 2048, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
    "model_type": "nomic_bert", "n_embd": 96, "n_head": 3, "n_inner": 128, "n_layer": 2, "n_positions": 8192,
    "pad_vocab_size_multiple": 64, "parallel_block": False, "parallel_block_tied_norm": False,
    "prenorm": False, "qkv_proj_bias": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
    "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.0,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "torch_dtype": "float32", "transformers_version": "4.37.2", "type_vocab_size": 2, "use_cache": True,
    "use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True, "vocab_size": 288,
}
NOMIC_NATIVE = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "hidden_size": 96, "num_attention_heads": 3,
    "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 2048, "layer_norm_eps": 1e-12,
    "type_vocab_size": 2, "vocab_size": 288, "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}

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
    Family(
        "qwen3",
        qwen3(), chatml_words("qwen2", "NFC"), chat=CHATML,
        tells={"rope_theta": 10000.0, "rms_norm_eps": 1e-2},
    ),
    Family(
        "gpt-oss", GPT_OSS, o200k_words, quantised="mxfp4",
        gains={r"gate_up_proj_bias": 4.0},
        tells={"sliding_window": 4096, "swiglu_limit": 1000.0, "num_experts_per_tok": 3, "rope_scaling": {"rope_type": "default"},
               "zero sinks": 0, "zero router.bias": 0, "zero down_proj_bias": 0, "zero q_proj.bias": 0},
        # ggml's YaRN rounds the ramp's ends to whole dimensions, which gpt-oss does not.
        peer={"rope_scaling": GPT_OSS["rope_scaling"] | {"truncate": True}},
    ),
    Family(
        "phi-3.5",
        phi3(rope_scaling=longrope(PHI35_SHORT[::3], PHI35_LONG[::3]), sliding_window=96, intermediate_size=64),
        lambda: Spm(["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>"],
                    "<s>", "<|endoftext|>", prefix=False),
        lengths=(40, 320), chat=PHI,
        tells={"sliding_window": None, "rope_scaling": longrope(PHI35_SHORT[::3], PHI35_SHORT[::3]),
               "max_position_embeddings": 256},
        # llama.cpp has no window for Phi.
        peer={"sliding_window": None},
    ),
    Family(
        "phi-4-mini",
        phi3(rope_scaling=longrope(PHI4_SHORT[::4], PHI4_LONG[::4]), partial_rotary_factor=0.75,
             num_key_value_heads=1, tie_word_embeddings=True, bos_token_id=281, eos_token_id=282, pad_token_id=281,
             full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False,
             transformers_version="4.45.0"),
        o200k_words, lengths=(40, 320), chat=PHI,
        tells={"rope_scaling": longrope(PHI4_SHORT[::4], PHI4_SHORT[::4])},
    ),
    Family(
        "olmo-2", OLMO2, chatml_words("dbrx"), chat=CHATML,
        tells={"rope_theta": 10000.0},
    ),
    Family(
        "olmo-3",
        OLMO2 | {
            "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "num_hidden_layers": 4,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 16,
            "max_position_embeddings": 65536, "num_attention_heads": 3, "num_key_value_heads": 1,
            "intermediate_size": 64,
            "rope_scaling": {"attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0,
                             "factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "yarn"},
            "transformers_version": "4.57.0",
        },
        chatml_words("dbrx"), chat=CHATML,
        tells={"sliding_window": 4096, "rope_scaling": None},
    ),
    Family(
        "granite-3", GRANITE, lambda: Bpe("refact", ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"],
                                          None, "<|end_of_text|>"),
        dtype="float16", gains={"embed": 0.1, "[qk]_proj": 1.8},
        tells={"attention_multiplier": 0.03125, "embedding_multiplier": 1.0, "residual_multiplier": 1.0,
               "logits_scaling": 1.0, "rope_theta": 10000.0},
    ),
    Family(
        "llama-3.1", llama(rope_scaling=llama3_scaling(8.0)), llama_words, chat=LLAMA3,
        tells={"rope_scaling": None},
    ),
    Family(
        "smollm2",
        llama(bos_token_id=281, eos_token_id=282, intermediate_size=64, is_llama_config=True,
              max_position_embeddings=8192, num_hidden_layers=2, pad_token_id=282, rope_interleaved=False,
              rope_theta=100000, tie_word_embeddings=True, torch_dtype="float32", transformers_version="4.42.3"),
        chatml_words("smollm"), dtype="float32", chat=CHATML,
        tells={"rope_theta": 10000.0},
    ),
    Family(
        "smollm3",
        {
            "architectures": ["SmolLM3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
            "bos_token_id": 280, "eos_token_id": 282, "hidden_act": "silu", "hidden_size": 96,
            "initializer_range": 0.02, "intermediate_size": 64, "layer_types": ["full_attention"] * 4,
            "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": False, "model_type": "smollm3",
            "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0], "num_attention_heads": 3,
            "num_hidden_layers": 4, "num_key_value_heads": 1, "pad_token_id": 280, "pretraining_tp": 2,
            "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 5000000.0, "sliding_window": None,
            "torch_dtype": "bfloat16", "transformers_version": "4.54.0.dev0", "use_cache": False,
            "use_sliding_window": False, "vocab_size": 288,
        },
        chatml_words("smaug-bpe"), chat=CHATML,
        tells={"no_rope_layers": [1, 1, 1, 1], "rope_theta": 10000.0},
    ),
    Family(
        "qwen2.5", qwen("qwen2", "Qwen2ForCausalLM"), chatml_words("qwen2", "NFC"), chat=CHATML, shard=160_000,
        tells={"rope_theta": 10000.0, "zero q_proj.bias": 0, "zero k_proj.bias": 0, "zero v_proj.bias": 0},
    ),
    Family(
        "qwen3-moe",
        without(qwen3(), "max_window_layers") | {
            "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_size": 64,
            "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 32,
            "norm_topk_prob": True, "num_attention_heads": 4, "num_experts": 8, "num_experts_per_tok": 3,
            "num_hidden_layers": 2, "num_key_value_heads": 1, "output_router_logits": False,
            "router_aux_loss_coef": 0.001, "tie_word_embeddings": False,
        },
        chatml_words("qwen2", "NFC"), chat=CHATML,
        tells={"norm_topk_prob": False, "num_experts_per_tok": 2},
    ),
    Family(
        "gemma-2", GEMMA2,
        lambda: Spm(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
                    "<bos>", "<eos>", prefix=False),
        chat=GEMMA, spread=6.0, gains={r"[qk]_proj": 2.0},
        tells={"attn_logit_softcapping": None, "final_logit_softcapping": 1000.0, "sliding_window": 4096,
               "query_pre_attn_scalar": 32},
    ),
    Family(
        # 27B's attention is scaled by width over heads. GGUF files do not say so: llama.cpp knows it by
        # the number of layers.
        "gemma-2-27b", GEMMA2 | {"query_pre_attn_scalar": 32, "num_hidden_layers": 2, "num_attention_heads": 3,
                                 "num_key_value_heads": 1, "head_dim": 64},
        lambda: Spm(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
                    "<bos>", "<eos>", prefix=False),
        chat=GEMMA, spread=6.0, gguf=False, peer={"query_pre_attn_scalar": 64},
        tells={"query_pre_attn_scalar": 64},
    ),
    Family(
        # 4B and larger see: their folders nest the language model beside an encoder of images.
        "gemma-3-4b",
        {
            "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
            "eoi_token_index": 256000, "eos_token_id": [1, 5], "image_token_index": 262144,
            "initializer_range": 0.02, "mm_tokens_per_image": 4, "model_type": "gemma3",
            "text_config": {
                "head_dim": 32, "hidden_size": 96, "intermediate_size": 64, "model_type": "gemma3_text",
                "num_attention_heads": 3, "num_hidden_layers": 6, "num_key_value_heads": 1,
                "query_pre_attn_scalar": 32, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 16, "vocab_size": 288,
            },
            "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
            "vision_config": {
                "hidden_size": 32, "image_size": 28, "intermediate_size": 32, "model_type": "siglip_vision_model",
                "num_attention_heads": 2, "num_hidden_layers": 1, "patch_size": 14, "vision_use_head": False,
            },
        },
        lambda: Spm(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
                    "<bos>", "<eos>", prefix=False),
        chat=GEMMA, gguf=False,
    ),
    Family(
        "mistral-7b-v0.1",
        without(llama(bos_token_id=1, eos_token_id=2, max_position_embeddings=32768, num_hidden_layers=2,
                      rope_theta=10000.0, sliding_window=16, architectures=["MistralForCausalLM"],
                      model_type="mistral", transformers_version="4.34.0.dev0"),
                "attention_bias", "mlp_bias", "pretraining_tp", "rope_scaling", "attention_dropout"),
        spm_words, chat=MISTRAL,
        # The GGUF file of this family has no window, nor has llama.cpp.
        gguf=False, peer={"sliding_window": None},
        tells={"sliding_window": None},
    ),
    Family(
        "mistral-nemo",
        without(llama(bos_token_id=280, eos_token_id=281, head_dim=32, max_position_embeddings=131072,
                      num_attention_heads=2, num_key_value_heads=1, rope_theta=1000000.0, sliding_window=None,
                      architectures=["MistralForCausalLM"], model_type="mistral",
                      transformers_version="4.43.0.dev0"),
                "attention_bias", "mlp_bias", "pretraining_tp", "rope_scaling"),
        lambda: Bpe("tekken", ["<s>", "</s>", "[INST]", "[/INST]"], "<s>", "</s>", add_bos=True), chat=MISTRAL,
        tells={"rope_theta": 10000.0},
    ),
    Family(
        "ministral-3",
        {
            "architectures": ["Ministral3ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 280,
            "dtype": "bfloat16", "eos_token_id": 281, "head_dim": 32, "hidden_act": "silu", "hidden_size": 96,
            "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 1024,
            "model_type": "ministral3", "num_attention_heads": 4, "num_hidden_layers": 3,
            "num_key_value_heads": 1, "pad_token_id": 284, "rms_norm_eps": 1e-05,
            "rope_parameters": MINISTRAL_ROPE,
            "sliding_window": None, "tie_word_embeddings": True, "transformers_version": "5.0.0.dev0",
            "use_cache": True, "vocab_size": 288,
        },
        lambda: Bpe("tekken", ["<s>", "</s>", "[INST]", "[/INST]"], "<s>", "</s>", add_bos=True), chat=MISTRAL,
        tells={"rope_parameters": MINISTRAL_ROPE | {"llama_4_scaling_beta": 0.0}},
    ),
    Family(
        "qwen3-fp8",
        qwen3(hidden_size=160, intermediate_size=160, num_attention_heads=5, num_key_value_heads=1,
              num_hidden_layers=2, quantization_config={
                  "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                  "weight_block_size": [128, 128]}),
        chatml_words("qwen2", "NFC"), quantised="fp8", gguf=False, chat=CHATML,
    ),
    Family(
        "llama-fp8-tensor",
        llama(num_hidden_layers=2, quantization_config=compressed("tensor", {"dynamic": False, "strategy": "tensor"})),
        llama_words, quantised="fp8-tensor", gguf=False, chat=LLAMA3,
    ),
    Family(
        "llama-fp8-channel",
        llama(num_hidden_layers=2, quantization_config=compressed("channel", {"dynamic": True, "strategy": "token"})),
        llama_words, quantised="fp8-channel", gguf=False, chat=LLAMA3,
    ),
    Family(
        # As the Instruct folders are published: nested beside an encoder of images, in FP8.
        "ministral-3-instruct",
        {
            "architectures": ["Mistral3ForConditionalGeneration"], "dtype": "bfloat16", "image_token_index": 10,
            "model_type": "mistral3", "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
            "quantization_config": {
                "activation_scheme": "static", "dequantize": False,
                "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head",
                                           "model.vision_tower", "model.multi_modal_projector", "lm_head"],
                "quant_method": "fp8", "weight_block_size": None,
            },
            "spatial_merge_size": 2,
            "text_config": {
                "attention_dropout": 0.0, "bos_token_id": 280, "eos_token_id": 281, "head_dim": 32,
                "hidden_act": "silu", "hidden_size": 96, "initializer_range": 0.02, "intermediate_size": 64,
                "max_position_embeddings": 1024, "model_type": "ministral3", "num_attention_heads": 4,
                "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-05,
                "rope_parameters": MINISTRAL_ROPE, "sliding_window": None, "tie_word_embeddings": True,
                "use_cache": True, "vocab_size": 288,
            },
            "tie_word_embeddings": True, "transformers_version": "5.0.0.dev0",
            "vision_config": {
                "attention_dropout": 0.0, "head_dim": 16, "hidden_act": "silu", "hidden_size": 32,
                "image_size": 28, "initializer_range": 0.02, "intermediate_size": 32, "model_type": "pixtral",
                "num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": 1, "patch_size": 14,
                "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            },
            "vision_feature_layer": -1,
        },
        lambda: Bpe("tekken", ["<s>", "</s>", "[INST]", "[/INST]"], "<s>", "</s>", add_bos=True), chat=MISTRAL,
        quantised="fp8-single", gguf=False,
    ),
    Family(
        "minilm", bert(), WordPiece, dtype="float16", lengths=(3, 17, 40), pooling="mean", confirmed=5e-3,
    ),
    Family(
        "bge", bert(hidden_size=64, num_attention_heads=2, num_hidden_layers=3, intermediate_size=96,
                    transformers_version="4.30.0"),
        WordPiece, dtype="float32", lengths=(3, 17, 40), pooling="cls", confirmed=5e-3,
    ),
    Family(
        "nomic-embed", NOMIC, WordPiece, dtype="float16", lengths=(3, 17, 40), pooling="mean", native=NOMIC_NATIVE,
    ),
    Family(
        "qwen3-embedding", qwen3(num_hidden_layers=2), chatml_words("qwen2", "NFC"),
        lengths=(3, 17, 40), pooling="lasttoken", built="Qwen3Model",
    ),
]
