"""ropewalk: cures "lost in the middle" in rotary-position language models without training.

Every name below is imported on first use, so that `import ropewalk` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropewalk.checkpoint import convert_gguf as convert_gguf
    from ropewalk.checkpoint import load_pretrained as load_pretrained
    from ropewalk.demo_model import demo_model as demo_model
    from ropewalk.errors import FactorsError as FactorsError
    from ropewalk.errors import RopewalkError as RopewalkError
    from ropewalk.errors import UnsupportedModelError as UnsupportedModelError
    from ropewalk.evaluate import evaluate as evaluate
    from ropewalk.factors import ScalingFactors as ScalingFactors
    from ropewalk.identity import model_identity as model_identity
    from ropewalk.patch import apply as apply
    from ropewalk.patch import patched as patched
    from ropewalk.patch import remove as remove
    from ropewalk.run import search as search

_HOME = {
    "FactorsError": "errors",
    "RopewalkError": "errors",
    "ScalingFactors": "factors",
    "UnsupportedModelError": "errors",
    "apply": "patch",
    "convert_gguf": "checkpoint",
    "demo_model": "demo_model",
    "evaluate": "evaluate",
    "load_pretrained": "checkpoint",
    "model_identity": "identity",
    "patched": "patch",
    "remove": "patch",
    "search": "run",
}
__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ropewalk")
    if name not in _HOME:
        raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ropewalk.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
