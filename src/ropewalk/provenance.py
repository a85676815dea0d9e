"""Where a result comes from: versions and hardware, as JSON."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

PACKAGES = ("ropewalk", "torch", "transformers", "numpy")


def provenance(model: Any) -> dict[str, Any]:
    """Versions of what computed, and on what: device, dtype, cores."""
    import torch

    from ropewalk.layers import input_device

    device, dtype = input_device(model), model.get_input_embeddings().weight.dtype
    on_gpu = device.type == "cuda"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "device_type": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "cores": os.cpu_count(),
    }
