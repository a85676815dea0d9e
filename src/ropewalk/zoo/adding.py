"""Make an entry of the zoo from a run, or from factors and a test of them: three files, checked before they count."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.cache import fresh_folder
from ropewalk.errors import DataError, FactorsError
from ropewalk.factors import ScalingFactors
from ropewalk.zoo import CARD, FACTORS, TEST, UNVERIFIED, factors_file
from ropewalk.zoo.card import card
from ropewalk.zoo.check import problems, wrong
from ropewalk.zoo.entry import LICENCE, NAME, TESTED, Entry, result_of

RESULT = "result.json"  # of a run


def add_entry(
    name: str, source: Path, out: Path, *, by: str, hub_id: str, weights: str | None = None, test: Path | None = None
) -> Entry:
    """Write `out`/`name` from a run's folder or a factors.json; nothing is written unless every check holds.

    by: who found them. hub_id: the model, for those who look for it. test: figures of a test of these factors (a run's
    result.json, or what `ropewalk eval --json` wrote); None: the result.json beside the factors. weights: what was
    searched and tested on, where it is not the hub's, such as "4-bit GGUF, as bfloat16". An entry that is there is not
    overwritten. Raises `RopewalkError`.
    """
    file = factors_file(source)
    figures = test or file.parent / RESULT
    if not figures.is_file():
        raise DataError(f"{figures}: no such file; factors come with a test: give a run, or --test EVAL_JSON")
    document = _without_places(files.read_json(figures))
    factors = ScalingFactors.load(file)
    about = {"name": name, "status": TESTED, "hub_id": hub_id, "licence": LICENCE, "by": by, "date": _today()}
    about |= {"weights": weights} if weights else {}
    return _write(out, Entry(name, _with(factors, about, result_of(document)), result_of(document)), document)


def add_published(
    name: str, factors: ScalingFactors, out: Path, *, by: str, hub_id: str, source: str, published: str
) -> Entry:
    """Write an unverified entry: factors that were published without figures that could be checked here.

    source: where. published: what was read there, in words.
    """
    about = {"name": name, "status": UNVERIFIED, "hub_id": hub_id, "licence": LICENCE, "by": by, "date": _today()}
    about |= {"source": source, "published": published}
    return _write(out, Entry(name, _with(factors, about, None), None), None)


def _with(factors: ScalingFactors, about: Mapping[str, str], result: Mapping[str, Any] | None) -> ScalingFactors:
    """The same values, and in what was found of them the entry and the test."""
    from ropewalk.export.parts import evidence

    found = factors.found | {"entry": dict(about)}
    if result is not None:
        found |= {"test": evidence.tests_of(result)}
    return factors.with_provenance(model=factors.model, base=factors.base, found=found)


def _write(out: Path, entry: Entry, document: Any) -> Entry:
    if not NAME.fullmatch(entry.name):
        raise FactorsError(f"name {entry.name!r}: expected MODEL/NAME in small letters, such as smollm2-135m/kv")
    target = out / entry.name
    if found := wrong(entry):
        raise FactorsError(f"{target}: no entry was made: {'; '.join(found)}")
    with fresh_folder(target) as folder:
        entry.factors.save(folder / FACTORS)
        if document is not None:
            files.write_json(folder / TEST, document)
        files.write_text(folder / CARD, card(entry))
        if found := problems(folder, entry.name):
            raise FactorsError(f"{target}: no entry was made: {'; '.join(found)}")
    return entry


def _without_places(document: Any) -> Any:
    """The figures without folders of the machine that made them: each is cut to its last name."""
    if isinstance(document, dict):
        return {
            key: _cut(value) if key == "command" and isinstance(value, str) else _without_places(value)
            for key, value in document.items()
        }
    return [_without_places(value) for value in document] if isinstance(document, list) else document


def _cut(command: str) -> str:
    words = shlex.split(command)
    return shlex.join([Path(word).name if Path(word).is_absolute() else word for word in words])


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
