"""Filler text that is the same everywhere, and sentences that are the text again when joined."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.haystack import LONGEST_SENTENCE, Draws, generated_sentences, split_sentences


def test_generated_text_is_pinned() -> None:
    text = "".join(generated_sentences("a label", 500))
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "254aa3be1cbc96beea545061fdb256c2e8d860084c618cbca06189e14980e6f2"
    )


def test_generated_text_has_the_words_asked_for_and_hardly_repeats_itself() -> None:
    for words in (50, 2000):
        sentences = generated_sentences("label", words)
        count = sum(len(sentence.split()) for sentence in sentences)
        assert words <= count < words + 30
    assert len(set(sentences)) > 0.95 * len(sentences)
    assert all(sentence[0].isupper() and sentence.rstrip().endswith(".") for sentence in sentences)
    assert not any(character.isdigit() for sentence in sentences for character in sentence)


def test_labels_give_different_texts() -> None:
    assert generated_sentences("a", 100) != generated_sentences("b", 100)


def test_generated_text_is_split_at_its_own_sentences() -> None:
    sentences = generated_sentences("label", 300)
    assert split_sentences("".join(sentences)) == sentences


@given(st.text(alphabet='ab .!?"\n”é', max_size=300))
def test_sentences_joined_are_the_text(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    assert all(sentences)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ('He said: "Go." She went.', ['He said: "Go." ', "She went."]),
        ("3.14 is one number", ["3.14 is one number"]),
        ("A heading\n\nA text", ["A heading\n\n", "A text"]),
        ("", []),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_stretches_without_a_full_stop_are_cut() -> None:
    text = " ".join(f"word{index}" for index in range(250)) + "\n"
    sentences = split_sentences(text)
    assert [len(sentence.split()) for sentence in sentences] == [LONGEST_SENTENCE, LONGEST_SENTENCE, 50]
    assert "".join(sentences) == text


def test_draws_follow_from_the_label_alone() -> None:
    first, second = Draws("x"), Draws("x")
    assert [first.below(1000) for _ in range(200)] == [second.below(1000) for _ in range(200)]
    assert 0.0 <= Draws("y").fraction() < 1.0


def test_a_sample_has_every_item_at_most_once() -> None:
    assert sorted(Draws("x").sample(range(20), 20)) == list(range(20))
    counts = [0] * 4
    for index in range(400):
        counts[Draws(str(index)).choice(range(4))] += 1
    assert min(counts) > 60
