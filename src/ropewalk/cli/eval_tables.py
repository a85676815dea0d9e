"""What the terminal shows of `ropewalk eval`: factors beside vanilla, and any number of other methods beside both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from rich.table import Table

from ropewalk.cli import console, tables
from ropewalk.comparison import metric_words, verdict_sentence

BESIDE = 3  # arms beside vanilla in a table by position
MEGA = 1e6


def show(summary: Mapping[str, Any], arms: Mapping[str, str]) -> None:
    """Tables, a sentence for each arm, and what must not be missed. arms: key of `summary` -> label."""
    arms = {arm: tables.shortened(label, tables.NAME_WIDTH) for arm, label in arms.items()}
    out = console.output()
    for table in _against(summary, arms) if "against" in summary else _factors_alone(summary, arms):
        out.print(table, "")
    if "against" in summary:
        console.say(_how(summary))
    for arm, comparison in summary["gain"].items():
        console.say(verdict_sentence(_corrected(summary, arm, comparison), _called(arm)))
    for text in tables.remarks(summary, arms):
        console.say(text)


def _factors_alone(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Iterator[Table]:
    yield from tables.figures(summary, arms)
    yield tables.position_table(summary["gain"]["factors"])
    yield tables.gain_table({"factors over vanilla": summary["gain"]["factors"]})


def _against(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Iterator[Table]:
    """Arms are rows where they may be many; by position they are columns, a few at a time."""
    yield tables.overview(summary, arms)
    for some in _in_turn(arms):
        yield tables.accuracy_table(summary, some)
        yield tables.likelihood_table(summary, some)
        if "by_group" in summary["vanilla"]:
            yield tables.group_table(summary, some)
    yield paired_table("over vanilla (paired)", summary["gain"], arms, summary["p_holm"])
    if summary["factors_over"]:
        yield paired_table("factors over (paired)", summary["factors_over"], arms)
    yield speed_table(summary["against"]["cost"], arms)
    yield memory_table(summary["against"], arms)


def _in_turn(arms: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Vanilla and the next few arms; a heading may take a second line after a colon."""
    (first, label), *others = ((arm, label.replace(":", ": ")) for arm, label in arms.items())
    rest = iter(others)
    while some := dict(islice(rest, BESIDE)):
        yield {first: label} | some


def paired_table(
    title: str,
    comparisons: Mapping[str, Mapping[str, Any]],
    arms: Mapping[str, str],
    corrected: Mapping[str, Mapping[str, float | None]] | None = None,
) -> Table:
    """Differences of averages with their intervals, an arm a row. corrected: p-values by measure and arm."""
    table = tables.plain(title, "difference", "95 % interval", "p (Holm)" if corrected else "p")
    metric = metric_words(next(iter(comparisons.values()))["metric"])
    measures = (
        (f"{metric}, points", "average", 100.0, "+.1f"),
        ("log-likelihood, nats/token", "average_log_likelihood", 1.0, "+.4f"),
    )
    for name, key, scale, form in measures:
        table.add_row(f"[italic]{name}[/italic]")
        for arm, comparison in comparisons.items():
            row = comparison[key]
            if row["difference"] is None:
                table.add_row(f"  {arms[arm]}", "not finite")
                continue
            values = [f"{row[part] * scale:{form}}" for part in ("difference", "low", "high")]
            p = row["p"] if corrected is None else corrected[key][arm]
            table.add_row(f"  {arms[arm]}", values[0], f"{values[1]} to {values[2]}", f"{p:.2g}")
    return table


def speed_table(cost: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Tokens a second while a prompt is read and while it is answered, and their ratio to vanilla's with its range."""
    table = tables.plain("tokens a second", "reading", "× vanilla", "writing", "× vanilla")
    for arm, label in arms.items():
        cells = []
        for phase in ("read", "write"):
            row = cost["arms"][arm][phase]
            low, high = row["ratio_range"]
            cells += [f"{row['tokens_per_second']:.4g}", f"{row['ratio']:.2f} [{low:.2f}–{high:.2f}]"]
        table.add_row(label, *cells)
    return table


def memory_table(against: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Megabytes of the KV cache and at the peak, and the forward passes that a prompt costs."""
    cost = against["cost"]["arms"]
    table = tables.plain("memory, MB", "passes", "KV cache", "peak", "× vanilla")
    for arm, label in arms.items():
        passes = against["methods"].get(arm, {}).get("passes", 1)
        peak, cache = cost[arm]["peak_bytes"], cost[arm]["cache_bytes"]
        ratio = f"{peak / cost['vanilla']['peak_bytes']:.2f}" if cost["vanilla"]["peak_bytes"] else "–"
        table.add_row(label, str(passes), f"{cache / MEGA:.1f}", f"{peak / MEGA:.1f}", ratio)
    return table


def _how(summary: Mapping[str, Any]) -> str:
    """On what, and how, speed and memory were measured."""
    cost = summary["against"]["cost"]
    longest = max(cost["prompt_tokens"])
    return (
        f"Speed: {cost['road']}, all arms alike; medians over {cost['prompts']} prompts of up to {longest} tokens and "
        f"{cost['new_tokens']} new ones, ratios on the same prompt with their range; tokens are counted as vanilla "
        f"reads them. Memory: {cost['memory']}."
    )


def _corrected(summary: Mapping[str, Any], arm: str, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison with the p-values that are corrected for the number of arms, where there are several."""
    known = summary.get("p_holm", {})
    return {**comparison, **{key: {**comparison[key], "p": known[key][arm]} for key in known}}


def _called(arm: str) -> str:
    return "these factors" if arm == "factors" else f"the settings of {arm}"
