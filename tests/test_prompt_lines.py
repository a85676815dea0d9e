"""Lines of a user's own file: what they form, and what is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.prompt_lines import Line, read_prompts, rendered_pieces


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(pieces: tuple[str, ...] = ("a", "b", "c"), position: int | None = 1, **fields: str) -> Line:
    return Line("FILE, line 1", "x", fields, pieces, ("yes",), position, "")


def text(template: str, of: Line, place: int | None = None, separator: str = "|") -> str:
    return "".join(piece.text for piece in rendered_pieces(template, separator, of, place))


PROMPT = {"prompt": "p", "answer": "a"}
MOVED = {"pieces": ["a", "b"], "position": 0, "answer": "a"}


@pytest.mark.parametrize(("place", "expected"), [(0, "b|a|c"), (1, "a|b|c"), (2, "a|c|b")])
def test_the_gold_piece_is_moved_among_the_others(place: int, expected: str) -> None:
    pieces = rendered_pieces("{pieces}", "|", line(), place)
    assert "".join(piece.text for piece in pieces) == expected
    assert [piece.kind for piece in pieces].index("gold") == place
    assert pieces[place].text.rstrip("|") == "b"


def test_without_a_place_pieces_stay_and_none_is_gold() -> None:
    pieces = rendered_pieces("{pieces}", "|", line(position=None), None)
    assert [(piece.text, piece.kind) for piece in pieces] == [("a|", "text"), ("b|", "text"), ("c", "text")]


def test_numbers_are_those_after_placement() -> None:
    numbered = line(pieces=("[{number}] a", "[{number}] b", "[{number}] c"))
    assert text("{pieces}", numbered, 2) == "[1] a|[2] c|[3] b"


def test_fields_fill_the_template_and_other_braces_stay() -> None:
    asked = line(question="Who is {number}?", prompt="p")
    assert text('{"q": "{question}"}\n{pieces} -- {question}', asked, 1) == (
        '{"q": "Who is {number}?"}\na|b|c -- Who is {number}?'
    )
    assert text("{} { x } {prompt}", line(pieces=(), prompt="Say {pieces}!")) == "{} { x } Say {pieces}!"


def test_the_parts_of_a_prompt_say_what_they_are() -> None:
    kinds = [piece.kind for piece in rendered_pieces("Read.\n{pieces}\nWho?", "", line(), 0)]
    assert kinds == ["instruction", "gold", "distractor", "distractor", "query"]


@pytest.mark.parametrize(
    ("template", "of", "message"),
    [
        ("{question}{pieces}", line(answer="x", title="y"), 'asks for {question}.* "question" .it has: answer, title'),
        ("{pieces}", line(pieces=(), prompt="p"), 'asks for {pieces}, and the line has no string field "pieces"'),
        ("Who?", line(), "the template has {pieces} 0 times, expected once"),
        ("{pieces}{pieces}", line(), "the template has {pieces} 2 times"),
    ],
)
def test_a_template_that_does_not_fit_names_line_and_field(template: str, of: Line, message: str) -> None:
    with pytest.raises(DataError, match="FILE, line 1: .*" + message):
        text(template, of, 0)


def test_lines_of_one_id_are_a_record(tmp_path: Path) -> None:
    lines = [{**PROMPT, "prompt": f"{name}{at}", "id": name, "position": at} for at in (5, 0) for name in ("x", "y")]
    layout, records = read_prompts(write(tmp_path / "a.jsonl", *lines))
    assert layout == "listed"
    assert [record.name for record in records] == ["x", "y"]
    assert [list(record.lines) for record in records] == [[0, 5], [0, 5]]
    assert records[1].lines[5].fields["prompt"] == "y5"


def test_names_are_ids_or_follow_from_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**PROMPT, "id": 7}, PROMPT, {"answer": "a", "prompt": "q"})
    _, records = read_prompts(path)
    assert records[0].name == "7"
    assert len({record.name for record in records}) == 3
    swapped = write(tmp_path / "b.jsonl", {"answer": "a", "prompt": "p"})
    assert read_prompts(swapped)[1][0].name == records[1].name


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"answer": "a"}, 'line 2: expected one of the fields "pieces" and "prompt"'),
        ({**PROMPT, "pieces": ["a"]}, 'line 2: expected one of the fields "pieces" and "prompt"'),
        ({"prompt": " ", "answer": "a"}, "line 2: field \"prompt\" is ' '"),
        ({"pieces": [], "answer": "a"}, 'line 2: field "pieces" is \\[\\]'),
        ({"prompt": "p"}, 'line 2: expected one of the fields "answer" and "answers"'),
        ({**PROMPT, "answers": ["a"]}, 'line 2: expected one of the fields "answer" and "answers"'),
        ({"prompt": "p", "answers": []}, 'line 2: field "answers" is \\[\\]'),
        ({**MOVED, "position": 2}, 'line 2: field "position" is 2, expected a whole number from 0 to 1'),
        ({**MOVED, "position": "0"}, "line 2: field \"position\" is '0'"),
        ({**MOVED, "position": True}, 'line 2: field "position" is True'),
        ({**PROMPT, "position": -1, "id": "x"}, 'line 2: field "position" is -1, expected a whole number from 0$'),
        ({**PROMPT, "position": 1}, 'line 2: field "id" is missing'),
        ({**PROMPT, "id": 1.5}, 'line 2: field "id" is 1.5, expected a name'),
        ({**PROMPT, "group": 3}, 'line 2: field "group" is 3'),
        (MOVED, 'line 2: "pieces" and "position", while line 1 has no "position"'),
        (PROMPT, "line 2: the same id '[0-9a-f]{16}' as in line 1"),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, broken: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", PROMPT, broken)
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + message):
        read_prompts(path)


def test_a_record_that_lacks_a_position_is_named_with_its_lines(tmp_path: Path) -> None:
    listed = [{**PROMPT, "id": name, "position": at} for name in ("x", "y") for at in (0, 3, 9)]
    path = write(tmp_path / "a.jsonl", *listed[:4], listed[5])
    with pytest.raises(DataError, match=r"record 'y' \(line 4, line 5\) has no position 3, which line 2 has"):
        read_prompts(path)
    path = write(tmp_path / "b.jsonl", *listed, listed[1])
    with pytest.raises(DataError, match="line 7: the same id 'x' and position 3 as in line 2"):
        read_prompts(path)
    path = write(tmp_path / "c.jsonl", listed[0], {**listed[1], "group": "g"})
    with pytest.raises(DataError, match=r"record 'x' \(line 1, line 2\) has several values in the field \"group\""):
        read_prompts(path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: no record in the file"):
        read_prompts(write(tmp_path / "a.jsonl"))
