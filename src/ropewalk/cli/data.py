"""`ropewalk data`: files of questions, the official ones fetched or own ones built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App

from ropewalk.cli.options import described
from ropewalk.errors import RopewalkError

LARGE = 20_000  # passages, about two seconds of indexing

data = App(name="data")


@data.command(name="official")
def official(
    *names: Annotated[str, described("Files to get; none: all of them (with --from: those that are there).")],
    out: Annotated[Path | None, described("Folder to put them in.")] = None,
    source: Annotated[
        Path | None, described("Take them from this folder or below it, not from the network.", name="--from")
    ] = None,
    list_names: Annotated[bool, described("Print the names and do nothing else.", name="--list", negative="")] = False,
) -> None:
    """Get the official files of "Lost in the Middle", checked against pinned digests.

    Example: ropewalk data official nq-open-oracle kv-retrieval-140_keys --out official
    """
    from ropewalk.cli import console
    from ropewalk.cli.counting import counting
    from ropewalk.data.official import FILES, choose, fetch, found_in, take

    screen = console.output()
    if list_names:
        for file in FILES:
            screen.print(file.name, soft_wrap=True)
        return
    if out is None:
        raise RopewalkError("--out DIR is missing: the folder to put the files in (--list prints their names)")
    for file in found_in(source) if source and not names else choose(names):
        if source:
            outcome = take(file, out, source)
        else:
            with counting(file.name, "kB") as report:
                outcome = fetch(file, out, on_bytes=lambda done, total: report(done // 1000, total and total // 1000))
        screen.print(f"{out / file.name}: {outcome}", soft_wrap=True)


@data.command(name="mdqa")
def mdqa(
    *,
    questions: Annotated[
        str,
        described('jsonl(.gz): "question", "answers" and "title" and "text" of its passage, or the official "ctxs".'),
    ],
    out: Annotated[Path, described("File to write; gzipped if its name ends in .gz.")],
    documents: Annotated[int, described("Documents of a question: the one with the answer and distractors.")] = 10,
    passages: Annotated[
        str | None, described('Corpus of distractors, jsonl(.gz) of "title" and "text"; without: other questions\'.')
    ] = None,
    exclude: Annotated[
        tuple[str, ...],
        described("Leave out the questions of this file, such as a test file; may be repeated.", negative=""),
    ] = (),
    limit: Annotated[int | None, described("Questions to build, drawn by the seed. Default: all.")] = None,
    seed: Annotated[int, described("Seed of the order in which questions are taken.")] = 0,
) -> None:
    """Build a file for the task mdqa: each question with BM25 distractors that contain no answer.

    Example: ropewalk data mdqa --questions nq-open-oracle.jsonl.gz --out mdqa-10.jsonl.gz
    """
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
    screen = console.output()
    screen.print(f"{out}: {len(built.records)} questions of {documents} documents each", soft_wrap=True)
    for why, count in built.left_out.items():
        screen.print(f"left out: {count} {why}")
    if limit is not None and len(built.records) < limit:
        screen.print(f"fewer than the {limit} asked for: there are no more")
