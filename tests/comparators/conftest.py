"""The models of this folder's suites."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from tiny import tiny_model


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """In float64, so that what differs differs by the method."""
    return tiny_model(request.param).double()
