"""`ropewalk lm-eval`: any task of lm-evaluation-harness on the model with factors against vanilla."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ropewalk import files
from ropewalk.cli.given_factors import given_factors
from ropewalk.cli.options import (
    MODEL,
    RUN,
    TASK,
    Device,
    ModelName,
    ModelOptions,
    NumberType,
    Output,
    RopeScheme,
    TemplateSettings,
    described,
    flag,
    number,
)
from ropewalk.errors import PrerequisiteError, RopewalkError

if TYPE_CHECKING:
    from ropewalk.factors import ScalingFactors
    from ropewalk.harness.loading import Loaded
    from ropewalk.harness.running import Arms, Results, TaskPlan

INSTALL = "lm-eval is not installed: pip install ropewalk[lm-eval]"
ARMS = ("vanilla", "factors")


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class HarnessModel:
    """Which model, which factors, and how it is loaded."""

    model: ModelName
    factors: Annotated[
        Path | None,
        described("factors.json, or a name of the zoo. Default: those the checkpoint carries.", metavar="FILE"),
    ] = None
    max_length: Annotated[int | None, number("Tokens the model takes at once. Default: what its config says.")] = None
    batch_size: Annotated[
        str, described("Requests at once, or auto: as many as fit on a GPU, few on a CPU.", metavar="N|auto")
    ] = "auto"
    dtype: NumberType = None
    device: Device = None
    rope: RopeScheme = None
    trust_remote_code: Annotated[bool, flag("Run code that the checkpoint, a data set or a metric brings.")] = False
    any_model: Annotated[bool, flag("Apply factors that were made for another model or rope scheme.")] = False

    def options(self) -> ModelOptions:
        """The options that all verbs have in common."""
        return ModelOptions(
            self.model,
            dtype=self.dtype,
            device=self.device,
            rope=self.rope,
            trust_remote_code=self.trust_remote_code,
            any_model=self.any_model,
        )

    def batch(self) -> int | None:
        """`--batch-size` as a number; None for auto."""
        if self.batch_size == "auto":
            return None
        if not self.batch_size.isdecimal() or int(self.batch_size) < 1:
            raise RopewalkError(f"--batch-size {self.batch_size}: expected a whole number from 1, or auto")
        return int(self.batch_size)


@Parameter(name="*", group=TASK)
@dataclass(frozen=True)
class HarnessTasks:
    """Which tasks, and how they are asked."""

    tasks: Annotated[
        tuple[str, ...],
        described(
            "Tasks, with commas between them: names that lm-eval knows, YAML files, folders of them. A YAML may run "
            "Python files that lie beside it.",
            negative="",
            metavar="NAME|FILE,…",
        ),
    ]
    limit: Annotated[int | None, number("The first so many records of each task. Default: all.")] = None
    num_fewshot: Annotated[int | None, number("Examples before each question. Default: the task's own number.")] = None
    apply_chat_template: Annotated[bool, flag("Ask by the model's chat template.")] = False
    chat_template_kwargs: TemplateSettings = None
    metadata: Annotated[
        str | None,
        described("For tasks that make their data, such as RULER: '{\"max_seq_lengths\": [4096]}'.", metavar="JSON"),
    ] = None
    confirm_run_unsafe_code: Annotated[bool, flag("Allow tasks that run code which the model writes.")] = False

    def names(self) -> list[str]:
        """Each task once."""
        names = [name.strip() for given in self.tasks for name in given.split(",") if name.strip()]
        if not names:
            raise RopewalkError("--tasks names none; 'lm-eval ls tasks' lists those that lm-eval knows")
        return list(dict.fromkeys(names))

    def check(self) -> None:
        """Raise `RopewalkError` for numbers that make no sense."""
        if self.limit is not None and self.limit < 1:
            raise RopewalkError(f"--limit {self.limit}: expected a whole number from 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise RopewalkError(f"--num-fewshot {self.num_fewshot}: expected a whole number from 0")


def lm_eval(
    *,
    model: HarnessModel,
    tasks: HarnessTasks,
    dry_run: Annotated[bool, flag("Only say what would be asked, and how long it takes.", group=RUN)] = False,
    output: Output | None = None,
    samples: Annotated[
        Path | None,
        described("Write every record's answers and scores in both arms as JSON lines.", group=RUN, metavar="FILE"),
    ] = None,
) -> dict[str, Any]:
    """Check that nothing else broke: lm-evaluation-harness on the model with factors against vanilla, in one table."""
    from ropewalk.cli import console, lm_eval_tables
    from ropewalk.provenance import provenance

    tasks.check()
    batch, given = model.batch(), None if model.factors is None else given_factors(model.factors)
    template, metadata = (
        _object("--chat-template-kwargs", tasks.chat_template_kwargs),
        _object("--metadata", tasks.metadata),
    )
    if model.max_length is not None and model.max_length < 2:
        raise RopewalkError(f"--max-length {model.max_length}: expected a whole number from 2")
    _check_installed()
    loaded = _load_tasks(model, tasks, metadata)
    arms, chosen = _arms(model, tasks, loaded, given, batch, template)
    with console.working("Building the requests"):
        plans = arms.plan()
    figures: dict[str, Any] = {
        "model": model.model,
        "factors": chosen.to_dict(),
        "settings": _settings(tasks, arms),
        "tasks": {name: asdict(plan) for name, plan in plans.items()},
    }
    notes = lm_eval_tables.notes(plans, tasks.num_fewshot, arms.lm.max_length)
    if dry_run:
        return figures | _dry_run(arms, plans, notes)
    for note in notes:
        console.line(note)
    results = _score(arms, plans, chosen, model.any_model)
    figures |= _outcome(results, loaded, notes)
    figures["provenance"] = provenance(arms.model)
    if samples is not None:
        files.write_text(samples, lm_eval_tables.sample_lines(results))
    lm_eval_tables.show(model.model, figures)
    return figures


def _check_installed() -> None:
    try:
        import lm_eval.evaluator  # noqa: F401
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("lm_eval", "datasets", "evaluate"):
            raise
        raise PrerequisiteError(INSTALL) from None


def _load_tasks(model: HarnessModel, tasks: HarnessTasks, metadata: Mapping[str, Any]) -> Loaded:
    """The tasks with their data, before the model is loaded: what is wrong with them is said within seconds."""
    from ropewalk.cli import console
    from ropewalk.harness.calm import calm
    from ropewalk.harness.loading import load_tasks
    from ropewalk.harness.tasks import find_tasks

    tokenizer = model.options().load_tokenizer()
    with tempfile.TemporaryDirectory() as folder, console.working("Reading the tasks and their data"):
        # Tasks that make their data, such as RULER, load a tokenizer from a folder, and would run code found there.
        tokenizer.save_pretrained(folder)
        with calm(errors=True):
            found = find_tasks(
                tasks.names(),
                metadata={"tokenizer": folder, **metadata},
                trust_remote_code=model.trust_remote_code,
                unsafe_code=tasks.confirm_run_unsafe_code,
            )
        if found.python:
            console.line(f"The tasks run Python code of yours: {', '.join(map(str, found.python))}")
        return load_tasks(found)


def _arms(
    model: HarnessModel,
    tasks: HarnessTasks,
    loaded: Loaded,
    given: ScalingFactors | None,
    batch: int | None,
    template: Mapping[str, Any],
) -> tuple[Arms, ScalingFactors]:
    """The model, loaded once for both arms, and the factors; those are checked before anything is scored."""
    from ropewalk.engine.rope_schemes import longest_input
    from ropewalk.harness.calm import calm
    from ropewalk.harness.model import CountedLM
    from ropewalk.harness.running import Arms, Settings
    from ropewalk.patch import check_factors, factors_of

    network, tokenizer = model.options().load()
    chosen = given or factors_of(network)
    if chosen is None:
        raise RopewalkError("no factors: give --factors FILE, for this checkpoint carries none")
    check_factors(network, chosen, any_model=model.any_model)
    limit = model.max_length if model.max_length or model.rope is None else longest_input(network)
    with calm():
        lm = CountedLM(network, tokenizer, batch_size=batch, max_length=limit, chat_template_kwargs=dict(template))
    settings = Settings(tasks.limit, tasks.num_fewshot, tasks.apply_chat_template, tasks.confirm_run_unsafe_code)
    return Arms(network, lm, loaded, settings), chosen


def _dry_run(arms: Arms, plans: Mapping[str, TaskPlan], notes: list[str]) -> dict[str, Any]:
    from ropewalk.cli import console, lm_eval_tables
    from ropewalk.cli.estimate import seconds

    with console.working("Timing a request of each task"):
        estimate = 2 * arms.seconds(plans)
    console.output().print(lm_eval_tables.plan_table(plans))
    console.say(f"Both arms together: about {seconds(estimate)} on {arms.lm.device}. Nothing was scored or written.")
    for note in notes:
        console.say(note)
    return {"seconds": estimate, "notes": notes}


def _score(arms: Arms, plans: Mapping[str, TaskPlan], factors: ScalingFactors, any_model: bool) -> dict[str, Results]:
    from ropewalk.cli import console

    prompts = sum(plan.prompts for plan in plans.values())
    results = {}
    with console.StageProgress() as progress:
        for name, applied in zip(ARMS, (None, factors), strict=True):
            progress.stage(name.capitalize(), prompts)
            results[name] = arms.score(applied, any_model=any_model, on_progress=progress.advance)
    return results


def _outcome(results: Mapping[str, Results], loaded: Loaded, notes: list[str]) -> dict[str, Any]:
    from ropewalk.harness.paired import compare
    from ropewalk.harness.verdict import verdict_sentence

    rows = compare(results["vanilla"], results["factors"], loaded)
    return {"results": rows, "verdict": verdict_sentence(rows), "notes": notes}


def _settings(tasks: HarnessTasks, arms: Arms) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "lm_eval": version("lm_eval"),
        "limit": tasks.limit,
        "num_fewshot": tasks.num_fewshot,
        "apply_chat_template": tasks.apply_chat_template,
        "max_length": arms.lm.max_length,
        "batch_size": arms.lm.batch_size,
    }


def _object(option: str, text: str | None) -> dict[str, Any]:
    """A JSON object given on the command line."""
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise RopewalkError(f"{option}: not JSON ({error}): {text}") from None
    if not isinstance(content, dict):
        raise RopewalkError(f"{option}: expected a JSON object, got {text}")
    return content
