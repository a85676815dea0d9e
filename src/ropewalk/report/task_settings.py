"""A task's options again, from the settings that a run recorded: for the command line, and to make its prompts anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ropewalk.tasks.base import TaskOptions

Settings = Mapping[str, Any]
UNUSED = {"single": ("distractors", "values"), "multi-key": ("values",), "multi-value": ("distractors",)}  # of needle


def has_file(settings: Settings) -> bool:
    """Whether the records come from a file, of which only the digest was recorded."""
    return settings.get("data") is not None


def digests(settings: Settings) -> str:
    """SHA-256 of the file, or of each of several."""
    data = settings["data"]
    return ", ".join(str(entry["sha256"]) for entry in (data if isinstance(data, list) else [data]))


def options(settings: Settings) -> TaskOptions:
    """The options of a task whose records are generated."""
    return TaskOptions(
        positions=tuple(settings["positions"]),
        keys=settings.get("keys"),
        limit=settings["limit"],
        seed=settings.get("seed") or 0,
        options=_own(settings),
    )


def flags(settings: Settings) -> list[str]:
    """As words of a command line; a file is called FILE."""
    positions = ",".join(map(str, settings["positions"]))
    words = ["--task", str(settings["task"])]
    if settings.get("keys") is not None:
        words += ["--keys", str(settings["keys"])]
    words += ["--positions", positions if "," in positions else f"{positions},"]
    words += ["--limit", str(settings["limit"])]
    if settings.get("seed"):
        words += ["--seed", str(settings["seed"])]
    if has_file(settings):
        words += ["--data", "FILE"]
    for name, value in _own(settings).items():
        words += ["--option", f"{name}={value}"]
    prompt = settings.get("prompt", {})
    if prompt.get("format") == "plain":
        words.append("--no-chat-template")
    if prompt.get("chat_template_kwargs"):
        words += ["--chat-template-kwargs", json.dumps(prompt["chat_template_kwargs"])]
    if prompt.get("chat_template_sha256"):  # of which only the digest was recorded
        words += ["--chat-template-file", "TEMPLATE"]
    return words


def _own(settings: Settings) -> dict[str, str]:
    """The task's own options as texts: without those left open, the digests of files, and what a variant can't use."""
    given = {**{name: settings.get(name) for name in ("variant", "documents")}, **settings.get("options", {})}
    unused = UNUSED.get(str(given["variant"]), ()) if settings["task"] == "needle" else ()
    return {
        name: _text(value)
        for name, value in given.items()
        if value is not None and not isinstance(value, dict) and name not in unused
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
