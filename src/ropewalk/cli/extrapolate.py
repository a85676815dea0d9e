"""`ropewalk extrapolate`: how far a model reads beyond its trained length, under base schemes and layer factors."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from ropewalk import files
from ropewalk.cli import console, tables
from ropewalk.cli.options import (
    MODEL,
    RUN,
    TASK,
    Device,
    ModelName,
    NumberType,
    Output,
    Seed,
    described,
    flag,
    number,
)
from ropewalk.errors import RopewalkError

if TYPE_CHECKING:
    from ropewalk.extrapolate import Extrapolation, Reading

RESULT, PICTURE = "extrapolation.json", "extrapolation"
SCHEMA = "ropewalk.extrapolation/1"


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class PlainModel:
    """Which model; its base scheme follows from the length."""

    model: ModelName
    dtype: NumberType = None
    device: Device = None
    trust_remote_code: Annotated[bool, flag("Run code that the checkpoint brings.")] = False
    trained_length: Annotated[
        int | None, number("Tokens the model was trained to, or reads well. Default: what its config says.")
    ] = None

    def load(self, rope: str | None) -> tuple[Any, Any]:
        """Model and tokenizer under another base scheme, None for its own; without a checkpoint's own factors."""
        from ropewalk.checkpoint import load_pretrained
        from ropewalk.demo import demo_model

        path = demo_model() if self.model == "demo" else self.model
        with console.working(f"Loading {self.model}" + (f" under {rope}" if rope else "")):
            return load_pretrained(
                str(path),
                dtype=self.dtype,
                device=self.device,
                trust_remote_code=self.trust_remote_code,
                apply_factors=False,
                rope=rope,
            )


def extrapolate(
    *,
    model: PlainModel,
    text: Annotated[
        str, described("Long texts: a folder of .txt and .txt.gz, or files, by commas.", group=TASK, metavar="DIR")
    ],
    lengths: Annotated[str, described("Tokens of an input, as 4k,8k; k is 1024.", group=TASK, metavar="LIST")],
    rope: Annotated[
        str, described("Schemes to try layer factors under: linear, dynamic, yarn; none.", group=RUN, metavar="LIST")
    ] = "linear,dynamic",
    tasks: Annotated[
        str, described("What is asked beside the windows: kv, needle; none.", group=TASK, metavar="LIST")
    ] = "kv,needle",
    limit: Annotated[int, number("Windows of each text, and records of kv and needle.", group=TASK)] = 8,
    budget: Annotated[int, number("Windows that each search may read; 0: no search.", group=RUN)] = 96,
    seed: Annotated[Seed, Parameter(group=RUN)] = 0,
    out: Annotated[
        Path, described("Where results go; the same command goes on there.", group=RUN, metavar="DIR")
    ] = Path("runs/extrapolate"),
    output: Output | None = None,
) -> dict[str, Any]:
    """Read ever longer inputs under nothing, linear, dynamic and yarn, and with layer factors by hand and searched."""
    from ropewalk.extrapolate import SCHEMES, TASKS, Extrapolation
    from ropewalk.extrapolate_prompts import parse_lengths, parse_names
    from ropewalk.locks import held

    for name, value, least in (("limit", limit, 1), ("budget", budget, 0), ("trained-length", model.trained_length, 1)):
        if value is not None and value < least:
            raise RopewalkError(f"--{name} is {value}, expected at least {least}")
    plan = Extrapolation(
        parse_lengths(lengths),
        text,
        parse_names("--rope", rope, SCHEMES),
        parse_names("--tasks", tasks, TASKS),
        model.trained_length,
        limit,
        budget,
        seed,
    )
    with held(out, "run.lock", "running this extrapolation"):
        return _conclude(_read(plan, model, out), out)


def _read(plan: Extrapolation, model: PlainModel, out: Path) -> dict[str, Any]:
    """The result, which is in `out` as far as it is known after every arm."""
    from ropewalk.cli.interrupt import GracefulStop
    from ropewalk.extrapolate import extrapolate as readings
    from ropewalk.extrapolate import trained_length
    from ropewalk.identity import model_identity
    from ropewalk.provenance import provenance

    facts: dict[str, Any] = {}
    result: dict[str, Any] = {}
    started = time.monotonic()

    def load(scheme: str | None) -> tuple[Any, Any]:
        loaded, tokenizer = model.load(scheme)
        if scheme is None:
            facts["model"] = model_identity(loaded)
            facts["trained"] = trained_length(loaded, plan.trained)
            facts["provenance"] = provenance(loaded)
        return loaded, tokenizer

    def on_readings(found: Sequence[Reading]) -> None:
        facts["seconds"] = round(time.monotonic() - started, 1)
        result.update(_result(plan, found, facts))
        files.write_json(out / RESULT, result)

    with GracefulStop() as stop:
        progress = console.StageProgress()
        try:
            with progress:
                readings(plan, load, out, stop.watch(console.follow(progress)), on_readings)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; what was read is kept in {out}. The same command goes on") from None
    return result


def _result(plan: Extrapolation, found: Sequence[Reading], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What was read so far, with its sentences."""
    from ropewalk.cli.invocation import command
    from ropewalk.extrapolate_figures import figures, sentences

    blocks = [figures(reading) for reading in found]
    return {
        "schema": SCHEMA,
        "model": facts["model"],
        "trained": facts["trained"],
        "searched": list(plan.searched),
        "tasks": list(plan.tasks),
        "limit": plan.limit,
        "budget": plan.budget,
        "seed": plan.seed,
        "lengths": {str(block["length"]): block for block in blocks},
        "sentences": sentences(blocks),
        "provenance": {"command": command(), **facts["provenance"], "seconds": facts["seconds"]},
    }


def _conclude(result: dict[str, Any], out: Path) -> dict[str, Any]:
    """The result on the screen, and its picture."""
    from ropewalk.report.figures import save_png, save_svg
    from ropewalk.report.lengths import lengths_figure

    blocks = list(result["lengths"].values())
    for block in blocks:
        for table in _tables(block, result["trained"]):
            console.output().print(table, "")
    for sentence in result["sentences"] or ["No length is beyond the trained one, so there was no scheme to try."]:
        console.say(sentence)
    windows = [block["arms"]["nothing"]["far"]["windows"] for block in blocks]
    count = str(windows[0]) if len(set(windows)) == 1 else f"{min(windows)} to {max(windows)}"
    chart = lengths_figure(
        blocks,
        f"{result['model']['name']} beyond {result['trained']:,} tokens",
        f"far tokens: the last quarter of a window, {count} windows; bars: 95 % intervals",
    )
    save_svg(chart, out / f"{PICTURE}.svg")
    save_png(chart, out / f"{PICTURE}.png")
    console.say(f"Figures, and a picture of them: {out}/{RESULT}, {PICTURE}.svg, {PICTURE}.png")
    return result


def _tables(block: Mapping[str, Any], trained: int) -> list[Table]:
    """The arms of one length, and what separates them."""
    found = [_levels(block, trained)]
    titles = {"over_nothing": "nothing", "over_scheme": "the scheme alone", "over_triangle": "the triangle"}
    families = {f"over {title}": block[name] for name, title in titles.items() if block[name]}
    if not families:
        return found
    table = tables.plain("log-likelihood, far tokens", "nats/token", "95 % interval", "p (Holm)")
    for title, rows in families.items():
        table.add_row(f"[italic]{title}[/italic]")
        for arm, row in rows.items():
            far = row["far"]
            if far["difference"] is None:
                table.add_row(f"  {arm}", "not finite")
                continue
            value, low, high = (f"{far[part]:+.4f}" for part in ("difference", "low", "high"))
            table.add_row(f"  {arm}", value, f"{low} to {high}", f"{far['p_holm']:.2g}")
    return [*found, table]


def _levels(block: Mapping[str, Any], trained: int) -> Table:
    where = f"factor {block['factor']:.4g}" if block["length"] > trained else "within the trained length"
    title = f"{block['length']} tokens, {where}"
    table = tables.plain(title, "perplexity, far tokens", "kv, %", "needle, %", widths=(26, 22))
    for name, arm in block["arms"].items():
        far = arm["far"]
        if far["nll"] is None:
            cells = ["not finite"]
        else:
            value, low, high = (f"{math.exp(min(far[part], 700.0)):.4g}" for part in ("nll", "low", "high"))
            cells = [f"{value} [{low}–{high}]"]
        for task in ("kv", "needle"):
            cells.append(_accuracy(arm[task]) if task in arm else "–")
        table.add_row(name, *cells)
    return table


def _accuracy(summary: Mapping[str, Any]) -> str:
    low, high = summary["average_interval"]
    return f"{100 * summary['average']:.1f} [{100 * low:.0f}–{100 * high:.0f}]"
