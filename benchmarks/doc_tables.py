"""What the pages on performance, scale, longer inputs, other methods and analyses show of results, out of JSON.

    python benchmarks/doc_tables.py           writes the pages anew
    python benchmarks/doc_tables.py --check   says which pages are not what the results say

Between `<!-- result: FILE -->` and `<!-- /result -->` stands what benchmarks/results/FILE says; of an analysis
`<!-- result: FILE KEY… -->` adds the tables of the figures with these keys. A file that is not there yet leaves a line
that says so.
"""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.analysis import make_analysis

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("extrapolation.md", "comparators.md", "analysis.md", "performance.md", "scale.md")
PAGES = tuple(ROOT / "docs" / name for name in NAMES)
BLOCK = re.compile(r"(<!-- result: (\S+)((?: [\w.-]*\w)*) -->\n).*?(<!-- /result -->)", re.DOTALL)
MISSING = "*Not measured yet.*\n"
Json = Mapping[str, Any]


def renewed(page: str, results: Path = RESULTS) -> str:
    """The page with every block as its result says."""
    return BLOCK.sub(
        lambda found: found[1] + "\n" + shown(results / found[2], found[3].split()) + "\n" + found[4], page
    )


def shown(path: Path, panels: Sequence[str] = ()) -> str:
    """Markdown of one result. panels: keys of an analysis' figures whose tables are shown too."""
    if not path.exists():
        return MISSING
    document = files.read_json(path)
    if "benchmark" in document:
        from tables import tables  # it imports torch

        return tables(document)
    source = f"Figures: [{path.name}](../{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}).\n"
    if "lengths" in document:
        return _extrapolation(document) + "\n" + source
    if "against" in document:
        return _against(document) + "\n" + source
    return _analysis(document, panels) + "\n" + source


def _analysis(document: Json, panels: Sequence[str]) -> str:
    """The answer, as a quotation; what it remarks, as a list; the figures that are asked for, as tables."""
    answer = _filled(document["sentence"], "> ", "> ")
    remarks = [_filled(text, "- ", "  ") for text in document["remarks"]]
    parts = [_filled(_how(document["provenance"])), answer, "\n".join(remarks)]
    if panels:
        found = make_analysis(document["settings"]["analysis"]).panels(document["records"])
        known = {panel.key: panel for panel in found}
        for panel in (known[key] for key in panels):
            rows = [list(map(str, row)) for row in panel.rows]
            parts += [_filled(f"{panel.title}. {panel.note}"), _table(panel.columns, rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _extrapolation(document: Json) -> str:
    """All arms by length, then what layer factors add to their scheme."""
    arms, factors = [], []
    for length, block in document["lengths"].items():
        for name, arm in block["arms"].items():
            over = block["over_nothing"].get(name)
            gain = _nats(over["far"]) if over else ""
            arms.append([_tokens(length), f"`{name}`", _perplexity(arm["far"]), gain,
                         *(_percent(arm.get(task)) for task in ("kv", "needle"))])  # fmt: skip
        for name, row in block["over_scheme"].items():
            hand = block["over_triangle"].get(name)
            factors.append([_tokens(length), f"`{name}`", _nats(row["far"]), _nats(hand["far"]) if hand else ""])
    windows = [block["arms"]["nothing"]["far"]["windows"] for block in document["lengths"].values()]
    few, many = min(windows), max(windows)
    read = [f"far tokens of {few} windows" if few == many else f"far tokens of {few} to {many} windows"]
    if document["tasks"]:
        read.append(f"{document['limit']} records of {' and '.join(document['tasks'])} at 3 positions each")
    if document["budget"] and factors:
        read.append(f"{document['budget']} windows a search")
    intro = (
        f"{document['model']['name']}, read as trained to {document['trained']:,} tokens; {', '.join(read)}. "
        f"{_how(document['provenance'])}"
    )
    head = ["tokens", "arm", "perplexity, far tokens", "over nothing, nats a token", "kv, %", "needle, %"]
    parts = [_filled(intro), _table(head, arms)]
    if factors:
        parts.append(_table(["tokens", "layer factors", "over the scheme alone", "over the triangle"], factors))
    parts.append("In brackets 95 % intervals by window or record; p-values are Holm-corrected within a length.")
    return "\n\n".join(parts) + "\n"


def _against(document: Json) -> str:
    """An arm a row: the metric, what it gains over vanilla, what the factors gain over it, its cost; then warnings."""
    cost, rows = document["against"]["cost"]["arms"], []
    peak = cost["vanilla"]["peak_bytes"]
    for name, own in cost.items():
        gain, over = document["gain"].get(name), document["factors_over"].get(name)
        by_position = " ".join(f"{100 * value:.0f}" for value in document[name]["accuracy"])
        row = [f"`{name}`", _percent(document[name]), by_position, "", "", "",
               _ratio(own["read"]), _ratio(own["write"]),
               f"{own['peak_bytes'] / peak:.2f}" if peak else "–"]  # fmt: skip
        if gain is not None:
            p = {key: document["p_holm"][key][name] for key in ("average", "average_log_likelihood")}
            row[3] = _points({**gain["average"], "p_holm": p["average"]})
            row[4] = _nats({**gain["average_log_likelihood"], "p_holm": p["average_log_likelihood"]})
        if over is not None:
            row[5] = _points(over["average"])
        rows.append(row)
    task, vanilla = document["task"], document["vanilla"]
    what = f"{task['task']} of {task['keys']} keys" if task.get("keys") else task["task"]
    intro = (
        f"{document['model']['name']}, {what}, {vanilla['records']} records at {len(document['positions'])} positions. "
        f"{_how(document['provenance'])}"
    )
    head = ["arm", "right, %", "by position", "over vanilla, points", "over vanilla, nats a token",
            "factors over it, points", "reading ×", "writing ×", "memory ×"]  # fmt: skip
    note = (
        "In brackets 95 % intervals by record; p-values over vanilla are Holm-corrected for the arms, those of the "
        "factors over an arm are not corrected. Reading, writing and memory: tokens a second and peak of memory over "
        "vanilla's, with the range over prompts."
    )
    warnings = [_filled(f"Of the factors: {row['name']}: {row['message']}.") for row in document["warnings"]]
    return "\n\n".join([_filled(intro), _table(head, rows), _filled(note), *warnings]) + "\n"


def _how(provenance: Json) -> str:
    """The command if it is known, the device and the versions."""
    if "versions" not in provenance:  # an analysis of results alone
        return f"`{provenance['command']}`."
    versions = provenance["versions"]
    where = f"{provenance['device']}, torch {versions['torch']}, transformers {versions['transformers']}"
    command = provenance.get("command")
    return f"`{command}` ({where})." if command else f"({where})"


def _filled(text: str, first: str = "", others: str = "") -> str:
    return textwrap.fill(text, 120, initial_indent=first, subsequent_indent=others,
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _tokens(length: str) -> str:
    return f"{int(length):,}"


def _perplexity(far: Json) -> str:
    if far["nll"] is None:
        return "not finite"
    value, low, high = (math.exp(min(far[part], 700.0)) for part in ("nll", "low", "high"))
    return f"{value:.4g} [{low:.4g} to {high:.4g}]"


def _percent(summary: Json | None) -> str:
    if summary is None:
        return "–"
    low, high = summary["average_interval"]
    return f"{100 * summary['average']:.1f} [{100 * low:.1f} to {100 * high:.1f}]"


def _nats(row: Json) -> str:
    return _difference(row, 1.0, "+.3f")


def _points(row: Json) -> str:
    return _difference(row, 100.0, "+.1f")


def _difference(row: Json, scale: float, form: str) -> str:
    if row["difference"] is None:
        return "not finite"
    value, low, high = (f"{scale * row[part]:{form}}" for part in ("difference", "low", "high"))
    p = row.get("p_holm", row["p"])
    return f"{value} [{low} to {high}]" + ("" if p is None else f", p = {p:.2g}")


def _ratio(row: Json) -> str:
    low, high = row["ratio_range"]
    return f"{row['ratio']:.2f} [{low:.2f} to {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [page for page in PAGES if renewed(page.read_text()) != page.read_text()]
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'not what the results say' if check else 'written'}")
        if not check:
            files.write_text(page, renewed(page.read_text()))
    raise SystemExit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
