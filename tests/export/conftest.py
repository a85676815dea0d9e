"""What the tests of exports share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A remote-code export of each family, beside its source."""
    from exports import export, load, with_tokenizer
    from families import FAMILIES

    root = tmp_path_factory.mktemp("families")
    made = {}
    for family in FAMILIES:
        source = with_tokenizer(family.build(), root / f"{family.name}-source", tiny_path)
        made[family.name] = root / family.name
        export("remote-code", load(source)[0], family.factors, root / family.name)
    return made
