"""What the terminal shows: progress on standard error, tables on standard output, one sparkline of the U."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal
BARS = "▁▂▃▄▅▆▇█"


def output() -> Console:
    """Standard output: results."""
    return Console(highlight=False, soft_wrap=False)


def errors() -> Console:
    """Standard error: progress and remarks."""
    return Console(stderr=True, highlight=False)


def line(text: str) -> None:
    """One plain line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is being done while it takes: a spinner on a terminal, a line elsewhere."""
    console = errors()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        line(what)
        yield


class StageProgress:
    """Elapsed and remaining time of the current stage: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._console = errors()
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("prompts"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[remark]}"),
            console=self._console,
        )
        self._name, self._total, self._done, self._remark = "", 0, 0, ""
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> StageProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, name: str, prompts: int) -> None:
        """A stage of that many prompts begins; the one before is complete."""
        self._complete()
        self._name, self._total, self._done, self._remark = name, prompts, 0, ""
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._bar.add_task(name, total=prompts, remark="")
        else:
            line(f"{name}: {prompts} prompts")

    def advance(self, prompts: int) -> None:
        """That many prompts were scored."""
        self._done += prompts
        if self._console.is_terminal:
            self._bar.advance(self._bar.task_ids[-1], prompts)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._started
            left = elapsed * (self._total - self._done) / max(self._done, 1)
            text = f"{self._name}: {self._done}/{self._total} prompts, {elapsed:.0f} s, {left:.0f} s left{self._remark}"
            line(text)

    def remark(self, text: str) -> None:
        """A short word beside the bar, such as the best so far."""
        self._remark = f", {text}"
        if self._console.is_terminal and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[-1], remark=text)

    def _complete(self) -> None:
        if self._console.is_terminal and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[-1], total=max(self._done, 1), completed=max(self._done, 1), remark="")


def follow(progress: StageProgress) -> Callable[[Any], None]:
    """An event handler for `ropewalk.run` that drives the progress display."""
    from ropewalk.run import Evaluated, Scored, Stage

    def on_event(event: Any) -> None:
        match event:
            case Stage(name, prompts):
                progress.stage(name, prompts)
            case Scored(prompts):
                progress.advance(prompts)
            case Evaluated(best=best):
                progress.remark(f"best {best:+.4f}")

    return on_event


def sparkline(values: Sequence[float]) -> str:
    """Accuracies in [0, 1] as bars of eight heights."""
    return "".join(BARS[min(int(value * len(BARS)), len(BARS) - 1)] for value in values)


def shape_sentence(block: Mapping[str, Any]) -> str:
    """One sentence on the shape of accuracies by position. block: figures of one arm (`accuracy`, `interval`)."""
    accuracy, interval = block["accuracy"], block["interval"]
    if len(accuracy) < 3:
        return "Give three or more positions to see whether the middle is lost."
    ends = (accuracy[0] + accuracy[-1]) / 2
    worst = min(range(1, len(accuracy) - 1), key=lambda place: accuracy[place])
    gap = f"worst inner position {100 * accuracy[worst]:.0f} %, ends {100 * ends:.0f} % on average"
    if accuracy[worst] >= ends:
        return f"No U to mend: {gap}."
    if interval[worst][1] < min(interval[0][0], interval[-1][0]):
        return f"The middle is lost: {gap}; its interval lies below those of both ends."
    return f"The middle is lower ({gap}), but the intervals overlap: more records (--limit) would tell."


def accuracy_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Accuracy by gold position with its 95 % interval, a column an arm. arms: key of `summary` -> label.

    Positions are the rows: any number of them fits a terminal of 80 columns.
    """
    table = _by_position("accuracy, %", arms)
    for row, position in enumerate(summary["positions"]):
        cells = [_percent(summary[arm]["accuracy"][row], summary[arm]["interval"][row], 0) for arm in arms]
        table.add_row(f"@{position}", *cells)
    table.add_row("average", *[_percent(summary[arm]["average"], summary[arm]["average_interval"], 1) for arm in arms])
    table.add_row("", *[sparkline(summary[arm]["accuracy"]) for arm in arms])
    return table


def likelihood_table(summary: Mapping[str, Any], arms: Mapping[str, str]) -> Table:
    """Negative log-likelihood by gold position in nats per answer token, a column an arm."""
    table = _by_position("NLL, nats/token", arms)
    for row, position in enumerate(summary["positions"]):
        table.add_row(f"@{position}", *[_number(summary[arm]["nll"][row]) for arm in arms])
    table.add_row("average", *[_number(summary[arm]["average_nll"]) for arm in arms])
    return table


def _by_position(what: str, arms: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(what, no_wrap=True)
    for label in arms.values():
        table.add_column(label, justify="right", min_width=12)
    return table


def _percent(value: float, interval: Sequence[float], digits: int) -> str:
    low, high = interval
    return f"{100 * value:.{digits}f} [{100 * low:.0f}–{100 * high:.0f}]"


def gain_table(comparisons: Mapping[str, Mapping[str, Any]]) -> Table:
    """Paired differences with intervals and p-values, one block a comparison. Keys are labels."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("gain (paired)", "difference", "95 % interval", "p"):
        table.add_column(name, justify="left" if name.startswith("gain") else "right", no_wrap=True)
    rows = (
        ("accuracy, points", "average", 100.0),
        ("U, points", "utilisation", 100.0),
        ("worst position, points", "worst", 100.0),
        ("log-likelihood, nats/token", "average_log_likelihood", 1.0),
        ("U of log-likelihood", "utilisation_log_likelihood", 1.0),
    )
    for label, comparison in comparisons.items():
        table.add_row(f"[italic]{label}[/italic]")
        for name, key, scale in rows:
            row = comparison[key]
            if row["difference"] is None:
                table.add_row(f"  {name}", "not finite")
                continue
            digits = 1 if scale > 1 else 4
            values = [f"{row[part] * scale:+.{digits}f}" for part in ("difference", "low", "high")]
            table.add_row(f"  {name}", values[0], f"{values[1]} to {values[2]}", f"{row['p']:.2g}")
    return table


def position_table(comparison: Mapping[str, Any]) -> Table:
    """The paired tests at each position: exact McNemar on verdicts, exchange test on likelihoods, Holm-corrected."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("position", "accuracy, points", "p (Holm)", "log-likelihood", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
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


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else f"{value:{form}}"
