"""Ms-PoE: a position ratio for each head."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ropewalk.comparators.base import Comparator, at_least
from ropewalk.comparators.parts.attention import Call, attention_refusal, masked, own_attention, rotated, scores
from ropewalk.errors import DataError
from ropewalk.options import option


@dataclass(frozen=True)
class Options:
    """Ratios, and how heads are ordered."""

    min_ratio: float = option(1.2, "Ratio of the head that is most aware of position.")
    max_ratio: float = option(1.8, "Ratio of the head that is least aware of it.")
    threshold: float = option(3.0, "A key counts above so many times the average attention (released code: 3 too).")
    order: Literal["ranks", "released"] = option(
        "ranks", "ranks; or released: the released code's order, which takes a permutation for its inverse."
    )
    rotated: bool = option(True, "Whether heads are ordered by rotated queries and keys (released code: false).")
    first_layer: int = option(2, "The first layer that is changed, counted from 0.")


class MsPoe(Comparator):
    """Head h of rank ρ_h divides positions by r_h = r_min + (r_max − r_min)·ρ_h / (H − 1).

    Rank 0 is the head with the highest position-awareness score: the share of the keys whose attention from the
    prompt's last token is above `threshold` times the average key's. Each layer and each row of a batch ranks its own
    heads when the prompt is read, and keeps the order for the sequence, with its KV cache. (Without a cache every step
    is a prompt of its own. To force answers with the prompt's order, read the prompt first and go on with its cache.)
    The released code (VITA-Group/Ms-PoE at a46c3d1, `_calculate_outlier` and `_set_cos_sin_cache` of
    utils/modify_arch/llama.py) scores heads by queries and keys before rotation, orders them by argsort(−score), and
    gives head h the ratio number order[h]: the inverse of the ranks. It also spaces ratios by H in place of H − 1, so
    that none reaches r_max, which is not followed here. Its scripts change layers 2 to 31 of 32, as `first_layer` does.
    Source: arXiv 2403.04797, section 3, and its released code. GQA: each query head rotates the shared key by its
    own ratio, where the released code takes the first head's of a group. Cost: one forward pass; a row of attention
    more a layer at the prompt; keys, cached unrotated, are rotated for each query head again at every step, so time and
    working memory of a step grow with H·S·D. The engine can't run it: `model.forward` and `generate` do.
    """

    name: ClassVar[str] = "ms-poe"
    summary: ClassVar[str] = "a position ratio for each head, by its position-awareness (Ms-PoE)"
    OPTIONS: ClassVar[type] = Options
    cached: ClassVar[bool] = False
    causal: ClassVar[bool] = False
    IDENTITY: ClassVar[dict[str, Any]] = {"min_ratio": 1.0, "max_ratio": 1.0}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        options = self.options
        at_least(self.name, 0, threshold=options.threshold, first_layer=options.first_layer)
        if not 0 < options.min_ratio <= options.max_ratio < float("inf"):
            raise DataError(
                f"comparator ms-poe: min_ratio {options.min_ratio} and max_ratio {options.max_ratio}, "
                "expected 0 < min_ratio <= max_ratio"
            )

    def refusal(self, model: nn.Module) -> str | None:
        """Families with another attention, sliding windows, and frequencies that follow the length."""
        return attention_refusal(model)

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Its own attention from `first_layer` on."""
        orders: WeakKeyDictionary[Any, dict[int, Tensor]] = WeakKeyDictionary()

        def attend(call: Call) -> Tensor:
            ratios = self._ratios(call) if call.cache is None else None
            if ratios is None:
                known = orders.setdefault(call.cache, {})
                if call.is_prompt:
                    known[call.layer] = self._ratios(call)
                ratios = known[call.layer]
            return self._attended(call, ratios)

        return own_attention(model, attend, self.options.first_layer)

    def _ratios(self, call: Call) -> Tensor:
        """float64 [B, H]."""
        score = self._awareness(call)
        order = torch.argsort(score, dim=-1, descending=True, stable=True)
        rank = order if self.options.order == "released" else torch.argsort(order, dim=-1)
        low, high = self.options.min_ratio, self.options.max_ratio
        ratios: Tensor = low + (high - low) * rank.double() / max(1, score.shape[-1] - 1)
        return ratios

    def _awareness(self, call: Call) -> Tensor:
        """float64 [B, H]: the share of visible keys that the last query attends to above the threshold."""
        query, key = call.query, call.key
        if self.options.rotated:
            query, key = rotated(call, query, call.query_positions), rotated(call, key, call.key_positions)
        last = slice(call.query.shape[-2] - 1, None)
        products = scores(call, query[:, :, last], key)
        visible = masked(call, torch.zeros_like(products), last) > -1
        weights = masked(call, products, last).softmax(dim=-1)
        count = visible.sum(dim=-1, keepdim=True)
        above = (weights * count > self.options.threshold) & visible
        share: Tensor = above.sum(dim=-1)[..., 0] / count[..., 0, 0].double()
        return share

    def _attended(self, call: Call, ratios: Tensor) -> Tensor:
        query = rotated(call, call.query, call.query_positions[:, None] / ratios[..., None])
        key = rotated(call, call.key, call.key_positions[:, None] / ratios[..., None])
        return nn.functional.scaled_dot_product_attention(
            query, key, call.value, attn_mask=call.mask, scale=call.scaling
        )


COMPARATOR = MsPoe
