"""The kv task: prompts against the official format, stable records, and files that are wrong on purpose."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError, RopewalkError
from ropewalk.tasks import make_task, task_names
from ropewalk.tasks.base import Example, TaskOptions
from ropewalk.tasks.kv import generate_pairs

# The prompt file of the official evaluation (arXiv 2307.03172), where the object replaces the field in braces.
OFFICIAL = """Extract the value corresponding to the specified key in the JSON object below.

JSON data:
{formatted_kv_records}

Key: "{key}"
Corresponding value:"""

OFFICIAL_QUERY_AWARE = """Extract the value corresponding to the specified key in the JSON object below.

Key: "{key}"

JSON data:
{formatted_kv_records}

Key: "{key}"
Corresponding value:"""


def official_prompt(pairs: list[list[str]], key: str, template: str = OFFICIAL) -> str:
    """The official prompt over `pairs`; the object is laid out by the json module, one pair a line."""
    layout = json.dumps(dict(pairs), separators=(",\n ", ": "))
    return template.replace("{formatted_kv_records}", layout).replace("{key}", key)


def document(pairs: int = 6, gold: int = 2, salt: str = "") -> dict[str, Any]:
    records = [[f"key{salt}-{index}", f"value-{index}"] for index in range(pairs)]
    return {"ordered_kv_records": records, "key": records[gold][0], "value": records[gold][1]}


def write(path: Path, *documents: Any) -> Path:
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in documents)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def examples_of(path: Path, **options: Any) -> list[Example]:
    return make_task("kv", TaskOptions(data=path, **({"keys": 4, "positions": 2} | options))).examples("all")


def test_the_gold_pair_of_a_file_is_moved_and_the_prompt_is_official(tmp_path: Path) -> None:
    content = document(pairs=6, gold=2)
    examples = examples_of(write(tmp_path / "records.jsonl.gz", content), keys=5, positions=(0, 3, 4))
    gold = [content["key"], content["value"]]
    others = [pair for pair in content["ordered_kv_records"] if pair != gold][:4]
    for example, place in zip(examples, (0, 3, 4), strict=True):
        assert example.prompt == official_prompt([*others[:place], gold, *others[place:]], content["key"])
        assert example.gold_index == place
        assert example.answers == (content["value"],)
        assert (example.opening, example.closing) == ('"', '"')
        assert [piece.kind for piece in example.pieces].index("gold") == place + 1
    assert len({example.id for example in examples}) == 3
    assert {example.record for example in examples} == {f"kv-{content['key']}"}


def test_generated_records_ask_for_another_pair_of_the_same_object() -> None:
    task = make_task("kv", TaskOptions(keys=7, positions=3, limit=2, seed=5))
    examples = task.examples("validation")
    assert [(example.record, example.gold_index) for example in examples] == [
        (f"kv-5-validation-{record}", place) for record in (0, 1) for place in (0, 3, 6)
    ]
    for record in (0, 1):
        pairs = generate_pairs(5, "validation", record, 7)
        for example in examples[3 * record : 3 * record + 3]:
            key, value = pairs[example.gold_index]
            assert example.prompt == official_prompt([list(pair) for pair in pairs], key)
            assert example.answers == (value,)


def test_the_query_aware_prompt_is_official_for_records_of_a_file(tmp_path: Path) -> None:
    content = document(pairs=6, gold=2)
    path = write(tmp_path / "records.jsonl", content)
    examples = examples_of(path, keys=6, positions=(0, 5), options={"variant": "query-aware"})
    pairs = content["ordered_kv_records"]
    gold, others = pairs[2], pairs[:2] + pairs[3:]
    assert [example.prompt for example in examples] == [
        official_prompt([gold, *others], gold[0], OFFICIAL_QUERY_AWARE),
        official_prompt([*others, gold], gold[0], OFFICIAL_QUERY_AWARE),
    ]
    assert [piece.kind for piece in examples[0].pieces[:4]] == ["instruction", "query", "instruction", "gold"]


@pytest.mark.parametrize("keys", [2, 75, 140, 300])
def test_generated_query_aware_prompts_ask_for_the_same_pairs_as_plain_ones(keys: int) -> None:
    options = TaskOptions(keys=keys, positions=2, limit=2, seed=5)
    plain = make_task("kv", options).examples("test")
    aware = make_task("kv", replace(options, options={"variant": "query-aware"})).examples("test")
    for one, other in zip(plain, aware, strict=True):
        assert (one.id, one.gold_index, one.answers) == (other.id, other.gold_index, other.answers)
        pairs = [list(pair) for pair in generate_pairs(5, "test", int(one.record[-1]), keys)]
        assert other.prompt == official_prompt(pairs, pairs[one.gold_index][0], OFFICIAL_QUERY_AWARE)


def test_plain_prompts_of_a_generated_record_share_all_but_the_query_and_query_aware_ones_the_first_sentence() -> None:
    def heads(variant: str, end: str) -> set[str]:
        task = make_task("kv", TaskOptions(keys=9, positions=3, limit=1, options={"variant": variant}))
        return {example.prompt[: example.prompt.index(end)] for example in task.examples("search")}

    assert len(heads("plain", "\n\nKey:")) == 1
    assert len(heads("query-aware", "JSON data")) == 3
    assert heads("query-aware", 'Key: "') == {OFFICIAL.partition("JSON data")[0]}


def test_the_metric_is_the_official_one_over_text_after_the_opening_quote() -> None:
    task = make_task("kv", TaskOptions(keys=9, positions=1, limit=1))
    (example,) = task.examples("search")
    assert task.metric.score is not None
    assert task.metric.score(example.answers[0].upper() + '"\n}', example.answers) == 1.0
    assert (
        task.metric.score(f'{generate_pairs(0, "search", 0, 9)[0][0]}": "{example.answers[0]}', example.answers) == 1.0
    )
    assert task.metric.score(example.answers[0][:-1], example.answers) == 0.0
    assert task.metric.max_new_tokens >= len(example.answers[0]) + 1


def test_short_keeps_the_variant_and_the_records() -> None:
    task = make_task("kv", TaskOptions(keys=40, positions=5, limit=3, seed=2, options={"variant": "query-aware"}))
    short = task.short()
    assert short is not None
    assert short.settings() == task.settings() | {"keys": 5, "positions": [0, 4]}
    records = {example.record for example in task.examples("test")}
    assert {example.record for example in short.examples("test")} == records
    assert make_task("kv", TaskOptions(keys=2)).short() is None


def test_generated_prompts_are_the_same_on_every_machine() -> None:
    example = make_task("kv", TaskOptions(keys=10, positions=(4,), limit=1, seed=3)).examples("test")[0]
    digest = hashlib.sha256((example.prompt + example.answers[0]).encode()).hexdigest()
    assert digest == "b5d7005c2fffc19f5ec6b27c8490b29a30110245bef592bd4e5a1a54f7923f75"


def test_generated_ids_are_version_4_and_all_different() -> None:
    texts = [text for index in range(20) for pair in generate_pairs(0, "search", index, 30) for text in pair]
    assert len(set(texts)) == len(texts) == 20 * 30 * 2
    assert all(uuid.UUID(text).version == 4 and str(uuid.UUID(text)) == text for text in texts)


def test_a_record_only_grows_with_keys() -> None:
    assert generate_pairs(1, "test", 0, 9)[:4] == generate_pairs(1, "test", 0, 4)


def test_generated_splits_and_seeds_share_no_key() -> None:
    def keys(split: Any, seed: int) -> set[str]:
        return {key for index in range(30) for key, _ in generate_pairs(seed, split, index, 10)}

    sets = [keys(split, seed) for split in ("search", "validation", "test") for seed in (0, 1)]
    assert len(set.union(*sets)) == sum(len(some) for some in sets)


def test_splits_of_a_file_are_disjoint_cover_it_and_ignore_the_order(tmp_path: Path) -> None:
    documents = [document(salt=str(index)) for index in range(60)]
    forward, backward = write(tmp_path / "a.jsonl", *documents), write(tmp_path / "b.jsonl", *documents[::-1])

    def records(path: Path, split: Any) -> list[str]:
        examples = make_task("kv", TaskOptions(data=path, keys=4, positions=1)).examples(split)
        return [example.record for example in examples]

    parts = {split: records(forward, split) for split in ("search", "validation", "test")}
    assert sorted(record for part in parts.values() for record in part) == sorted(records(forward, "all"))
    assert sum(len(part) for part in parts.values()) == 60
    assert all(set(records(backward, split)) == set(part) for split, part in parts.items())
    assert all(parts.values())


def test_limit_takes_the_first_records_of_the_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(document(salt=str(index)) for index in range(40)))
    task = {limit: make_task("kv", TaskOptions(data=path, keys=4, positions=2, limit=limit)) for limit in (None, 3)}
    assert task[3].examples("test") == task[None].examples("test")[:6]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": \n', "line 2: not JSON"),
        ("[1]\n", "line 2: expected a JSON object, got list"),
        ({"value": "v", "ordered_kv_records": []}, 'line 2: field "key" is None'),
        ({**document(salt="b"), "key": ""}, "line 2: field \"key\" is ''"),
        ({**document(salt="b"), "value": 3}, 'line 2: field "value" is 3'),
        ({"key": "k", "value": "v"}, 'line 2: field "ordered_kv_records": expected a list'),
        ({**document(salt="b"), "ordered_kv_records": [["k", "v", "w"]]}, "expected a list of \\[key, value\\] pairs"),
        ({**document(salt="b"), "ordered_kv_records": [["k", 3]]}, "expected a list of \\[key, value\\] pairs"),
        ({**document(salt="b"), "value": "other"}, 'line 2: field "ordered_kv_records" does not hold the pair'),
        (document(pairs=3, salt="b"), "line 2: the record has 3 pairs, --keys asks for 4"),
        (document(), 'line 2: field "key" is the same as in line 1'),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "records.jsonl", document(), line)
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + message):
        examples_of(path)


def test_a_key_twice_in_one_record_is_refused(tmp_path: Path) -> None:
    content = document()
    content["ordered_kv_records"].append([content["key"], "another value"])
    with pytest.raises(DataError, match='line 1: field "ordered_kv_records" has the same key twice'):
        examples_of(write(tmp_path / "records.jsonl", content))


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(json.dumps(document()).encode() + b'\n{"key": "\xff"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        examples_of(path)


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    content = document()
    content["value"] = content["ordered_kv_records"][2][1] = "one\u2028two"
    path = tmp_path / "records.jsonl"
    path.write_text("\n" + json.dumps(content, ensure_ascii=False) + "\r\n\n", encoding="utf-8")
    assert examples_of(path)[0].answers == ("one\u2028two",)


def _truncated(content: bytes) -> bytes:
    return content[:-12]


def _flipped(content: bytes) -> bytes:
    return content[:20] + bytes([content[20] ^ 0xFF]) + content[21:]


@pytest.mark.parametrize("damage", [_truncated, _flipped, lambda content: b"plain text"])
def test_a_damaged_gzip_file_is_one_clear_error(tmp_path: Path, damage: Any) -> None:
    path = write(tmp_path / "records.jsonl.gz", *(document(salt=str(index)) for index in range(20)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"records\.jsonl\.gz: can't be read"):
        examples_of(path)


def test_a_missing_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        examples_of(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"empty\.jsonl: no record in the split 'all'"):
        examples_of(write(tmp_path / "empty.jsonl", "\n"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": 1}, "1 keys: expected at least 2"),
        ({"limit": 0}, "limit is 0 records"),
        ({"options": {"variant": "oracle"}}, "option 'variant' is 'oracle', expected one of: plain, query-aware"),
        ({"options": {"varaint": "plain"}}, "no option 'varaint', .*did you mean 'variant'"),
        ({"keys": 3, "positions": 4}, "4 positions among 3 places"),
        ({"keys": 3, "positions": (0, 3)}, "expected different ascending 0-based places from 0 to 2"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_task("kv", TaskOptions(**options))


def test_generated_records_have_no_split_all() -> None:
    with pytest.raises(DataError, match="generated ones are search, validation or test"):
        make_task("kv", TaskOptions()).examples("all")


def test_settings_follow_the_content_of_a_file_not_its_name(tmp_path: Path) -> None:
    def settings(path: Path) -> dict[str, object]:
        return make_task("kv", TaskOptions(data=path)).settings()

    one, copy = write(tmp_path / "a.jsonl", document()), write(tmp_path / "b.jsonl", document())
    other = write(tmp_path / "c.jsonl", document(salt="x"))
    assert settings(one) == settings(copy) != settings(other)
    assert json.loads(json.dumps(settings(one))) == settings(one)


def test_the_registry_finds_tasks_and_suggests_names() -> None:
    assert "kv" in task_names()
    assert "base" not in task_names()
    with pytest.raises(RopewalkError, match=r"no task 'kvv', expected one of: .*did you mean 'kv'"):
        make_task("kvv", TaskOptions())
