"""What the terminal shows of figures: an overview with the U of each arm, tables by position and group, warnings.

summary, in all of these: what `--json` holds. arms: key of `summary` -> label. In the overview arms are the rows, in
the other tables the columns: any number of positions and all arms of a search fit a terminal of 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

from ropewalk.comparison import metric_words
from ropewalk.findings import no_u_to_mend
from ropewalk.results import OWN_LOOP, PERPLEXITY_METRIC
from ropewalk.verdict import short_text_sentences

BARS = "▁▂▃▄▅▆▇█"
LONGEST = 20  # bars of a sparkline
FEW, VERY_FEW = 4, 3  # arms whose intervals, or perplexities, fit beside each other
NAME_WIDTH, NARROW = 24, 12  # of a group of records, which may have a file's name


def figures(summary: Mapping[str, Any], arms: Mapping[str, str]) -> list[Table]:
    """The overview, then the metric and the likelihood by position, and both by group if there are groups."""
    some = summary[next(iter(arms))]
    if len(arms) == 1:
        tables = [position_figures(summary, next(iter(arms)))]
    elif some["metric"] == PERPLEXITY_METRIC:
        tables = [likelihood_table(summary, arms), accuracy_table(summary, arms)]
    else:
        tables = [accuracy_table(summary, arms), likelihood_table(summary, arms)]
    return [overview(summary, arms), *tables, *([group_table(summary, arms)] if "by_group" in some else [])]


def overview(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """One row an arm: the metric by position as a sparkline, its average with the 95 % interval, the likelihood."""
    some, positions = summary[next(iter(arms))], summary["positions"]
    span = f"@{positions[0]}" if len(positions) == 1 else f"@{positions[0]} to @{positions[-1]}"
    table = plain("average over positions", span, f"{metric_words(some['metric'])}, %", _likelihood_words(some))
    for arm, label in arms.items():
        block = summary[arm]
        average = _percent(block["average"], block["average_interval"], 1)
        table.add_row(label, sparkline(block["accuracy"]), average, _average_nll(block))
    return table


def position_figures(summary: Mapping[str, Any], arm: str) -> Table:
    """Of a single arm the metric with its 95 % interval and the likelihood, by gold position."""
    block = summary[arm]
    table = plain("position", f"{metric_words(block['metric'])}, %", _likelihood_words(block))
    for row, position in enumerate(summary["positions"]):
        score = _percent(block["accuracy"][row], block["interval"][row], 0)
        table.add_row(f"@{position}", score, _nll(block, row, True))
    return table


def accuracy_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """The metric by gold position with its 95 % interval; of many arms the first and the last one's intervals alone."""
    some = summary[next(iter(arms))]
    table = _by(f"{metric_words(some['metric'])}, %", arms)
    told = _in_full(arms)
    for row, position in enumerate(summary["positions"]):
        cells = [
            _percent(summary[arm]["accuracy"][row], summary[arm]["interval"][row] if arm in told else None, 0)
            for arm in arms
        ]
        table.add_row(f"@{position}", *cells)
    return table


def likelihood_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Negative log-likelihood by gold position in nats per answer token; of few arms on texts the perplexity too."""
    in_full = len(arms) <= VERY_FEW
    table = _by(_likelihood_words(summary[next(iter(arms))], in_full), arms)
    for row, position in enumerate(summary["positions"]):
        table.add_row(f"@{position}", *[_nll(summary[arm], row, in_full) for arm in arms])
    return table


def group_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Averages over positions of each group of records: the metric with its interval, of plain texts the likelihood."""
    some = summary[next(iter(arms))]
    is_text, in_full = some["metric"] == PERPLEXITY_METRIC, len(arms) <= VERY_FEW
    table = _by(
        f"by group: {_likelihood_words(some, in_full) if is_text else metric_words(some['metric']) + ', %'}", arms
    )
    for group in some["by_group"]:
        cells = []
        for arm in arms:
            block = summary[arm]["by_group"][group]
            interval = block["average_interval"] if in_full else None
            cells.append(_average_nll(block, in_full) if is_text else _percent(block["average"], interval, 1))
        table.add_row(Text(shortened(group, NAME_WIDTH if in_full else NARROW)), *cells)
    return table


def gain_table(comparisons: Mapping[str, Mapping[str, Any]]) -> Table:
    """Paired differences with intervals and p-values, a block a comparison; of all but the first the averages alone.

    Keys are labels.
    """
    table = plain("gain (paired)", "difference", "95 % interval", "p")
    for number, (label, comparison) in enumerate(comparisons.items()):
        table.add_row(f"[italic]{label}[/italic]")
        averages = (
            (f"{metric_words(comparison['metric'])}, points", "average", 100.0),
            ("log-likelihood, nats/token", "average_log_likelihood", 1.0),
        )
        rest = (
            ("U, points", "utilisation", 100.0),
            ("worst position, points", "worst", 100.0),
            ("U of log-likelihood", "utilisation_log_likelihood", 1.0),
        )
        for name, key, scale in (*averages, *(() if number else rest)):
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
    table = plain("position", name, "p (Holm)", "log-likelihood", "p (Holm)")
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
    yield from map(Text, short_text_sentences(summary.get("short_texts", {})))
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
    """Accuracies in [0, 1] as bars of eight heights, from 0 to 1; of very many the means of neighbours."""
    if len(values) > LONGEST:
        edges = [round(place * len(values) / LONGEST) for place in range(LONGEST + 1)]
        values = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    return "".join(BARS[min(int(value * len(BARS)), len(BARS) - 1)] for value in values)


def _in_full(arms: Mapping[str, str]) -> Sequence[str]:
    """The arms whose cells have room for more than a number."""
    names = list(arms)
    return names if len(names) <= FEW else [names[0], names[-1]]


def _by(what: str, arms: Mapping[str, str]) -> Table:
    """A table whose columns are arms."""
    return plain(what, *arms.values(), widths=(12, 16 if len(arms) <= FEW else 8))


def plain(*names: str, widths: tuple[int, int] = (22, 16)) -> Table:
    """A table with these headings. widths: of the first heading and of the others, beyond which they take two lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for number, name in enumerate(names):
        heading = _two_lines(name, widths[min(number, 1)])
        table.add_column(heading, justify="right" if number else "left", vertical="bottom", no_wrap=True)
    return table


def _two_lines(name: str, width: int) -> str:
    """A heading of several words that is longer than that in two lines of about the same length."""
    if len(name) <= width or " " not in name:
        return name
    places = [place for place, letter in enumerate(name) if letter == " "]
    middle = min(places, key=lambda place: max(place, len(name) - place - 1))
    return f"{name[:middle]}\n{name[middle + 1 :]}"


def shortened(name: str, width: int) -> str:
    """A name within the width of its column; the end of a file's name tells more than its folder."""
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _likelihood_words(block: Mapping[str, Any], in_full: bool = True) -> str:
    return "NLL, nats/token" + (" (perplexity)" if in_full and "perplexity" in block else "")


def _nll(block: Mapping[str, Any], row: int, in_full: bool) -> str:
    return _number(block["nll"][row]) + (_in_brackets(block["perplexity"][row]) if _has(block, in_full) else "")


def _average_nll(block: Mapping[str, Any], in_full: bool = True) -> str:
    return _number(block["average_nll"]) + (_in_brackets(block["average_perplexity"]) if _has(block, in_full) else "")


def _has(block: Mapping[str, Any], in_full: bool) -> bool:
    return in_full and "perplexity" in block


def _in_brackets(perplexity: float | None) -> str:
    return f" ({_number(perplexity, '.2f' if perplexity is None or perplexity < 1000 else '.2g')})"


def _percent(value: float, interval: Sequence[float] | None, digits: int) -> str:
    if interval is None:
        return f"{100 * value:.{digits}f}"
    low, high = interval
    return f"{100 * value:.{digits}f} [{100 * low:.0f}–{100 * high:.0f}]"


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else f"{value:{form}}"
