"""The contract of every search method: `ask` for candidates, `tell` their fitness.

A method knows no model. All its randomness comes from (seed, generation, index), and its state is what it was told,
in order: replaying the records of a study rebuilds it exactly, whatever the timing was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from ropewalk.search.space import Candidate, SearchSpace


class SearchMethod(Protocol):
    """A module in `ropewalk.search` names its class `METHOD`; the registry finds it by file name."""

    name: ClassVar[str]

    def __init__(self, space: SearchSpace, seed: int, **options: Any) -> None: ...

    def ask(self, n: int | None = None) -> list[Candidate]:
        """Up to n further candidates of the current generation (None: all that are left), none of them asked before.

        Empty while the generation waits to be told, and for ever after the last one or once the space is used up.
        Generations have fixed members: how many are asked for at a time changes nothing.
        """
        ...

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Fitness of asked candidates, in any order: higher is better, NaN for a failed one. Told once each.

        Raises `ValueError`, and takes none of them, if one was not asked for in this generation or is told twice.
        """
        ...

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the identity among them: what progress and estimates count with."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that determines the proposals, as JSON."""
        ...
