"""The tables of docs/results.md and README.md are what the scripts print from the JSON in the repository."""

from __future__ import annotations

from types import ModuleType

import pytest

from reproduce_scripts import reproduce_script


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return reproduce_script("results_page")


def test_the_tables_are_the_scripts(page: ModuleType) -> None:
    for path in page.PAGES:
        text = path.read_text()
        assert text == page.filled(path, text)
    assert page.blocks()["search-efficiency"].count("\n") > 30


def test_a_table_without_a_place_is_refused(page: ModuleType) -> None:
    with pytest.raises(ValueError, match="<!-- quality -->"):
        page.filled(next(iter(page.PAGES)), "# Results\n")
