"""Prompts for people to read: the text of the very ids, and the marks in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ropewalk.prompt_view import PromptView, piece_kinds, view
from ropewalk.prompts import PromptRenderer
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, Piece, TaskOptions, TokenSpan
from tokenizers_factory import byte_level, metaspace

KV = make_task("kv", TaskOptions(keys=4, positions=4, limit=1)).examples("test")


def example(*pieces: Piece, answers: tuple[str, ...] = ("Kö",), **more: Any) -> Example:
    return Example("a@0", "a", 0, pieces, answers, **more)


def shown(tokenizer: Any, one: Example, **options: Any) -> list[PromptView]:
    return [view(tokenizer, prompt) for prompt in PromptRenderer(tokenizer, **options).render_all(one)]


@pytest.mark.parametrize("one", KV, ids=lambda one: one.id)
@pytest.mark.parametrize("tokenizer", [byte_level([('"', "0")]), byte_level([], chat=True), metaspace(chat=True)])
def test_what_is_marked_is_the_answer_and_the_evidence(tokenizer: Any, one: Example) -> None:
    (prompt,) = shown(tokenizer, one)
    marks = [(text.strip('" '), mark) for text, mark in prompt.stretches() if mark]
    assert marks == [(one.pieces[1 + one.gold_index].text.strip('" \n'), "gold"), (one.answers[0], "scored")]
    assert "".join(text for text, _ in prompt.stretches()) == prompt.text
    assert prompt.text == tokenizer.decode(prompt.prompt.ids, skip_special_tokens=False)
    assert all(token.startswith('"') for token in prompt.endings)
    assert len(prompt.endings) == sum(token.startswith('"') for token in tokenizer.get_vocab())


def test_special_tokens_are_visible() -> None:
    (chat,) = shown(byte_level([], chat=True), KV[0])
    assert chat.text.startswith("<|start|>user\nExtract")
    assert '<|end|>\n<|start|>assistant\n"' in chat.text
    (thinking,) = shown(byte_level([], chat=True), KV[0], chat_template_kwargs={"enable_thinking": False})
    assert '<think></think>"' in thinking.text
    (plain,) = shown(metaspace(), KV[0])
    assert plain.text.startswith("<s>")


def test_a_letter_of_several_tokens_is_marked_as_a_whole() -> None:
    """The ö of the answer is two bytes, each a token; so is the é that the prompt ends with."""
    (prompt,) = shown(byte_level([]), example(Piece("Caf\u00e9", "gold"), Piece(" oder", "query")))
    assert list(prompt.stretches()) == [
        ("", ""),
        ("Caf\u00e9", "gold"),
        (" oder ", ""),
        ("K\u00f6", "scored"),
        ("", ""),
    ]
    assert prompt.answer_tokens == ("K", "Ã", "¶")  # the two bytes as a byte-level vocabulary stores them


def test_every_alias_has_its_own_view() -> None:
    aliases = example(Piece("Say", "query"), answers=("ab", "b", "ab"))
    assert [one.text[slice(*one.scored)].strip() for one in shown(byte_level([]), aliases)] == ["ab", "b"]


def test_without_a_closing_anything_may_follow() -> None:
    (prompt,) = shown(byte_level([]), example(Piece("Say", "query")))
    assert prompt.endings == ()


def test_a_trimmed_prompt_keeps_its_gold() -> None:
    tokenizer = byte_level([], chat=True)
    tokenizer.chat_template = "{% for m in messages %}<|start|>{{ m['content'] | trim }}<|end|>{% endfor %}"
    pieces = (Piece(" \n ", "text"), Piece(" Kaf ", "gold"), Piece(" ask? ", "query"))
    (prompt,) = shown(tokenizer, example(*pieces))
    assert [text for text, mark in prompt.stretches() if mark == "gold"] == ["Kaf"]


def test_a_window_of_a_text_has_no_evidence() -> None:
    span = TokenSpan((0.0, 1.0), window=8, index=0, count=1, stride=None, start=4, stop=8)
    (prompt,) = shown(byte_level([]), example(Piece("abcdefghijkl", "text"), answers=(), span=span))
    assert list(prompt.stretches()) == [("abcd", ""), ("efgh", "scored"), ("", "")]


def test_as_json() -> None:
    (prompt,) = shown(byte_level([]), KV[1])
    document = json.loads(json.dumps(prompt.to_dict()))
    assert document["ids"][document["first"] :] == list(prompt.prompt.ids[prompt.prompt.first :])
    assert document["text"][slice(*document["scored"])] == document["answer"] == KV[1].answers[0]
    assert byte_level([]).convert_tokens_to_ids(document["tokens"]) == document["ids"]
    assert document["terminator"] == '"'


def test_kinds_of_pieces() -> None:
    assert piece_kinds(KV[2]) == {"instruction": 1, "distractor": 3, "gold": 1, "query": 1}
