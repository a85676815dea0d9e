"""What the tests of search methods share: landscapes with a known optimum, in float64, and whole runs on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ropewalk.factors import ScalingFactors
from ropewalk.search import make_method
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import Candidate, SearchSpace

Fitness = Callable[[ScalingFactors], float]


def method_class(name: str) -> type[SearchMethod]:
    """The class of a method's file."""
    return import_module(f"ropewalk.search.{name.replace('-', '_')}").METHOD


def space_of(name: str, num_layers: int = 10, **settings: Any) -> SearchSpace:
    """The space that a method wants unless the user says otherwise."""
    return SearchSpace(num_layers, **{**method_class(name).SPACE, **settings})


def short(name: str, generations: int = 4) -> dict[str, int]:
    """Options of a run of few generations, where the method knows the word."""
    known = {entry.name for entry in dataclasses.fields(method_class(name).OPTIONS)}
    return {"generations": generations} if "generations" in known else {}


def near(target: np.ndarray) -> Fitness:
    """Minus the mean squared distance from target factors, [layers]: 0 is the optimum."""
    wanted = np.asarray(target, dtype=np.float64)
    return lambda factors: -float(np.mean((factors.to_array() - wanted) ** 2))


def play(method: SearchMethod, fitness: Fitness, generations: int | None = None) -> list[list[tuple[Candidate, float]]]:
    """Run a method, to its end if no number of generations is given: candidates and fitness of each generation."""
    played: list[list[tuple[Candidate, float]]] = []
    while (generations is None or len(played) < generations) and (asked := method.ask()):
        scores = [fitness(method.space.factors(candidate)) for candidate in asked]
        method.tell(asked, scores)
        played.append(list(zip(asked, scores, strict=True)))
    return played


def best(method: SearchMethod, fitness: Fitness) -> float:
    """The best fitness of a whole run."""
    return max(score for generation in play(method, fitness) for _, score in generation)


def best_of_random(space: SearchSpace, seed: int, candidates: int, fitness: Fitness) -> float:
    """The best of so many random curves."""
    return best(make_method("random", space, seed, population=candidates, generations=1), fitness)
