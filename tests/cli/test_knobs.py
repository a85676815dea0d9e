"""The flags of search methods: the union of their options, none more."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ropewalk.cli.knobs import Knobs, given_knobs, method_class
from ropewalk.errors import RopewalkError
from ropewalk.search import method_names


@pytest.mark.parametrize("name", method_names())
def test_every_option_of_every_method_is_a_flag(name: str) -> None:
    own = {entry.name for entry in fields(method_class(name).OPTIONS)}
    assert own <= {entry.name for entry in fields(Knobs)}
    assert method_class(name).name == name


def test_what_is_not_given_is_left_to_the_method() -> None:
    assert given_knobs("default", None) == given_knobs("default", Knobs()) == {}
    assert given_knobs("bezier-ga", Knobs(population=4, radius=0.1)) == {"population": 4, "radius": 0.1}


def test_another_methods_option_is_refused_with_the_list() -> None:
    with pytest.raises(RopewalkError, match="method default has no option 'radius', expected one of: population"):
        given_knobs("default", Knobs(radius=0.1))


def test_an_unknown_method_is_refused_with_the_list() -> None:
    with pytest.raises(RopewalkError, match=r"no search method 'defalt', expected one of: .*did you mean 'default'"):
        method_class("defalt")
