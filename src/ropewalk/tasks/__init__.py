"""Tasks, one file each. To add one, add a module with a class named `TASK`: it is found by its module name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from ropewalk.errors import RopewalkError
from ropewalk.tasks.base import Task, TaskOptions

_NOT_TASKS = {"base"}


def task_names() -> list[str]:
    """Names of all tasks, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_TASKS)


def make_task(name: str, options: TaskOptions) -> Task:
    """The task of that name with these options, or a `RopewalkError` that lists the names there are."""
    if name not in task_names():
        near = difflib.get_close_matches(name, task_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RopewalkError(f"no task {name!r}, expected one of: {', '.join(task_names())}{hint}")
    task: Task = importlib.import_module(f"{__name__}.{name}").TASK(options)
    return task
