"""Found factors by name: a small zoo that comes with the package, one folder MODEL/NAME an entry.

An entry holds `factors.json`, whose `found.entry` says who found it, when, and under which licence; `test.json`, the
figures of its test on held-out records; and `README.md`, its card, written from the two. Published curves that nobody
tested here have no `test.json` and are called unverified. `ropewalk.zoo.adding` makes an entry, `ropewalk.zoo.check`
says what is wrong with one.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from ropewalk.errors import DataError, FactorsError
from ropewalk.factors import ScalingFactors

ENTRIES = Path(__file__).parent / "entries"
FACTORS, TEST, CARD = "factors.json", "test.json", "README.md"
SEARCH = "search"  # the folder in which `ropewalk mend` keeps its run
UNVERIFIED = "unverified"


def load_factors(name_or_path: str | os.PathLike[str], *, say: Callable[[str], None] | None = None) -> ScalingFactors:
    """Factors by their name in the zoo, such as "smollm2-135m-instruct/kv", or from a file or a run's folder.

    What exists as a path is read, whatever the zoo has. say: gets a sentence if they are published and unverified;
    without it that is a warning. Raises `FactorsError` for an unknown name, with the nearest ones.
    """
    factors = ScalingFactors.load(factors_file(name_or_path))
    if remark := unverified_remark(factors):
        if say is None:
            warnings.warn(remark, stacklevel=2)
        else:
            say(remark)
    return factors


def factors_file(name_or_path: str | os.PathLike[str]) -> Path:
    """The factors.json that is meant: a file, that of a run's or an entry's folder, or an entry of the zoo."""
    given = Path(name_or_path).expanduser()
    if given.is_dir():
        found = [path for path in (given / FACTORS, given / SEARCH / FACTORS) if path.is_file()]
        if not found:
            raise DataError(
                f"{given}: holds no {FACTORS}; name the file, or the directory of a run that has found some"
            )
        return found[0]
    name = given.as_posix().lower()
    if given.exists() or given.suffix == ".json":
        return given  # one that is missing is told of where it is read
    if name not in entry_names():
        raise FactorsError(f"{name_or_path}: no such file, and no factors of the zoo. {_nearest(name)}")
    return ENTRIES / name / FACTORS


def entry_names(entries: Path = ENTRIES) -> list[str]:
    """Names of all entries, MODEL/NAME, in alphabetical order."""
    return sorted(path.parent.relative_to(entries).as_posix() for path in entries.glob(f"*/*/{FACTORS}"))


def unverified_remark(factors: ScalingFactors) -> str | None:
    """What has to be said of published factors that nobody tested here; None for others."""
    entry = factors.found.get("entry")
    if not isinstance(entry, dict) or entry.get("status") != UNVERIFIED:
        return None
    return (
        f"{entry.get('name')}: unverified, as published ({entry.get('source')}) for {entry.get('hub_id')}. No test of "
        "them was made here, and nothing says that another model takes them: test them on yours (ropewalk eval)"
    )


def _nearest(name: str) -> str:
    names = entry_names()
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"Nearest: {', '.join(near)}" if near else f"It has: {', '.join(names)}"
