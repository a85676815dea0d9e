"""The commands that go on from a run: make it again, test its factors, use them, write a checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.report import task_settings
from ropewalk.report.runs import Run

MODEL = "model"  # the checkpoint that `ropewalk mend` leaves
EXPORTED = "mended-model"


@dataclass(frozen=True)
class Command:
    """A block to copy. title: what it does. remark: what else is needed. language: shell or python."""

    title: str
    text: str
    remark: str = ""
    language: str = "shell"


def commands(run: Run) -> list[Command]:
    """All that make sense for a run; those that use factors only where some were found."""
    found = [_again(run)]
    if run.result is not None and run.factors is not None and not run.factors.is_identity:
        found += [_eval(run, run.result, task) for task in run.tasks]
        found += [_apply(run), _checkpoint(run), _serve(run)]
    return found


def model_of(run: Run) -> str:
    """How the command named the model; the model's own name where no command was recorded."""
    given = _given(run)
    named = _value(given, "--model")
    if named is not None:
        return named
    if given[1:2] == ["mend"] and given[2:3] and not given[2].startswith("-"):
        return given[2]
    if given[1:2] == ["demo"]:
        return "demo"
    return str(run.model.get("name", "MODEL"))


def _given(run: Run) -> list[str]:
    return shlex.split(run.command) if run.command else []


def _value(given: list[str], option: str) -> str | None:
    """What the command gave for an option."""
    for place, word in enumerate(given):
        if word == option and place + 1 < len(given):
            return given[place + 1]
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


def _rope(run: Run) -> list[str]:
    """`--rope` as it was given: factors belong to their base scheme."""
    rope = _value(_given(run), "--rope")
    return [] if rope is None else ["--rope", rope]


def _again(run: Run) -> Command:
    fingerprint = run.model.get("fingerprint", "unknown")
    given = _given(run)
    remark = "The same command again continues the run. " if run.result is None else ""
    if not given:
        remark = remark or "The command was not recorded. "
        return Command("Make it again", "", f"{remark}The model's fingerprint is {fingerprint}.")
    remark += f"The model's fingerprint is {fingerprint}; versions and digests of the data stand below."
    return Command("Make it again", shlex.join(given), remark)


def _eval(run: Run, result: Mapping[str, Any], task: str) -> Command:
    """`ropewalk eval` on the test records of a task."""
    settings = result["tasks"][task]["task"]
    words = ["ropewalk", "eval", "--model", model_of(run), "--factors", (run.directory / "factors.json").as_posix()]
    words += [*_rope(run), *task_settings.flags(settings), "--dtype", result["provenance"]["dtype"]]
    remark = ""
    if task_settings.has_file(settings):
        remark = f"FILE is the one whose SHA-256 is {task_settings.digests(settings)}."
    title = "Test the factors again" + (f" on {task}" if len(run.tasks) > 1 else "")
    return Command(title, shlex.join(words), remark)


def _apply(run: Run) -> Command:
    """The factors in a program."""
    mended = _mended(run)
    if mended is not None:
        text = f"from ropewalk import load_pretrained\n\nmodel, tokenizer = load_pretrained({_text(mended)})\n"
        return Command("Use the mended checkpoint", text, "Its factors are applied when it is loaded.", "python")
    names, model = _model(run)
    rope = "".join(f", rope={_text(value)}" for value in _rope(run)[1:])
    text = (
        f"from ropewalk import {', '.join(sorted(['ScalingFactors', 'apply', *names]))}\n\n"
        f"model, tokenizer = load_pretrained({model}{rope})\n"
        f"apply(model, ScalingFactors.load({_text(run.directory / 'factors.json')}))\n"
    )
    return Command("Use the factors", text, "ropewalk.remove(model) gives the original outputs back.", "python")


def _checkpoint(run: Run) -> Command:
    """A folder that carries the factors; where there is one, how to do without them."""
    mended = _mended(run)
    if mended is not None:
        loads = f"load_pretrained({_text(mended)}, apply_factors=False)"
        text = f"from ropewalk import load_pretrained\n\nmodel, tokenizer = {loads}\n"
        return Command("Undo it", text, "The checkpoint's weights are the original's, to the bit.", "python")
    words = ["ropewalk", "export", "--model", model_of(run), "--factors", (run.directory / "factors.json").as_posix()]
    words += _rope(run)
    title = "Write a checkpoint that carries the factors"
    return Command(title, shlex.join([*words, "--to", "checkpoint", "--out", EXPORTED]))


def _serve(run: Run) -> Command:
    """The checkpoint in vLLM."""
    folder = _mended(run) or Path(EXPORTED)
    remark = "Needs ropewalk where vLLM is installed: it brings the plugin. Without it the factors would be ignored."
    return Command("Serve it with vLLM", shlex.join(["vllm", "serve", folder.as_posix()]), remark)


def _mended(run: Run) -> Path | None:
    """The checkpoint that `mend` wrote beside its run."""
    folder = run.home / MODEL
    return folder if run.home != run.directory and (folder / "config.json").exists() else None


def _model(run: Run) -> tuple[list[str], str]:
    """What to import to load the model, and how to name it; the demo's is known by a name to the command line only."""
    name = model_of(run)
    return (["demo_model", "load_pretrained"], "demo_model()") if name == "demo" else (["load_pretrained"], _text(name))


def _text(value: object) -> str:
    """As a Python literal."""
    return repr(value.as_posix() if isinstance(value, Path) else value)
