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
    """All of a record to the bit, NaN equal to NaN."""
    arrays = [None if array is None else array.tobytes() for array in (record.scores, record.log_likelihoods)]
    return (record.generation, record.slot, record.candidate, np.float64(record.fitness).tobytes(), *arrays)


def same_end(result: SearchResult, out: Path, other: tuple[SearchResult, Path]) -> None:
    assert (out / "factors.json").read_bytes() == (other[1] / "factors.json").read_bytes()
    assert result.factors == other[0].factors
    assert (result.candidate, result.fitness, result.evaluations, result.failed, result.validation) == (
        (other[0].candidate, other[0].fitness, other[0].evaluations, other[0].failed, other[0].validation)
    )
    assert [content(record) for record in result.records] == [content(record) for record in other[0].records]


def worse(factors: ScalingFactors, result: TaskResult) -> TaskResult:
    """All but the identity lose two nats a token."""
    return result if factors.is_identity else replace(result, log_likelihoods=result.log_likelihoods - 2)


def broken(factors: ScalingFactors, result: TaskResult) -> TaskResult:
    if factors.is_identity:
        return result
    raise RuntimeError("broken on purpose")
