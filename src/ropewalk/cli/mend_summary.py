"""SUMMARY.md: on one page what `ropewalk mend` found, what it cost, how to use it and how to undo it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ropewalk.cli.estimate import seconds
from ropewalk.export.parts import evidence
from ropewalk.verdict import HEADS, LABELS, Verdict, constraint_sentence, short_text_sentences

Figures = Mapping[str, Any]


def serving_line(checkpoint: Path) -> str:
    """The line of Python that loads the mended model."""
    return f'from ropewalk import load_pretrained; model, tokenizer = load_pretrained("{checkpoint.as_posix()}")'


def page(profile: Figures, result: Figures, verdict: Verdict, checkpoint: Path | None, out: Path) -> str:
    """The page, as Markdown."""
    name = result["provenance"]["model"]["name"]
    lines = [f"# {name}: {verdict}", "", f"{HEADS[verdict]}.", "", result["sentence"], ""]
    lines += [f"Before the search: {profile['sentence']}", ""]
    for task, block in result["tasks"].items():
        lines += [*_positions(task, block, verdict), ""]
    if verdict != "vanilla":
        lines += [" ".join(short_text_sentences(result["short_texts"])), ""]
    lines += [*_remarks(result, verdict), *_use(checkpoint, name), "", *_cost(result), ""]
    lines += [
        f"All figures: `{(out / 'search' / 'result.json').as_posix()}`; "
        "beside it every score, the factors, pictures and the study.",
        "",
    ]
    return "\n".join(lines)


def _positions(task: str, block: Figures, verdict: Verdict) -> Iterator[str]:
    """The table of a task: vanilla and mended by position, with what the simple controls reach on average."""
    vanilla, tested = block["vanilla"], evidence.tested(task, block)
    yield f"## {evidence.title(tested)}"
    yield ""
    if verdict == "vanilla":
        yield "| position | vanilla |"
        yield "|---|---|"
        for row, position in enumerate(block["positions"]):
            yield f"| @{position} | {_percent(vanilla, row)} |"
        yield f"| average | {_average(vanilla)} |"
        return
    yield from evidence.table(tested, "mended")
    over = [arm for arm in LABELS if arm in block["factors_over"] and arm != "vanilla"]
    controls = [f"{LABELS[arm]} {100 * block[arm]['average']:.1f} %" for arm in over]
    if controls:
        yield ""
        yield f"One factor or a line instead, on average: {', '.join(controls)}."


def _remarks(result: Figures, verdict: Verdict) -> Iterator[str]:
    """Warnings and constraints, a list; vanilla can't miss a constraint."""
    several = len(result["tasks"]) > 1
    found = [
        f"- Warning{f' ({task})' if several else ''}: {finding['name']}: {finding['message']}."
        for task, block in result["tasks"].items()
        for finding in block["warnings"]
    ]
    checks = [] if verdict == "vanilla" else result["constraints"]
    missed = [f"- {constraint_sentence(check)}" for check in checks if not check["holds"]]
    if checks and not missed:
        limit = f"{checks[0]['limit']:g} {_unit(checks[0])}"
        missed = [f"- No position of a task is measurably more than {limit} below vanilla."]
    if found or missed:
        yield from ["## Warnings and constraints", "", *found, *missed, ""]


def _unit(check: Figures) -> str:
    return str(check["unit"]).removesuffix(" below vanilla")


def _use(checkpoint: Path | None, name: str) -> Iterator[str]:
    yield "## Use and undo"
    yield ""
    if checkpoint is None:
        yield f"There is nothing to use: keep {name} as it is."
        return
    yield "```python"
    yield serving_line(checkpoint)
    yield "```"
    yield ""
    yield (
        f"The checkpoint in `{checkpoint.as_posix()}` is {name} with one more entry in its config.json, "
        "`rope_layer_factors`; its weights are the same, to the bit. "
        f"With ropewalk installed beside it, vLLM serves it: `vllm serve {shlex.quote(checkpoint.as_posix())}`. Plain "
        "transformers, and vLLM without ropewalk, ignore that entry without a word."
    )
    yield ""
    yield (
        "To undo: load the original, or this one with `load_pretrained(…, apply_factors=False)`; in a running program "
        "`ropewalk.remove(model)` gives the original outputs back, to the bit."
    )


def _cost(result: Figures) -> Iterator[str]:
    where, versions = result["provenance"], result["provenance"]["versions"]
    spent = ", ".join(f"{stage} {count:,}" for stage, count in where["evaluations"].items())
    packages = ", ".join(f"{package} {versions[package]}" for package in ("ropewalk", "torch", "transformers"))
    yield from ["## Cost", ""]
    yield (
        f"Prompts scored: {spent}; {sum(where['tokens'].values()) / 1e6:.1f} million tokens. Scoring the candidates "
        f"took {seconds(where['search_seconds'])} on {where['device']} ({where['dtype']}). Seed {where['seed']}, "
        f"{packages}."
    )


def _percent(block: Figures, row: int) -> str:
    low, high = block["interval"][row]
    return f"{100 * block['accuracy'][row]:.0f} [{100 * low:.0f}–{100 * high:.0f}]"


def _average(block: Figures, key: str = "average") -> str:
    low, high = block[f"{key}_interval"]
    return f"{100 * block[key]:.1f} [{100 * low:.0f}–{100 * high:.0f}]"
