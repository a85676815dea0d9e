"""Where a result comes from: versions and hardware, as JSON."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

from ropewalk.elsewhere import holders_of

PACKAGES = ("ropewalk", "torch", "transformers", "numpy")


def provenance(model: Any) -> dict[str, Any]:
    """Versions of what computed, and on what: device, dtype, cores; workers where there are any."""
    import torch

    from ropewalk.layers import input_device

    holders = holders_of(model)
    if holders is not None:
        return dict(holders.facts.provenance)
    device, dtype = input_device(model), model.get_input_embeddings().weight.dtype
    on_gpu = device.type == "cuda"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "device_type": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "cores": os.cpu_count(),
    }


def peak_memory(device_type: str) -> float:
    """GiB, the most that was in use so far: of this process's GPU, or of the process."""
    import torch

    if device_type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
