"""The tables of docs/performance.md and docs/scale.md out of JSON reports: nothing is typed in by hand.

    python benchmarks/tables.py REPORT.json...

Prints Markdown: for each report where it was measured and by which command, then its tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reporting import shown
from ropewalk import files


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows)])


def tables(report: Mapping[str, Any]) -> str:
    """Everything of one report."""
    kind = {"evaluator": _evaluator, "evaluator-cpu": _evaluator, "mfu": _mfu, "paper-search": _paper_search,
            "overhead": _overhead, "racing": _racing, "likelihood-signal": _likelihood_signal, "scaling": _scaling,
            "scaling-agreement": _agreement, "scaling-simulation": _simulation}  # fmt: skip
    return f"{_header(report).rstrip()}\n\n{kind[report['benchmark']](report)}\n"


def _header(report: Mapping[str, Any]) -> str:
    hardware, versions = report["hardware"], report["versions"]
    device = hardware.get("device") or f"{hardware['cpu']}, {hardware['threads']} threads"
    return (
        f"`{report['command']}` ({report['time'][:10]}, {device}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, seed {report['seed']}). " + _ceiling(report.get("ceiling"))
    )


def _ceiling(ceiling: Mapping[str, Any] | None) -> str:
    if ceiling is None:
        return ""
    return f"Ceiling: {ceiling['tflops']:.4g} TFLOP/s in {ceiling['dtype']} ({ceiling['shape']})."


def _evaluator(report: Mapping[str, Any]) -> str:
    parts = []
    for mode in ("gold moved", "generated"):
        if mode not in report:
            continue
        found = report[mode]
        rows = []
        for name, arm in found["arms"].items():
            verdicts = arm["verdicts"]
            rows.append({
                "arm": name, "batch": arm["batch_size"], "prompts/s": arm["prompts_per_second"],
                "ours, 1 candidate, over it": arm["ours_1_over_this"],
                "ours, several, over it": arm["ours_many_over_this"],
                "share of ceiling": arm.get("share_of_ceiling"),
                "verdicts equal to ours": f"{verdicts['equal']}/{verdicts['compared']}",
            })  # fmt: skip
        right = f"{found['right']} of {found['prompts']} right"
        parts.append(f"**{mode}**: {found['prompts']} prompts of {found['tokens_mean']:.0f} tokens, {right}.\n")
        parts.append(markdown(rows) + "\n")
        parts += _disagreements(found["arms"])
    if gain := report.get("shared_prefix_gain"):
        parts.append(f"Shared prefixes: generated records are scored {shown(gain)} times as fast as moved ones.")
    return "\n".join(parts)


def _disagreements(arms: Mapping[str, Any]) -> list[str]:
    """Every verdict that differs, with how near ours was to turning."""
    rows = [
        {"arm": name, "example": one["example"], "ours": one["ours"], "margin of ours": one["margin"],
         "its margin": one["their_margin"]}
        for name, arm in arms.items()
        for one in arm["verdicts"]["disagreements"]
    ]  # fmt: skip
    return [markdown(rows) + "\n"] if rows else []


def _mfu(report: Mapping[str, Any]) -> str:
    rows = []
    for shape, found in report["shapes"].items():
        for name, arm in found["arms"].items():
            over = next(value for key, value in arm.items() if key.endswith("over this"))
            rows.append({
                "shape": shape, "arm": name, "batch": arm["batch_size"], "MFU": arm["mfu"],
                "prompts/s": arm["prompts_per_second"], "TFLOP a prompt": arm["executed_tflop_per_prompt"],
                "ours over it": over,
            })  # fmt: skip
    kernels = [
        markdown([{"kernel": f"`{one['kernel']}`", "calls": one["calls"], "ms": one["ms"], "share": one["share"]}
                  for one in found["profile"]]) + "\n"
        for found in report["shapes"].values() if "profile" in found
    ]  # fmt: skip
    return "\n".join([markdown(rows) + "\n", *kernels])


def _overhead(report: Mapping[str, Any]) -> str:
    """By the clock; on a CPU the processor time of the factors too, which neighbours disturb less."""
    found = []
    parts = [*report["shapes"].items(), *([("smollm2, vLLM", report["vllm"])] if report.get("vllm") else [])]
    for shape, by_work in parts:
        for work, arms in by_work.items():
            if not isinstance(arms, Mapping):
                continue
            over = {name: arms.get(name, {}).get("over_vanilla") for name in ("factors", "vanilla again", "naive hook")}
            found.append({
                "shape": shape, "work": work, "tokens/s": arms["vanilla"]["tokens_per_second"]["median"], **over,
                "factors, processor time": arms["factors"].get("processor_time_over_vanilla"),
            })  # fmt: skip
    return markdown(found) + "\n"


def _paper_search(report: Mapping[str, Any]) -> str:
    whole, (low, high) = report["whole_search"], report["paper"]["hours"]
    minutes = "{minutes:.1f} ({low:.1f} to {high:.1f})".format(**whole)
    return markdown([
        {"what": "measured", "value": f"{report['measured_seconds']:.0f} s, {len(report['chunks'])} chunks"},
        {"what": "candidates·prompts a second", "value": report["candidate_prompts_per_second"]},
        {"what": "MFU", "value": report["mfu"]},
        {"what": "prompt tokens computed", "value": report["plan"]["token_share"]},
        {"what": "layers computed", "value": report["plan"]["layer_share"]},
        *_raced(report.get("racing")),
        {"what": f"{report['candidates']} candidates × {report['prompts']} prompts, minutes", "value": minutes},
        {"what": "the paper on four A100s, minutes", "value": f"{low * 60:.0f} to {high * 60:.0f}"},
    ])  # fmt: skip


def _raced(saved: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if saved is None:
        return []
    return [
        {"what": "raced searches of a real model, their calls", "value": f"{saved['searches']}, {saved['calls']}"},
        {"what": "evaluations that racing leaves", "value": saved["evaluations_left"]},
    ]


def _racing(report: Mapping[str, Any]) -> str:
    """A row a pair of searches; points: the raced winner less the other on the same test records."""
    rows = []
    for pair in report["pairs"]:
        whole, raced, gain = pair["whole"], pair["raced"], pair["raced_over_whole"]["average"]
        points = "{difference:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append({
            "search": pair["kind"], "seed": pair["seed"], "evaluations": f"{whole['evaluations']:,}",
            "with racing": f"{raced['evaluations']:,}", "left": pair["evaluations_left"],
            "stopped": f"{raced['stopped']} of {raced['candidates']}",
            "same winner": "yes" if pair["same_winner"] else "no",
            "fitness": f"{whole['fitness']:.4f}", "with racing, fitness": f"{raced['fitness']:.4f}",
            "raced winner over the other, points": points.format(
                **{name: 100 * gain[name] for name in ("difference", "low", "high")}),
        })  # fmt: skip
    setting = f"{report['model']}, kv with {report['keys']} keys, tested on {report['test_records']} records."
    return f"{setting}\n\n{markdown(rows)}\n"


def _likelihood_signal(report: Mapping[str, Any]) -> str:
    averages = [sum(row) / len(row) for row in report["accuracy"]]
    near = [value for value, is_near in zip(averages, report.get("near", []), strict=False) if is_near]
    columns = {f"all {report['candidates']}": report["correlation"]}
    span = f"accuracy {_percent_range(averages)}"
    if near:
        columns[f"the {len(near)} near 1"] = report["correlation_near"]
        span += f"; of those near 1 {_percent_range(near)}"
    rows = [{"likelihood": name, **{column: found[name] for column, found in columns.items()}}
            for name in report["correlation"]]  # fmt: skip
    setting = (
        f"{report['candidates']} candidates, {report['records']} records at {len(report['accuracy'][0])} positions"
    )
    return f"{setting}, {span}.\n\n{markdown(rows)}\n"


def _percent_range(values: Sequence[float]) -> str:
    return f"{100 * min(values):.1f} to {100 * max(values):.1f} %"


def _scaling(report: Mapping[str, Any]) -> str:
    rows = report["rows"]
    names = ("workers", "candidates_per_second", "prompts_per_second", "of_linear", "busy")
    first = rows[0]
    memory = f", {first['memory_gib']:.0f} GiB at most" if first["memory_gib"] else ""
    return (
        f"{report['model']}, {report['dtype']}: {report['prompts']} prompts of {report['tokens']} tokens a candidate, "
        f"generations of {report['population']}, GPUs a worker: {report['gpus_per_worker']}{memory} "
        f"({first['engine']}), {first['generations']} turns. Ready after {first['start_up_seconds']:.0f} s, checked, "
        f"compiled and warm {first['warm_up_seconds']:.0f} s later. Load of the machine: "
        f"{report['load_average']:.1f}.\n\n"
        + markdown([{name.replace("_", " "): row.get(name) for name in names} for row in rows])
    )


def _agreement(report: Mapping[str, Any]) -> str:
    return f"{report['model']}, {report['keys']} keys.\n\n{markdown(report['rows'])}"


def _simulation(report: Mapping[str, Any]) -> str:
    """A row a number of workers: minutes of each search with the start-up and, without it, its share of linear."""
    searches = report["searches"]
    return markdown([
        {"workers": rows[0]["workers"]}
        | {name: f"{row['minutes']:.3g} ({row['of linear']:.2f})" for name, row in zip(searches, rows, strict=True)}
        for rows in zip(*searches.values(), strict=True)
    ])  # fmt: skip


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return shown(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    for path in parser.parse_args().reports:
        print(tables(files.read_json(path)))


if __name__ == "__main__":
    main()
