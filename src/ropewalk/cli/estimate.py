"""How long prompts take and how much memory the model needs here: measured, not guessed."""

from __future__ import annotations

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
    from ropewalk.elsewhere import holders_of
    from ropewalk.provenance import peak_memory, provenance

    evaluator.score_many(candidates)
    started = time.perf_counter()
    evaluator.score_many(candidates)
    elapsed = time.perf_counter() - started
    prompts = len(evaluator.examples)
    where, holders = provenance(evaluator.model), holders_of(evaluator.model)
    on_gpu = where["device_type"] == "cuda"
    workers = 1 if holders is None else where["workers"]["count"]  # one of them has measured
    return Speed(
        elapsed / prompts / len(candidates) / workers,
        evaluator.prompt_tokens / prompts,
        peak_memory(where["device_type"]) if holders is None else holders.memory_gib,
        ("GPU memory" if on_gpu else "memory") + (" a worker" if holders is not None else ""),
        f"{workers} × {where['device']}" if workers > 1 else str(where["device"]),
    )


def seconds(amount: float) -> str:
    """A duration in words: 45 s, 12 min, 3.5 h."""
    if amount < 90:
        return f"{amount:.0f} s"
    return f"{amount / 60:.0f} min" if amount < 5400 else f"{amount / 3600:.1f} h"
