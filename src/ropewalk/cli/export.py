"""`ropewalk export`: a model with its factors in a form that others can use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from ropewalk.cli.options import MODEL, DryRun, ModelOptions, Output, RopeScheme, described, flag
from ropewalk.errors import RopewalkError

if TYPE_CHECKING:
    from ropewalk.export.base import ExportPlan, Subject
    from ropewalk.factors import ScalingFactors

EXPORT = Group("Export", sort_key=1)


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ExportModel:
    """Which model, which factors, and how it is loaded."""

    model: Annotated[str, described("Checkpoint folder, hub id, .gguf file, or 'demo'.", metavar="MODEL")]
    factors: Annotated[
        Path | None,
        described(
            "factors.json, a run directory that holds one, or a name of the zoo. Default: the checkpoint's own.",
            metavar="FILE",
        ),
    ] = None
    device: Annotated[
        str | None, described("cpu, cuda, auto (spread): where the check of every layer runs.", metavar="WHERE")
    ] = None
    rope: RopeScheme = None
    trust_remote_code: Annotated[bool, flag("Run code that the checkpoint brings.")] = False
    any_model: Annotated[bool, flag("Take factors that were made for another model or rope scheme.")] = False

    def load(self) -> Any:
        """The model in its own number type: it is copied, not computed with."""
        return ModelOptions(
            self.model,
            dtype="auto",
            device=self.device,
            rope=self.rope,
            trust_remote_code=self.trust_remote_code,
            any_model=self.any_model,
        ).load()[0]


@Parameter(name="*", group=EXPORT)
@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """In what form, and where."""

    to: Annotated[str, described("checkpoint, remote-code, factors or gguf.", metavar="TARGET")] = "checkpoint"
    out: Annotated[Path, described("Folder to write; it must not exist.", metavar="DIR")]
    grid: Annotated[
        float | None,
        described(
            "Round the factors to multiples of this: equal ones share a table in vLLM.", name="--round", metavar="STEP"
        ),
    ] = None
    base_model: Annotated[
        str | None,
        described("Hub id of the original, for the model card. Default: MODEL, if it is one.", metavar="ID"),
    ] = None


def export(
    *, model: ExportModel, options: ExportOptions, dry_run: DryRun = False, output: Output | None = None
) -> dict[str, Any]:
    """Write a model with its factors: as a checkpoint, with code for plain transformers, or the factors alone."""
    from ropewalk.cli import console
    from ropewalk.cli.given_factors import given_factors
    from ropewalk.export import export_target
    from ropewalk.export.parts.rounding import check_grid
    from ropewalk.export.parts.writer import check_free, check_place, write_export
    from ropewalk.zoo import factors_file

    target = export_target(options.to)
    target.check()
    check_grid(options.grid)
    check_free(options.out)
    file = None if model.factors is None else factors_file(model.factors)
    given = None if model.factors is None else given_factors(model.factors)
    subject = _subject(model, options, given, file)
    with console.working("Checking every layer"):
        plan = target.plan(subject, options.out)
        check_place(plan)
    with console.working(f"Writing {plan.out}" if not dry_run else "Looking at what would be written"):
        is_new = write_export(plan, dry_run=dry_run)
    _tell(plan, subject, is_new=is_new, dry_run=dry_run)
    return {
        "target": plan.target,
        "out": options.out.as_posix(),
        "written": is_new and not dry_run,
        "files": plan.names,
        "weight_bytes": plan.weight_bytes,
        "shares_disk": bool(plan.weights) and plan.shares_disk,
        "factors": list(subject.factors.values),
        "test": list(subject.test),
        "usage": plan.usage,
    }


def _subject(source: ExportModel, options: ExportOptions, given: ScalingFactors | None, file: Path | None) -> Subject:
    """Model and factors, with what is known of them. Raises `RopewalkError` if there are no factors."""
    from ropewalk.export.base import Subject
    from ropewalk.export.parts.evidence import known_test
    from ropewalk.export.parts.rounding import rounded
    from ropewalk.export.parts.source import source_folder
    from ropewalk.factors import ScalingFactors
    from ropewalk.patch import factors_of
    from ropewalk.zoo import FACTORS

    model = source.load()
    carried = factors_of(model)
    if given is None:
        if carried is None:
            raise RopewalkError("no factors: give --factors FILE, for this checkpoint carries none")
        beside = source_folder(model) / FACTORS
        kept = ScalingFactors.load(beside) if beside.is_file() else None
        given = kept if kept is not None and kept.values == carried.values else carried
    given = rounded(given, options.grid)
    base_model = options.base_model or _known_id(source.model)
    return Subject(model, given, known_test(given, file), base_model, source.any_model)


def _known_id(model: str) -> str | None:
    from ropewalk.demo import HUB_ID

    return HUB_ID if model == "demo" else None


def _tell(plan: ExportPlan, subject: Subject, *, is_new: bool, dry_run: bool) -> None:
    """What was written, or would be, and how to use it."""
    from ropewalk.cli import console
    from ropewalk.export.parts.rounding import tables

    said = "would be written" if dry_run and is_new else "written" if is_new else "is there already, left as it is"
    console.say(f"{plan.out}: {said}: {plan.target}, {len(plan.names)} file{'s' if len(plan.names) > 1 else ''}.")
    if plan.weights:
        where = "shared with the model's on the disk" if plan.shares_disk else "copied"
        console.say(f"{plan.weight_bytes / 1e9:.2f} GB of weights, {where}.")
        count, size = tables(subject.model, subject.factors)
        tables_more = f"{count} table{'s' if count != 1 else ''} more"
        console.say(f"Served by vLLM: {tables_more}, one a distinct factor; {size / 1e6:.1f} MB in bf16.")
        if not subject.test:
            console.say("The model card has no test: none is recorded with these factors.")
    if dry_run:
        for name in plan.names:
            console.say(f"  {name}")
        return
    console.say("To use it:")
    console.output().print(f"  {plan.usage}", soft_wrap=True, markup=False)
