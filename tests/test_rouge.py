"""ROUGE against sums done by hand."""

from __future__ import annotations

import pytest

from ropewalk.rouge import has_words, rouge, rouge_l

REFERENCE = "the cats were sleeping on the mat"  # 7 words


def test_f1_of_words_pairs_and_the_longest_common_subsequence() -> None:
    found = rouge("a cat sleeps on a mat", [REFERENCE])  # stems: cat, sleep, on, mat of 6 words
    precision, recall = 4 / 6, 4 / 7
    assert found["rouge1"] == found["rougeL"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["rouge2"] == pytest.approx(2 * (1 / 5) * (1 / 6) / (1 / 5 + 1 / 6))  # "sleep on" alone


def test_the_order_of_words_counts_for_rouge_l_only() -> None:
    found = rouge("mat the on sleeping were cats the", [REFERENCE])
    assert found["rouge1"] == 1.0
    assert found["rougeL"] == pytest.approx(3 / 7)  # "the ... cats/on ... the" is the longest in order


def test_case_and_punctuation_do_not_count() -> None:
    assert rouge_l("The cats WERE sleeping, on the mat!", [REFERENCE]) == 1.0


def test_the_best_reference_counts() -> None:
    assert rouge_l("a dog barked", [REFERENCE, "a dog barked"]) == 1.0
    assert rouge_l("a dog barked", [REFERENCE]) == 0.0


@pytest.mark.parametrize("prediction", ["", "?!", "日本"])
def test_a_prediction_without_words_scores_zero(prediction: str) -> None:
    assert rouge_l(prediction, [REFERENCE]) == 0.0


def test_a_text_without_latin_letters_has_no_words() -> None:
    assert has_words("Ärger 3")
    assert not has_words("日本 — ?")
