"""The own layer loop as a whole: what it refuses, and that computing the last layer in part changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ropewalk.engine import decoder as decoder_module
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


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tail_rows(rows: list[tuple[int, list[int]]]) -> Batch:
    """Rows of a stem and tails, padded to one length; the last two tokens of each are scored."""
    width = max(stem + sum(tails) for stem, tails in rows)
    positions, segments, scored = [], [], []
    for stem, tails in rows:
        at = [*range(stem), *(stem + place for size in tails for place in range(size))]
        of = [0] * stem + [number + 1 for number, size in enumerate(tails) for _ in range(size)]
        scored.append([len(at) - 2, len(at) - 1])
        positions.append(at + [0] * (width - len(at)))
        segments.append(of + [-1] * (width - len(of)))
    stem = min(stem for stem, _ in rows)
    ids = prompt(len(rows), width)
    return Batch(ids, torch.tensor(positions), torch.tensor(segments), stem, (0,) * len(rows), torch.tensor(scored))


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gemma3_text", "qwen2"])
@pytest.mark.parametrize("part_tokens", [1, 40, 512])
def test_parts_of_a_batch_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, model_type: str, part_tokens: int
) -> None:
    """Rows one by one, where each tail is attended to by itself, and rows together, where masks tell tails apart.

    The rows' stems differ, one row is padded, and one tail is a single token.
    """
    monkeypatch.setattr(decoder_module, "PART_TOKENS", part_tokens)
    config = {"head_dim": 16, "sliding_window": 8} if model_type.startswith("gemma") else {}
    model: Any = tiny_model(model_type, **config).double()
    own = decoder(model)
    levels = placed(candidate_tree([[None] * 4, [1.2, 0.9, 1.0, 1.1]]), torch.device("cpu"))
    batch = tail_rows([(14, [6, 3, 5]), (12, [1, 9]), (13, [4, 5, 6])])
    plain = Batch(
        prompt(5, 20), torch.arange(20)[None], torch.zeros(5, 20).long(), 20, (0,) * 5, torch.full((5, 1), 19)
    )
    for one in (batch, plain):
        with torch.no_grad():
            found, expected = own.hidden(one, levels), own._hidden(one, levels, None)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_parts_are_not_too_short_and_enough_for_all_threads() -> None:
    batch = Batch(
        prompt(9, 20), torch.arange(20)[None], torch.zeros(9, 20).long(), 20, (0,) * 9, torch.zeros(9, 1).long()
    )
    assert [len(part.ids) for part in decoder_module._parts(batch, 2)] == [5, 4]
    assert [len(part.ids) for part in decoder_module._parts(batch, 4)] == [3, 3, 3]
    long = Batch(
        prompt(3, 400), torch.arange(400)[None], torch.zeros(3, 400).long(), 400, (0,) * 3, torch.zeros(3, 1).long()
    )
    assert [len(part.ids) for part in decoder_module._parts(long, 2)] == [1, 1, 1]
    stems = [part.stem for part in decoder_module._parts(tail_rows([(14, [6]), (12, [3, 2])]), 2)]
    assert stems == [14, 12]


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
