"""ropewalk: cures "lost in the middle" in rotary-position language models without training.

Every name below, and every submodule, is imported on first use, so that `import ropewalk` loads no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropewalk.checkpoint import load_pretrained as load_pretrained
    from ropewalk.demo import demo_model as demo_model
    from ropewalk.errors import FactorsError as FactorsError
    from ropewalk.errors import RopewalkError as RopewalkError
    from ropewalk.errors import UnsupportedModelError as UnsupportedModelError
    from ropewalk.factors import ScalingFactors as ScalingFactors
    from ropewalk.gguf_reader import convert_gguf as convert_gguf
    from ropewalk.identity import model_identity as model_identity
    from ropewalk.patch import apply as apply
    from ropewalk.patch import patched as patched
    from ropewalk.patch import remove as remove
    from ropewalk.zoo import load_factors as load_factors

_HOME = {
    "FactorsError": "errors",
    "RopewalkError": "errors",
    "ScalingFactors": "factors",
    "UnsupportedModelError": "errors",
    "apply": "patch",
    "convert_gguf": "gguf_reader",
    "demo_model": "demo",
    "load_factors": "zoo",
    "load_pretrained": "checkpoint",
    "model_identity": "identity",
    "patched": "patch",
    "remove": "patch",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ropewalk")
    if name in _HOME:
        value = getattr(importlib.import_module(f"ropewalk.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"ropewalk.{name}"):
        return importlib.import_module(f"ropewalk.{name}")
    raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
