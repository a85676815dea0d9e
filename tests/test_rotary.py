"""LayerwiseRotary against float64 tables, for every rope type, position shape and kind of table."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RotaryEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding

from ropewalk.layers import decoder_layers
from ropewalk.rotary import Installation, LayerwiseRotary, PerLayer, own_entry
from tiny import logits, prompt, tiny_model

EPS = torch.finfo(torch.float32).eps
TRAINED = 256
HALF = 8  # half the rotary dimensions of a head of 16
ROPE_TYPES = {
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.0, "original_max_position_embeddings": TRAINED},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": TRAINED},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
    "longrope": {
        "short_factor": [1.0 + 0.1 * i for i in range(HALF)],
        "long_factor": [2.0 + 0.5 * i for i in range(HALF)],
        "factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
}
MODULES = {"llama": LlamaRotaryEmbedding, "phi3": Phi3RotaryEmbedding}
FACTORS = [1.0, 1.37, 0.61, 1.0, 2.5, 1.37]


def make_config(model_type: str, rope_type: str):
    config = AutoConfig.for_model(
        model_type,
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=len(FACTORS),
        pad_token_id=0,
        max_position_embeddings=TRAINED,
        original_max_position_embeddings=TRAINED,
    )
    config.rope_parameters = {"rope_type": rope_type, "rope_theta": 10000.0, **ROPE_TYPES[rope_type]}
    return config


def oracle(base: nn.Module, factor: float, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 cos and sin from the module's present inv_freq: angle = (p / s) · inv_freq."""
    angles = (positions.double() / factor)[..., None] * base.inv_freq.double()
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos() * base.attention_scaling, angles.sin() * base.attention_scaling


def tolerance(factor: float, positions: torch.Tensor, scaling: float = 1.0) -> torch.Tensor:
    """4 · eps · p, and a few eps for the cosine itself."""
    return scaling * EPS * (4 * positions.double() * max(1.0, 1 / factor) + 4)[..., None]


@pytest.mark.parametrize("tokens", [40, 700])
@pytest.mark.parametrize("rope_type", ROPE_TYPES)
@pytest.mark.parametrize("model_type", MODULES)
def test_tables_agree_with_float64(model_type: str, rope_type: str, tokens: int) -> None:
    config = make_config(model_type, rope_type)
    base = MODULES[model_type](config)
    rotary = LayerwiseRotary(base, len(FACTORS))
    rotary.set_factors(FACTORS)
    positions = torch.arange(tokens)[None]
    entries = rotary(torch.zeros(1, tokens, 64), positions)
    # The base of dynamic types is that of the true length, whatever p / s is.
    if rope_type != "default":
        true_frequencies, scaling = ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"), seq_len=tokens)
        torch.testing.assert_close(base.inv_freq, true_frequencies, rtol=1e-6, atol=0)
        assert base.attention_scaling == scaling
    for factor, tables in zip(FACTORS, entries, strict=True):
        for table, expected in zip(tables, oracle(base, factor, positions), strict=True):
            assert table.dtype == torch.float32
            error = (table.double() - expected).abs()
            assert (error <= tolerance(factor, positions, base.attention_scaling)).all(), float(error.max())


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_the_true_length_decides_the_base(rope_type: str) -> None:
    """700 tokens / 4 would look like 175, less than the trained length."""
    base = LlamaRotaryEmbedding(make_config("llama", rope_type))
    short = base.inv_freq.clone()
    rotary = LayerwiseRotary(base, 1)
    rotary.set_factors([4.0])
    rotary(torch.zeros(1, 700, 64), torch.arange(700)[None])
    assert not torch.equal(base.inv_freq, short)
    rotary.set_factors([0.25])
    rotary(torch.zeros(1, 100, 64), torch.arange(100)[None])
    assert torch.equal(base.inv_freq, short), "100 / 0.25 is 400, but the sequence has 100 tokens"


@settings(max_examples=60, deadline=None)
@given(
    factors=st.lists(st.one_of(st.none(), st.just(1.0), st.floats(0.3, 3.0)), min_size=1, max_size=12),
    rows=st.integers(1, 3),
    offset=st.integers(0, 100_000),
)
def test_every_layer_gets_its_own_factor(factors: list[float | None], rows: int, offset: int) -> None:
    base = LlamaRotaryEmbedding(make_config("llama", "default"))
    rotary = LayerwiseRotary(base, len(factors))
    rotary.set_factors(factors)
    positions = offset + torch.arange(rows)[:, None] * 7 + torch.arange(5)
    x = torch.zeros(rows, 5, 64)
    ordinary = base(x, positions)
    entries = rotary(x, position_ids=positions)
    assert isinstance(entries, PerLayer)
    assert len(entries) == len(factors)
    for factor, tables in zip(factors, entries, strict=True):
        if factor is None or factor == 1.0:
            assert all(torch.equal(one, two) for one, two in zip(tables, ordinary, strict=True))
            continue
        for table, expected in zip(tables, oracle(base, factor, positions), strict=True):
            assert table.shape == ordinary[0].shape
            assert ((table.double() - expected).abs() <= tolerance(factor, positions)).all()


def test_bfloat16_tables_are_rounded_once() -> None:
    """Positions and angles stay float32; only the finished table is rounded."""
    base = LlamaRotaryEmbedding(make_config("llama", "default"))
    rotary = LayerwiseRotary(base, 1)
    rotary.set_factors([1.37])
    positions = torch.arange(3000, 3020)[None]
    [(exact, _)] = rotary(torch.zeros(1, 20, 64), positions)
    [(rounded, _)] = rotary(torch.zeros(1, 20, 64, dtype=torch.bfloat16), positions)
    assert torch.equal(exact.bfloat16(), rounded)


class AnyShape(nn.Module):
    """A rotary module that takes positions of any shape, as those of newer transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 10000.0 ** -torch.linspace(0, 1, HALF), persistent=False)
        self.attention_scaling = 1.0

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].float() * self.inv_freq
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def test_positions_without_batch_axis() -> None:
    base = AnyShape()
    rotary = LayerwiseRotary(base, 2)
    rotary.set_factors([1.5, 0.7])
    positions = torch.arange(9)
    entries = rotary(torch.zeros(1, 9, 64), positions)
    for factor, (cos, _) in zip([1.5, 0.7], entries, strict=True):
        assert cos.shape == (9, 2 * HALF)
        assert ((cos.double() - oracle(base, factor, positions)[0]).abs() <= tolerance(factor, positions)).all()


def test_three_axis_positions() -> None:
    config = AutoConfig.for_model("qwen2_vl").get_text_config()
    base = Qwen2VLRotaryEmbedding(config)
    rotary = LayerwiseRotary(base, 3)
    rotary.set_factors([1.5, 1.0, 0.7])
    positions = torch.randint(0, 90, (3, 2, 6), generator=torch.Generator().manual_seed(0))
    x = torch.zeros(2, 6, 64)
    entries = rotary(x, positions)
    for factor, tables in zip([1.5, 1.0, 0.7], entries, strict=True):
        # One factor at a time, with the frequencies divided instead of the positions.
        kept = base.inv_freq.clone()
        base.inv_freq.copy_((kept.double() / factor).float())
        expected = base(x, positions)
        base.inv_freq.copy_(kept)
        for table, other in zip(tables, expected, strict=True):
            torch.testing.assert_close(table, other, atol=90 * 8 * EPS, rtol=0)


def test_complex_tables() -> None:
    config = AutoConfig.for_model("deepseek_v2", qk_rope_head_dim=8, head_dim=8)
    base = DeepseekV2RotaryEmbedding(config)
    rotary = LayerwiseRotary(base, 2)
    rotary.set_factors([1.5, 0.7])
    positions = torch.stack([torch.arange(12), torch.arange(12) + 3])
    entries = rotary(torch.zeros(2, 12, 64), positions)
    for factor, table in zip([1.5, 0.7], entries, strict=True):
        angles = (positions.double() / factor)[..., None] * base.inv_freq.double()
        assert table.is_complex()
        assert ((table - torch.polar(torch.ones_like(angles), angles)).abs() < 100 * EPS).all()


def test_a_layer_type_argument_is_passed_on() -> None:
    base = Gemma3RotaryEmbedding(AutoConfig.for_model("gemma3_text", num_hidden_layers=6, head_dim=16))
    rotary = LayerwiseRotary(base, 6)
    rotary.set_factors([1.5] * 6)
    positions = torch.arange(10)[None]
    for layer_type in ("sliding_attention", "full_attention"):
        cos, _ = rotary(torch.zeros(1, 10, 64), positions, layer_type)[5]
        angles = (positions.double() / 1.5)[..., None] * getattr(base, f"{layer_type}_inv_freq").double()
        assert (cos.double() - torch.cat([angles, angles], -1).cos()).abs().max() < 10 * 8 * EPS


def test_a_module_inside_a_layer_returns_its_own_tables() -> None:
    base = LlamaRotaryEmbedding(make_config("llama", "default"))
    rotary = LayerwiseRotary(base, 3, layer=1)
    rotary.set_factors([9.0, 1.5, 9.0])
    positions = torch.arange(10)[None]
    cos, _ = rotary(torch.zeros(1, 10, 64), positions)
    assert (cos.double() - oracle(base, 1.5, positions)[0]).abs().max() < 10 * 8 * EPS


def test_distinct_factors_take_one_call_together() -> None:
    calls = []

    class Counting(LlamaRotaryEmbedding):
        def forward(self, x, position_ids):
            calls.append(tuple(position_ids.shape))
            return super().forward(x, position_ids)

    rotary = LayerwiseRotary(Counting(make_config("llama", "default")), 5)
    rotary.set_factors([1.5, 1.0, 0.7, 1.5, None])
    rotary(torch.zeros(2, 6, 64), torch.arange(6).expand(2, 6))
    assert calls == [(2, 6), (4, 6)], "the true positions once, then two distinct factors of two rows"
    calls.clear()
    rotary.set_factors([1.5, 0.7, 0.7, 1.5, 1.1])
    rotary(torch.zeros(2, 6, 64), torch.arange(6).expand(2, 6))
    assert calls == [(2, 6), (6, 6)], "this class is none of transformers: its base may follow the length"
    calls.clear()
    rotary.set_factors([1.0] * 5)
    rotary(torch.zeros(2, 6, 64), torch.arange(6).expand(2, 6))
    assert calls == [(2, 6)]


def test_the_ordinary_call_is_left_out_where_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = LlamaRotaryEmbedding.__call__
    monkeypatch.setattr(LlamaRotaryEmbedding, "__call__", lambda self, *a, **k: calls.append(1) or plain(self, *a, **k))
    for rope_type, factors, wanted in (
        ("default", [1.5, 0.7], 0),
        ("yarn", [1.5, 1.0], 1),
        ("yarn", [1.5, None], 1),
        ("dynamic", [1.5, 0.7], 1),
        ("longrope", [1.5, 0.7], 1),
    ):
        rotary = LayerwiseRotary(LlamaRotaryEmbedding(make_config("llama", rope_type)), 2)
        rotary.set_factors(factors)
        calls.clear()
        rotary(torch.zeros(1, 6, 64), torch.arange(6)[None])
        assert len(calls) == wanted, rope_type


def test_a_forward_that_somebody_else_put_there_is_kept() -> None:
    """accelerate, for one, replaces the forward of a layer."""
    model = tiny_model()
    layer, plain, calls = model.model.layers[1], model.model.layers[1].forward, []
    layer.forward = own = lambda *a, **k: calls.append(1) or plain(*a, **k)
    installation = Installation(model)
    for _ in range(2):
        installation.install()
        installation.set_factors([1.5, 0.7, 1.0, 2.0])
        calls.clear()
        logits(model)
        assert calls == [1]
        installation.uninstall()
        assert layer.forward is own
        assert "forward" not in vars(model.model.layers[0])


def test_a_layer_picks_from_arguments_keywords_and_dicts() -> None:
    def forward(*args, **kwargs):
        return args, kwargs

    entries, more = PerLayer(["a0", "a1"]), PerLayer(["b0", "b1"])
    by_type = {"full": entries, "sliding": more, "none": None}
    args, kwargs = own_entry(forward, 1, "x", entries, tables=more, by_type=by_type, mask=[1, 2])
    assert args == ("x", "a1")
    assert kwargs == {"tables": "b1", "by_type": {"full": "a1", "sliding": "b1", "none": None}, "mask": [1, 2]}
    assert by_type["full"] is entries, "the caller's dict serves the other layers too"
    assert own_entry(forward, 0, "x", position_embeddings=entries, mask=None) == (
        ("x",),
        {"position_embeddings": "a0", "mask": None},
    )
    assert own_entry(forward, 1, "x", mask=None) == (("x",), {"mask": None})


def test_attributes_of_the_wrapped_module_are_there() -> None:
    base = Gemma3RotaryEmbedding(AutoConfig.for_model("gemma3_text", num_hidden_layers=6))
    rotary = LayerwiseRotary(base, 6)
    assert rotary.layer_types == base.layer_types
    assert rotary.full_attention_inv_freq is base.full_attention_inv_freq
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = rotary.nothing_like_it


def test_conversions_of_the_model_leave_the_factors_exact() -> None:
    base = LlamaRotaryEmbedding(make_config("llama", "default"))
    rotary = LayerwiseRotary(base, 1)
    rotary.set_factors([1.0 + 2**-20])
    exact = base.inv_freq.clone()
    rotary.to(torch.bfloat16)
    base.inv_freq = exact
    positions = torch.tensor([[100_000]])
    [(cos, _)] = rotary(torch.zeros(1, 1, 64), positions)
    assert (cos.double() - oracle(base, 1.0 + 2**-20, positions)[0]).abs().max() <= 4 * EPS * 100_000


def test_works_on_the_meta_device() -> None:
    with torch.device("meta"):
        rotary = LayerwiseRotary(LlamaRotaryEmbedding(make_config("llama", "default")), 2)
        rotary.set_factors([1.5, 0.7])
    x, positions = torch.zeros(1, 8, 64, device="meta"), torch.zeros(1, 8, dtype=torch.long, device="meta")
    assert [cos.shape for cos, _ in rotary(x, positions)] == [(1, 8, 16)] * 2
    rotary.base = LlamaRotaryEmbedding(make_config("llama", "default"))
    [(cos, _), _] = rotary(torch.zeros(1, 8, 64), torch.arange(8)[None])
    assert math.isclose(float(cos[0, 3, 0]), math.cos(3 / 1.5), abs_tol=1e-6)


def test_persistent_buffers_keep_their_names() -> None:
    """Older remote code keeps inv_freq in the checkpoint: its key must not change while the wrapper is there."""

    class Persistent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("inv_freq", torch.ones(4))

        def forward(self, x, position_ids):
            return position_ids[..., None] * self.inv_freq

    model = nn.ModuleDict({"rotary_emb": Persistent(), "rest": nn.Linear(2, 2)})
    names = list(model.state_dict())
    model["rotary_emb"] = LayerwiseRotary(model["rotary_emb"], 2)
    state = model.state_dict()
    assert sorted(state) == sorted(names)
    state["rotary_emb.inv_freq"] = torch.full((4,), 3.0)
    model.load_state_dict(state)
    assert torch.equal(model["rotary_emb"].inv_freq, torch.full((4,), 3.0))


def test_installation_goes_in_and_out() -> None:
    model = tiny_model()
    vanilla = logits(model)
    rotary_module = model.model.rotary_emb
    installation = Installation(model)
    assert torch.equal(logits(model), vanilla)
    installation.install()
    assert model.model.rotary_emb.base is rotary_module
    installation.set_factors([1.5] * 4)
    assert not torch.equal(logits(model), vanilla)
    installation.uninstall()
    assert model.model.rotary_emb is rotary_module
    assert not any(layer._forward_pre_hooks for layer in decoder_layers(model))
    assert torch.equal(logits(model), vanilla)


def test_uniform_factor_equals_linear_interpolation() -> None:
    """One factor s in every layer is what rope_type linear does."""
    ours, theirs = (
        tiny_model(),
        tiny_model(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
    )
    theirs.load_state_dict(ours.state_dict())
    installation = Installation(ours)
    installation.install()
    installation.set_factors([2.0] * 4)
    # Halving is exact in floating point: the same bits.
    assert torch.equal(logits(ours, prompt()), logits(theirs, prompt()))
