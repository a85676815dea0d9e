"""vLLM's rotary modules with a scaling factor of their own: copies whose tables hold the angles of p / s.

vLLM looks cos and sin up in a table with a row a position. It memoises rotary modules, so that all layers share one:
a layer with a factor gets a copy. The classes of rotary modules fill their tables from `_compute_inv_freq`: dividing
these frequencies by s gives f_base(p / s) for each rope type (arXiv 2503.04355, equation 4).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.errors import UnsupportedModelError

PACKAGE = "vllm.model_executor.layers.rotary_embedding"
TABLE, LONGROPE_TABLE, TABLE_BF16 = "cos_sin_cache", "long_short_cos_sin_cache", "cos_sin_cache_bf16"


def is_rotary(module: nn.Module) -> bool:
    """Whether it is one of vLLM's rotary modules: it turns queries and keys by a table, or by several."""
    return type(module).__module__.startswith(PACKAGE) and any("cos_sin" in name for name, _ in module.named_buffers())


def scaled_copy(base: nn.Module, factor: float) -> nn.Module:
    """A copy of a rotary module with the tables of positions p / factor, on the same device and of the same type.

    Raises `UnsupportedModelError` for a class whose tables can't be made so, `dual_chunk` attention's for one.
    """
    _check_tables(base)
    shared = {id(buffer): buffer for buffer in base.buffers()}  # replaced below: no need to copy them
    scaled = copy.deepcopy(base, shared)
    method = getattr(scaled, "_forward_method", None)
    if getattr(method, "__self__", scaled) is not scaled:
        # It would turn by the table of the original: all would look well and no factor have an effect.
        raise UnsupportedModelError(f"a copy of {type(base).__name__} still calls the original's {method!r}")
    name = _table_name(base)
    original = getattr(base, name)
    scaled.register_buffer(name, _table(scaled, factor).to(original), persistent=False)
    rounded = getattr(base, TABLE_BF16, None)
    if rounded is not None:
        scaled.register_buffer(TABLE_BF16, getattr(scaled, name).to(rounded), persistent=False)
    return scaled


def table_bytes(module: nn.Module) -> int:
    """Memory of a rotary module's tables."""
    return sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())


def _check_tables(base: nn.Module) -> None:
    """Raise `UnsupportedModelError` unless this class's table can be made again, and factors act as they should.

    At factor 2 row 2p has to be row p of the table as it is: halving one side of a product while doubling the other is
    exact in floating point.
    """
    name = type(base).__name__
    known = (_table_name(base),) if getattr(base, TABLE_BF16, None) is None else (_table_name(base), TABLE_BF16)
    tables = [buffer for buffer, _ in base.named_buffers(recurse=False) if "cos_sin" in buffer]
    if sorted(tables) != sorted(known):
        raise UnsupportedModelError(f"{name}: its tables are {', '.join(tables)}, which ropewalk can't scale")
    table = getattr(base, known[0])
    if not torch.equal(_table(base, 1.0).to(table), table):
        raise UnsupportedModelError(f"{name}: its table is not what its _compute_cos_sin_cache gives")
    for part, halved in zip(_parts(base, table), _parts(base, _table(base, 2.0).to(table)), strict=True):
        rows = (len(part) + 1) // 2
        if not torch.allclose(halved[::2], part[:rows], rtol=0, atol=1e-5):
            raise UnsupportedModelError(f"{name}: its table does not come from frequencies times positions alone")


def _table_name(base: nn.Module) -> str:
    return LONGROPE_TABLE if hasattr(base, LONGROPE_TABLE) else TABLE


def _table(module: Any, factor: float) -> Tensor:
    """The table with all frequencies divided by the factor, in float32. Leaves the module as it was."""
    frequencies = module._compute_inv_freq

    def divided(*arguments: Any) -> Tensor:
        return frequencies(*arguments) / factor  # type: ignore[no-any-return]

    module._compute_inv_freq = divided
    try:
        if not hasattr(module, LONGROPE_TABLE):
            return module._compute_cos_sin_cache()  # type: ignore[no-any-return]
        short = (module.original_max_position_embeddings, module.short_factor, module.short_mscale)
        long = (module.max_position_embeddings, module.long_factor, module.long_mscale)
        return torch.cat([module._compute_cos_sin_cache(*short), module._compute_cos_sin_cache(*long)])
    finally:
        del module._compute_inv_freq


def _parts(module: Any, table: Tensor) -> tuple[Tensor, ...]:
    """The table by scheme: longrope keeps two, the one for short prompts first."""
    if not hasattr(module, LONGROPE_TABLE):
        return (table,)
    short = module.original_max_position_embeddings
    return table[:short], table[short:]
