"""Tasks, one file each. To add one, add a module with a class named `TASK`: it is found by its module name."""

from __future__ import annotations

from ropewalk.registry import Registry
from ropewalk.tasks.base import Task, TaskOptions

TASKS = Registry(__name__, "task", "TASK", frozenset({"base"}), hyphens=False)


def task_names() -> list[str]:
    """Names of all tasks, in alphabetical order."""
    return TASKS.names()


def make_task(name: str, options: TaskOptions) -> Task:
    """The task of that name with these options, or a `RopewalkError` that lists the names there are."""
    task: Task = TASKS.find(name)(options)
    return task
