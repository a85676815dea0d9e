"""The check of every layer, on models that were broken on purpose."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from ropewalk import UnsupportedModelError
from ropewalk.layers import decoder_layers
from ropewalk.rotary import LayerwiseRotary
from ropewalk.verify import constant_weight_codes, verify_layers
from tiny import SHAPE, logits, tiny_model


def kinds(model: nn.Module) -> str:
    return "".join("R" if report.kind == "rotary" else "-" for report in verify_layers(model))


def rewire(layer: nn.Module, change) -> None:
    """Let `change(kwargs)` alter what the layer's attention gets, past every hook of the layer."""
    attention = layer.self_attn
    forward = attention.forward
    attention.forward = lambda *args, **kwargs: forward(*args, **change(dict(kwargs)))


@given(st.integers(1, 130))
def test_codes_are_distinct_and_none_contains_another(count: int) -> None:
    codes = constant_weight_codes(count)
    assert len(set(codes)) == len(codes) == count
    assert len({sum(code) for code in codes}) == 1
    for one, other in itertools.islice(itertools.permutations(codes, 2), 2000):
        assert any(a and not b for a, b in zip(one, other, strict=True))


def test_codes_are_short() -> None:
    assert len(constant_weight_codes(32)[0]) == 7
    assert len(constant_weight_codes(80)[0]) == 9


@pytest.mark.parametrize("layers", [1, 2, 3, 7])
def test_any_number_of_layers(layers: int) -> None:
    assert kinds(tiny_model(num_hidden_layers=layers)) == "R" * layers


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model(attention_dropout=0.5)
    vanilla = logits(model)
    model.train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    modules = [id(module) for module in model.modules()]
    state = torch.random.get_rng_state()
    verify_layers(model)
    assert [module.training for module in model.modules()] == modes
    assert [id(module) for module in model.modules()] == modules
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert torch.equal(logits(model.eval()), vanilla)


def test_a_silent_no_op_is_named() -> None:
    """Layer 2 computes its tables itself, from the position_ids: our factor would do nothing there."""
    model = tiny_model()
    own = type(model.model.rotary_emb)(model.config)
    seen: dict[str, torch.Tensor] = {}
    model.model.register_forward_pre_hook(lambda _m, _a, kwargs: seen.update(kwargs), with_kwargs=True)

    def change(kwargs):
        positions = seen.get("position_ids")
        tokens = kwargs["hidden_states"].shape[1]
        positions = torch.arange(tokens)[None] if positions is None else positions
        return kwargs | {"position_embeddings": own(kwargs["hidden_states"], positions)}

    rewire(model.model.layers[2], change)
    with pytest.raises(UnsupportedModelError, match=r"layer 2 of LlamaForCausalLM .* its factor has no effect"):
        verify_layers(model)
    assert not any(isinstance(module, LayerwiseRotary) for module in model.modules())


def test_a_layer_without_rotation_is_listed() -> None:
    model = tiny_model()

    def change(kwargs):
        cos, sin = kwargs["position_embeddings"]
        return kwargs | {"position_embeddings": (torch.ones_like(cos), torch.zeros_like(sin))}

    rewire(model.model.layers[0], change)
    rewire(model.model.layers[3], change)
    assert kinds(model) == "-RR-"


@pytest.mark.parametrize(("reader", "source"), [(2, 1), (3, 0), (1, 0)])
@pytest.mark.parametrize("both", [False, True])
def test_a_layer_that_uses_anothers_tables_is_refused(reader: int, source: int, both: bool) -> None:
    model = tiny_model()
    kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(kwargs):
        kept["tables"] = kwargs["position_embeddings"]
        return kwargs

    def leak(kwargs):
        _, sin = kwargs["position_embeddings"]
        return kwargs | {"position_embeddings": (kept["tables"][0], sin if both else kept["tables"][1])}

    rewire(model.model.layers[source], keep)
    rewire(model.model.layers[reader], leak)
    with pytest.raises(UnsupportedModelError, match=rf"layer {reader} .* reacts to the rotary factor of another layer"):
        verify_layers(model)


def test_a_factor_that_reaches_only_a_part_is_refused() -> None:
    """Layer 1 rotates by its tables and adds a bias of its own by position besides."""
    model = tiny_model()
    layer = model.model.layers[1]
    positions: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _m, _a, kwargs: positions.append(kwargs["position_ids"]), with_kwargs=True)
    mlp = layer.mlp.forward
    layer.mlp.forward = lambda x: mlp(x) + 0.01 * positions[-1][..., None].to(x.dtype)
    with pytest.raises(UnsupportedModelError, match=r"layer 1 .* its factor reaches only a part of that"):
        verify_layers(model)


def test_tables_chosen_by_the_largest_position_are_refused() -> None:
    """phimoe with longrope reads the length off the positions inside its forward, where it would see p / s."""
    model = tiny_model(
        "phimoe",
        num_local_experts=4,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "short_mscale": 1.1,
            "long_mscale": 1.3,
            "original_max_position_embeddings": 64,
        },
    )
    with pytest.raises(UnsupportedModelError, match=r"PhimoeRotaryEmbedding .* by the largest position"):
        verify_layers(model)


class Unpacking(nn.Module):
    """A rotary module inside another one that takes cos and sin apart before the layers get them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.inner(x, position_ids)
        return cos, sin


@pytest.mark.parametrize("layers", [2, 4])
def test_a_model_that_unpacks_the_tables_itself_is_refused(layers: int) -> None:
    """With two layers the list of their tables even unpacks like cos and sin."""
    model = tiny_model(num_hidden_layers=layers)
    model.model.rotary_emb = Unpacking(model.model.rotary_emb)
    vanilla = logits(model)
    with pytest.raises(UnsupportedModelError, match="can't take rotary tables that differ by layer"):
        verify_layers(model)
    assert torch.equal(logits(model), vanilla)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_precisions(dtype: torch.dtype) -> None:
    assert kinds(tiny_model("qwen2").to(dtype)) == "RRRR"


@pytest.mark.parametrize("scale", [1e-7, 1e-5])
def test_noise_between_equal_runs_is_no_reaction(scale: float) -> None:
    """Atomic additions make some kernels differ from run to run."""
    model = tiny_model("smollm3", no_rope_layers=[1, 0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    for layer in decoder_layers(model):
        mlp = layer.mlp.forward
        layer.mlp.forward = lambda x, mlp=mlp: mlp(x) + scale * torch.randn(x.shape, generator=generator)
    assert kinds(model) == "R-RR"


def test_a_model_without_weights_is_told_to_load_them() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE))
    with pytest.raises(UnsupportedModelError, match=r"no weights yet .*load them"):
        verify_layers(model)


def test_an_encoder_decoder_is_refused() -> None:
    config = AutoConfig.for_model("t5", vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        verify_layers(AutoModelForSeq2SeqLM.from_config(config))


def test_something_that_is_no_language_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="has no `config`"):
        verify_layers(nn.Linear(2, 2))
    model = tiny_model()
    model.config.num_hidden_layers = 17
    with pytest.raises(UnsupportedModelError, match="no list of decoder layers of length num_hidden_layers = 17"):
        verify_layers(model)
