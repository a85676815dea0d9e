"""Words for what a model does instead of rotary position from a shared module: the reason in a refusal."""

from __future__ import annotations

from torch import nn

from ropewalk.layers import decoder_layers, is_rotary, text_config, text_decoder

LEARNED = ("wpe", "embed_positions", "position_embeddings", "position_embedding", "pos_embed", "pos_emb")


def in_layer_rotation(layer: nn.Module) -> str:
    """How a layer that ignores its factor comes by the position, as a clause: "rotates …"."""
    for name, module in layer.named_modules():
        if is_rotary(module):
            return f"computes its own tables in {name!r} ({type(module).__name__})"
        if hasattr(module, "embed_positions"):
            return f"rotates inside attention with {name}.embed_positions, a table of its own"
    return "rotates inside the layer, not by the tables it is given"


def absolute_position(model: nn.Module) -> str:
    """What position the model has if it isn't rotary, as far as its modules and config tell."""
    config = text_config(model)
    decoder, layers = text_decoder(model), decoder_layers(model)
    inside = {id(module) for module in layers.modules()}
    for name, module in decoder.named_modules():
        if id(module) in inside:
            continue
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and leaf in LEARNED:
            return f"learned absolute positions ({name}: {type(module).__name__} of {module.num_embeddings})"
        if leaf in LEARNED or "Sinusoidal" in type(module).__name__:
            return f"absolute positions added to the embeddings ({name}: {type(module).__name__})"
    if getattr(config, "alibi", False) or hasattr(decoder, "build_alibi_tensor"):
        return "ALiBi, a linear bias on the attention scores"
    if any("relative" in name and "bias" in name for name, _ in layers.named_modules()):
        return "a relative attention bias"
    kinds = sorted({type(layer).__name__ for layer in layers})
    return f"no position of any kind in its layers ({', '.join(kinds)})"
