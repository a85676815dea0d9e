"""How long prompts take and how much memory the model needs here: measured, not guessed."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Speed:
    """What one record took. memory_gib: peak on the GPU, or of this process."""

    seconds_per_prompt: float
    tokens_per_prompt: float
    memory_gib: float
    memory_kind: str
    device: str


def speed(evaluator: Any, candidates: Sequence[Any] = (None,)) -> Speed:
    """Score the examples of an evaluator (one record is enough) twice, the first time as a warm-up.

    candidates: factors that are scored together, as a search does.
    """
    import torch

    from ropewalk.provenance import provenance

    evaluator.score_many(candidates)
    started = time.perf_counter()
    evaluator.score_many(candidates)
    elapsed = time.perf_counter() - started
    prompts = len(evaluator.examples)
    where = provenance(evaluator.model)
    if where["device_type"] == "cuda":
        memory, kind = torch.cuda.max_memory_allocated() / 2**30, "GPU memory"
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
        memory, kind = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, "memory"
    return Speed(
        elapsed / prompts / len(candidates), evaluator.prompt_tokens / prompts, memory, kind, str(where["device"])
    )


def seconds(amount: float) -> str:
    """A duration in words: 45 s, 12 min, 3.5 h."""
    if amount < 90:
        return f"{amount:.0f} s"
    return f"{amount / 60:.0f} min" if amount < 5400 else f"{amount / 3600:.1f} h"
