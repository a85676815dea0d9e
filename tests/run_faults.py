"""What the tests of whole searches share: interruptions and faults on purpose, and when two searches ended the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.factors import ScalingFactors
from ropewalk.results import TaskResult
from ropewalk.run import SearchResult
from ropewalk.study import CandidateRecord

CANDIDATES = 13  # of the small search, the identity among them
PROMPTS = 4  # 2 records at 2 positions


class Stop:
    """Raises at the n-th event of a kind, as Ctrl-C would."""

    def __init__(self, kind: type, count: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.kind, self.left, self.error = kind, count, error

    def __call__(self, event: Any) -> None:
        self.left -= isinstance(event, self.kind)
        if self.left == 0:
            raise self.error("stopped on purpose")


def stored_settings(out: Path) -> dict[str, Any]:
    import optuna

    return optuna.load_study(study_name="search", storage=f"sqlite:///{out}/study.db").user_attrs["settings"]


def content(record: CandidateRecord) -> tuple[Any, ...]:
    """All of a record but the time it took, to the bit, NaN equal to NaN."""
    arrays = [array.tobytes() for found in record.found for array in (found.scores, found.log_likelihoods)]
    rest = replace(record, found=(), fitness=0.0, seconds=0.0)
    return rest, np.float64(record.fitness).tobytes(), [found.positions for found in record.found], arrays


def same_end(result: SearchResult, out: Path, other: tuple[SearchResult, Path]) -> None:
    one, another = (ScalingFactors.load(folder / "factors.json") for folder in (out, other[1]))
    assert one.values == another.values
    assert {**one.found, "seconds": 0} == {**another.found, "seconds": 0}
    assert result.factors.values == other[0].factors.values
    for name in ("candidate", "fitness", "evaluations", "validation_evaluations", "failed", "stopped", "validation"):
        assert getattr(result, name) == getattr(other[0], name)
    assert [content(record) for record in result.records] == [content(record) for record in other[0].records]


def worse(factors: ScalingFactors, result: TaskResult) -> TaskResult:
    """All but the identity lose two nats a token."""
    return result if factors.is_identity else replace(result, log_likelihoods=result.log_likelihoods - 2)


def broken(factors: ScalingFactors, result: TaskResult) -> TaskResult:
    if factors.is_identity:
        return result
    raise RuntimeError("broken on purpose")
