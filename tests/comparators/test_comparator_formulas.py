"""Each method against its formula in float64, written anew on `float64_llama`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from float64_llama import Product, Products, frequencies, log_probabilities, rotary_product, turned
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.comparators import make_comparator
from ropewalk.comparators.ms_poe import MsPoe
from ropewalk.errors import RopewalkError, UnsupportedModelError
from ropewalk.layers import rotary_sites
from tiny import logits, prompt, tiny_model

IDS = prompt(1, 14)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(1)
    built = tiny_model(request.param).double()
    for name, parameter in built.named_parameters():  # biases that are not nothing
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return built


def always(product: Product) -> Products:
    return lambda layer, query, key: product


def assert_reproduced(text: str, model: PreTrainedModel, products: Products) -> None:
    """To the rounding of float32 tables."""
    expected = log_probabilities(model, IDS[0], products)
    with make_comparator(text).on(model):
        found = logits(model, IDS)[0].log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_the_oracle_is_the_model(model: PreTrainedModel) -> None:
    expected = log_probabilities(model, IDS[0], always(rotary_product(frequencies(model))))
    torch.testing.assert_close(logits(model, IDS)[0].log_softmax(-1), expected, rtol=1e-4, atol=2e-5)


def test_uniform(model: PreTrainedModel) -> None:
    theta = [value / 1.3 for value in frequencies(model)]
    assert_reproduced("uniform:1.3", model, always(rotary_product(theta)))


def test_ntk(model: PreTrainedModel) -> None:
    theta = frequencies(model, 10000.0 * 3 ** (16 / 14))
    assert theta[0] == 1
    assert theta[-1] == pytest.approx(frequencies(model)[-1] / 3)
    assert_reproduced("ntk:3", model, always(rotary_product(theta)))


def yarn_by_rotations(theta: list[float], factor: float, length: int, slow: float, fast: float) -> list[float]:
    found = []
    for value in theta:
        turns = length * value / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - slow) / (fast - slow)))
        found.append((1 - kept) * value / factor + kept * value)
    return found


def test_yarn_as_in_the_paper(model: PreTrainedModel) -> None:
    theta = yarn_by_rotations(frequencies(model), 4, 256, 1, 32)
    assert frequencies(model)[0] == theta[0]
    assert frequencies(model)[-1] / 4 == theta[-1]
    assert any(theta[i] not in (frequencies(model)[i], frequencies(model)[i] / 4) for i in range(8))
    assert_reproduced("yarn:4:ramp=rotations", model, always(rotary_product(theta, 0.1 * math.log(4) + 1)))


@pytest.mark.parametrize("length", [64, 256, 8192])
@pytest.mark.parametrize("factor", [2.0, 4.0, 16.0])
def test_yarn_as_transformers_has_it(model: PreTrainedModel, length: int, factor: float) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor, "original_max_position_embeddings": length}
    served = tiny_model(model.config.model_type, rope_parameters=yarn, max_position_embeddings=int(length * factor))
    inv_freq, scale = ROPE_INIT_FUNCTIONS["yarn"](served.config, torch.device("cpu"))
    with make_comparator(f"yarn:{factor}:trained-length={length}").on(model):
        rotary: Any = rotary_sites(model)[0].module
        torch.testing.assert_close(rotary.inv_freq.float(), inv_freq, rtol=1e-6, atol=0)
        assert rotary.attention_scaling == pytest.approx(scale)
        own = logits(model, IDS)
    served.load_state_dict(model.state_dict())
    torch.testing.assert_close(own, logits(served.double(), IDS), rtol=1e-3, atol=1e-4)


def test_self_extend(model: PreTrainedModel) -> None:
    theta, group, window = frequencies(model), 3, 5

    def product(query: Tensor, at: int, key: Tensor, place: int, head: int) -> Tensor:
        distance = at - place if at - place < window else at // group + window - window // group - place // group
        return (turned(query, distance, theta) * turned(key, 0, theta).conj()).sum().real

    assert_reproduced("self-extend:3:window=5", model, always(product))


def test_self_extend_in_blocks(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_comparator("self-extend:3:window=5").on(model):
        whole = logits(model)
        monkeypatch.setattr("ropewalk.comparators.self_extend.BLOCK", 7)
        torch.testing.assert_close(logits(model), whole, rtol=1e-12, atol=1e-12)


def ms_poe_products(model: PreTrainedModel, order: str, threshold: float, rotated: bool, first: int) -> Products:
    """Ranks by counting: how many heads are more aware (or as aware, with a lower index)."""
    theta, heads = frequencies(model), model.config.num_attention_heads

    def products(layer: int, query: Tensor, key: Tensor) -> Product:
        if layer < first:
            return rotary_product(theta)
        tokens, share = query.shape[1], heads // len(key)
        plain = rotary_product(theta if rotated else [0.0] * len(theta))
        awareness = []
        for head in range(heads):
            last = [plain(query[head, -1], tokens - 1, key[head // share, i], i, head) for i in range(tokens)]
            weights = (torch.stack(last) / math.sqrt(query.shape[-1])).softmax(-1)
            awareness.append(int((weights > threshold / tokens).sum()))
        ranks = [sum((-awareness[o], o) < (-awareness[h], h) for o in range(heads)) for h in range(heads)]
        numbers = ranks if order == "ranks" else [ranks.index(head) for head in range(heads)]
        ratios = [1.2 + 0.6 * number / (heads - 1) for number in numbers]
        seen.append((awareness, ranks, numbers))

        def product(query: Tensor, at: int, key: Tensor, place: int, head: int) -> Tensor:
            return (
                (turned(query, at / ratios[head], theta) * turned(key, place / ratios[head], theta).conj()).sum().real
            )

        return product

    seen.clear()
    return products


seen: list[tuple[list[int], list[int], list[int]]] = []  # of the layers of the last call: awareness, ranks, numbers


@pytest.mark.parametrize("order", ["ranks", "released"])
@pytest.mark.parametrize(("threshold", "rotated", "first"), [(2.0, True, 2), (1.5, True, 0), (2.0, False, 1)])
def test_ms_poe(model: PreTrainedModel, order: str, threshold: float, rotated: bool, first: int) -> None:
    products = ms_poe_products(model, order, threshold, rotated, first)
    text = f"ms-poe:order={order}:threshold={threshold}:rotated={str(rotated).lower()}:first-layer={first}"
    assert_reproduced(text, model, products)
    assert len(seen) == 4 - first
    assert any(len(set(awareness)) > 1 for awareness, _, _ in seen)


def test_the_released_order_is_the_inverse_of_the_ranks() -> None:
    model = tiny_model(num_attention_heads=8, num_key_value_heads=2).double()
    assert_reproduced("ms-poe:order=released:first-layer=0", model, ms_poe_products(model, "released", 3.0, True, 0))
    assert any(ranks != numbers for _, ranks, numbers in seen)


def test_ms_poe_keeps_the_prompts_order(model: PreTrainedModel) -> None:
    """Whatever comes after the prompt: in one piece, token by token, and in a batch of other prompts."""
    method: MsPoe = make_comparator("ms-poe:first-layer=0:threshold=1.5")  # type: ignore[assignment]
    ids = prompt(3, 20)

    def after(cuts: list[int], rows: Tensor) -> Tensor:
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            return torch.cat(
                [model(input_ids=part, past_key_values=cache, use_cache=True).logits for part in rows.split(cuts, 1)], 1
            )

    with method.on(model):
        whole = after([12, 8], ids)
        torch.testing.assert_close(after([12, *[1] * 8], ids), whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(after([12, 8], ids[1:2]), whole[1:2], rtol=1e-6, atol=1e-6)
        assert (after([12, 8], ids)[:, 12:] - logits(model, ids)[:, 12:]).abs().max() > 1e-3


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_attention_buckets(model: PreTrainedModel, combine: str) -> None:
    multiples = [1, 1.8, 2.5]
    passes = torch.stack(
        [
            log_probabilities(model, IDS[0], always(rotary_product(frequencies(model, 10000.0 * multiple))))
            for multiple in multiples
        ]
    )
    expected = torch.zeros_like(passes[0])
    offsets = torch.zeros(len(multiples), len(expected), 1, dtype=torch.float64)
    if combine == "logits":  # the normaliser that log_probabilities took away counts in the weights
        for index, multiple in enumerate(multiples):
            with make_comparator(f"ntk:{multiple ** (14 / 16)}").on(model):  # the same base
                offsets[index] = logits(model, IDS)[0].logsumexp(-1, keepdim=True)
    for token in range(len(expected)):
        if combine == "probabilities":
            distributions = passes[:, token].exp()
            weights = distributions.amax(-1).exp()
        else:
            distributions = passes[:, token] + offsets[:, token]
            weights = distributions.amax(-1).exp()
        expected[token] = (weights / weights.sum()) @ distributions
    with make_comparator(f"attention-buckets:1+1.8+2.5:combine={combine}").on(model):
        found = logits(model, IDS)[0]
    expected = expected.log() if combine == "probabilities" else expected
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5)


def test_attention_buckets_gives_distributions_and_a_loss(model: PreTrainedModel) -> None:
    with make_comparator("attention-buckets").on(model), torch.no_grad():
        output = model(input_ids=IDS, labels=IDS)
        assert make_comparator("attention-buckets").passes == 6
    torch.testing.assert_close(output.logits.logsumexp(-1), torch.zeros(1, 14, dtype=torch.float64))
    chosen = output.logits[0, :-1].gather(-1, IDS[0, 1:, None])
    assert float(output.loss) == pytest.approx(-float(chosen.mean()))


@pytest.mark.parametrize("text", ["ms-poe", "self-extend:2:window=4"])
def test_caches_of_another_kind_are_refused(text: str, model: PreTrainedModel) -> None:
    with torch.no_grad():
        cache = model(input_ids=IDS, use_cache=True).past_key_values
    with make_comparator(text).on(model), pytest.raises(RopewalkError, match="filled outside"), torch.no_grad():
        model(input_ids=IDS[:, :1], past_key_values=cache, use_cache=True)
    with make_comparator(text).on(model), pytest.raises(RopewalkError, match="of fixed size"):
        model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=2, cache_implementation="static")


@pytest.mark.parametrize(
    ("text", "model_type", "config", "reason"),
    [
        ("ms-poe", "gemma3_text", {"head_dim": 16}, "'gemma3_text': its attention is written for llama"),
        ("self-extend", "mistral", {"sliding_window": 16}, "sliding window"),
        ("yarn", "llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "'linear'"),
        (
            "ms-poe",
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "'dynamic', whose frequencies change",
        ),
    ],
)
def test_refusals_name_the_reason(text: str, model_type: str, config: dict[str, Any], reason: str) -> None:
    with (
        pytest.raises(UnsupportedModelError, match=reason),
        make_comparator(text).on(tiny_model(model_type, **config)),
    ):
        pass


@pytest.mark.parametrize("text", ["ms-poe:first-layer=0", "self-extend:3:window=5", "attention-buckets"])
@pytest.mark.parametrize("model_type", ["mistral", "qwen3"])
def test_other_families_and_dtypes(text: str, model_type: str) -> None:
    config = {"sliding_window": None} if model_type == "mistral" else {"head_dim": 16}
    exact = tiny_model(model_type, **config)
    with make_comparator(text).on(exact):
        expected = logits(exact)
    half = tiny_model(model_type, **config).bfloat16()
    with make_comparator(text).on(half):
        found = logits(half)
    assert found.dtype == torch.bfloat16
    agreement = torch.corrcoef(torch.stack([found.float().flatten(), expected.flatten()]))[0, 1]
    assert agreement > 0.95
