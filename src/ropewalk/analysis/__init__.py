"""Questions about a model and its factors, one file each.

To add one, add a module with a class named `ANALYSIS` (see `ropewalk.analysis.base`): it is found by its name.
`parts` holds what analyses have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropewalk.registry import Registry

if TYPE_CHECKING:
    from ropewalk.analysis.base import Analysis

ANALYSES = Registry(__name__, "analysis", "ANALYSIS", frozenset({"base", "parts"}))


def analysis_names() -> list[str]:
    """Names of all analyses, in alphabetical order."""
    return ANALYSES.names()


def analysis_class(name: str) -> type[Analysis]:
    """The class of the analysis of that name, or a `RopewalkError` that lists the names there are."""
    found: type[Analysis] = ANALYSES.find(name)
    return found


def make_analysis(name: str, **options: Any) -> Analysis:
    """The analysis of that name with these options. Raises `RopewalkError` for an unknown name, option or value."""
    return analysis_class(name)(**options)
