"""A `TaskResult` as JSON, one object an example, and back, with errors that name field and example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk.errors import DataError

if TYPE_CHECKING:
    from ropewalk.results import TaskResult

RESULT = "a task result"
INFINITIES = ("inf", "-inf")


def encode(result: TaskResult) -> dict[str, Any]:
    """Settings and `examples`: {id, record, position, verdict, score, log_likelihood, margin, tokens, group, text}.

    verdict is null for a graded metric; text is there only for generated answers. NaN is null, infinity is a word.
    """
    rows = np.ndindex(result.scores.shape)
    return {
        "task": dict(result.task),
        "positions": list(result.positions),
        "metric": result.metric,
        "generated": result.generated,
        "graded": result.graded,
        "skipped": list(result.skipped),
        "examples": [_example(result, row, column) for row, column in rows],
    }


def decode(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the `TaskResult` that `encode` wrote, by name."""
    positions = _field(document, "positions", list, RESULT)
    examples = _field(document, "examples", list, RESULT)
    graded = _field(document, "graded", bool, RESULT)
    records = _records(examples, positions)
    shape = (len(records), len(positions))
    scores = [_score(example, graded) for example in examples]
    firsts = range(0, len(examples), len(positions))
    return {
        "task": _field(document, "task", dict, RESULT),
        "positions": tuple(positions),
        "records": records,
        "scores": np.array(scores, dtype=np.float64).reshape(shape),
        "log_likelihoods": _floats(examples, "log_likelihood").reshape(shape),
        "margins": _floats(examples, "margin").reshape(shape),
        "answer_tokens": np.array([_tokens(example) for example in examples], dtype=np.int64).reshape(shape),
        "metric": _field(document, "metric", str, RESULT),
        "generated": _field(document, "generated", bool, RESULT),
        "graded": graded,
        "texts": _texts(examples, len(positions)),
        "groups": tuple(_field(examples[first], "group", str, _name(examples[first])) for first in firsts),
        "skipped": tuple(_field(document, "skipped", list, RESULT)),
    }


def _example(result: TaskResult, row: int, column: int) -> dict[str, Any]:
    record, position, score = result.records[row], result.positions[column], float(result.scores[row, column])
    example = {
        "id": f"{record}@{position}",
        "record": record,
        "position": position,
        "verdict": None if result.graded else score > 0.5,
        "score": score,
        "log_likelihood": _to_json(float(result.log_likelihoods[row, column])),
        "margin": _to_json(float(result.margins[row, column])),
        "tokens": int(result.answer_tokens[row, column]),
        "group": result.groups[row] if result.groups else "",
    }
    if result.texts is not None:
        example["text"] = result.texts[row][column]
    return example


def _to_json(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _name(example: Any) -> str:
    return f"example {example.get('id')!r} of {RESULT}" if isinstance(example, dict) else f"an example of {RESULT}"


def _field(document: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(document, Mapping):
        raise DataError(f"{where} is {document!r:.80}, expected a JSON object")
    if name not in document:
        raise DataError(f'{where} has no field "{name}"')
    if not isinstance(document[name], kind):
        raise DataError(f'{where}: field "{name}" is {document[name]!r:.80}, expected a {kind.__name__}')
    return document[name]


def _records(examples: Sequence[Any], positions: Sequence[int]) -> tuple[str, ...]:
    """The records in their order; `DataError` unless the examples are every one of them at every position."""
    found = [
        (_field(example, "record", str, _name(example)), _field(example, "position", int, _name(example)))
        for example in examples
    ]
    records = tuple(dict.fromkeys(record for record, _ in found))
    if not found or found != [(record, position) for record in records for position in positions]:
        raise DataError(
            f'field "examples" of {RESULT} holds {len(examples)} examples of {len(records)} records: expected each '
            f"record at every one of the positions {positions}, record by record"
        )
    return records


def _score(example: Mapping[str, Any], graded: bool) -> float:
    score = _number(example, "score")
    if not 0 <= score <= 1 or not (graded or score in (0, 1)):
        raise DataError(
            f'{_name(example)}: field "score" is {score!r}, expected {"a number from 0 to 1" if graded else "0 or 1"}'
        )
    verdict = None if graded else bool(score)
    if "verdict" not in example or example["verdict"] is not verdict:
        raise DataError(f'{_name(example)}: field "verdict" is {example.get("verdict")!r:.80}, expected {verdict}')
    return score


def _tokens(example: Mapping[str, Any]) -> int:
    tokens = _number(example, "tokens")
    if tokens != int(tokens):
        raise DataError(f'{_name(example)}: field "tokens" is {tokens!r}, expected a whole number')
    return int(tokens)


def _floats(examples: Sequence[Mapping[str, Any]], name: str) -> Any:
    return np.array([_number(example, name, finite=False) for example in examples], dtype=np.float64)


def _number(example: Mapping[str, Any], name: str, *, finite: bool = True) -> float:
    """The number in a field. finite: null is no number, else it is NaN and the words of infinity are read too."""
    value = example.get(name, "missing")
    if isinstance(value, int | float) and not isinstance(value, bool) and (not finite or math.isfinite(value)):
        return value
    if not finite and (value is None or value in INFINITIES):
        return math.nan if value is None else float(value)
    raise DataError(f'{_name(example)}: field "{name}" is {value!r:.80}, expected a number')


def _texts(examples: Sequence[Mapping[str, Any]], positions: int) -> tuple[tuple[str, ...], ...] | None:
    if not any("text" in example for example in examples):
        return None
    texts = [_field(example, "text", str, _name(example)) for example in examples]
    return tuple(tuple(texts[first : first + positions]) for first in range(0, len(texts), positions))
