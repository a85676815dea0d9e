"""Every model type of `model_types.py`: accepted and exact in all ways of running it, or refused with a reason."""

from __future__ import annotations

import re

import pytest
import torch
from model_types import COMPILED, REFUSED, SUPPORTED, ModelType, by_name
from reference import brute_force
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

import ropewalk
from ropewalk.layers import decoder_layers, rotary_sites, text_decoder
from ropewalk.patch import factors_of, layer_reports
from ropewalk.rotary import LayerwiseRotary

VALUES = (1.5, 0.7, 1.0, 2.25)


class Subject:
    """A tiny model of one type with a prompt and what it gives without factors."""

    def __init__(self, entry: ModelType) -> None:
        self.entry = entry
        self.model: PreTrainedModel = entry.build()
        self.factors = entry.factors(*VALUES)
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(3, 128, (2, 20), generator=generator)
        self.vanilla = self.logits()

    def logits(self, **more: object) -> torch.Tensor:
        with torch.no_grad():
            return self.model(**({"input_ids": self.ids, "use_cache": False} | more)).logits


@pytest.fixture(scope="module", params=SUPPORTED, ids=lambda entry: entry.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_layers(subject: Subject) -> None:
    reports = layer_reports(subject.model)
    assert "".join("R" if report.kind == "rotary" else "-" for report in reports) == subject.entry.pattern
    assert torch.equal(subject.logits(), subject.vanilla), "the check must leave the model as it was"


def test_identity_at_one(subject: Subject) -> None:
    with ropewalk.patched(subject.model, subject.entry.factors(1.0)):
        assert torch.equal(subject.logits(), subject.vanilla)


def test_every_rotary_layer_acts_alone(subject: Subject) -> None:
    for layer in subject.entry.rotary:
        factors = subject.entry.factors(1.0)
        factors[layer] = 1.5
        with ropewalk.patched(subject.model, factors):
            assert not torch.equal(subject.logits(), subject.vanilla), layer


def test_equals_brute_force(subject: Subject) -> None:
    decoder, layers = text_decoder(subject.model), decoder_layers(subject.model)
    with brute_force(decoder, layers, subject.factors):
        expected = subject.logits()
    assert torch.equal(subject.logits(), subject.vanilla), "the reference must leave the model as it was"
    with ropewalk.patched(subject.model, subject.factors):
        ours = subject.logits()
    effect = float((expected - subject.vanilla).abs().max())
    assert effect > 1e-3
    # Angles p / s · f and p · (f / s) differ by rounding alone.
    assert float((ours - expected).abs().max()) < 1e-3 * effect


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_with_cache_equals_without(subject: Subject, cache: str) -> None:
    if cache == "static" and not subject.model._can_compile_fullgraph:
        pytest.skip("this class has no StaticCache support")
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "disable_compile": True}
    with ropewalk.patched(subject.model, subject.factors):
        without = subject.model.generate(subject.ids, use_cache=False, **options)
        if cache == "static":
            options["cache_implementation"] = "static"
        cached = subject.model.generate(subject.ids, use_cache=True, **options)
    assert torch.equal(without, cached)


def test_left_padding(subject: Subject) -> None:
    pad = 5
    padded = torch.cat([torch.zeros(2, pad, dtype=torch.long), subject.ids], dim=1)
    mask = torch.cat([torch.zeros(2, pad, dtype=torch.long), torch.ones_like(subject.ids)], dim=1)
    # The second row unpadded and longer: the rows' positions differ.
    padded[1, :pad], mask[1, :pad] = subject.ids[1, :pad], 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    more = {"input_ids": padded, "attention_mask": mask, "position_ids": positions}
    vanilla_gap = (subject.logits(**more)[0, pad:] - subject.vanilla[0]).abs().max()
    with ropewalk.patched(subject.model, subject.factors):
        alone = subject.logits()
        gap = (subject.logits(**more)[0, pad:] - alone[0]).abs().max()
    if vanilla_gap > 1e-2:
        pytest.skip("this class gives other logits with left padding even without factors")
    assert gap < 4 * vanilla_gap + 1e-4 * alone.abs().max()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing(subject: Subject) -> None:
    if not subject.model.supports_gradient_checkpointing:
        pytest.skip("this class has no gradient checkpointing")
    model = subject.model
    layer = decoder_layers(model)[0]
    weight = next(parameter for parameter in layer.parameters() if parameter.dim() == 2)
    first = next(module for module in layer.modules() if isinstance(module, torch.nn.Linear))
    runs: list[int] = []

    def gradient() -> torch.Tensor:
        model.zero_grad()
        handle = first.register_forward_hook(lambda *_: runs.append(1))
        model(input_ids=subject.ids, labels=subject.ids, use_cache=False).loss.backward()
        handle.remove()
        return weight.grad.clone()

    with ropewalk.patched(model, subject.factors):
        expected, once = gradient(), len(runs)
        model.train()
        model.gradient_checkpointing_enable()
        try:
            checkpointed = gradient()
        finally:
            model.gradient_checkpointing_disable()
            model.eval()
            model.zero_grad(set_to_none=True)
    assert len(runs) == 3 * once, "the layer must have run again in the backward pass"
    torch.testing.assert_close(checkpointed, expected)


def test_removal_leaves_nothing(subject: Subject) -> None:
    model = subject.model
    modules = [type(module) for module in model.modules()]
    ropewalk.apply(model, subject.factors)
    assert any(isinstance(module, LayerwiseRotary) for module in model.modules())
    assert not torch.equal(subject.logits(), subject.vanilla)
    ropewalk.remove(model)
    assert torch.equal(subject.logits(), subject.vanilla)
    assert [type(module) for module in model.modules()] == modules
    assert not any("forward" in vars(module) for module in model.modules())
    assert factors_of(model) is None
    assert "rope_layer_factors" not in model.config.to_dict()


def test_save_and_load(subject: Subject, tmp_path) -> None:
    model = subject.model
    model.save_pretrained(tmp_path / "vanilla")
    with ropewalk.patched(model, subject.factors):
        model.save_pretrained(tmp_path / "patched")
        expected = subject.logits()
    with (
        safe_open(tmp_path / "vanilla" / "model.safetensors", "pt") as vanilla,
        safe_open(tmp_path / "patched" / "model.safetensors", "pt") as ours,
    ):
        assert sorted(vanilla.keys()) == sorted(ours.keys())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "patched").eval()
    assert loaded.config.rope_layer_factors == subject.factors
    before, after = ropewalk.model_identity(model), ropewalk.model_identity(loaded)
    assert before["fingerprint"] == after["fingerprint"]
    ropewalk.apply(loaded, loaded.config.rope_layer_factors)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=subject.ids, use_cache=False).logits, expected)


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_in_one_graph(name: str) -> None:
    subject = Subject(by_name()[name])
    torch._dynamo.reset()
    compiled = torch.compile(subject.model, backend="eager", fullgraph=True)
    with torch.no_grad():
        plain = compiled(input_ids=subject.ids, use_cache=False).logits
        with ropewalk.patched(subject.model, subject.factors):
            expected = subject.logits()
            assert torch.equal(compiled(input_ids=subject.ids, use_cache=False).logits, expected)
            explanation = torch._dynamo.explain(subject.model)(input_ids=subject.ids, use_cache=False)
        again = compiled(input_ids=subject.ids, use_cache=False).logits
    assert explanation.graph_break_count == 0
    assert torch.equal(plain, subject.vanilla)
    assert torch.equal(again, subject.vanilla), "a compiled model must notice that the factors are gone"


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry.name)
def test_refusal_has_a_reason_and_changes_nothing(entry: ModelType) -> None:
    model = entry.build()
    modules = [id(module) for module in model.modules()]
    with pytest.raises(ropewalk.UnsupportedModelError) as caught:
        ropewalk.apply(model, [1.5] * len(decoder_layers(model)))
    assert re.search(entry.refusal, str(caught.value)), str(caught.value)
    assert [id(module) for module in model.modules()] == modules
    assert "rope_layer_factors" not in model.config.to_dict()
    assert not any(isinstance(site.module, LayerwiseRotary) for site in rotary_sites(model))


def test_the_table_covers_what_was_promised() -> None:
    names = by_name()
    assert len(names) == len(SUPPORTED) + len(REFUSED) >= 45
    assert len(SUPPORTED) >= 34
    assert {"bailing_hybrid", "bamba", "granite_swa", "granitemoe_swa"} <= {entry.name for entry in SUPPORTED}
