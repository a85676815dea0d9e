"""What the terminal shows of figures: tables by position and by group, one sparkline of the U, warnings in words.

summary, in all of these: what `--json` holds. arms: key of `summary` -> label, a column each. Positions are the rows:
any number of them fits a terminal of 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ropewalk.comparison import metric_words
from ropewalk.findings import no_u_to_mend
from ropewalk.results import OWN_LOOP, PERPLEXITY_METRIC

BARS = "▁▂▃▄▅▆▇█"


def figures(summary: Mapping[str, Any], arms: Mapping[str, str]) -> list[Table]:
    """All tables of one or more arms: the metric and the likelihood by position, both by group if there are groups."""
    some = summary[next(iter(arms))]
    tables = [likelihood_table(summary, arms), accuracy_table(summary, arms)]
    if some["metric"] != PERPLEXITY_METRIC:
        tables.reverse()
    return [*tables, *([group_table(summary, arms)] if "by_group" in some else [])]


def accuracy_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """The metric by gold position with its 95 % interval."""
    some = summary[next(iter(arms))]
    table = _by(f"{metric_words(some['metric'])}, %", arms)
    for row, position in enumerate(summary["positions"]):
        cells = [_percent(summary[arm]["accuracy"][row], summary[arm]["interval"][row], 0) for arm in arms]
        table.add_row(f"@{position}", *cells)
    table.add_row("average", *[_percent(summary[arm]["average"], summary[arm]["average_interval"], 1) for arm in arms])
    table.add_row("", *[sparkline(summary[arm]["accuracy"]) for arm in arms])
    return table


def likelihood_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Negative log-likelihood by gold position in nats per answer token; of plain texts with the perplexity."""
    table = _by(_likelihood_words(summary[next(iter(arms))]), arms)
    for row, position in enumerate(summary["positions"]):
        table.add_row(f"@{position}", *[_nll(summary[arm], row) for arm in arms])
    table.add_row("average", *[_average_nll(summary[arm]) for arm in arms])
    return table


def group_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Averages over positions of each group of records: the metric with its interval, of plain texts the likelihood."""
    some = summary[next(iter(arms))]
    is_text = some["metric"] == PERPLEXITY_METRIC
    table = _by(f"by group: {_likelihood_words(some) if is_text else metric_words(some['metric']) + ', %'}", arms)
    for group in some["by_group"]:
        blocks = [summary[arm]["by_group"][group] for arm in arms]
        cells = [
            _average_nll(block) if is_text else _percent(block["average"], block["average_interval"], 1)
            for block in blocks
        ]
        table.add_row(group, *cells)
    return table


def gain_table(comparisons: Mapping[str, Mapping[str, Any]]) -> Table:
    """Paired differences with intervals and p-values, one block a comparison. Keys are labels."""
    table = _plain("gain (paired)", "difference", "95 % interval", "p")
    for label, comparison in comparisons.items():
        table.add_row(f"[italic]{label}[/italic]")
        for name, key, scale in (
            (f"{metric_words(comparison['metric'])}, points", "average", 100.0),
            ("U, points", "utilisation", 100.0),
            ("worst position, points", "worst", 100.0),
            ("log-likelihood, nats/token", "average_log_likelihood", 1.0),
            ("U of log-likelihood", "utilisation_log_likelihood", 1.0),
        ):
            row = comparison[key]
            if row["difference"] is None:
                table.add_row(f"  {name}", "not finite")
                continue
            digits = 1 if scale > 1 else 4
            values = [f"{row[part] * scale:+.{digits}f}" for part in ("difference", "low", "high")]
            table.add_row(f"  {name}", values[0], f"{values[1]} to {values[2]}", f"{row['p']:.2g}")
    return table


def position_table(comparison: Mapping[str, Any]) -> Table:
    """The paired tests at each position, Holm-corrected: exact McNemar on verdicts, exchange test on the others."""
    name = f"{metric_words(comparison['metric'])}, points"
    table = _plain("position", name, "p (Holm)", "log-likelihood", "p (Holm)", first="right")
    likelihood_p = comparison["log_likelihood_p_holm"]
    for column, position in enumerate(comparison["positions"]):
        likelihood = comparison["log_likelihood"][column]["difference"]
        table.add_row(
            f"@{position}",
            f"{100 * comparison['accuracy'][column]:+.1f}",
            f"{comparison['accuracy_p_holm'][column]:.2g}",
            _number(likelihood, "+.4f"),
            "–" if likelihood_p is None else f"{likelihood_p[column]:.2g}",
        )
    return table


def remarks(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Iterator[Text]:
    """What was left out, what failed, what a short context costs, and every warning; a line each."""
    if summary["engine"] != OWN_LOOP:
        yield Text(f"Scored by {summary['engine']}: slower, and no less right.")
    skipped = summary[next(iter(arms))]["skipped"]
    if skipped:
        yield Text(f"{skipped} records were left out at every position: a prompt of theirs is over the model's limit.")
    for arm, label in arms.items():
        if summary[arm]["failures"]:
            yield Text(f"{label}: {summary[arm]['failures']} log-likelihoods are not finite and count as wrong.")
    if summary.get("short"):
        gain = summary["short"]["gain"]
        likelihood = _number(gain["average_log_likelihood"]["difference"], "+.4f")
        yield Text(
            f"In a short context ({summary['short']['vanilla']['records']} records): {metric_words(gain['metric'])} "
            f"{100 * gain['average']['difference']:+.1f} points, log-likelihood {likelihood} nats/token."
        )
    for finding in summary["warnings"]:
        yield Text(f"Warning: {finding['name']}: {finding['message']}.", style="bold yellow")


def shape_sentence(block: Mapping[str, Any]) -> str:
    """One sentence on the shape of accuracies by position; empty where there is none, or a warning says there is no U.

    block: figures of one arm.
    """
    accuracy, interval = block["accuracy"], block["interval"]
    if len(accuracy) == 1 or block["metric"] == PERPLEXITY_METRIC or no_u_to_mend(block):
        return ""
    if len(accuracy) < 3:
        return "Give three or more positions to see whether the middle is lost."
    if not any(accuracy):
        return "No answer is right at any position; fewer distractors may show a U."
    ends = (accuracy[0] + accuracy[-1]) / 2
    worst = min(range(1, len(accuracy) - 1), key=lambda place: accuracy[place])
    gap = f"worst inner position {100 * accuracy[worst]:.0f} %, ends {100 * ends:.0f} % on average"
    if interval[worst][1] < min(interval[0][0], interval[-1][0]):
        return f"The middle is lost: {gap}; its interval lies below those of both ends."
    return f"The middle is lower ({gap}), but the intervals overlap: more records (--limit) would tell."


def sparkline(values: Sequence[float]) -> str:
    """Accuracies in [0, 1] as bars of eight heights."""
    return "".join(BARS[min(int(value * len(BARS)), len(BARS) - 1)] for value in values)


def _by(what: str, arms: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(what, no_wrap=True)
    for label in arms.values():
        table.add_column(label, justify="right", min_width=12)
    return table


def _plain(*names: str, first: Any = "left") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in names:
        table.add_column(name, justify=first if name == names[0] else "right", no_wrap=True)
    return table


def _likelihood_words(block: Mapping[str, Any]) -> str:
    return "NLL, nats/token" + (" (perplexity)" if "perplexity" in block else "")


def _nll(block: Mapping[str, Any], row: int) -> str:
    perplexity = f" ({_number(block['perplexity'][row], '.2f')})" if "perplexity" in block else ""
    return _number(block["nll"][row]) + perplexity


def _average_nll(block: Mapping[str, Any]) -> str:
    perplexity = f" ({_number(block['average_perplexity'], '.2f')})" if "perplexity" in block else ""
    return _number(block["average_nll"]) + perplexity


def _percent(value: float, interval: Sequence[float], digits: int) -> str:
    low, high = interval
    return f"{100 * value:.{digits}f} [{100 * low:.0f}–{100 * high:.0f}]"


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else f"{value:{form}}"
