"""The card of an entry: README.md, written from factors.json and test.json alone, so that it can't say more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ropewalk.zoo.entry import Entry, Json


def card(entry: Entry) -> str:
    """Model, test with intervals, use, factors, origin, licence, as Markdown."""
    from ropewalk.export.parts.card import factor_table

    parts = [
        f"# {entry.name}",
        *(_unverified(entry) if entry.is_unverified else _tested(entry)),
        "## Use",
        *_use(entry),
        "## Factors",
        "\n".join(factor_table(entry.factors)),
        "## Where they come from",
        "\n".join(_origin(entry)),
    ]
    return "\n\n".join(parts) + "\n"


def _use(entry: Entry) -> Iterator[str]:
    weights = entry.about.get("weights")
    anyway, option = (", any_model=True", " --any-model") if weights else ("", "")
    if weights:
        yield (
            f"Searched and tested on other weights than those of the hub: {weights}. The hub's have another "
            "fingerprint, so they take the factors only when told to, and nobody has tested that."
        )
    yield f'```python\nimport ropewalk\n\nropewalk.apply(model, ropewalk.load_factors("{entry.name}"){anyway})\n```'
    yield f"```sh\nropewalk eval --model {entry.about.get('hub_id')} --factors {entry.name}{option}\n```"


def summary(entry: Entry, row: Json) -> str:
    """One test in a line: what was asked, and the gain of the average with its interval."""
    settings = row["settings"]
    keys = f", {settings['keys']} keys" if settings.get("keys") else ""
    return f"{row['task']}{keys}: {row['records']} records at {len(row['positions'])} positions, {gain_words(row)}"


def gain_words(row: Json) -> str:
    """The average before and after and the paired gain with its 95 % interval, in points."""
    before, after = 100 * row["vanilla"], 100 * row["factors"]
    gain, low, high = (100 * row[key] for key in ("gain", "low", "high"))
    return f"{before:.1f} → {after:.1f}, {gain:+.1f} [{low:+.1f}, {high:+.1f}]"


def _unverified(entry: Entry) -> Iterator[str]:
    about = entry.about
    yield (
        f"**Unverified.** Published for {_link(about)} in {about['source']}; nobody has tested them with ropewalk, so "
        "no gain is claimed here. They are tied to no weights: whatever model of as many layers takes them, test it."
    )


def _tested(entry: Entry) -> Iterator[str]:
    from ropewalk.comparison import metric_words
    from ropewalk.export.parts import evidence
    from ropewalk.findings import short_text_regressions

    result: Any = entry.result
    yield f"Rotary scaling factors of {entry.factors.num_layers} layers for {_link(entry.about)}."
    yield "## Test"
    yield "On held-out records, with and without the factors."
    for row, block in zip(entry.gains(), evidence.tests_of(result), strict=True):
        yield f"**{evidence.title(block)}**"
        yield "\n".join(evidence.table(block, "with factors"))
        what = f"Average {metric_words(row['metric'])} in %"
        yield f"{what}: {gain_words(row)} points (95 % interval), p = {row['p']:.2g}."
        yield str(block["sentence"])
        yield from block.get("short_texts", [])
    if not result.get("short_texts"):
        yield "In short texts: not measured."
    for found in short_text_regressions(result.get("short_texts", {})):
        yield f"**Warning: {found['name']}:** {found['message']}."
    provenance = result["provenance"]
    where = ", ".join(f"{key} {provenance[key]}" for key in ("device", "dtype") if provenance.get(key))
    command = f" by `{provenance['command']}`" if provenance.get("command") else ""
    yield f"All figures are in `test.json`: made{command} ({where})."


def _origin(entry: Entry) -> Iterator[str]:
    from ropewalk.export.parts.card import origin

    about = entry.about
    yield f"- {'Entered' if entry.is_unverified else 'Found'} by {about['by']}, {about['date']}"
    yield f"- Licence of factors and figures: {about['licence']}. The weights have their own: see {_link(about)}."
    if entry.is_unverified:
        yield f"- Source: {about['source']}"
        yield f"- Control points as published: {about['published']}"
        yield f"- Rope parameters that they multiply: `{entry.factors.base}`"
        yield f"- Digest of `factors.json`: `{entry.factors.digest}`"
    else:
        yield from origin(entry.factors)


def _link(about: Json) -> str:
    return f"[{about['hub_id']}](https://huggingface.co/{about['hub_id']})"
