"""The page of an analysis: its question, the sentence that answers it, figures with their numbers, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ropewalk.report.panel import Panel
from ropewalk.report.rendering import flat, render


def analysis_html(document: Mapping[str, Any], panels: Sequence[Panel]) -> str:
    """One HTML file that asks nobody for anything. document: what analysis.json holds."""
    settings = document["settings"]
    model = settings.get("model", {}).get("name")
    return render(
        "analysis.html",
        panels,
        name=settings["analysis"],
        subject=" · ".join([*([model] if model else []), *settings["tasks"]]) or "results of several models",
        document=document,
        panels=panels,
        settings=flat(settings),
        provenance=flat({name: value for name, value in document["provenance"].items() if name != "command"}),
    )
