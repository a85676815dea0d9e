"""The README's table and docs/supported-models.md say what the models really do."""

from __future__ import annotations

from supported_table import BEGIN, ROOT, stale_files


def test_tables_are_fresh() -> None:
    stale = [path.name for path in stale_files()]
    assert not stale, f"{stale} out of date: run `python tests/conformance/supported_table.py --write`"
    assert BEGIN in (ROOT / "README.md").read_text(encoding="utf-8")
