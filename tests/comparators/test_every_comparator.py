"""What every comparator promises; a new file in `ropewalk.comparators` is tested here as it is.

On tiny models it runs with the options of `compared.COMPARED`, or its defaults.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from compared import PROMPT_ONLY, chunked, every_comparator, generated, made
from transformers import PreTrainedModel

from ropewalk.comparators import comparator_class, comparator_names, make_comparator
from ropewalk.errors import DataError, RopewalkError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.patch import apply, factors_of
from ropewalk.tasks import make_task, task_names
from ropewalk.tasks.base import Example, Piece
from task_data import task_options
from tiny import logits, prompt, tiny_model

changing_models = pytest.mark.parametrize("name", [name for name in comparator_names() if name not in PROMPT_ONLY])


def state(model: PreTrainedModel) -> dict[str, Any]:
    """All that a method might leave behind: attributes of every module, tensors, config."""
    modules = {name: dict(module.__dict__) for name, module in model.named_modules()}
    attributes = {
        f"{name}.{key}": id(value) for name, own in modules.items() for key, value in own.items() if key[0] != "_"
    }
    keys = {name: sorted(own) for name, own in modules.items()}
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    bits = {name: (id(tensor), tensor.detach().clone()) for name, tensor in tensors.items()}
    return {"attributes": attributes, "keys": keys, "bits": bits, "config": copy.deepcopy(model.config.to_dict())}


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    for what in ("attributes", "keys", "config"):
        assert before[what] == after[what]
    assert before["bits"].keys() == after["bits"].keys()
    for name, (identity, tensor) in before["bits"].items():
        assert after["bits"][name][0] == identity
        assert torch.equal(after["bits"][name][1], tensor)


@every_comparator
def test_it_says_what_it_is(name: str) -> None:
    kind = comparator_class(name)
    assert kind.name == name
    assert kind.summary
    for word in ("Source: ", "arXiv ", "Cost: ", "engine can"):
        assert word in " ".join((kind.__doc__ or "").split()), word
    assert dataclasses.is_dataclass(kind.OPTIONS)
    assert all(entry.metadata["description"] for entry in dataclasses.fields(kind.OPTIONS))
    assert kind.MAIN is None or kind.MAIN in {entry.name for entry in dataclasses.fields(kind.OPTIONS)}
    method = make_comparator(name)
    assert method.passes >= 1
    assert method.settings()["comparator"] == name
    assert not method.is_identity
    assert kind(**kind.IDENTITY).is_identity


@every_comparator
def test_the_model_is_as_it_was(name: str, model: PreTrainedModel) -> None:
    before, vanilla = state(model), logits(model)
    with made(name).on(model):
        generated(model, prompt())
    assert_same_state(before, state(model))
    assert torch.equal(logits(model), vanilla)


@every_comparator
def test_the_model_is_as_it_was_after_an_error(name: str, model: PreTrainedModel) -> None:
    before, vanilla = state(model), logits(model)
    with pytest.raises(ZeroDivisionError), made(name).on(model):
        logits(model, prompt(1 // 0))
    assert_same_state(before, state(model))
    assert torch.equal(logits(model), vanilla)


@every_comparator
def test_applied_factors_are_out_and_back(name: str) -> None:
    model = tiny_model().double()
    with made(name).on(model):
        expected = logits(model)
    factors = ScalingFactors([1.2, 0.9, 1.0, 1.1])
    apply(model, factors)
    scaled = logits(model)
    with made(name).on(model):
        assert torch.equal(logits(model), expected)
    assert factors_of(model) == factors
    assert torch.equal(logits(model), scaled)


@every_comparator
def test_it_is_deterministic(name: str, model: PreTrainedModel) -> None:
    with made(name).on(model):
        first, again = logits(model), logits(model)
    with made(name).on(model):
        later = logits(model)
    assert torch.equal(first, again)
    assert torch.equal(first, later)


@changing_models
def test_it_does_something(name: str, model: PreTrainedModel) -> None:
    vanilla = logits(model)
    with made(name).on(model):
        assert (logits(model) - vanilla).abs().max() > 1e-3


@every_comparator
def test_its_identity_is_vanilla(name: str, model: PreTrainedModel) -> None:
    vanilla = logits(model)
    method = made(name, **comparator_class(name).IDENTITY)
    with method.on(model):
        assert torch.equal(logits(model), vanilla)
    expected = vanilla.log_softmax(-1)
    with method.installed(model):  # also where it is put in place all the same, to float32's rounding of frequencies
        for found in (logits(model), chunked(model, prompt(), [7, 1, 12])):
            torch.testing.assert_close(found.log_softmax(-1), expected, rtol=1e-4, atol=1e-4)


@every_comparator
def test_a_cache_changes_nothing(name: str, model: PreTrainedModel) -> None:
    if not comparator_class(name).cached:
        pytest.skip("says that it does")
    with made(name).on(model):
        whole = logits(model)
        torch.testing.assert_close(chunked(model, prompt(), [9, 1, 1, 9]), whole, rtol=1e-6, atol=1e-6)
        assert torch.equal(generated(model, prompt()), generated(model, prompt(), use_cache=False))


@every_comparator
def test_it_says_whether_it_looks_ahead(name: str, model: PreTrainedModel) -> None:
    """Other tokens at the end change no earlier prediction, or the method says that they do."""
    ids, other = prompt(), prompt()
    other[:, 12:] = (other[:, 12:] + 40) % 120 + 3
    with made(name).on(model):
        changed = (logits(model, ids) - logits(model, other))[:, :12].abs().max()
    assert (changed < 1e-6) == comparator_class(name).causal


@every_comparator
def test_a_row_does_not_know_its_neighbours(name: str, model: PreTrainedModel) -> None:
    """Left padding and a batch give what each prompt gives alone, at the prompt and in generation."""
    long, short = prompt(1, 20), prompt(1, 20)[:, 7:]
    padded = torch.cat([torch.zeros(1, 7, dtype=torch.int64), short], dim=1)
    batch, mask = torch.cat([long, padded]), torch.ones(2, 20, dtype=torch.int64)
    mask[1, :7] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with made(name).on(model):
        together = logits(model, batch, attention_mask=mask, position_ids=positions)
        torch.testing.assert_close(together[:1], logits(model, long), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together[1:, 7:], logits(model, short), rtol=1e-6, atol=1e-6)
        found = generated(model, batch, attention_mask=mask)
        assert torch.equal(found[:1, 20:], generated(model, long)[:, 20:])
        assert torch.equal(found[1:, 20:], generated(model, short)[:, 13:])


@every_comparator
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_heads_may_share_keys(name: str, key_heads: int) -> None:
    """GQA gives what the same model gives with the shared keys and values written out for every head."""
    shared = tiny_model(num_key_value_heads=key_heads).double()
    full = tiny_model(num_key_value_heads=4).double()
    weights = {
        key: value.unflatten(0, (key_heads, -1)).repeat_interleave(4 // key_heads, dim=0).flatten(0, 1)
        if "k_proj" in key or "v_proj" in key
        else value
        for key, value in shared.state_dict().items()
    }
    full.load_state_dict(weights)
    with made(name).on(shared), made(name).on(full):
        torch.testing.assert_close(logits(shared), logits(full), rtol=1e-6, atol=1e-6)


@every_comparator
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(name: str, implementation: str, model: PreTrainedModel) -> None:
    other = tiny_model(model.config.model_type, attn_implementation=implementation).double()
    with made(name).on(model), made(name).on(other):
        # transformers' eager attention takes its softmax in float32.
        torch.testing.assert_close(logits(other), logits(model), rtol=1e-3, atol=1e-4)


@every_comparator
def test_one_at_a_time(name: str, model: PreTrainedModel) -> None:
    before = state(model)
    with (
        made("uniform").on(model),
        pytest.raises(RopewalkError, match="uniform is on this model"),
        made(name).on(model),
    ):
        pass
    assert_same_state(before, state(model))


@every_comparator
def test_what_it_can_not_serve_it_names(name: str) -> None:
    """A model without rotary position is refused by its name, unless the method never touches the model."""
    model = tiny_model("gpt2")
    before = state(model)
    if name in PROMPT_ONLY:
        with made(name).on(model):
            logits(model)
    else:
        with pytest.raises(UnsupportedModelError, match=r"(?i)gpt2"), made(name).on(model):
            pass
    assert_same_state(before, state(model))


@every_comparator
@pytest.mark.parametrize("task", task_names())
def test_examples_keep_what_counts(name: str, task: str, tmp_path: Path) -> None:
    """Only pieces may change, none of the context among them, and the identity changes none."""
    for example in make_task(task, task_options(task, tmp_path)).examples("search"):
        asked = made(name).example(example)
        assert dataclasses.replace(asked, pieces=example.pieces) == example
        assert context(asked) == context(example)
        assert asked.pieces[-1] == example.pieces[-1]
        assert comparator_class(name)(**comparator_class(name).IDENTITY).example(example) == example


def context(example: Example) -> list[Piece]:
    return [piece for piece in example.pieces if piece.kind in ("gold", "distractor", "text")]


@every_comparator
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"comparator {name} has no option 'strenght'"):
        make_comparator(f"{name}:strenght=2")


def test_names_and_texts() -> None:
    assert make_comparator("uniform:1.25").settings() == {"comparator": "uniform", "factor": 1.25}
    assert make_comparator("yarn:4:ramp=rotations:beta-fast=16").options.beta_fast == 16.0
    with pytest.raises(RopewalkError, match=r"no comparator 'ms_po', expected one of: .*did you mean 'ms-poe'"):
        make_comparator("ms_po")
    with pytest.raises(DataError, match="takes no bare value"):
        make_comparator("ms-poe:1.2")
    with pytest.raises(DataError, match="given twice"):
        make_comparator("uniform:1.1:factor=1.2")
    with pytest.raises(DataError, match="expected a number"):
        make_comparator("uniform:much")


def test_impossible_options_are_refused() -> None:
    for text in (
        "uniform:0", "uniform:nan", "ntk:0.5", "yarn:inf", "yarn:2:beta-fast=1", "self-extend:0", "query-first:-1",
        "ms-poe:min-ratio=2", "ms-poe:threshold=-1", "attention-buckets:1+x", "attention-buckets:0",
    ):  # fmt: skip
        with pytest.raises(DataError, match="expected"):
            make_comparator(text)
