"""apply, remove, patched: exact, reversible, all or nothing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk import FactorsError, ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.layers import decoder_layers
from ropewalk.patch import factors_of, layer_reports, rotary_layers
from ropewalk.rotary import LayerwiseRotary
from tiny import logits, prompt, tiny_model

FACTORS = [1.5, 1.0, 0.7, 2.25]
MIXED = {"no_rope_layers": [1, 0, 1, 1]}


def snapshot(model) -> tuple:
    """Everything `apply` could change: modules, hooks, config, weights and outputs."""
    modules = tuple((name, id(module)) for name, module in model.named_modules())
    hooks = tuple((tuple(module._forward_pre_hooks), id(vars(module).get("forward"))) for module in model.modules())
    weights = tuple((name, tensor.sum().item()) for name, tensor in model.state_dict().items())
    attributes = tuple(sorted(vars(model.model)))
    return modules, hooks, str(model.config), weights, attributes, logits(model).numpy().tobytes()


def test_applying_again_replaces() -> None:
    model, fresh = tiny_model(), tiny_model()
    ropewalk.apply(model, [3.0] * 4)
    ropewalk.apply(model, FACTORS)
    ropewalk.apply(fresh, FACTORS)
    assert torch.equal(logits(model), logits(fresh))
    assert model.config.rope_layer_factors == FACTORS
    assert factors_of(model).values == tuple(FACTORS)


def test_another_candidate_costs_no_forward_pass_and_no_wrapping() -> None:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    forwards = [layer.forward for layer in decoder_layers(model)]
    rotary = model.model.rotary_emb
    runs: list[int] = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    for step in range(50):
        ropewalk.apply(model, [1.0 + step / 100] * 4)
    assert not runs
    assert model.model.rotary_emb is rotary
    assert [layer.forward for layer in decoder_layers(model)] == forwards


def test_the_check_runs_once_for_many_patched_blocks() -> None:
    model = tiny_model()
    runs: list[int] = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    with ropewalk.patched(model, FACTORS):
        pass
    first = len(runs)
    assert first > 0
    for _ in range(3):
        with ropewalk.patched(model, [1.1] * 4):
            pass
    assert len(runs) == first


def test_a_new_attention_implementation_is_checked_again() -> None:
    model = tiny_model()
    assert rotary_layers(model) == [0, 1, 2, 3]
    runs: list[int] = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    model.set_attn_implementation("eager")
    assert rotary_layers(model) == [0, 1, 2, 3]
    assert runs


def test_patched_restores_to_the_bit() -> None:
    model = tiny_model()
    rotary_layers(model)
    before = snapshot(model)
    with ropewalk.patched(model, FACTORS):
        assert factors_of(model).values == tuple(FACTORS)
        assert snapshot(model) != before
    assert snapshot(model) == before


def test_patched_restores_after_an_exception_inside() -> None:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), ropewalk.patched(model, [1.2] * 4):
        raise ZeroDivisionError
    assert snapshot(model) == before
    assert factors_of(model).values == tuple(FACTORS)


def test_patched_blocks_nest() -> None:
    model = tiny_model()
    vanilla = logits(model)
    with ropewalk.patched(model, FACTORS):
        outer = logits(model)
        with ropewalk.patched(model, [0.8] * 4):
            assert not torch.equal(logits(model), outer)
        assert torch.equal(logits(model), outer)
    assert torch.equal(logits(model), vanilla)


def test_patched_keeps_a_config_entry_that_was_not_applied() -> None:
    """Plain transformers loads the entry without acting on it: a block must not lose it."""
    model = tiny_model()
    model.config.rope_layer_factors = [1.1] * 4
    with ropewalk.patched(model, FACTORS):
        assert model.config.rope_layer_factors == FACTORS
    assert model.config.rope_layer_factors == [1.1] * 4
    ropewalk.remove(model)
    assert not hasattr(model.config, "rope_layer_factors")


def test_remove_without_apply_is_harmless() -> None:
    model = tiny_model()
    before = snapshot(model)
    ropewalk.remove(model)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([1.5, 1.5], "2 factors for a model of 4 layers"),
        ([1.5, float("nan"), 1.0, 1.0], "factor of layer 1 is nan"),
        ([1.5, 0.0, 1.0, 1.0], "factor of layer 1 is 0.0"),
        ([1.5, -1.0, 1.0, 1.0], "factor of layer 1 is -1.0"),
        ([1.5, "2", 1.0, 1.0], "factor of layer 1 is '2'"),
        ([1.5, None, 1.0, 1.0], r"layers \[1\] .* are rotary but got null"),
        ("1.5", "expected|must be a list"),
    ],
)
@pytest.mark.parametrize("applied", [False, True])
def test_a_fault_applies_nothing(factors, message: str, applied: bool) -> None:
    model = tiny_model()
    if applied:
        ropewalk.apply(model, FACTORS)
    before = snapshot(model)
    with pytest.raises(FactorsError, match=message):
        ropewalk.apply(model, factors)
    assert snapshot(model) == before
    with pytest.raises(FactorsError, match=message), ropewalk.patched(model, factors):
        pytest.fail("the block must not run")
    assert snapshot(model) == before


def test_a_number_on_a_layer_without_rotary_position_is_refused() -> None:
    model = tiny_model("smollm3", **MIXED)
    assert rotary_layers(model) == [0, 2, 3]
    before = snapshot(model)
    with pytest.raises(FactorsError, match=r"layers \[1\] .* have no rotary position .* give null"):
        ropewalk.apply(model, ScalingFactors.uniform(1.0, 4))
    assert snapshot(model) == before
    ropewalk.apply(model, ScalingFactors.uniform(1.3, 4, rotary_layers=rotary_layers(model)))
    assert model.config.rope_layer_factors == [1.3, None, 1.3, 1.3]


def test_factors_of_another_model_are_refused_unless_asked_for() -> None:
    model, other = tiny_model(seed=0), tiny_model(seed=1)
    made = ScalingFactors(FACTORS, model=model_identity(other), base=base_scheme(other))
    before = snapshot(model)
    with pytest.raises(FactorsError, match=r"another fingerprint.*any_model=True"):
        ropewalk.apply(model, made)
    assert snapshot(model) == before
    with ropewalk.patched(model, made, any_model=True):
        assert factors_of(model) == made
    ropewalk.apply(other, made)
    # Restoring what was there must not ask again.
    with ropewalk.patched(other, [1.0] * 4):
        pass
    assert factors_of(other) == made


def test_factors_of_another_base_scheme_are_refused() -> None:
    model = tiny_model()
    made = ScalingFactors(FACTORS, base={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0})
    with pytest.raises(FactorsError, match="multiply the rope parameters"):
        ropewalk.apply(model, made)
    ropewalk.apply(model, made, any_model=True)
    assert factors_of(model) == made


def test_copies_are_independent() -> None:
    model = tiny_model()
    vanilla = logits(model)
    ropewalk.apply(model, FACTORS)
    scaled = logits(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert torch.equal(logits(twin), scaled)
        assert factors_of(twin).values == tuple(FACTORS)
        ropewalk.apply(twin, [0.6] * 4)
        assert torch.equal(logits(model), scaled), "the copy has tables of its own"
        ropewalk.remove(twin)
        assert torch.equal(logits(twin), vanilla)
        assert not any(isinstance(module, LayerwiseRotary) for module in twin.modules())
        assert torch.equal(logits(model), scaled)


def test_saved_models_carry_their_factors(tmp_path) -> None:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    names = set(model.state_dict())
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.rope_layer_factors == FACTORS
    assert set(loaded.state_dict()) == names
    assert base_scheme(loaded) == base_scheme(model)
    ropewalk.apply(loaded, ScalingFactors(FACTORS, model=model_identity(model), base=base_scheme(model)))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    vanilla = logits(model)
    ropewalk.apply(model, [1.0] * 4)
    assert torch.equal(logits(model), vanilla)
    ropewalk.apply(model, FACTORS)
    assert not torch.equal(logits(model), vanilla)
    ropewalk.remove(model)
    assert torch.equal(logits(model), vanilla)


@pytest.mark.parametrize("offload_buffers", [False, True])
def test_weights_offloaded_by_accelerate(offload_buffers: bool) -> None:
    plain = tiny_model()
    offloaded = cpu_offload(tiny_model(), execution_device="cpu", offload_buffers=offload_buffers)
    assert next(offloaded.parameters()).device.type == "meta"
    vanilla = logits(offloaded)
    assert model_identity(offloaded) == model_identity(plain)
    ropewalk.apply(plain, FACTORS)
    ropewalk.apply(offloaded, FACTORS)
    assert torch.equal(logits(offloaded), logits(plain))
    ropewalk.remove(offloaded)
    assert torch.equal(logits(offloaded), vanilla)


def test_layers_compiled_one_by_one_notice_every_change() -> None:
    model = tiny_model()
    vanilla = logits(model)
    torch._dynamo.reset()
    for layer in decoder_layers(model):
        layer.compile(backend="eager")
    assert torch.equal(logits(model), vanilla)
    ropewalk.apply(model, FACTORS)
    first = logits(model)
    assert not torch.equal(first, vanilla)
    ropewalk.apply(model, [0.8] * 4)
    assert not torch.equal(logits(model), first)
    ropewalk.remove(model)
    assert torch.equal(logits(model), vanilla)


def test_a_compiled_model_follows_new_factors_without_recompiling() -> None:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    torch._dynamo.reset()
    compiles: list[int] = []

    def backend(graph, _inputs):
        compiles.append(1)
        return graph.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for factors in (FACTORS, [1.4, 1.0, 0.9, 2.0], [1.1, 1.0, 0.8, 1.2]):
        ropewalk.apply(model, factors)
        with torch.no_grad():
            assert torch.equal(compiled(input_ids=prompt(), use_cache=False).logits, logits(model))
    assert len(compiles) == 1, "the factors are an input of the graph"


def test_training_through_a_patched_model() -> None:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    model.train()
    model(input_ids=prompt(), labels=prompt(), use_cache=False).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_reports_name_every_layer() -> None:
    reports = layer_reports(tiny_model("smollm3", **MIXED))
    assert [(report.index, report.kind) for report in reports] == [
        (0, "rotary"),
        (1, "not rotary"),
        (2, "rotary"),
        (3, "rotary"),
    ]
    assert {report.layer_class for report in reports} == {"SmolLM3DecoderLayer"}
    assert all(report.reason for report in reports)
