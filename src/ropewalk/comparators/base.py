"""The contract of every comparator: a context manager on a model that leaves it as it was, to the bit.

    method = make_comparator("ms-poe")
    with method.on(model):
        model.generate(...)

A comparator may also change the prompt (`example`), and says what it costs. It starts from the model as trained:
scaling factors that are applied are out for the length of the block, and back afterwards.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any, ClassVar

from torch import nn

from ropewalk.errors import DataError, RopewalkError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.layers import text_config, text_decoder
from ropewalk.options import parse_options
from ropewalk.patch import unpatched
from ropewalk.tasks.base import Example

_ATTRIBUTE = "_ropewalk_comparator"


class Comparator(ABC):
    """One method with its options.

    A module in `ropewalk.comparators` names its class `COMPARATOR`; the registry finds it by file name. name: the
    module's, with hyphens. summary: a line for lists. OPTIONS: a frozen dataclass, each field made by
    `ropewalk.options.option`. MAIN: the option that a bare value sets ("uniform:1.1"). engine: whether the layer loop
    of `ropewalk.engine` gives the same as the model's own forward; else that has to be called. cached: whether
    generation with a KV cache gives what generation without one gives. causal: whether a token's prediction knows
    nothing of what comes after it; else prompt and answer may not be read in one pass, nor padded on the right.
    IDENTITY: options that change nothing, for tests and as a control.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    OPTIONS: ClassVar[type]
    MAIN: ClassVar[str | None] = None
    engine: ClassVar[bool] = False
    cached: ClassVar[bool] = True
    causal: ClassVar[bool] = True
    IDENTITY: ClassVar[dict[str, Any]] = {}

    def __init__(self, **options: Any) -> None:
        self.options: Any = parse_options(self.OPTIONS, f"comparator {self.name}", options)
        self.check()

    def check(self) -> None:  # noqa: B027 - a method without conditions has nothing to check
        """Raise `DataError` for options that can't be meant."""

    @property
    def passes(self) -> int:
        """Forward passes that a prompt costs, where the model alone costs one."""
        return 1

    @property
    def is_identity(self) -> bool:
        """Whether these options change nothing: nothing is installed then."""
        return asdict(self.options) == asdict(self.OPTIONS(**{**asdict(self.options), **self.IDENTITY}))

    def refusal(self, model: nn.Module) -> str | None:
        """Why this model can't be served, as the rest of a sentence; None if it can."""
        return None

    @abstractmethod
    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """The method in the model for the length of a `with` block. `on` has made sure that it can be served."""

    def factors(self, model: nn.Module) -> ScalingFactors | None:
        """The candidate that the engine, which takes applied factors out, is to score in the block; None: as it is."""
        return None

    def example(self, example: Example) -> Example:
        """The example as this method asks it; the same one for methods that leave the prompt alone."""
        return example

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """The method on `model` for the length of a `with` block, and the model as it was afterwards.

        A KV cache is good for one block: it holds keys as this method rotates them. Raises `UnsupportedModelError` for
        a model that can't be served, with the reason, and `RopewalkError` where another comparator is on it.
        """
        decoder = text_decoder(model)
        other = comparator_on(model)
        if other is not None:
            raise RopewalkError(f"{other.name} is on this model already; leave its block before {self.name} begins")
        reason = self.refusal(model)
        if reason is not None:
            raise UnsupportedModelError(
                f"{self.name} can't serve model type {text_config(model).model_type!r}: {reason}"
            )
        decoder.__dict__[_ATTRIBUTE] = self
        try:
            with unpatched(model):
                if self.is_identity:
                    yield
                else:
                    with self.installed(model):
                        yield
        finally:
            del decoder.__dict__[_ATTRIBUTE]

    def settings(self) -> dict[str, Any]:
        """All that determines the method, as JSON."""
        return {"comparator": self.name, **asdict(self.options)}


def comparator_on(model: nn.Module) -> Comparator | None:
    """The comparator whose block this is, or None."""
    try:
        found: Comparator | None = text_decoder(model).__dict__.get(_ATTRIBUTE)
    except UnsupportedModelError:  # without a list of layers, so without a comparator
        return None
    return found


def at_least(owner: str, lowest: float, **values: float) -> None:
    """Raise `DataError` for the first value below `lowest` or not finite, by its name."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= lowest):
            raise DataError(f"comparator {owner}: option {name!r} is {value}, expected a number from {lowest:g} on")
