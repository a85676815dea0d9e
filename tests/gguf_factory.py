"""Small GGUF files made from random transformers models, as llama.cpp's converter lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL = ["<unk>", "<bos>", "<eos>", "<pad>"]
# Pairs that only some pre-tokenizers let meet: two spaces before a digit, digits, punctuation before a letter.
MERGES = ["Ġ Ġ", "Ċ Ċ", "1 2", "12 3", '" a', "h i", "Ġ hi"]
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
CHAT_TEMPLATE = "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
GGUF_NAMES = {"llama": "llama", "qwen2": "qwen2", "starcoder2": "starcoder2"}


def tiny_model(model_type: str, *, tied: bool = True, layers: int = 4, **options: Any) -> Any:
    """A random float32 model of 4 layers, 4 heads of 16, 2 key-value heads, rope_theta 5e4."""
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        tie_word_embeddings=tied,
        **options,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():  # norms and biases too, so that a lost one shows
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_gguf(
    path: Path,
    model: Any,
    *,
    pre: str | None = "smollm",
    entries: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    without: str | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
    bos: int | None = 1,
) -> Path:
    """Write `model` as float32 GGUF. entries, tensors: added to it; without: a tensor left out."""
    config = model.config
    name = GGUF_NAMES[config.model_type]
    writer = GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if name == "starcoder2":
        writer.add_layer_norm_eps(config.norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if name == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    _add_tokenizer(writer, pre, chat_template, bos)
    for key, value in (entries or {}).items():
        _add_entry(writer, key, value)
    layout = _gguf_tensors(model, name) | dict(tensors or {})
    for tensor_name, values in layout.items():
        if tensor_name != without:
            writer.add_tensor(tensor_name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter, pre: str | None, chat_template: str | None, bos: int | None) -> None:
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    if bos is not None:
        writer.add_bos_token_id(bos)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(3)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _add_entry(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _gguf_tensors(model: Any, name: str) -> dict[str, np.ndarray]:
    config = model.config
    architecture = next(key for key, value in MODEL_ARCH_NAMES.items() if value == name)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    layout = {}
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, suffix = key.rsplit(".", 1)
        values = weight.numpy()
        if name == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads
            values = _interleave(values, heads)
        layout[f"{names.get_name(stem)}.{suffix}"] = values
    return layout


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Half-split rotary rows to llama.cpp's neighbouring pairs (LlamaModel.permute of its converter)."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)
