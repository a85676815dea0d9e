"""`ropewalk zoo`: the factors that come with the package, one of their cards, or a new entry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group

from ropewalk.cli.options import Output, described
from ropewalk.errors import RopewalkError

ADD = Group("Add one", sort_key=1)


def zoo(
    name: Annotated[str | None, described("MODEL/NAME: print its card. Default: list all.", metavar="NAME")] = None,
    *,
    add: Annotated[
        Path | None,
        described("Make the entry NAME of this run, or of factors.json.", group=ADD, metavar="RUN"),
    ] = None,
    test: Annotated[
        Path | None,
        described("Their test, of eval --json. Default: the run's result.json.", group=ADD, metavar="FILE"),
    ] = None,
    by: Annotated[str | None, described("Who found them.", group=ADD, metavar="WHO")] = None,
    hub_id: Annotated[str | None, described("The model on the hub.", group=ADD, metavar="ID")] = None,
    weights: Annotated[
        str | None, described("What was tested, if not the hub's weights: 4-bit GGUF.", group=ADD, metavar="TEXT")
    ] = None,
    out: Annotated[Path, described("Where: factors in a checkout of ropewalk.", group=ADD, metavar="DIR")] = Path(
        "factors"
    ),
    output: Output | None = None,
) -> dict[str, Any]:
    """List the factors that come with the package, print one's card, or make an entry of a run."""
    from ropewalk.cli import console
    from ropewalk.zoo import CARD, factors_file
    from ropewalk.zoo.entry import read_entries, read_entry

    if add is not None:
        if name is None or by is None or hub_id is None:
            raise RopewalkError("--add RUN needs a name, --by and --hub-id: ropewalk zoo MODEL/NAME --add RUN --by …")
        from ropewalk.zoo.adding import add_entry

        made = add_entry(name, add, out, by=by, hub_id=hub_id, weights=weights, test=test)
        console.say(f"{out / name}: written and checked: factors.json, test.json, README.md.")
        return made.figures()
    if name is not None:
        folder = factors_file(name).parent
        if not (folder / CARD).is_file():
            raise RopewalkError(f"{name}: no entry of the zoo, it has no {CARD}; ropewalk zoo lists those there are")
        console.write((folder / CARD).read_text(encoding="utf-8"))
        return read_entry(folder, name.lower()).figures()
    entries = read_entries()
    console.output().print(_table(entries), "")
    console.say(
        "Take one by its name: --factors NAME, or ropewalk.load_factors(NAME). ropewalk zoo NAME prints its card."
    )
    return {"entries": [entry.figures() for entry in entries]}


def _table(entries: list[Any]) -> Any:
    from rich.table import Table

    from ropewalk.zoo.card import gain_words

    table = Table(box=None, pad_edge=False, padding=(0, 1), title="average of the test in %, gain [95 % interval]")
    for heading in ("name", "layers", "tested on", "test"):
        table.add_column(heading, no_wrap=heading in ("name", "test"))
    for entry in entries:
        rows = [(_settings(row), gain_words(row)) for row in entry.gains()] or [("", "unverified: as published")]
        for number, (what, gain) in enumerate(rows):
            first = (entry.name, str(entry.factors.num_layers)) if not number else ("", "")
            table.add_row(*first, what, gain)
    return table


def _settings(row: dict[str, Any]) -> str:
    keys = row["settings"].get("keys")
    return f"{row['task']}{f', {keys} keys' if keys else ''}"
