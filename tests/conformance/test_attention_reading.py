"""Which of the supported model types can be read layer by layer; the others are refused, as docs/analysis.md says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_types import SUPPORTED, ModelType

from ropewalk.analysis.parts.attention_reader import read_attention
from ropewalk.errors import UnsupportedModelError
from ropewalk.patch import patched

REFUSED = {
    "deepseek_v32", "diffllama", "doge", "falcon", "gpt_oss", "granite_swa", "granitemoe_swa", "longcat_flash",
}  # fmt: skip
PAGE = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUPPORTED, ids=lambda kind: kind.name)
def test_every_supported_type_is_read_or_refused(kind: ModelType) -> None:
    model = kind.build()
    ids = torch.randint(3, 128, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    if kind.name in REFUSED:
        with pytest.raises(UnsupportedModelError, match="can't be read: "):
            read_attention(model, ids, 30)
        return
    vanilla = read_attention(model, ids, 30)
    with patched(model, kind.factors(0.9, 1.2)):
        scaled = read_attention(model, ids, 30)
    for layer in kind.rotary:
        for read in (vanilla.layers[layer], scaled.layers[layer]):
            np.testing.assert_allclose(read.thirds.sum(axis=-1), 1, atol=1e-4)
        assert not np.allclose(vanilla.rotations[layer], scaled.rotations[layer])
    first = kind.rotary[0]
    assert not np.array_equal(vanilla.layers[first].entropy, scaled.layers[first].entropy)


def test_the_page_names_those_that_are_refused() -> None:
    assert {name for name in REFUSED if name in PAGE} == REFUSED
