"""Text to tokens: special tokens once, merged boundaries, what ends an answer; on small tokenizers and on SmolLM2's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from ropewalk.errors import DataError, RopewalkError
from ropewalk.prompts import PromptRenderer, RenderedPrompt, terminator_ids, use_chat_template
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, Piece, TaskOptions, TokenSpan
from tokenizers_factory import byte_level, metaspace


def example(answer: str = "abc1", text: str = "Key:", **more: Any) -> Example:
    around = {"opening": '"', "closing": '"'} | more
    return Example("r@0", "r", 0, (Piece(text, "query"),), (answer,), **around)


def split(tokenizer: Any, rendered: RenderedPrompt) -> tuple[str, str]:
    """Text of what the model is given, and of what it has to say."""
    ids = list(rendered.ids)
    return tokenizer.decode(ids[: rendered.first]), tokenizer.decode(ids[rendered.first :])


def test_without_merges_prompt_and_answer_meet_at_the_opening() -> None:
    tokenizer = byte_level([])
    rendered = PromptRenderer(tokenizer).render(example())
    assert split(tokenizer, rendered) == ('Key: "', "abc1")
    assert rendered.terminator == '"'
    assert rendered.num_scored == 4


def test_a_letter_merged_with_the_opening_is_scored_with_it() -> None:
    tokenizer = byte_level([('"', "a")])
    rendered = PromptRenderer(tokenizer).render(example(text="Key:\n"))
    assert split(tokenizer, rendered) == ("Key:\n", '"abc1')
    assert tokenizer.convert_ids_to_tokens(rendered.ids[rendered.first]) == '"a'
    # The ids are those that the tokenizer gives the whole string.
    assert list(rendered.ids) == tokenizer('Key:\n"abc1')["input_ids"]


def test_letters_merged_with_the_closing_are_part_of_the_terminator() -> None:
    tokenizer = byte_level([("c", '"')])
    rendered = PromptRenderer(tokenizer).render(example("abc"))
    assert split(tokenizer, rendered) == ('Key: "', "ab")
    assert rendered.terminator == 'c"'
    ends = terminator_ids(tokenizer, rendered.terminator)
    assert tokenizer.convert_ids_to_tokens(list(ends)) == ['c"']


def test_an_answer_wholly_merged_with_its_closing_is_refused() -> None:
    with pytest.raises(DataError, match="r@0: prompt or answer has no token of its own"):
        PromptRenderer(byte_level([("c", '"')])).render(example("c"))


@pytest.mark.parametrize("eos", [False, True])
def test_special_tokens_before_the_text_come_once_and_none_after(eos: bool) -> None:
    tokenizer = metaspace(eos=eos)
    rendered = PromptRenderer(tokenizer).render(example())
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert rendered.ids[0] == bos
    assert list(rendered.ids).count(bos) == 1
    assert end not in rendered.ids
    assert list(rendered.ids) == tokenizer('Key: "abc1')["input_ids"][: len(rendered.ids)]
    assert tokenizer.convert_ids_to_tokens(list(rendered.ids[rendered.first :])) == ["ab", "c", "1"]


def test_a_tokenizer_without_bos_gets_none() -> None:
    tokenizer = metaspace(bos=False)
    assert tokenizer.bos_token_id not in PromptRenderer(tokenizer).render(example()).ids


@pytest.mark.parametrize("eos", [False, True])
def test_a_chat_template_that_writes_bos_is_not_given_another(eos: bool) -> None:
    tokenizer = metaspace(eos=eos, chat=True)
    renderer = PromptRenderer(tokenizer)
    rendered = renderer.render(example())
    assert list(rendered.ids).count(tokenizer.bos_token_id) == 1
    assert rendered.ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in rendered.ids
    assert renderer.prompt_text(example()) == '<s><|start|>user\nKey:<|end|>\n<|start|>assistant\n"'


def test_the_chat_template_can_be_switched_off_and_says_so() -> None:
    tokenizer = metaspace(chat=True)
    plain = PromptRenderer(tokenizer, chat_template=False)
    assert plain.prompt_text(example()) == 'Key: "'
    assert plain.render(example()) == PromptRenderer(metaspace()).render(example())
    assert plain.settings() == {"format": "plain", "chat_template_kwargs": {}}


def test_chat_template_options_reach_the_template_and_the_settings() -> None:
    renderer = PromptRenderer(byte_level([], chat=True), {"enable_thinking": False})
    assert renderer.prompt_text(example()).endswith('assistant\n<think></think>"')
    assert renderer.settings() == {"format": "chat", "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(("chat", "use", "why"), [(False, True, "has no chat template"), (True, False, "switched off")])
def test_chat_template_options_without_a_template_are_refused(chat: bool, use: bool, why: str) -> None:
    with pytest.raises(RopewalkError, match=why):
        PromptRenderer(byte_level([], chat=chat), {"enable_thinking": False}, chat_template=use)


def test_a_template_of_a_file_takes_the_place_of_any_other(tmp_path: Path) -> None:
    """Also where the tokenizer has none; BOS comes from the template, once; results are told apart by its digest."""
    file = tmp_path / "own.jinja"
    file.write_text("{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}says:")
    for tokenizer in (metaspace(), metaspace(chat=True)):
        before = PromptRenderer(tokenizer).settings()
        use_chat_template(tokenizer, file)
        renderer = PromptRenderer(tokenizer)
        rendered = renderer.render(example())
        assert renderer.prompt_text(example()) == '<s>[Key:]says:"'
        assert rendered.ids.count(tokenizer.bos_token_id) == 1
        assert "chat_template_sha256" not in before
        assert renderer.settings()["chat_template_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert "chat_template_sha256" not in PromptRenderer(tokenizer, chat_template=False).settings()


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "can't be read"),
        ("{% for m in messages %}", "not a chat template"),
        ("{{ raise_exception('no') }}", "no"),
        ("Hello", "does not write what the user says"),
    ],
)
def test_a_template_that_loses_the_prompt_is_refused(tmp_path: Path, template: str | None, why: str) -> None:
    file = tmp_path / "own.jinja"
    if template is not None:
        file.write_text(template)
    tokenizer = metaspace()
    with pytest.raises(DataError, match=why) as error:
        use_chat_template(tokenizer, file)
    assert "own.jinja" in str(error.value)
    assert tokenizer.chat_template is None


def test_no_second_space_after_a_prompt_that_ends_in_one() -> None:
    assert PromptRenderer(byte_level([])).prompt_text(example(text="Key: ")) == 'Key: "'


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(RopewalkError, match="Slow is a slow tokenizer"):
        PromptRenderer(Slow())


@pytest.mark.parametrize("answers", [(), ("",)])
def test_an_empty_answer_is_refused(answers: tuple[str, ...]) -> None:
    empty = Example("r@0", "r", 0, (Piece("Key:", "query"),), answers, '"', '"')
    with pytest.raises(DataError, match="r@0: the answer is empty"):
        PromptRenderer(byte_level([])).render(empty)


def test_without_a_closing_there_is_nothing_to_recognise() -> None:
    rendered = PromptRenderer(byte_level([])).render(example(closing=""))
    assert rendered.terminator == ""
    assert rendered.num_scored == 4


@pytest.mark.parametrize("terminator", ["é", "\n", '" '])
def test_a_closing_that_vocabularies_store_in_another_form_is_refused(terminator: str) -> None:
    with pytest.raises(DataError, match="only printable ASCII without spaces"):
        terminator_ids(byte_level([]), terminator)


def test_terminators_are_the_tokens_that_begin_with_the_closing() -> None:
    tokenizer = byte_level([('"', "a"), ('"', ","), ("a", '"')])
    found = tokenizer.convert_ids_to_tokens(list(terminator_ids(tokenizer, '"')))
    assert sorted(found) == sorted(['"', '"a', '",'])


def test_smollm2_has_49_tokens_that_end_an_answer(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    _, tokenizer = demo_model_and_tokenizer
    ends = terminator_ids(tokenizer, '"')
    assert len(ends) == 49
    assert all(tokenizer.decode([index]).startswith('"') for index in ends)
    assert sum(tokenizer.decode([index]).startswith('"') for index in range(len(tokenizer))) == 49


@pytest.mark.parametrize("chat", [True, False])
def test_smollm2_prompts_are_the_whole_strings_tokens(demo_model_and_tokenizer: tuple[Any, Any], chat: bool) -> None:
    _, tokenizer = demo_model_and_tokenizer
    renderer = PromptRenderer(tokenizer, chat_template=chat)
    for one in make_task("kv", TaskOptions(keys=4, positions=4, limit=3)).examples("search"):
        rendered = renderer.render(one)
        if chat:
            messages = [{"role": "user", "content": one.prompt}]
            head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + '"'
            assert head.count("<|im_start|>assistant") == 1
        else:
            head = one.prompt + ' "'
        assert list(rendered.ids) == tokenizer(head + one.answers[0], add_special_tokens=False)["input_ids"]
        assert split(tokenizer, rendered) == (head, one.answers[0])
        assert rendered.terminator == '"'


def aliases(*answers: str) -> Example:
    return Example("r@0", "r", 0, (Piece("Key:", "query"),), answers, '"', '"')


def test_every_distinct_answer_is_rendered_in_its_order() -> None:
    tokenizer = byte_level([])
    renderer = PromptRenderer(tokenizer)
    rendered = renderer.render_all(aliases("abc", "b", "abc"))
    assert [split(tokenizer, prompt) for prompt in rendered] == [('Key: "', "abc"), ('Key: "', "b")]
    assert rendered[0] == renderer.render(aliases("abc", "b", "abc"))


def test_answers_of_equal_ids_are_given_once_unless_another_text_ends_them() -> None:
    lower = byte_level([])
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert len(PromptRenderer(lower).render_all(aliases("abc", "ABC"))) == 1
    merged = byte_level([("c", '"')])  # abc" is scored as a, b and a token that begins with c"
    rendered = PromptRenderer(merged).render_all(aliases("abc", "ab"))
    assert rendered[0].ids == rendered[1].ids
    assert [prompt.terminator for prompt in rendered] == ['c"', '"']


@pytest.mark.parametrize("answers", [(), ("",), ("abc", "")])
def test_an_empty_alias_is_refused(answers: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="r@0: the answer is empty"):
        PromptRenderer(byte_level([])).render_all(aliases(*answers))


TEXT = "".join(chr(97 + index % 26) for index in range(100))  # one token a letter


def window(text: str = TEXT, start: int = 0, stop: int = 5, **more: Any) -> Example:
    span = {"region": (0.4, 0.6), "window": 5, "index": 0, "count": 3, "stride": None, "start": start, "stop": stop}
    return Example("book-0@0", "book-0", 0, (Piece(text, "text"),), (), span=TokenSpan(**(span | more)))


def windows(tokenizer: Any, **more: Any) -> list[str]:
    renderer = PromptRenderer(tokenizer)
    rendered = [renderer.render_all(window(index=index, **more)) for index in range(more.get("count", 3))]
    return [tokenizer.decode(list(prompt.ids)) for (prompt,) in rendered]


def test_windows_are_spread_over_their_region_or_follow_a_stride() -> None:
    tokenizer = byte_level([])
    assert windows(tokenizer) == [TEXT[40:45], TEXT[47:52], TEXT[55:60]]
    assert windows(tokenizer, count=1) == [TEXT[40:45]]
    assert windows(tokenizer, stride=2, count=8) == [TEXT[40 + 2 * i : 45 + 2 * i] for i in range(8)]
    assert windows(tokenizer, region=(0.0, 1.0), count=20) == [TEXT[5 * i : 5 * i + 5] for i in range(20)]


def test_only_tokens_from_start_to_stop_of_a_window_are_scored() -> None:
    tokenizer = byte_level([], chat=True)
    (rendered,) = PromptRenderer(tokenizer).render_all(window(start=2, stop=4))
    assert split(tokenizer, rendered) == (TEXT[40:42], TEXT[42:44])
    assert rendered.terminator == ""


def test_prompts_of_one_window_are_prefixes_of_one_another() -> None:
    renderer = PromptRenderer(metaspace())
    short, long = (renderer.render_all(window(start=start, stop=start + 2))[0] for start in (0, 2))
    assert long.ids[: len(short.ids)] == short.ids


@pytest.mark.parametrize(("bos", "first"), [(True, 1), (False, 1)])
def test_the_first_token_is_scored_only_behind_a_bos(bos: bool, first: int) -> None:
    tokenizer = metaspace(bos=bos)
    (rendered,) = PromptRenderer(tokenizer).render_all(window())
    assert rendered.first == first
    assert list(rendered.ids).count(tokenizer.bos_token_id) == bos
    assert rendered.num_scored == (5 if bos else 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"count": 5},
            "book-0@0: the text has 100 tokens, 20 of them in this split, and 5 windows of 5 tokens need 25",
        ),
        ({"count": 9, "stride": 2}, "9 windows of 5 tokens need 21"),
        ({"window": 21, "count": 1}, "1 windows of 21 tokens need 21"),
        ({"stop": 1}, "book-0@0: tokens 0 to 1 of a window of 5 leave nothing to score"),
    ],
)
def test_windows_that_do_not_fit_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PromptRenderer(byte_level([])).render_all(window(**more))
