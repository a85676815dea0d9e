"""Small data files for every task, so that one suite can test them all. A new task gets its entry here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ropewalk.haystack import generated_sentences
from ropewalk.tasks.base import TaskOptions

RECORDS = 24  # enough that no split of a file is empty


def task_options(name: str, folder: Path, **more: Any) -> TaskOptions:
    """Options of a small variant of the task `name`; its data file, if it needs one, is written into `folder`."""
    options = SMALL[name](folder) | more
    return TaskOptions(**options)


def _choice(folder: Path) -> dict[str, Any]:
    (folder / "text.txt").write_text("".join(generated_sentences("choice", 400)))
    return {"data": folder / "text.txt", "limit": 4, "options": {"passage": 12, "continuation": 6}}


def _kv(folder: Path) -> dict[str, Any]:
    return {"keys": 6, "positions": 3, "limit": 4}


def _needle(folder: Path) -> dict[str, Any]:
    return {"positions": 3, "limit": 4, "options": {"lengths": "120,200", "variant": "multi-key", "distractors": 2}}


def _perplexity(folder: Path) -> dict[str, Any]:
    for name in ("one", "two"):
        (folder / f"{name}.txt").write_text("".join(generated_sentences(name, 900)))
    return {"positions": 4, "limit": 3, "data": folder, "options": {"window": 64}}


def _summarize(folder: Path) -> dict[str, Any]:
    lines = [{"text": f"Story {index} is a long one.", "summary": f"Story {index}."} for index in range(RECORDS)]
    return {"data": _lines(folder / "stories.jsonl", lines)}


def _jsonl(folder: Path) -> dict[str, Any]:
    lines = [
        {"id": index, "pieces": [f"fact {index}.{place}" for place in range(5)], "position": 2, "answer": f"{index}.2"}
        for index in range(RECORDS)
    ]
    return {"positions": 3, "data": _lines(folder / "prompts.jsonl", lines), "limit": 3}


def _mdqa(folder: Path) -> dict[str, Any]:
    """The fields of the official files (arXiv 2307.03172)."""
    lines = [
        {
            "question": f"where is number {index}",
            "answers": [f"place {index}", f"spot {index}"],
            "ctxs": [
                {"id": None, "title": f"Title {place}", "text": f"It is at place {index}." if place == 0 else "No.",
                 "hasanswer": place == 0, "isgold": place == 0}
                for place in range(5)
            ],
            "nq_annotated_gold": {"title": "Title 0"},
        }
        for index in range(RECORDS)
    ]  # fmt: skip
    return {"positions": 3, "data": _lines(folder / "questions.jsonl", lines), "limit": 3}


def _lines(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


SMALL: dict[str, Callable[[Path], dict[str, Any]]] = {
    "choice": _choice,
    "jsonl": _jsonl,
    "kv": _kv,
    "mdqa": _mdqa,
    "needle": _needle,
    "perplexity": _perplexity,
    "summarize": _summarize,
}
