"""The contract of every search method: `ask` for candidates, `tell` their fitness, generation by generation.

    method = make_method("bezier-ga", space, seed=0)
    while candidates := method.ask():
        method.tell(candidates, [fitness(space.factors(candidate)) for candidate in candidates])

A method knows no model. All its randomness comes from (seed, generation, index), and its state is what it was told,
in order: replaying the records of a study rebuilds it exactly, whatever the timing was. A new method subclasses
`SearchMethod` and says in `born` who the members of a generation are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import Measure
from ropewalk.options import parse_options
from ropewalk.search.space import Candidate, SearchSpace

Told = tuple[Candidate, float]  # a candidate and its fitness, NaN if it failed


@dataclass(frozen=True)
class Detail:
    """What a candidate's fitness is made of: fitness = gain less what it costs that losses exceed their limits.

    losses, limits: one a constraint, as measured on the candidate's own records. Without noise a candidate that changes
    nothing loses 0.
    """

    gain: float
    losses: tuple[float, ...] = ()
    limits: tuple[float, ...] = ()


class SearchMethod(ABC):
    """Opens a generation, waits until every member is told, opens the next one.

    A module in `ropewalk.search` names its class `METHOD`; the registry finds it by file name. OPTIONS: a frozen
    dataclass of the method's own options, each field made by `ropewalk.options.option`. SPACE: what it wants to be
    different from `SearchSpace`'s defaults. RACING: whether it is made to stop hopeless candidates early. MEASURE: what
    its fitness is taken over unless the user says otherwise.
    """

    name: ClassVar[str]
    OPTIONS: ClassVar[type]
    SPACE: ClassVar[Mapping[str, Any]] = {}
    RACING: ClassVar[bool] = False
    MEASURE: ClassVar[Measure] = "likelihood"

    def __init__(self, space: SearchSpace, seed: int = 0, **options: Any) -> None:
        self.space, self.seed = space, seed
        self.options: Any = parse_options(self.OPTIONS, f"method {self.name}", options)
        self.check()
        self.told: list[Told] = []  # of complete generations, in the order of birth
        self.details: list[Detail | None] = []  # of the same; None where none was told
        self.generation = 0  # the open one
        self.started_from: Candidate | None = None
        self._parents: dict[Candidate, tuple[Candidate, ...]] = {}
        self._asked = 0
        self._scores: dict[int, float] = {}
        self._details: dict[int, Detail | None] = {}
        self._members = self.born()

    @abstractmethod
    def born(self) -> list[Candidate]:
        """The members of the open generation, all of different factors; none after the last one."""

    @property
    @abstractmethod
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the identity among them: what progress and estimates count with."""

    def check(self) -> None:  # noqa: B027 - a method without conditions has nothing to check
        """Raise `RopewalkError` for options that can't be meant."""

    def start_from(self, factors: ScalingFactors) -> None:
        """Have the first generation score these factors too, in the place of its last member; before the first `ask`.

        Raises `RopewalkError` for a method that can't, for factors of other layers and for those beyond the bounds.
        """
        there = tuple(layer for layer in range(self.space.num_layers) if layer in self.space.given_layers)
        if factors.num_layers != self.space.num_layers or factors.rotary_layers != there:
            raise RopewalkError(
                f"to start from are factors in layers {list(factors.rotary_layers)} of {factors.num_layers}, the "
                f"search has them in layers {list(there)} of {self.space.num_layers}"
            )
        for layer, value in enumerate(factors):
            if value is not None and not self.space.low <= value <= self.space.high:
                raise RopewalkError(
                    f"to start from, layer {layer} has the factor {value:g}, beyond the bounds of the search, "
                    f"{self.space.low:g} to {self.space.high:g}: give others with --low and --high"
                )
        self.started_from = self.candidate_of(factors)
        own = self.space.factors(self.started_from).values
        if own not in [self.space.factors(member).values for member in self._members]:
            self._members = [*self._members[:-1], self.started_from]

    def candidate_of(self, factors: ScalingFactors) -> Candidate:
        """The candidate of factors to start from. Raises `RopewalkError` where the method has none."""
        raise RopewalkError(f"method {self.name} can't start from factors; default, bezier-ga and layerwise-ga can")

    def learn(self, told: Sequence[Told]) -> None:  # noqa: B027 - a method may find all it needs in `self.told`
        """Take in a complete generation, in the order of birth; `self.told` holds it already."""

    def records(self, slot: int, available: int) -> list[int]:
        """Which search records of a task a member of the open generation is scored on, of `available` in a fixed order.

        Neighbours that share theirs are scored together.
        """
        return list(range(available))

    def sizes(self, available: Sequence[int]) -> list[tuple[int, tuple[tuple[int, ...], ...]]]:
        """What a whole run scores: how many candidates on which records of each task, of `available` each.

        The identity is not counted: it is scored before all others.
        """
        return [(self.candidates_in_all - 1, tuple(tuple(range(count)) for count in available))]

    def rival(self) -> Candidate | None:
        """Whom members of the open generation must not be clearly worse than, where racing is on; None: nobody."""
        return None

    def finalists(self) -> list[Candidate]:
        """What the method holds for the best so far, the best first, no failed one: validation chooses among them."""
        return [candidate for candidate, score in ranked(self.told) if not math.isnan(score)]

    def estimate(self, candidate: Candidate) -> float:
        """What the method holds a finalist's fitness to be; NaN for one that it knows nothing of."""
        return next((score for known, score in self.told if known == candidate), math.nan)

    def parents(self, candidate: Candidate) -> tuple[Candidate, ...]:
        """Whom a candidate that was asked was made of; empty if of nobody."""
        return self._parents.get(candidate, ())

    def ask(self, n: int | None = None) -> list[Candidate]:
        """Up to n further candidates of the open generation (None: all that are left), each asked once.

        Empty while the generation waits to be told, and for ever after the last one or once the space is used up.
        Generations have fixed members: how many are asked for at a time changes nothing.
        """
        if n is not None and n < 0:
            raise ValueError(f"{n} candidates are asked for, expected at least 0")
        stop = len(self._members) if n is None else min(len(self._members), self._asked + n)
        candidates = self._members[self._asked : stop]
        self._asked = stop
        return candidates

    def tell(
        self, candidates: Sequence[Candidate], scores: Sequence[float], details: Sequence[Detail | None] | None = None
    ) -> None:
        """Fitness of asked candidates, in any order: higher is better, NaN for a failed one. Told once each.

        details: for methods that can make something of what a fitness is made of. The next generation opens when every
        member of this one is told. Raises `ValueError`, and takes none of them, if one was not asked for in this
        generation or is told twice.
        """
        open_slots = {self._members[slot]: slot for slot in range(self._asked) if slot not in self._scores}
        found: dict[int, float] = {}
        more: dict[int, Detail | None] = {}
        given = [None] * len(candidates) if details is None else details
        for candidate, score, detail in zip(candidates, scores, given, strict=True):
            slot = open_slots.pop(candidate, None)
            if slot is None:
                raise ValueError(f"{candidate} is told but was not asked for in this generation, or is told twice")
            found[slot], more[slot] = float(score), detail
        self._scores |= found
        self._details |= more
        if self._members and len(self._scores) == len(self._members):
            self._close()

    def _close(self) -> None:
        """Learn from the open generation, every member of which is told, and open the next one."""
        slots = range(len(self._members))
        told = [(self._members[slot], self._scores[slot]) for slot in slots]
        self.told += told
        self.details += [self._details[slot] for slot in slots]
        self.learn(told)
        self.generation += 1
        self._asked, self._scores, self._details = 0, {}, {}
        self._members = self.born()

    def settings(self) -> dict[str, Any]:
        """All that determines the proposals, as JSON."""
        start = {} if self.started_from is None else {"start": self.started_from.to_json()}
        own = asdict(self.options)
        return {"method": self.name, "seed": self.seed, "space": self.space.settings(), **own, **start}

    def rng(self, index: int) -> np.random.Generator:
        """The random numbers of member `index` of the open generation."""
        return np.random.default_rng([self.seed, self.generation, index])


def ranked(told: Sequence[Told]) -> list[Told]:
    """The fittest first; failed ones (NaN) last, ties in the order of birth."""
    return sorted(told, key=lambda pair: (math.isnan(pair[1]), -pair[1]))


def at_least(lowest: int, **values: int) -> None:
    """Raise `RopewalkError` for the first value below `lowest`, by its name."""
    for name, value in values.items():
        if value < lowest:
            raise RopewalkError(f"{name.replace('_', ' ')} is {value}, expected at least {lowest}")
