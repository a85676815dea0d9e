"""What a studio works on: the model and the task that were named, or those of a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.cli.options import ModelOptions, TaskChoice
from ropewalk.errors import RopewalkError, StudyError
from ropewalk.splits import Split
from ropewalk.tasks.base import Task

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator
    from ropewalk.report.runs import Run
    from ropewalk.studio.bench import Bench
    from ropewalk.studio.candidates import Candidates

COMMAND = (sys.executable, "-c", "from ropewalk.cli import main; main()")
CPU_TOKENS = 2048  # of a batch: a second or so of a small model
# The model's, or the method's: each with how many words it takes.
PROMPT_FLAGS = {"--no-chat-template": 1, "--chat-template-kwargs": 2, "--chat-template-file": 2, "--limit": 2}
CURVES = 50  # that a person may evaluate: compiling has to pay for itself


@dataclass(frozen=True)
class Setting:
    """name: for the session's folder. identity: of the run's model, which has to be the one that is loaded."""

    name: str
    model: ModelOptions
    task: Task
    words: tuple[str, ...]
    split: Split
    candidates: Candidates | None = None
    identity: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()

    def search_command(self) -> list[str]:
        """`ropewalk search` on the same model and task, without its run directory."""
        own = self.model
        given = {"--dtype": own.dtype, "--device": own.device, "--rope": own.rope}
        given["--chat-template-kwargs"] = own.chat_template_kwargs
        given["--chat-template-file"] = None if own.chat_template_file is None else str(own.chat_template_file)
        said = {"--no-chat-template": not own.chat_template, "--trust-remote-code": own.trust_remote_code}
        return [
            *COMMAND,
            *("search", "--model", own.model, "--overflow", own.overflow),
            *(word for name, value in given.items() if value is not None for word in (name, value)),
            *(name for name, is_so in said.items() if is_so),
            *self.words,
        ]

    def load(self) -> Bench:
        """Model and examples. Raises `RopewalkError`."""
        from ropewalk.patch import remove
        from ropewalk.studio.bench import Bench

        loaded, tokenizer = self.model.load()
        remove(loaded)  # a checkpoint's own factors are not what curves are compared with
        bench = Bench.of(self._evaluator(loaded, tokenizer), self.split)
        wanted = None if self.identity is None else self.identity.get("fingerprint")
        if wanted is not None and bench.identity["fingerprint"] != wanted and not self.model.any_model:
            raise StudyError(
                f"the run is of {self.identity and self.identity.get('name')!r}, {self.model.model} has another "
                "fingerprint; name the run's model with --model, or say --any-model"
            )
        return bench

    def _evaluator(self, model: Any, tokenizer: Any) -> Evaluator:
        """Like that of `profile`, in batches that are small on a CPU: progress and Cancel wait for the end of one."""
        from ropewalk.evaluate import Evaluator
        from ropewalk.layers import input_device

        own = self.model
        return Evaluator(
            model,
            tokenizer,
            self.task,
            self.task.examples(self.split),
            chat_template=own.chat_template,
            chat_template_kwargs=own.template_kwargs(),
            overflow=own.overflow,
            generate=own.generate,
            tokens_per_batch=CPU_TOKENS if input_device(model).type == "cpu" else None,
            candidates=CURVES,
        )


def setting_of(
    run: Path | None, model: ModelOptions | None, task: TaskChoice | None, split: Split, limit: int
) -> Setting:
    """What was asked for, checked as far as that goes without a model. Raises `RopewalkError`."""
    if run is not None:
        return _of_run(run, model, task, split, limit)
    if model is None:
        raise RopewalkError("name a run, as in: ropewalk studio runs/kv, or a model with --model")
    choice = task or TaskChoice()
    made = choice.make(choice.limit or limit)
    return Setting(_slug(Path(model.model).name), model, made, _words(choice), split)


def _of_run(run: Path, model: ModelOptions | None, task: TaskChoice | None, split: Split, limit: int) -> Setting:
    from ropewalk.report.runs import read_run
    from ropewalk.studio.candidates import Candidates

    found = read_run(run.resolve(), run.resolve().name)
    if task is None:
        made, words, remark = _task(found, limit)
    else:
        made, words, remark = task.make(task.limit or limit), _words(task), ""
    return Setting(
        _slug(found.name),
        model or _model(found, run),
        made,
        words,
        split,
        Candidates(found.directory),
        found.model,
        (remark,) if remark else (),
    )


def _model(run: Run, path: Path) -> ModelOptions:
    """The model as the run's command named it. Raises `RopewalkError` where that was not recorded."""
    from ropewalk.report.commands import model_of

    command = run.result["provenance"].get("command") if run.result else None
    if not command:
        raise RopewalkError(
            f"{path}: an unfinished run does not say where its model ({run.model.get('name', 'unknown')}) is: "
            "name it with --model"
        )
    settings = run.history.settings if run.history else {}
    words = shlex.split(command)
    after = dict(pairwise(words))
    prompt = settings["tasks"][0].get("prompt", {}) if settings else {}
    return ModelOptions(
        model=model_of(run),
        dtype=run.result["provenance"]["dtype"] if run.result else None,
        rope=after.get("--rope"),
        chat_template=prompt.get("format") != "plain",
        trust_remote_code="--trust-remote-code" in words,
        chat_template_file=Path(after["--chat-template-file"]) if "--chat-template-file" in after else None,
    )


def _task(run: Run, limit: int) -> tuple[Task, tuple[str, ...], str]:
    """The task of a run's search, with fewer records, and what there is to say of it."""
    from ropewalk.report import task_settings
    from ropewalk.tasks import make_task

    if run.history is None:
        raise RopewalkError(f"{run.directory}: has no study.db, so its task is not known: give --task")
    first, *others = run.history.settings["tasks"]
    if task_settings.has_file(first):
        raise RopewalkError(
            f"{run.directory}: its task {first['task']!r} reads a file, of which only the digest was recorded: "
            f"give {' '.join(task_settings.flags(first)[:2])} --data FILE and its other options"
        )
    options = task_settings.options(first)
    remark = f"The run searched on {1 + len(others)} tasks; curves are scored on the first, {first['task']}."
    made = make_task(first["task"], replace(options, limit=limit))
    return made, _without(task_settings.flags(first), PROMPT_FLAGS), remark if others else ""


def _words(choice: TaskChoice) -> tuple[str, ...]:
    """The task as a search's command line says it; the records of a search are the method's choice."""
    given = {"--keys": choice.keys, "--positions": choice.positions, "--data": choice.data}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    own = [word for option in choice.option for word in ("--option", option)]
    return ("--task", choice.task, *words, *own, "--seed", str(choice.seed))


def _without(words: Sequence[str], flags: Mapping[str, int]) -> tuple[str, ...]:
    """The words without some flags. flags: how many words each of them takes."""
    kept: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word in flags:
            del left[: flags[word] - 1]
        else:
            kept.append(word)
    return tuple(kept)


def _slug(name: str) -> str:
    """A name that is a folder's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".-") or "model"
