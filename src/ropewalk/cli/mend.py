"""`ropewalk mend`: doctor, profile, search, test, and a checkpoint that carries the factors, in one command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Parameter

from ropewalk import files
from ropewalk.cli.mix import TaskMix
from ropewalk.cli.options import (
    MODEL,
    SEARCH,
    ConfigFile,
    DryRun,
    ModelOptions,
    OutDir,
    Output,
    described,
    flag,
    number,
)
from ropewalk.cli.search_options import ControlBudget, Minutes, SearchOptions, TestLimit, ValidationLimit
from ropewalk.cli.worker_options import WorkerOptions
from ropewalk.errors import StudyError
from ropewalk.locks import held

if TYPE_CHECKING:
    from ropewalk.cli.mend_profile import Profiler
    from ropewalk.cli.work import Asked
    from ropewalk.export.base import ExportPlan, Subject
    from ropewalk.factors import ScalingFactors

BUDGET = 20_000  # the size at which the search methods were compared with each other
# Nats a token. Over the 33 tokens of a UUID it is a third of a nat: few answers are that near to the edge. Likelihoods
# of vanilla spread by 0.06 over prompts, and a position's mean difference over 24 validation records has a standard
# error of 0.001 to 0.009 (SmolLM2, 10 keys, factors of two strengths). So a smaller limit could hardly be told from 0,
# and 0 would forbid factors that give up a trifle at one end for the middle.
MAX_POSITION_LOSS = 0.01
SEARCH_DIR, MODEL_DIR, PROFILE, SUMMARY = "search", "model", "profile.json", "SUMMARY.md"  # in the directory

if TYPE_CHECKING:
    Mended = ModelOptions
else:  # the same options, of which only the model may stand without its name
    _hints = get_type_hints(ModelOptions, include_extras=True)
    _fields = [
        (entry.name, _hints[entry.name], field(default=entry.default, kw_only=entry.name != "model"))
        for entry in fields(ModelOptions)
    ]
    Mended = Parameter(name="*", group=MODEL)(
        make_dataclass("Mended", _fields, bases=(ModelOptions,), frozen=True, namespace={"__module__": __name__})
    )


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True)
class MendOptions:
    """How long, how strictly, and whether at all."""

    budget: Annotated[int, number("Candidate·prompt evaluations of the search.")] = BUDGET
    time: Minutes = None
    max_position_loss: Annotated[float, described("What a position may lose, in nats a token.")] = MAX_POSITION_LOSS
    validation_limit: ValidationLimit = 24
    test_limit: TestLimit = 100
    control_budget: ControlBudget = None
    anyway: Annotated[bool, flag("Search even if the profile shows no U.")] = False

    def search(self) -> SearchOptions:
        """As options of a search by the default method."""
        names = ("budget", "time", "max_position_loss", "validation_limit", "test_limit", "control_budget")
        return SearchOptions(**{name: getattr(self, name) for name in names})


def mend(
    model: Mended,
    *,
    task: TaskMix | None = None,
    options: MendOptions | None = None,
    workers: WorkerOptions | None = None,
    out: OutDir = Path("runs/mend"),
    config: ConfigFile = None,
    dry_run: DryRun = False,
    output: Output | None = None,
) -> dict[str, Any]:
    """Profile a model, search factors that mend its middle, test them, and write a checkpoint that carries them."""
    from ropewalk.cli import console
    from ropewalk.cli.mend_profile import Profiler
    from ropewalk.patch import remove

    asked, settings, where = task or TaskMix(), options or MendOptions(), workers or WorkerOptions()
    _check(asked, settings)
    where.check(model)
    with where.loaded(model) as (loaded, tokenizer):
        remove(loaded)  # a checkpoint's own factors are not what the search starts from
        console.say(_doctor(loaded))
        plan = _checked_place(loaded, out / MODEL_DIR)
        profiler = Profiler(model, loaded, tokenizer, asked)
        if dry_run:
            return _say(profiler, settings, plan, out)
        with held(out, ".mend.lock", "mending here"):
            return _run(profiler, settings, out)


def _check(asked: TaskMix, options: MendOptions) -> None:
    """Raise `RopewalkError` for what can't be meant, and for files that can't be read, before a model is loaded."""
    from ropewalk.cli.mend_profile import names_tasks

    search, tasks = options.search(), asked.tasks()
    search.check()
    search.target(tasks)
    for one in tasks if names_tasks(asked) else ():
        one.choice.make(1)


def _doctor(model: Any) -> str:
    """That the model is supported, in a line; `UnsupportedModelError` says why it is not."""
    from ropewalk.cli import console
    from ropewalk.identity import model_identity
    from ropewalk.patch import layer_reports

    with console.working("Checking every layer"):
        reports = layer_reports(model)
    identity, rotary = model_identity(model), sum(report.kind == "rotary" for report in reports)
    return f"{identity['name']} ({identity['model_type']}): supported, {rotary} of {len(reports)} layers are rotary"


def _run(profiler: Profiler, options: MendOptions, out: Path) -> dict[str, Any]:
    """All that comes after the doctor. Returns what `--json` writes."""
    from ropewalk.cli import console
    from ropewalk.cli.workflow import search_and_test

    profile = _profile(profiler, out)
    console.say(profile["sentence"])
    if not profile["u"] and not options.anyway:
        return {"profile": profile, "verdict": None, "checkpoint": None, "result": None}
    work = _asked(profiler, options, profile["tasks"]).work(profiler.model, profiler.tokenizer)
    result = search_and_test(work, out / SEARCH_DIR)
    return _finish(profiler.model, profile, result, out)


def _profile(profiler: Profiler, out: Path) -> dict[str, Any]:
    """The profile: the one that is there if it was made with the same settings, else a new one, which is written.

    Raises `StudyError` if the directory holds the search of another model or of other tasks.
    """
    path, settings = out / PROFILE, profiler.settings()
    if path.exists():
        kept = files.read_json(path)
        if isinstance(kept, dict) and kept.get("settings") == settings:
            return kept
        if (out / SEARCH_DIR / "study.db").exists():
            raise StudyError(
                f"{out}: was made with other settings ({', '.join(_differing(kept, settings))}). Give the same ones to "
                "continue, or another --out"
            )
    profile = {"settings": settings, **profiler.run()}
    files.write_json(path, profile)
    return profile


def _differing(kept: Any, settings: Mapping[str, Any]) -> list[str]:
    """The settings that differ, each with its old and new value."""
    old, new = _flat(kept.get("settings", {}) if isinstance(kept, dict) else {}), _flat(settings)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in names]


def _flat(document: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(document, Mapping):
        return {name: document}
    return {
        key: value
        for own, content in document.items()
        for key, value in _flat(content, f"{name}.{own}".lstrip(".")).items()
    }


def _asked(profiler: Profiler, options: MendOptions, tasks: Any) -> Asked:
    """The search as `ropewalk search` would be told."""
    from ropewalk.cli.mend_profile import search_mix
    from ropewalk.cli.work import Asked

    mix = search_mix(profiler.asked, tasks)
    return Asked.of(profiler.options, options.search(), {}, mix.tasks(), mix.seed)


def _checked_place(model: Any, out: Path) -> ExportPlan:
    """The checkpoint as it would be with factors of 1. Raises `RopewalkError` if it could not be written in the end."""
    from ropewalk.export.checkpoint import TARGET
    from ropewalk.export.parts.writer import check_place
    from ropewalk.factors import ScalingFactors
    from ropewalk.patch import layer_reports

    identity = ScalingFactors([1.0 if report.kind == "rotary" else None for report in layer_reports(model)])
    plan = TARGET.plan(_subject(model, identity, None), out)
    check_place(plan)
    plan.check_space()
    return plan


def _subject(model: Any, factors: ScalingFactors, result: dict[str, Any] | None) -> Subject:
    from ropewalk.export.base import Subject
    from ropewalk.export.parts.evidence import tests_of

    return Subject(model, factors, () if result is None else tuple(tests_of(result)))


def _finish(model: Any, profile: dict[str, Any], result: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the checkpoint, if the test is not against it, and the page; say where they are."""
    from ropewalk.cli import console
    from ropewalk.cli.mend_summary import page, serving_line
    from ropewalk.export.checkpoint import TARGET
    from ropewalk.export.parts.writer import write_export
    from ropewalk.factors import ScalingFactors
    from ropewalk.verdict import CARRIES, HEADS, judge

    factors = ScalingFactors.load(out / SEARCH_DIR / "factors.json")
    verdict = judge(result, factors.is_identity)
    checkpoint = out / MODEL_DIR if verdict in CARRIES else None
    if checkpoint is not None:
        with console.working(f"Writing the checkpoint to {checkpoint}"):
            write_export(TARGET.plan(_subject(model, factors, result), checkpoint))
    files.write_text(out / SUMMARY, page(profile, result, verdict, checkpoint, out))
    console.say(f"{HEADS[verdict]}.", style="bold")
    console.say(f"On one page: {out / SUMMARY}")
    if checkpoint is not None:
        console.say("To use it:")
        console.output().print(f"  {serving_line(checkpoint)}", soft_wrap=True, markup=False)
    return {
        "profile": profile,
        "verdict": verdict,
        "checkpoint": None if checkpoint is None else checkpoint.as_posix(),
        "result": result,
    }


def _say(profiler: Profiler, options: MendOptions, plan: ExportPlan, out: Path) -> dict[str, Any]:
    """What would run: by the profile that is there, else by the size that a profile would begin with."""
    from ropewalk.cli import console
    from ropewalk.cli.dry_run import say
    from ropewalk.cli.mend_profile import RECORDS

    kept = files.read_json(out / PROFILE) if (out / PROFILE).exists() else {}
    is_same = isinstance(kept, dict) and kept.get("settings") == profiler.settings()
    tasks = kept["tasks"] if is_same else profiler.planned()
    if not is_same:
        console.say(f"First a profile on {RECORDS} records; only where it shows a U, and at the size that does:")
    where = "shared with the model's" if plan.shares_disk else "copied"
    asked = _asked(profiler, options, tasks)
    console.say(f"A checkpoint in the end: {plan.weight_bytes / 1e9:.2f} GB of weights, {where}.")
    return say(asked, asked.work(profiler.model, profiler.tokenizer), profiler.model, profiler.tokenizer)
