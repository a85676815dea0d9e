"""What a studio works on: the model and the task that were named, or those of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """name: for the session's folder. wanted: what the model has to have of a run. remarks: for the user to read."""

    name: str
    model: ModelOptions
    task: Task
    words: tuple[str, ...]
    split: Split
    candidates: Candidates | None = None
    wanted: Mapping[str, Any] = field(default_factory=dict)
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

    def loading(self, *, quiet: bool) -> Loading:
        """What the model's process has to do first."""
        return Loading(self.model, self.task, self.split, self.wanted, quiet)


@dataclass(frozen=True)
class Loading:
    """Reads model and examples when it is called. It can be sent to another process."""

    model: ModelOptions
    task: Task
    split: Split
    wanted: Mapping[str, Any]
    quiet: bool

    def __call__(self) -> tuple[Bench, Evaluator]:
        """Raises `RopewalkError`."""
        from ropewalk.cli.console import Voice, speaking

        with speaking(Voice(self.quiet)):
            return self._load()

    def _load(self) -> tuple[Bench, Evaluator]:
        from ropewalk.patch import remove
        from ropewalk.studio.bench import Bench

        loaded, tokenizer = self.model.load()
        remove(loaded)  # a checkpoint's own factors are not what curves are compared with
        evaluator = self._evaluator(loaded, tokenizer)
        bench = Bench.of(evaluator, self.split)
        have = {"fingerprint": bench.identity["fingerprint"], "rope scheme": bench.base}
        have["prompt"] = evaluator.settings["prompt"]
        for name, value in self.wanted.items() if not self.model.any_model else ():
            if json.loads(json.dumps(have[name])) != value:
                raise StudyError(
                    f"{self.model.model} has not the {name} of the run: {_cut(have[name])}, expected {_cut(value)}; "
                    "give --model with the run's own options, or say --any-model"
                )
        return bench, evaluator

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
    from ropewalk.cli.recorded import recorded
    from ropewalk.report.runs import read_run
    from ropewalk.studio.candidates import Candidates

    found = read_run(run.resolve(), run.resolve().name)
    if task is None:
        made, words, remark = _task(found, run, limit)
    else:
        made, words, remark = task.make(task.limit or limit), _words(task), ""
    return Setting(
        _slug(found.name),
        model or recorded(found, run).model,
        made,
        words,
        split,
        Candidates(found.directory),
        _wanted(found, own_task=task is None),
        (remark,) if remark else (),
    )


def _wanted(run: Run, *, own_task: bool) -> dict[str, Any]:
    """What the loaded model has to have of the run: its fingerprint, its rope scheme, and how it is asked."""
    wanted = {"fingerprint": run.model.get("fingerprint")}
    if run.history is not None:
        wanted["rope scheme"] = run.history.settings.get("base")
        wanted["prompt"] = run.history.settings["tasks"][0].get("prompt") if own_task else None
    return {name: value for name, value in wanted.items() if value is not None}


def _task(run: Run, path: Path, limit: int) -> tuple[Task, tuple[str, ...], str]:
    """The first task of a run's search, with fewer records, and what there is to say of it. Raises `RopewalkError`."""
    from ropewalk.report import task_settings
    from ropewalk.tasks import make_task

    if run.history is None:
        raise RopewalkError(f"{path}: has no study.db, so its task is not known: give --task")
    names, first = run.history.names, run.history.settings["tasks"][0]
    remark = ""
    if len(names) > 1:
        remark = (
            f"The run searched on {', '.join(names[:-1])} and {names[-1]}, and its fitness is of all of them. Curves "
            f"are scored on {names[0]} alone, and so is a search that is started here; for another task give --task "
            "and its options."
        )
    if task_settings.has_file(first):
        made, words = _of_file(run, path, first, limit)
        return made, words, remark
    made = make_task(first["task"], replace(task_settings.options(first), limit=limit))
    return made, _without(task_settings.flags(first), PROMPT_FLAGS), remark


def _of_file(run: Run, path: Path, settings: Mapping[str, Any], limit: int) -> tuple[Task, tuple[str, ...]]:
    """A task that reads a file, which the command names. Raises `RopewalkError` where that is not as it was."""
    from ropewalk.cli.recorded import recorded

    flags = f"--task {settings['task']} --data FILE and its other options"
    try:
        choice = recorded(run, path).tasks.tasks()[0].choice
        made = choice.make(limit)
    except RopewalkError as error:
        raise RopewalkError(
            f"{path}: its task {settings['task']} can't be made again ({error}): give {flags}"
        ) from None
    now = json.loads(json.dumps(made.settings()))
    changed = [name for name, value in now.items() if name != "limit" and settings.get(name) != value]
    if changed:
        raise RopewalkError(
            f"{path}: its task {settings['task']} is not what it was ({', '.join(changed)} changed since): give {flags}"
        )
    return made, _words(choice)


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


def _cut(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _slug(name: str) -> str:
    """A name that is a folder's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".-") or "model"
