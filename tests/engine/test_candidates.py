"""The candidate tree: a leaf's path is its candidate, and nothing that two candidates share is computed twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ropewalk.engine.candidates import CandidateTree, candidate_tree

FACTORS = st.sampled_from([None, 1.0, 0.9, 1.1])
CANDIDATES = st.integers(1, 5).flatmap(
    lambda layers: st.lists(st.lists(FACTORS, min_size=layers, max_size=layers), min_size=1, max_size=8)
)


def path(tree: CandidateTree, leaf: int) -> list[float]:
    """The factors on the way from the last layer's group `leaf` down to the first layer."""
    found, group = [], leaf
    for level in reversed(tree.levels):
        found.append(level.factors[group])
        group = group if level.parents is None else level.parents[group]
    return found[::-1]


@given(CANDIDATES)
def test_the_path_of_a_leaf_is_its_candidate(candidates: list[list[float | None]]) -> None:
    tree = candidate_tree(candidates)
    assert len(tree.levels) == len(candidates[0])
    for leaf, candidate in zip(tree.leaves, candidates, strict=True):
        assert path(tree, leaf) == [1.0 if value is None else value for value in candidate]


@given(CANDIDATES)
def test_a_level_has_one_group_for_each_different_beginning(candidates: list[list[float | None]]) -> None:
    tree = candidate_tree(candidates)
    filled = [tuple(1.0 if value is None else value for value in candidate) for candidate in candidates]
    groups = [len({candidate[: layer + 1] for candidate in filled}) for layer in range(len(filled[0]))]
    assert [len(level.factors) for level in tree.levels] == groups
    assert tree.layers_computed == sum(groups) <= len(candidates) * len(filled[0])
    assert tree.width == len(set(filled)) == len(set(tree.leaves))


@given(CANDIDATES)
def test_parents_are_groups_of_the_layer_below(candidates: list[list[float | None]]) -> None:
    """None only where the groups are the same, one to one and in their order."""
    below = 1
    for level in candidate_tree(candidates).levels:
        if level.parents is None:
            assert len(level.factors) == below
        else:
            assert len(level.parents) == len(level.factors) > below
            assert set(level.parents) == set(range(below))
        below = len(level.factors)


def test_no_factors_are_factors_of_1() -> None:
    tree = candidate_tree([[None, None], [1.0, 1.0], [1.0, 2.0], [None, None]])
    assert tree.leaves == (0, 0, 1, 0)
    assert [level.factors for level in tree.levels] == [(1.0,), (1.0, 2.0)]
    assert [level.parents for level in tree.levels] == [None, (0, 0)]
    assert tree.layers_computed == 3
