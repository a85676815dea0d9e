"""The model types of the conformance suite, each as a tiny random model, and what is expected of it.

`pattern` has one letter a decoder layer: R takes a factor, - has no rotary position and takes null. `refusal` is a
regular expression for the architectural reason with which a type is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

# Weights are drawn wide (0.2), so that attention is sharp and a factor of 1.5 shows in four layers.
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256}
# Multi-head latent attention: the rotary part of a head is separate from the rest.
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
# Below the length of the prompt index_topk makes vanilla's own generation differ with and without a cache.
INDEXED = LATENT | {"index_topk": 64, "index_n_heads": 2, "index_head_dim": 16}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
    "head_dim": None,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
FULL_AND_SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}
LINEAR_AND_FULL = {"layer_types": ["linear_attention", "full_attention"] * 2}


@dataclass(frozen=True)
class ModelType:
    """One row of the table; `config` overrides `SMALL`, None drops a key."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    pattern: str = "RRRR"
    refusal: str | None = None

    def build(self, **overrides: Any) -> PreTrainedModel:
        """The tiny model with weights of seed 0, in evaluation mode."""
        default = AutoConfig.for_model(self.name)
        wanted = {key: value for key, value in SMALL.items() if hasattr(default, key)} | self.config | overrides
        config = AutoConfig.for_model(self.name, **{key: value for key, value in wanted.items() if value is not None})
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()

    @property
    def rotary(self) -> list[int]:
        return [index for index, letter in enumerate(self.pattern) if letter == "R"]

    def factors(self, *values: float) -> list[float | None]:
        """The given factors in turn over the rotary layers, null elsewhere."""
        row: list[float | None] = [None] * len(self.pattern)
        for place, layer in enumerate(self.rotary):
            row[layer] = values[place % len(values)]
        return row


SUPPORTED = [
    ModelType("afmoe", {"layer_types": ["sliding_attention", "full_attention"] * 2}, "R-R-"),
    ModelType("apertus"),
    ModelType("arcee"),
    ModelType("bailing_hybrid", LATENT | {"layer_types": ["full_attention", "linear_attention"] * 2}, "R-R-"),
    ModelType("bamba", MAMBA | {"attn_layer_indices": [1, 3]}, "-R-R"),
    ModelType("bitnet"),
    ModelType("cohere"),
    ModelType("cohere2", FULL_AND_SLIDING, "R-R-"),
    ModelType("cwm", FULL_AND_SLIDING),
    ModelType("deepseek_v2", LATENT),
    ModelType("deepseek_v3", LATENT),
    ModelType("deepseek_v32", INDEXED),
    ModelType("diffllama"),
    ModelType("doge"),
    ModelType("dots1", {"n_shared_experts": 1, "first_k_dense_replace": 1}),
    ModelType("ernie4_5"),
    ModelType("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2}),
    ModelType("exaone4", FULL_AND_SLIDING, "R-R-"),
    ModelType("falcon", {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 96, "head_dim": None}),
    ModelType("falcon_h1", MAMBA | {"mamba_d_ssm": 128}),
    ModelType("gemma"),
    ModelType("gemma2", FULL_AND_SLIDING),
    ModelType("gemma3_text", FULL_AND_SLIDING),
    ModelType("glm"),
    ModelType("glm4"),
    ModelType("glm4_moe", {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}),
    ModelType("gpt_neox"),
    ModelType("gpt_oss", FULL_AND_SLIDING),
    ModelType("granite"),
    ModelType("granite_swa"),
    ModelType("granitemoe"),
    ModelType(
        "granitemoehybrid",
        MAMBA
        | {
            "layer_types": ["mamba", "attention"] * 2,
            "shared_intermediate_size": 32,
            "position_embedding_type": "rope",
        },
        "-R-R",
    ),
    ModelType("granitemoe_swa"),
    ModelType("helium"),
    ModelType("hunyuan_v1_dense"),
    ModelType("jetmoe", {"num_key_value_heads": 4, "kv_channels": 16}),
    ModelType("lfm2", {"layer_types": ["conv", "full_attention"] * 2}, "-R-R"),
    ModelType("lfm2_moe", {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2}, "-R-R"),
    ModelType("llama"),
    ModelType("llama4_text", {"intermediate_size_mlp": 96}, "RRR-"),
    ModelType(
        "longcat_flash",
        LATENT
        | {
            "num_layers": 2,
            "num_hidden_layers": 4,
            "ffn_hidden_size": 96,
            "expert_ffn_hidden_size": 32,
            "moe_topk": 2,
            "zero_expert_num": 2,
            "qk_head_dim": 24,
        },
        "RR",
    ),
    ModelType("minicpm3", LATENT),
    ModelType("minimax", {"layer_types": ["full_attention", "linear_attention"] * 2}, "R-R-"),
    ModelType("ministral", FULL_AND_SLIDING),
    ModelType("mistral"),
    ModelType("mixtral"),
    ModelType("modernbert-decoder", {"layer_types": ["sliding_attention", "full_attention"] * 2}),
    ModelType("nanochat"),
    ModelType("nemotron"),
    ModelType("olmo"),
    ModelType("olmo2"),
    ModelType("olmo3", FULL_AND_SLIDING),
    ModelType("olmoe"),
    ModelType("persimmon"),
    ModelType("phi"),
    ModelType("phi3"),
    ModelType("phimoe", {"router_jitter_noise": 0.0, "input_jitter_noise": 0.0}),
    ModelType("qwen2"),
    ModelType("qwen2_moe"),
    ModelType("qwen3"),
    ModelType("qwen3_moe"),
    ModelType("qwen3_next", DELTA | LINEAR_AND_FULL, "-R-R"),
    ModelType(
        "recurrent_gemma",
        {"lru_width": 64, "block_types": ["recurrent", "attention"], "attention_window_size": 32},
        "-R-R",
    ),
    ModelType("seed_oss", {"attention_dropout": 0.0, "residual_dropout": 0.0}),
    ModelType("smollm3", {}, "RRR-"),
    ModelType("stablelm"),
    ModelType("starcoder2"),
    ModelType("vaultgemma", FULL_AND_SLIDING),
    ModelType("youtu", LATENT),
    ModelType(
        "zamba2",
        {
            "layers_block_type": ["mamba", "hybrid"] * 2,
            "use_mem_rope": True,
            "num_mem_blocks": 1,
            "num_key_value_heads": 4,
            "attention_hidden_size": 128,
            "attention_head_dim": 32,
            "kv_channels": 16,
            "adapter_rank": 8,
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "head_dim": None,
        },
        "-R-R",
    ),
]

REFUSED = [
    ModelType(
        "bert", {"is_decoder": True}, refusal=r"learned absolute positions \(bert\.embeddings\.position_embeddings"
    ),
    ModelType("bloom", GPT, refusal="ALiBi"),
    ModelType("codegen", GPT | {"rotary_dim": 8}, refusal=r"rotates inside attention with attn\.embed_positions"),
    ModelType(
        "gemma3n_text",
        {
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "intermediate_size": [96] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 128,
            "laurel_rank": 8,
        },
        refusal="reacts to the rotary factor of another layer .*shares rotated keys",
    ),
    ModelType("gpt2", GPT, refusal=r"learned absolute positions \(transformer\.wpe"),
    ModelType("gptj", GPT | {"rotary_dim": 8}, refusal=r"rotates inside attention with attn\.embed_positions"),
    ModelType(
        "jamba",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
        },
        refusal="recurrent or without position",
    ),
    ModelType("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 256}, refusal="ALiBi"),
    ModelType("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}, refusal="learned absolute positions"),
    ModelType("roformer", {"is_decoder": True}, refusal="rotation inside its attention"),
    ModelType("rwkv", {"attention_hidden_size": 64}, refusal="recurrent or without position"),
    ModelType("xglm", {"d_model": 64, "num_layers": 4, "attention_heads": 4, "ffn_dim": 96}, refusal="sinusoidal"),
]

# Families whose patched forward is also compiled in one graph.
COMPILED = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3")


@cache
def by_name() -> dict[str, ModelType]:
    return {entry.name: entry for entry in (*SUPPORTED, *REFUSED)}
