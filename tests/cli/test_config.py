"""`--config FILE`: what a TOML file says, what the command line overrides, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from ropewalk.cli import app
from ropewalk.errors import RopewalkError

WHOLE = """
model = "demo"
method = "bezier-ga"
population = 12
mutation_probability = 0.5
max-position-loss = 1
weights = [0.5, 1, 1.5]
racing = true
chat_template = false
chat_template_kwargs = {enable_thinking = false}
data = "records.jsonl"
option = {variant = "plain"}
out = "runs/x"
"""


def parsed(tmp_path: Path, text: str, *arguments: str) -> dict[str, Any]:
    path = tmp_path / "run.toml"
    path.write_text(text)
    words = ["search", "--config", str(path), *arguments]
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return bound.arguments


def test_every_kind_of_value(tmp_path: Path) -> None:
    given = parsed(tmp_path, WHOLE)
    assert (given["model"].model, given["model"].chat_template) == ("demo", False)
    assert given["model"].template_kwargs() == {"enable_thinking": False}
    assert (given["knobs"].population, given["knobs"].mutation_probability) == (12, 0.5)
    assert (given["options"].method, given["options"].max_position_loss) == ("bezier-ga", 1.0)
    assert (given["options"].weights, given["options"].racing) == ("0.5,1,1.5", True)
    assert (given["task"].data, given["task"].option) == ("records.jsonl", ("variant=plain",))  # `data` is a verb too
    assert given["out"] == Path("runs/x")


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    given = parsed(tmp_path, WHOLE, "--population", "8", "--no-racing", "--out", "runs/y")
    assert (given["knobs"].population, given["options"].racing, given["out"]) == (8, False, Path("runs/y"))
    assert given["knobs"].mutation_probability == 0.5


def test_tasks_are_tables(tmp_path: Path) -> None:
    text = 'model = "demo"\n[[tasks]]\ntask = "kv"\nkeys = 4\n[[tasks]]\ntask = "kv"\npositions = [3]\nshare = 2\n'
    one, two = parsed(tmp_path, text)["task"].tasks()
    assert (one.choice.keys, two.choice.positions, two.share) == (4, "3,", 2.0)
    (one,) = parsed(tmp_path, text, "--task", "needle")["task"].tasks()
    assert one.name == "needle"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("populaton = 4", r"run\.toml: no option 'populaton'; did you mean 'population'"),
        ("[search]\npopulation = 4", r"run\.toml: no option 'search'"),
        ("config = 'other.toml'", r"run\.toml: no option 'config'"),
        ("population = ", r"run\.toml: not TOML"),
        ("tasks = 3", r"run\.toml: tasks is 3, expected tables"),
        ("task = 'kv'\n[[tasks]]\ntask = 'kv'", r"run\.toml: has both task and \[\[tasks\]\]"),
        ("seed = 2020-01-01", r"run\.toml: seed: .* can't be an option's value"),
    ],
)
def test_mistakes_name_file_and_key(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RopewalkError, match=says):
        parsed(tmp_path, text)


@pytest.mark.parametrize("line", ["population = 8.5", 'seed = "many"', "low = true", 'racing = "maybe"', "mode = 3"])
def test_a_value_of_another_kind_names_file_and_key(line: str, tmp_path: Path) -> None:
    with pytest.raises(CycloptsError, match=rf"run\.toml: {line.split()[0]}"):
        parsed(tmp_path, 'model = "demo"\n' + line)


def test_a_file_that_is_not_there_or_can_not_be_read(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "no.toml", "no such file"), (tmp_path, "can't be read")):
        with pytest.raises(RopewalkError, match=says):
            app.parse_args(["search", "--config", str(path)], exit_on_error=False, print_error=False)
