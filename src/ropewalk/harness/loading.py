"""Tasks with their data, and in one line why a task's data can't be had."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

import datasets
import jinja2
import numpy as np
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

from ropewalk.errors import DataError, PrerequisiteError, RopewalkError
from ropewalk.gguf_tokenizer import first_line
from ropewalk.harness.calm import calm
from ropewalk.harness.tasks import Found

UNREACHABLE = re.compile(
    r"couldn't (reach|connect|find)|offline mode|outgoing traffic|ConnectionError|LocalEntryNotFound|name resolution|"
    r"doesn't exist on the Hub",
    re.I,
)


@dataclass(frozen=True)
class Loaded:
    """Tasks with their data.

    tasks, groups: lm-eval's own objects by name, of all single tasks and all groups. roots: the names that were asked
    for, a group's for all in it.
    """

    tasks: dict[str, Any]
    groups: dict[str, Any]
    roots: tuple[str, ...]

    def task_dict(self) -> dict[str, Any]:
        """As lm-eval's `evaluate` takes them."""
        members = {name: group.child_names for name, group in self.groups.items()}
        return {"tasks": self.tasks, "groups": self.groups, "group_map": members}


def seed_everything() -> None:
    """lm-eval's own seeds, which its `simple_evaluate` sets before it loads and runs."""
    import torch

    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)


def load_tasks(found: Found) -> Loaded:
    """Build the tasks with their data; it is fetched where it is not here yet.

    Raises `RopewalkError` with one line that names the task and says what is missing.
    """
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    roots: list[str] = []
    seed_everything()
    for spec in found.specs:
        built = _build(found, spec)
        again = sorted(tasks.keys() & built["tasks"].keys())
        if again:
            raise DataError(f"task {again[0]!r} is asked for twice, the second time by {spec}; leave one of them out")
        tasks |= built["tasks"]
        groups |= built.get("groups", {})
        inside = {name for group in built.get("groups", {}).values() for name in group.child_names}
        roots += [name for name in (*built.get("groups", {}), *built["tasks"]) if name not in inside]
    for name, task in tasks.items():
        if getattr(task, "MULTIMODAL", False):
            raise DataError(f"task {name}: asks about images or sound, and this command scores text")
    return Loaded(tasks, groups, tuple(roots))


def _build(found: Found, spec: str) -> dict[str, Any]:
    try:
        with calm(errors=True):
            return dict(found.manager.load([spec]))
    except RopewalkError:
        raise
    except Exception as error:  # the user's files and data, through four libraries: each has errors of its own
        raise explained(spec, error) from error


def explained(spec: str, error: Exception) -> RopewalkError:
    """The error as one line that says what to do."""
    text = f"{first_line(error)} {type(error).__name__}"
    if isinstance(error, FileNotFoundError) and not UNREACHABLE.search(text):
        return DataError(
            f"task {spec}: {first_line(error)}; a path in a YAML is relative to the folder where the command runs"
        )
    if isinstance(error, ConnectionError) or UNREACHABLE.search(text):
        return PrerequisiteError(
            f"task {spec}: its data is not on this machine and can't be fetched ({first_line(error)}); run the command "
            "once where there is a network and copy ~/.cache/huggingface, or write a YAML that reads a local file"
        )
    if isinstance(error, ImportError):
        return PrerequisiteError(f"task {spec}: {first_line(error)}")
    if isinstance(error, datasets.exceptions.DatasetGenerationError):
        return DataError(f"task {spec}: its data can't be read ({first_line(error.__cause__ or error)})")
    if isinstance(error, jinja2.UndefinedError):
        return DataError(f"task {spec}: {first_line(error)} in its data; the templates name fields of the records")
    if isinstance(error, jinja2.TemplateSyntaxError):
        return DataError(f"task {spec}: a template is broken ({first_line(error)})")
    if isinstance(error, StopIteration):
        return DataError(f"task {spec}: its data holds no records")
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unknown:
        return DataError(f"task {spec}: lm-eval knows no key {unknown[1]!r} in a task's YAML")
    if isinstance(error, KeyError):
        return DataError(f"task {spec}: {first_line(error)} is not in its data: a split or a field that is named so")
    return DataError(f"task {spec}: {first_line(error)} ({type(error).__name__})")
