"""`--task` of a search: names, keys, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ropewalk.cli.mix import MixedTask, TaskMix
from ropewalk.cli.options import TaskChoice
from ropewalk.errors import RopewalkError


def tasks(*texts: str, **flags: Any) -> tuple[MixedTask, ...]:
    return TaskMix(task=texts, **flags).tasks()


def test_without_a_task_it_is_kv_with_what_the_flags_say() -> None:
    flags = {"keys": 8, "positions": "2", "limit": 5, "seed": 3, "option": ("variant=plain",)}
    (one,) = tasks(**flags)
    assert one == MixedTask("kv", TaskChoice(task="kv", **flags))


def test_keys_of_a_task_go_before_the_flags() -> None:
    (one,) = tasks("kv:keys=4,positions=0+3,share=2,measure=accuracy", keys=8, positions="5", limit=7)
    assert one.choice == TaskChoice(task="kv", keys=4, positions="0+3", limit=7)
    assert (one.share, one.measure) == (2.0, "accuracy")
    assert one.choice.make().positions == (0, 3)


def test_a_value_may_hold_commas() -> None:
    one, two = tasks("needle:lengths=50,60,positions=0,9", "perplexity:data=a.txt,b.txt,window=64,limit=2")
    assert (one.choice.option, one.choice.positions) == (("lengths=50,60",), "0,9")
    assert (two.choice.data, two.choice.option, two.choice.limit) == ("a.txt,b.txt", ("window=64",), 2)


def test_the_flags_that_make_sense_for_every_task_are_for_all() -> None:
    found = tasks("kv:keys=3", "kv:keys=5,limit=1", positions="2", limit=9)
    assert [one.name for one in found] == ["kv", "kv 2"]
    assert [one.choice.positions for one in found] == ["2", "2"]
    assert [one.choice.limit for one in found] == [9, 1]


def test_a_table_of_a_toml_file_keeps_its_types() -> None:
    table = {"task": "needle", "lengths": [50, 60], "positions": [4], "share": 1, "limit": 3}
    (one,) = tasks(json.dumps(table))
    assert one.choice == TaskChoice(task="needle", option=("lengths=50,60",), positions="4,", limit=3)
    (one,) = tasks(json.dumps({"task": "mdqa", "data": "a,b=c.jsonl"}))
    assert one.choice.data == "a,b=c.jsonl"


@pytest.mark.parametrize(
    ("texts", "flags", "says"),
    [
        (["kvs"], {}, "did you mean 'kv'"),
        (["kv:kyes=3"], {}, "no key 'kyes', expected one of: share, measure, keys,.*did you mean 'keys'"),
        (["kv:3"], {}, "expected NAME or NAME:key=value"),
        (["kv:keys=3,keys=4"], {}, "keys was given twice"),
        (["kv:keys=2.5"], {}, "keys is '2.5', expected a whole number"),
        (["kv:share=much"], {}, "share is 'much', expected a number"),
        (["kv:measure=speed"], {}, "measure 'speed', expected one of: likelihood, accuracy"),
        (["kv", "needle"], {"keys": 3}, "--keys is for a single task"),
        (["kv", "needle"], {"data": "x"}, "--data is for a single task"),
        (["kv", "needle"], {"option": ("a=b",)}, "--option is for a single task"),
        (['{"keys": 3}'], {}, "without its name"),
        (['{"task": "kv", "limit": 8.5}'], {}, "limit is 8.5, expected a whole number"),
        (['{"task": "kv", "limit": true}'], {}, "limit is True, expected a whole number"),
    ],
)
def test_mistakes(texts: list[str], flags: dict[str, Any], says: str) -> None:
    with pytest.raises(RopewalkError, match=says):
        tasks(*texts, **flags)
