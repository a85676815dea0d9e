"""The own layer loop as a whole: what it refuses, and that computing the last layer in part changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ropewalk.engine.batch import Batch, placed
from ropewalk.engine.candidates import candidate_tree
from ropewalk.engine.decoder import Decoder
from ropewalk.engine.layer_spec import NotFitError
from tiny import prompt, tiny_model


def decoder(model: Any) -> Decoder:
    return Decoder(model, range(len(model.model.layers)))


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "phi3"])
def test_few_scored_places_give_what_all_of_them_give(model_type: str) -> None:
    """With few of them the last layer's queries and MLP run at these alone."""
    config = {"head_dim": 16, "sliding_window": 8} if model_type == "gemma2" else {}
    model = tiny_model(model_type, **config).double()
    ids = prompt(2, 20)
    levels = placed(candidate_tree([[None] * 4, [1.2, 0.9, 1.0, 1.1], [1.2, 0.9, 1.0, 1.3]]), ids.device)

    def hidden(places: list[list[int]]) -> torch.Tensor:
        places_at = torch.tensor(places)
        batch = Batch(ids, torch.arange(20)[None], torch.zeros_like(ids), 20, (0, 0), places_at)
        with torch.no_grad():
            return decoder(model).hidden(batch, levels)

    whole = hidden([list(range(20))] * 2)
    some = hidden([[3, 19, 19], [0, 7, 11]])
    assert whole.shape == (3, 2, 20, 64)
    for row, places in enumerate([[3, 19, 19], [0, 7, 11]]):
        torch.testing.assert_close(some[:, row], whole[:, row, places], rtol=0, atol=1e-10)
    assert not torch.allclose(whole[1], whole[2])


def test_layers_on_several_devices_are_refused() -> None:
    model: Any = tiny_model()
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers": 0}
    decoder(model)
    model.hf_device_map["model.layers"] = "cpu"
    with pytest.raises(NotFitError, match="spread over several devices"):
        decoder(model)


def test_the_soft_cap_of_the_logits_is_read() -> None:
    assert decoder(tiny_model("gemma2", head_dim=16)).final_cap == 30.0
    assert decoder(tiny_model()).final_cap is None


def test_attention_weighs_less_in_a_wider_model() -> None:
    """128 numbers a pair of tokens, over all weights of a layer."""
    model: Any = tiny_model()
    weights = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    assert decoder(model).attention_weight == 2 * 64 / weights
    assert decoder(tiny_model(intermediate_size=960)).attention_weight < decoder(model).attention_weight
