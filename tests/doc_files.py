"""Small files of the names that pages of the documentation use without showing them whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

from doc_blocks import ROOT
from ropewalk import ScalingFactors
from ropewalk.haystack import generated_sentences
from task_data import task_options

TASKS = (ROOT / "docs" / "tasks.md").read_text()


def section(name: str) -> str:
    """The section of a task on docs/tasks.md."""
    return dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TASKS, re.MULTILINE | re.DOTALL))[name]


def task_files(folder: Path) -> None:
    """What the commands of docs/tasks.md read."""
    for name in ("mdqa", "summarize"):
        task_options(name, folder)
    (folder / "stories.jsonl").rename(folder / "reports.jsonl")
    (line,) = re.findall(r"```json\n(.*?)\n```", section("jsonl"))
    (folder / "mine.jsonl").write_text(line)
    (template,) = re.findall(r"```text\n(.*?)```", section("jsonl"), re.DOTALL)
    (folder / "prompt.txt").write_text(template)
    (line,) = re.findall(r"```json\n(.*?)\n```", section("choice"))
    (folder / "choices.jsonl").write_text(line)
    (line,) = re.findall(r"```json\n(.*?)\n```", section("kv"))
    (folder / "records.jsonl").write_text(line)
    (folder / "books").mkdir()
    for name in ("book.txt", "books/one.txt"):
        (folder / name).write_text("".join(generated_sentences(name, 3000)))


def long_documents(folder: Path) -> None:
    """Two books, and factors, for docs/long-documents.md."""
    factors_file(folder)
    (folder / "books").mkdir()
    for name in ("one", "two"):
        (folder / "books" / f"{name}.txt").write_text("".join(generated_sentences(name, 500)))


def factors_file(folder: Path) -> None:
    """Factors for the tests' model of 4 layers."""
    ScalingFactors([0.9, 1.2, 1.1, 0.95]).save(folder / "factors.json")


def mdqa_sources(folder: Path) -> None:
    """Questions with their passages, and a corpus of distractors."""
    questions = [
        {"question": f"who built the bridge of town {n}", "answers": [f"Mason {n}"], "title": f"Town {n}",
         "text": f"The bridge was built by Mason {n}."}
        for n in range(6)
    ]  # fmt: skip
    passages = [
        {"title": f"Bridge {n}", "text": f"A bridge of a town, number {n}, crosses a river."} for n in range(30)
    ]
    for name, lines in (("mine.jsonl", questions), ("corpus.jsonl", passages)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def long_texts(folder: Path) -> None:
    """A folder of two texts."""
    (folder / "books").mkdir()
    for name in ("one", "two"):
        (folder / "books" / f"{name}.txt").write_text("".join(generated_sentences(name, 2000)))
