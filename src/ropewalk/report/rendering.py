"""How a page is made of a template: its charts, their program and JSON lie in it, and it asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ropewalk.report.panel import Panel
from ropewalk.report.theme import DARK, LIGHT

SNIPPET = "window.vegaEmbed = vegaEmbed;"  # all that a page calls


def render(template: str, drawn: Sequence[Panel], **content: Any) -> str:
    """The template with the specifications of the charts that are drawn on it, and with `content`."""
    environment = Environment(
        loader=PackageLoader("ropewalk.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = _script_json
    return environment.get_template(template).render(
        charts={panel.key: panel.spec() for panel in drawn},
        themes={"light": LIGHT | {"background": "transparent"}, "dark": DARK},
        program=_program(),
        **content,
    )


@cache
def _program() -> Markup:
    """What draws the charts; bundling it takes a second."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle(SNIPPET).replace("</script", "<\\/script"))


def flat(document: Any, name: str = "") -> list[tuple[str, str]]:
    """Leaves of a JSON document with their dotted names; lists without objects in them stay whole."""
    if isinstance(document, Mapping) and document:
        return [row for key, value in document.items() for row in flat(value, f"{name}.{key}".lstrip("."))]
    if isinstance(document, list) and any(isinstance(entry, Mapping) for entry in document):
        return [row for index, value in enumerate(document) for row in flat(value, f"{name}.{index}")]
    return [(name, document if isinstance(document, str) else json.dumps(document, ensure_ascii=False))]


def _script_json(value: Any) -> Markup:
    """JSON inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)
