"""science.py: each step is a command that there is, and results lose the folders of the machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from reproduce_scripts import reproduce_script
from ropewalk import ScalingFactors, files
from ropewalk.cli import app

science = reproduce_script("science")


def test_every_step_is_a_command() -> None:
    places = {"models": "/m", "data": "/d", "out": "/o", "every": "--factors a --factors b"}
    for step in science.STEPS.values():
        words = step.command.format(**places).split()
        app.parse_args(words, exit_on_error=False, print_error=False)
        small = science.shortened(words, step.few)
        app.parse_args(small, exit_on_error=False, print_error=False)
        for option, value in step.few.items():
            assert small.count(option) == 1
            assert small[small.index(option) + 1] == value


def test_what_is_shared_is_asked_alike() -> None:
    """Readings of attention are found again only for the same prompts."""
    for name, step in science.STEPS.items():
        if step.shares:
            other = science.STEPS[step.shares]
            assert other.command.replace(step.shares, name) == step.command


def test_factors_of_another_run_go_before_those_of_the_repository(tmp_path: Path) -> None:
    found = tmp_path / "found"
    ScalingFactors([1.1] * 24).save(found / "mix" / "factors.json")
    ScalingFactors([1.0] * 24).save(found / "kv" / "factors.json")  # a search that found nothing
    science.write_factors(tmp_path / "factors", found)
    assert sorted(path.stem for path in (tmp_path / "factors").iterdir()) == ["kv", "mix", "smol"]
    mix, kv = (ScalingFactors.load(tmp_path / "factors" / f"{name}.json") for name in ("mix", "kv"))
    assert mix.values == (1.1,) * 24
    assert [one["task"] for one in mix.found["tasks"]] == ["kv", "mdqa"]
    assert kv.found["run"] == "search-efficiency-qwen-kv75-h200.jsonl"
    assert not kv.is_identity


def test_results_lose_the_folders_of_the_machine(tmp_path: Path) -> None:
    document = {
        "model": {"name": "qwen"},
        "provenance": {"command": "ropewalk analyze layers --model /a/b/qwen --factors /c/d/kv.json --out /e/layers"},
    }
    files.write_json(tmp_path / "out" / "layers" / "analysis.json", document)
    science.collect(argparse.Namespace(out=tmp_path / "out", results=tmp_path / "results"))
    made = files.read_json(tmp_path / "results" / "analysis" / "layers-qwen-h200.json")
    name = "Qwen2.5-Coder-0.5B-Instruct"
    command = f"ropewalk analyze layers --model {name} --factors kv.json --out layers"
    assert made == {"model": {"name": name}, "provenance": {"command": command}}
