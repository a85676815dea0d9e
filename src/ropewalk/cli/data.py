"""`ropewalk data`: files of questions, the official ones fetched or own ones built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from ropewalk.cli.examples import epilogue
from ropewalk.cli.options import Output, described, flag, number
from ropewalk.errors import RopewalkError

LARGE = 20_000  # passages, about two seconds of indexing

data = App(name="data", help_epilogue=epilogue("data"))


@data.command(name="official", help_epilogue=epilogue("data official"))
def official(
    *names: Annotated[str, described("Files to get; none: all of them (with --from: those that are there).")],
    out: Annotated[Path | None, described("Folder to put them in.")] = None,
    source: Annotated[
        Path | None, described("Take them from this folder or below it, not from the network.", name="--from")
    ] = None,
    list_names: Annotated[bool, flag("Print the names and do nothing else.", name="--list")] = False,
    output: Output | None = None,
) -> dict[str, Any]:
    """Get the official files of "Lost in the Middle", checked against pinned digests."""
    from ropewalk.cli import console
    from ropewalk.cli.counting import counting
    from ropewalk.data.official import FILES, choose, fetch, found_in, take

    if list_names:
        for file in FILES:
            console.say(file.name)
        return {"names": [file.name for file in FILES]}
    if out is None:
        raise RopewalkError("--out DIR is missing: the folder to put the files in (--list prints their names)")
    taken: dict[str, str] = {}
    for file in found_in(source) if source and not names else choose(names):
        if source:
            outcome = take(file, out, source)
        else:
            with counting(file.name, "kB") as report:
                outcome = fetch(file, out, on_bytes=lambda done, total: report(done // 1000, total and total // 1000))
        console.say(f"{out / file.name}: {outcome}")
        taken[str(out / file.name)] = outcome
    return {"files": taken}


@data.command(name="mdqa", help_epilogue=epilogue("data mdqa"))
def mdqa(
    *,
    questions: Annotated[
        str,
        described(
            'jsonl(.gz): "question", "answers" and "title" and "text" of its passage, or the official "ctxs".',
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, described("File to write; gzipped if its name ends in .gz.", metavar="FILE")],
    documents: Annotated[int, number("Documents of a question: the one with the answer and distractors.")] = 10,
    passages: Annotated[
        str | None, described('Corpus of distractors, jsonl(.gz) of "title" and "text"; without: other questions\'.')
    ] = None,
    exclude: Annotated[
        tuple[str, ...],
        described(
            "Leave out the questions of this file, such as a test file; may be given again.",
            negative="",
            show_default=False,
        ),
    ] = (),
    limit: Annotated[int | None, number("Questions to build, drawn by the seed. Default: all.")] = None,
    seed: Annotated[int, number("Seed of the order in which questions are taken.")] = 0,
    output: Output | None = None,
) -> dict[str, Any]:
    """Build a file for the task mdqa: each question with BM25 distractors that contain no answer."""
    from ropewalk.cli import console
    from ropewalk.cli.counting import counting
    from ropewalk.data.mdqa import build, read_excluded, read_passages, write_records
    from ropewalk.questions import read_questions

    given = read_questions(questions)
    corpus = None if passages is None else read_passages(passages)
    unwanted = read_excluded(exclude)
    if corpus and len(corpus) > LARGE:
        console.line(f"Indexing {len(corpus)} passages")
    with counting("Finding distractors", "questions") as report:
        built = build(given, documents, corpus, exclude=unwanted, limit=limit, seed=seed, on_progress=report)
    write_records(out, built.records)
    console.say(f"{out}: {len(built.records)} questions of {documents} documents each")
    for why, count in built.left_out.items():
        console.say(f"left out: {count} {why}")
    if limit is not None and len(built.records) < limit:
        console.say(f"fewer than the {limit} asked for: there are no more")
    return {"file": str(out), "questions": len(built.records), "documents": documents, "left_out": built.left_out}
