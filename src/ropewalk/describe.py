"""Words for what a model does instead of taking rotary tables from a shared module: the reason in a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from ropewalk.layers import decoder_layers, is_rotary, text_config, text_decoder

# wpe (GPT-2), embed_positions (OPT, XGLM), position_embeddings (BERT), positions_embed (GPT), pos_encoding (CTRL) …
POSITION_NAME = re.compile(r"^(wpe|embed_positions?|positions?_embed\w*|pos_e(mb|nc)\w*)$")


def in_layer_rotation(layer: nn.Module) -> str:
    """How a layer that its factor does not reach comes by the position, as a clause: "rotates …"."""
    for name, module in layer.named_modules():
        if is_rotary(module):
            return f"computes its own tables in {name!r} ({type(module).__name__})"
        if hasattr(module, "embed_positions"):
            return f"rotates inside attention with {name}.embed_positions, a table of its own"
    return "reads the position inside the layer, not only through the rotary tables it is given"


def absolute_position(model: nn.Module) -> str:
    """What position the model has if it isn't rotary, as far as its modules and config tell."""
    decoder, layers = text_decoder(model), decoder_layers(model)
    rotating = [
        type(module).__name__ for module in layers.modules() if hasattr(module, "apply_rotary_position_embeddings")
    ]
    if rotating:
        return f"a rotation inside its attention ({rotating[0]}) by a table that takes no rotary module"
    for name, module in _outside_layers(model):
        if isinstance(module, nn.Embedding) and "Sinusoidal" not in type(module).__name__:
            return f"learned absolute positions ({name}: {type(module).__name__} of {module.num_embeddings})"
        return f"absolute sinusoidal positions ({name}: {type(module).__name__})"
    if getattr(text_config(model), "alibi", False) or any("alibi" in name for name in dir(decoder)):
        return "ALiBi, a linear bias on the attention scores by distance"
    plain = [name for name in vars(decoder) if POSITION_NAME.match(name)]
    if plain:
        return f"a table of absolute positions that is added to the embeddings ({plain[0]})"
    if any("relative" in name or "rel_" in name for name, _ in layers.named_modules()):
        return "relative positions, a bias on the attention scores"
    kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
    return f"no position from outside its layers, which are recurrent or without position ({kinds})"


def _outside_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with a position's name that no decoder layer owns."""
    inside = {id(module) for module in decoder_layers(model).modules()}
    for name, module in model.named_modules():
        if id(module) not in inside and POSITION_NAME.match(name.rpartition(".")[2]):
            yield name, module
