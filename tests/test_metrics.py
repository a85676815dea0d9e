"""The official metrics: their corner cases in tables, and what holds for every text."""

from __future__ import annotations

import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.metrics import best_subspan_em, blank_answers, kv_match, normalize_answer

# Texts in which the rules meet: articles, marks, punctuation, spaces of several kinds.
TEXTS = st.text(
    st.sampled_from("aAnNtThHeE xX.,-*'\"\n\t\u00a0\u2009\u0301\u200d_ßİΣ“×") | st.characters(), max_size=30
)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Beatles", "beatles"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("theatre, another, Athens", "theatre another athens"),
        ("A", ""),
        ("The The", ""),
        ("", ""),
        ("*", ""),
        ("...!?", ""),
        (" \t\n\u00a0 ", ""),
        ("U.S.A.", "usa"),
        ("AM 5778", "am 5778"),
        ("14 December 1972 UTC", "14 december 1972 utc"),
        ("May 18 , 2018", "may 18 2018"),
        ("A's and O's", "as and os"),
        ("the-end", "theend"),
        ("(the) end", "end"),
        ("the_end", "theend"),
        ("$1,000.50", "100050"),
        (string.punctuation, ""),
        ("“The End”", "“ end”"),
        ("a—b", "—b"),
        ("the symbol ×", "symbol ×"),
        ("«a»", "« »"),
        ("it’s a fact", "it’s fact"),
        ("Röntgen", "röntgen"),
        ("Ro\u0308ntgen", "ro\u0308ntgen"),
        ("a\u0301 b", "a\u0301 b"),  # a letter with a combining mark is no article
        ("a\u200db", "a\u200db"),
        ("a\u00b2", "\u00b2"),  # a superscript two is no letter
        ("ΑΣ", "ας"),
        ("STRASSE Straße", "strasse straße"),
        ("İ", "i\u0307"),
        ("two\u2009words\u3000here", "two words here"),
        ("one\x1ctwo", "one two"),
        ("one\u200btwo", "one\u200btwo"),
    ],
)
def test_normalisation(text: str, normalised: str) -> None:
    assert normalize_answer(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("Paris", ["Paris"], 1.0),
        ("It is paris, of course.", ["Paris"], 1.0),
        ("Lyon", ["Paris"], 0.0),
        ("Lyon", ["Paris", "lyon"], 1.0),
        ("the Wilhelm Röntgen", ["Wilhelm Conrad Röntgen", "Wilhelm Röntgen"], 1.0),
        ("Rontgen", ["Röntgen"], 0.0),
        ("Ro\u0308ntgen", ["Röntgen"], 0.0),
        ("In the United States of America", ["United States of the America"], 1.0),
        ("1,000", ["1000"], 1.0),
        ("well-known", ["well known"], 0.0),
        ("comparison", ["Paris"], 1.0),  # contained, not a word of its own
        ("Par is", ["Paris"], 0.0),
        ("Lyon\nParis", ["Paris"], 0.0),
        ("\nParis", ["Paris"], 0.0),
        (" \t Paris \nLyon", ["Paris"], 1.0),
        ("Lyon\r\nParis", ["Paris"], 0.0),
        ("Lyon\rParis", ["Paris"], 1.0),  # only the newline character ends the line
        ("Lyon\u2028Paris", ["Paris"], 1.0),
        ("Lyon\x0bParis", ["Paris"], 1.0),
        ("", ["Paris"], 0.0),
        ("Paris", [], 0.0),
        ("", [], 0.0),
        # Of these answers nothing is left, so they are in everything: the official rule.
        ("Lyon", [""], 1.0),
        ("", ["a"], 1.0),
        ("\nLyon", ["The"], 1.0),
        ("Lyon", ["a saltire", "*"], 1.0),
    ],
)
def test_best_subspan_exact_match(prediction: str, answers: list[str], score: float) -> None:
    assert best_subspan_em(prediction, answers) == score


@pytest.mark.parametrize(
    ("prediction", "value", "score"),
    [
        ("0d7ba717", "0d7ba717", 1.0),
        ("0D7BA717", "0d7ba717", 1.0),
        ("0d7ba717", "0D7BA717", 1.0),
        ('The value is "0d7ba717".', "0d7ba717", 1.0),
        ("\n\n0d7ba717", "0d7ba717", 1.0),
        ("first\n0d7ba717", "0d7ba717", 1.0),
        ("x0d7ba7179", "0d7ba717", 1.0),
        ("0d7b-a717", "0d7ba717", 0.0),
        ("0d7ba71", "0d7ba717", 0.0),
        ("", "0d7ba717", 0.0),
        ("anything", "", 1.0),
    ],
)
def test_kv_match(prediction: str, value: str, score: float) -> None:
    assert kv_match(prediction, value) == score


def test_blank_answers_are_those_that_match_everything() -> None:
    assert blank_answers(["the symbol ×", "*", "a saltire", "The", ""]) == ["*", "The", ""]
    assert blank_answers([]) == []


@given(st.lists(TEXTS, max_size=4))
def test_an_answer_is_blank_exactly_if_it_matches_the_empty_prediction(answers: list[str]) -> None:
    assert blank_answers(answers) == [answer for answer in answers if best_subspan_em("", [answer])]


@given(TEXTS)
def test_normalisation_leaves_no_capital_punctuation_or_double_space(text: str) -> None:
    normalised = normalize_answer(text)
    assert normalised == normalised.lower() == " ".join(normalised.split())
    assert not set(normalised) & set(string.punctuation)
    assert not {"a", "an", "the"} & set(normalised.split())


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@given(TEXTS, TEXTS, TEXTS)
def test_an_answer_between_other_words_matches(before: str, answer: str, after: str) -> None:
    line = f"{before} {answer} {after}".replace("\n", " ")
    assert best_subspan_em(line, ["\0", answer.replace("\n", " ")]) == 1.0
    assert best_subspan_em("\n" + line, [answer]) == float(not normalize_answer(answer))


@given(TEXTS, st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3))
def test_one_alias_that_matches_is_enough(prediction: str, some: list[str], others: list[str]) -> None:
    both = best_subspan_em(prediction, some + others)
    assert both == max(best_subspan_em(prediction, some), best_subspan_em(prediction, others))
    assert both == best_subspan_em(prediction, others + some)


def test_lower_case_is_final_for_every_character() -> None:
    assert all(chr(code).lower().lower() == chr(code).lower() for code in range(sys.maxunicode + 1))
