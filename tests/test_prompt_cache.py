"""The prompt cache: equal to rendering, whatever happens to its files."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ropewalk import prompt_cache
from ropewalk.errors import DataError
from ropewalk.prompt_cache import cache_key, rendered
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, Piece, TaskOptions, TokenSpan
from tokenizers_factory import CHAT_TEMPLATE, byte_level, metaspace


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


def question(text: str = "Key:", *answers: str) -> Example:
    return Example("r@0", "r", 0, (Piece(text, "query"),), answers or ("abc", "b"), '"', '"')


def window(index: int) -> Example:
    span = TokenSpan((0.0, 1.0), 5, index, 2, None, 1, 5)
    return Example(f"t-{index}@0", f"t-{index}", 0, (Piece("a text of letters", "text"),), (), span=span)


EXAMPLES = [question(), question("Other:", "é"), window(0), window(1)]


def direct(renderer: PromptRenderer, examples: list[Example]) -> list[list[RenderedPrompt]]:
    return [renderer.render_all(example) for example in examples]


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


class Untouchable(PromptRenderer):
    """Renders nothing: what it gives comes from the cache."""

    def render_all(self, example: Example) -> list[RenderedPrompt]:
        raise AssertionError(f"{example.id} was rendered again")


@pytest.mark.parametrize("tokenizer", [byte_level([("c", '"')], chat=True), metaspace()])
def test_the_second_time_the_same_comes_from_the_disk(tokenizer: Any, folder: Path) -> None:
    expected = direct(PromptRenderer(tokenizer), EXAMPLES)
    assert rendered(PromptRenderer(tokenizer), EXAMPLES) == expected
    assert rendered(Untouchable(tokenizer), EXAMPLES) == expected
    first = rendered(Untouchable(tokenizer), EXAMPLES)[0][0]
    assert {type(token) for token in first.ids} == {type(first.first)} == {int}
    assert only_file(folder).suffix == ".safetensors"


def test_no_examples_are_no_prompts() -> None:
    assert rendered(PromptRenderer(byte_level([])), []) == rendered(Untouchable(byte_level([])), []) == []


def test_names_and_kinds_of_pieces_do_not_matter_but_come_back() -> None:
    renderer = Untouchable(byte_level([]))
    rendered(PromptRenderer(byte_level([])), [question()])
    renamed = dataclasses.replace(question(), id="s@0", record="s", group="g")
    assert rendered(renderer, [renamed])[0][0].example is renamed


def test_all_that_changes_ids_changes_the_key() -> None:
    plain, chat = byte_level([]), byte_level([], chat=True)
    dated = byte_level([], chat=True)
    dated.chat_template = CHAT_TEMPLATE + "{{ bos_token }}"
    other_token = byte_level([])
    other_token.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    span = window(0).span
    assert span is not None
    longer = dataclasses.replace(window(0), span=dataclasses.replace(span, stop=4))
    pairs = [
        (PromptRenderer(plain), [question()]),
        (PromptRenderer(byte_level([("a", "b")])), [question()]),
        (PromptRenderer(other_token), [question()]),
        (PromptRenderer(metaspace()), [question()]),
        (PromptRenderer(metaspace(bos=False)), [question()]),
        (PromptRenderer(chat), [question()]),
        (PromptRenderer(dated), [question()]),
        (PromptRenderer(chat, chat_template=False), [question()]),
        (PromptRenderer(chat, {"enable_thinking": False}), [question()]),
        (PromptRenderer(plain), [question("Key:", "abc")]),
        (PromptRenderer(plain), [question("Key!")]),
        (PromptRenderer(plain), [question(), question()]),
        (PromptRenderer(plain), [dataclasses.replace(question(), opening="")]),
        (PromptRenderer(plain), [dataclasses.replace(question(), closing="")]),
        (PromptRenderer(plain), [window(0)]),
        (PromptRenderer(plain), [window(1)]),
        (PromptRenderer(plain), [longer]),
    ]
    keys = [cache_key(renderer, examples) for renderer, examples in pairs]
    # A chat template that is switched off does not count.
    same = {keys[0], keys[7]}
    assert len(same) == 1
    assert len(set(keys)) == len(keys) - 1
    assert cache_key(PromptRenderer(byte_level([])), [question()]) == keys[0]


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not a cache file")


def _pickle(path: Path) -> None:
    import pickle

    path.write_bytes(pickle.dumps({"ids": [1, 2, 3]}))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _rewritten(path: Path, **changed: Any) -> None:
    """Whole and with the right digests, but not what was asked for."""
    arrays = load_file(path) | changed
    terminators = json.dumps(['"'] * (len(arrays["offsets"]) - 1))
    metadata = {
        "key": path.stem,
        "terminators": terminators,
        "sha256": prompt_cache._content_digest(arrays, terminators),
    }
    save_file(arrays, path, metadata)


def _fewer_counts(path: Path) -> None:
    _rewritten(path, counts=np.array([2], np.int64))


def _wrong_shape(path: Path) -> None:
    _rewritten(path, offsets=np.zeros((7, 2), np.int64))


def _too_few_firsts(path: Path) -> None:
    _rewritten(path, firsts=np.array([1], np.int64))


def _other_names(path: Path) -> None:
    save_file({"weights": np.zeros(3)}, path, {"key": path.stem})


DAMAGES = [_truncated, _flipped, _empty, _text, _pickle, _fewer_counts, _wrong_shape, _too_few_firsts, _other_names]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(damage: Any, folder: Path) -> None:
    tokenizer = byte_level([])
    expected = rendered(PromptRenderer(tokenizer), EXAMPLES)
    path = only_file(folder)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert rendered(PromptRenderer(tokenizer), EXAMPLES) == expected
    assert rendered(Untouchable(tokenizer), EXAMPLES) == expected


def test_a_file_of_another_set_under_this_name_is_not_believed(folder: Path) -> None:
    tokenizer = byte_level([])
    rendered(PromptRenderer(tokenizer), [question("Another:")])
    other = only_file(folder)
    expected = rendered(PromptRenderer(tokenizer), [question()])
    (path,) = set(folder.iterdir()) - {other}
    path.write_bytes(other.read_bytes())
    assert rendered(PromptRenderer(tokenizer), [question()]) == expected


def test_a_folder_in_a_files_place_does_no_harm(folder: Path) -> None:
    tokenizer = byte_level([])
    expected = rendered(PromptRenderer(tokenizer), EXAMPLES)
    _folder(only_file(folder))
    assert rendered(PromptRenderer(tokenizer), EXAMPLES) == expected


def test_a_cache_that_can_not_be_written_is_no_error(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    tokenizer = byte_level([])
    assert rendered(PromptRenderer(tokenizer), EXAMPLES) == direct(PromptRenderer(tokenizer), EXAMPLES)
    assert folder.read_text() == "a file where the folder should be"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_no_error(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    tokenizer = byte_level([])
    assert rendered(PromptRenderer(tokenizer), EXAMPLES) == direct(PromptRenderer(tokenizer), EXAMPLES)
    assert list(folder.iterdir()) == []


def test_chat_template_options_that_are_no_json_are_not_cached(folder: Path) -> None:
    renderer = PromptRenderer(byte_level([], chat=True), {"who": object()})
    assert rendered(renderer, [question()]) == direct(renderer, [question()])
    assert not folder.exists()


def test_what_the_renderer_refuses_is_refused_and_nothing_is_kept(folder: Path) -> None:
    with pytest.raises(DataError, match="r@0: the answer is empty"):
        rendered(PromptRenderer(byte_level([])), [question(), question("Key:", "")])
    assert not folder.exists()


def test_the_least_recently_used_files_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "MAX_FILES", 2)
    tokenizer = byte_level([])
    sets = [[question(f"{name}:")] for name in ("one", "two", "three")]
    paths = [folder / f"{cache_key(PromptRenderer(tokenizer), examples)}.safetensors" for examples in sets]
    for examples, path, written in zip(sets[:2], paths[:2], (1000, 2000), strict=True):
        rendered(PromptRenderer(tokenizer), examples)
        os.utime(path, (written, written))
    rendered(Untouchable(tokenizer), sets[0])  # written first, but used again just now
    rendered(PromptRenderer(tokenizer), sets[2])
    assert set(folder.iterdir()) == {paths[0], paths[2]}


def test_the_folder_keeps_within_its_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level([])
    rendered(PromptRenderer(tokenizer), [question("one:")])
    size = only_file(folder).stat().st_size
    monkeypatch.setattr(prompt_cache, "MAX_BYTES", 2 * size + 64)
    for name in ("two", "six", "ten"):
        rendered(PromptRenderer(tokenizer), [question(f"{name}:")])
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 * size + 64
    rendered(Untouchable(tokenizer), [question("ten:")])
    kept = sorted(folder.iterdir())
    rendered(PromptRenderer(tokenizer), [question("x" * 2 * size)])  # a set that is larger than all the room
    assert sorted(folder.iterdir()) == kept


def _render_in_another_process(queue: Any) -> None:
    examples = make_task("kv", TaskOptions(keys=10, limit=5)).examples("search")
    prompts = rendered(PromptRenderer(byte_level([])), examples)
    queue.put([prompt.ids for group in prompts for prompt in group])


def test_two_processes_at_once_get_the_same(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_render_in_another_process, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert found[0] == found[1]
    assert only_file(folder).suffix == ".safetensors"
    examples = make_task("kv", TaskOptions(keys=10, limit=5)).examples("search")
    cached = rendered(Untouchable(byte_level([])), examples)
    assert [prompt.ids for group in cached for prompt in group] == found[0]
