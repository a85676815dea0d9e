"""Search, validation and test: disjoint by record, whatever the seed.

Generated records belong to a split by construction (the split's name goes into their seed). Records of a file are
assigned by a hash of their content, so the same record is in the same split in every run and every file.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

from ropewalk.errors import DataError

Split = Literal["search", "validation", "test", "all"]
_SHARES: tuple[tuple[Split, float], ...] = (
    ("search", 0.4),
    ("validation", 0.6),
    ("test", 1.0),
)  # cumulative: 40 %, 20 %, 40 %


def check_split(split: str) -> Split:
    """Return `split` if there is such a one, else raise `DataError`."""
    for name in get_args(Split):
        if split == name:
            return name  # type: ignore[no-any-return]
    raise DataError(f"no split {split!r}, expected one of: {', '.join(get_args(Split))}")


def split_of(content: str) -> Split:
    """The split a record of a file belongs to; `content` is what makes two records the same question."""
    digest = hashlib.sha256(content.encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    return next(name for name, upper in _SHARES if fraction < upper)


def in_split(content: str, split: Split) -> bool:
    """Whether a record of a file belongs to `split`; every record belongs to "all"."""
    return split in ("all", split_of(content))


def region_of(split: Split) -> tuple[float, float]:
    """The fractions of one long text that belong to `split`, from 0 to 1; those of different splits never overlap."""
    if split == "all":
        return 0.0, 1.0
    names = [name for name, _ in _SHARES]
    bounds = [0.0, *(upper for _, upper in _SHARES)]
    place = names.index(split)
    return bounds[place], bounds[place + 1]
