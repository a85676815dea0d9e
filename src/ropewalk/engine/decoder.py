"""The own layer loop: a decoder's layers, run part by part, so that a batch may hold many candidates and many tails.

It fits decoders of the common make: RMS norm, q, k, v (or one qkv) projections, optional norms of queries and keys,
rotary position by halves, an MLP, with norms before (llama, mistral, qwen2, qwen3, phi3) or around (gemma2, gemma3)
each part. What is told apart here by its modules is checked by result against `model.forward` (self_check.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.engine.attention import blocked, causal, masked, takes_blocks
from ropewalk.engine.batch import Batch, PlacedLevel, Views
from ropewalk.engine.blocks import after_attention, before_attention, compiled, keys_and_values, queries
from ropewalk.engine.kv_cache import KeyValueCache
from ropewalk.engine.layer_spec import LayerSpec, NotFitError, described, layer_spec
from ropewalk.engine.rope_schemes import rope_schemes
from ropewalk.engine.rotary_tables import RotaryTables, Tables
from ropewalk.engine.rows import CAUSAL_COST, MASKED_COST
from ropewalk.engine.side_by_side import side_by_side
from ropewalk.layers import is_plain_linear, is_split, text_config, text_decoder

PART_TOKENS = 512
"""On a CPU a batch is divided among the cores in parts of about so many tokens or, if that is longer, of one row."""

FULL_LAST_LAYER = 0.5
"""With more scored tokens than this share the last layer runs whole, and they are picked after it."""


class Decoder:
    """The layers of a model that carries no factors. Raises `NotFitError` if its make is another one.

    rotary_layers: indices of the layers that use the rotary position.
    """

    def __init__(self, model: nn.Module, rotary_layers: Sequence[int]) -> None:
        self.model, self.decoder = model, text_decoder(model)
        config = text_config(model)
        if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
            raise NotFitError("its layers are spread over several devices")
        self.is_split = is_split(model)
        try:
            self.tables = RotaryTables(model)
        except ValueError as error:
            raise NotFitError(str(error)) from None
        if any(scheme.get("llama_4_scaling_beta") for scheme in rope_schemes(model)):
            # The check by result reads short texts, where such a scale is still 1.
            raise NotFitError("its queries are scaled by their position (llama_4_scaling_beta)")
        for name in ("embed_tokens", "norm", "layers"):
            if not hasattr(self.decoder, name):
                raise NotFitError(f"{type(self.decoder).__name__} has no {name}")
        layers: Any = self.decoder.layers
        self.layers = [
            layer_spec(layer, index, config, index in rotary_layers, self.tables.by_layer_type)
            for index, layer in enumerate(layers)
        ]
        self.head: Any = model.get_output_embeddings()  # type: ignore[operator]
        if not is_plain_linear(self.head) and not (self.is_split and type(self.head) is nn.Linear):
            raise NotFitError(f"its output layer is {described(self.head)}, not a plain Linear")
        self.final_cap = getattr(config, "final_logit_softcapping", None)
        self.before: Callable[..., Any] = before_attention
        self.after: Callable[..., Any] = after_attention

    @property
    def attention_weight(self) -> float:
        """Cost of a token that attends to one other, in units of all else that a token costs in a layer."""
        spec = self.layers[0]
        weights = sum(parameter.numel() for parameter in spec.layer.parameters())
        return float(2 * spec.heads * spec.head_dim / weights)

    @property
    def tail_cost(self) -> float:
        """What a pair of tokens costs in a tail: causal attention where `hidden` computes tails one after another."""
        capped = any(spec.cap is not None for spec in self.layers)
        one_by_one = takes_blocks(self.head.weight) and not (capped or self._whole_batches)
        return CAUSAL_COST if one_by_one else MASKED_COST

    @property
    def _whole_batches(self) -> bool:
        """A base that follows the length is a state of the rotary module, and so is what the compiler does."""
        return bool(self.tables.length_dependent) or self.before is not before_attention

    def compile(self) -> None:
        """Compile what lies before and after each layer's attention: one graph each for all layers and shapes.

        Not where processes share the weights: transformers gives every module a forward of its own there.
        """
        if self.is_split:
            return
        self.before = compiled(before_attention)
        self.after = compiled(after_attention)

    def hidden(self, batch: Batch, levels: Sequence[PlacedLevel], cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states behind the final norm at the scored places, [groups of the last layer, R, S, hidden].

        cache: filled with keys and values where it is given (one candidate, rows without tails).
        """
        # A base that follows the length is a state of the rotary module, and so is what the compiler does; and
        # processes that share the weights have to do everything in one order.
        shared = self.tables.length_dependent or self.before is not before_attention or self.is_split
        if batch.ids.device.type == "cpu" and len(batch.ids) > 1 and cache is None and not shared:
            parts = side_by_side(lambda part: self._hidden(part, levels, None), _parts(batch, torch.get_num_threads()))
            return torch.cat(parts, dim=1)
        return self._hidden(batch, levels, cache)

    def _hidden(self, batch: Batch, levels: Sequence[PlacedLevel], cache: KeyValueCache | None) -> Tensor:
        rows, tokens = batch.ids.shape
        x = self.decoder.embed_tokens(batch.ids).flatten(0, 1)  # type: ignore[operator]
        few = batch.scored.shape[1] < FULL_LAST_LAYER * tokens
        tables = _TablesByLayer(self.tables, batch.positions, batch.keys, rows)
        views = Views(batch)
        for spec, level in zip(self.layers, levels, strict=True):
            if level.parents is not None:
                x = x.view(-1, rows * tokens, x.shape[-1])[level.parents].flatten(0, 1)
            own = tables.at(level, spec, x)
            if spec is self.layers[-1] and few:
                x = self._last(spec, x, own, batch, views, cache)
            else:
                x = self._layer(spec, x, own, batch, views, cache)
        x = x.view(len(levels[-1].factors), rows, -1, x.shape[-1])
        normed: Tensor = self.decoder.norm(x if few else _take(x, batch.scored))  # type: ignore[operator]
        return normed

    def step(
        self, ids: Tensor, positions: Tensor, keys: Sequence[int], levels: Sequence[PlacedLevel], cache: KeyValueCache
    ) -> Tensor:
        """One more token a row. ids, positions: int64 [R]. Hidden states behind the final norm, [R, hidden]."""
        x = self.decoder.embed_tokens(ids)  # type: ignore[operator]
        stop = int(positions.max()) + 1
        places = torch.arange(stop, device=ids.device)
        seen = places <= positions[:, None]
        tables = self._tables_of_all(positions[:, None], keys, levels, x)
        for number, spec in enumerate(self.layers):
            q, k, v = (_heads_first(part, len(ids)) for part in self.before(spec, x, tables[number]))
            cache.write(number, k, v, positions)
            mask = seen if spec.window is None else seen & (places > positions[:, None] - spec.window)
            past = cache.keys[number][:, :, :stop], cache.values[number][:, :, :stop]
            x = self.after(spec, x, _heads_last(masked(q, *past, mask[:, None, None], spec.scale, spec.cap)))
        normed: Tensor = self.decoder.norm(x)  # type: ignore[operator]
        return normed

    def _tables_of_all(
        self, positions: Tensor, keys: Sequence[int], levels: Sequence[PlacedLevel], like: Tensor
    ) -> list[Tables | None]:
        """Tables of every layer for one candidate and one token a row, computed together: they are small."""
        factors = torch.cat([level.factors for level in levels])
        found: list[Tables | None] = [None] * len(levels)
        for layer_type in {spec.layer_type for spec in self.layers if spec.rotary}:
            members = [
                number for number, spec in enumerate(self.layers) if spec.rotary and spec.layer_type == layer_type
            ]
            cos, sin = self.tables.at(positions, factors[members], keys, like, layer_type)
            sin = _signed(sin)
            for place, number in enumerate(members):
                found[number] = (cos[place, :, 0], sin[place, :, 0])
        return found

    def _layer(
        self, spec: LayerSpec, x: Tensor, tables: Tables | None, batch: Batch, views: Views, cache: KeyValueCache | None
    ) -> Tensor:
        """x: [G * R * T, hidden]."""
        rows, stem = x.shape[0] // batch.ids.shape[1], batch.stem
        q, k, v = (_heads_first(part, rows) for part in self.before(spec, x, tables))
        if cache is not None:
            cache.begin(k, v)
        if stem == q.shape[2]:
            out = causal(q, k, v, spec.scale, spec.window, spec.cap)
        else:
            first = causal(q[:, :, :stem], k[:, :, :stem], v[:, :, :stem], spec.scale, spec.window, spec.cap)
            if len(batch.ids) == 1 and spec.cap is None and takes_blocks(q):
                out = torch.cat([first, *_tails(spec, q, k, v, batch)], dim=2)
            else:
                mask = views.tails(spec.window, rows)
                out = torch.cat([first, masked(q[:, :, stem:], k, v, mask, spec.scale, spec.cap)], dim=2)
        return self.after(spec, x, _heads_last(out))  # type: ignore[no-any-return]

    def _last(
        self, spec: LayerSpec, x: Tensor, tables: Tables | None, batch: Batch, views: Views, cache: KeyValueCache | None
    ) -> Tensor:
        """Queries, attention output and MLP at the scored places alone. Returns [G * R * S, hidden]."""
        rows = x.shape[0] // batch.ids.shape[1]
        normed = spec.layer.input_layernorm(x)
        k, v = (_heads_first(part, rows) for part in keys_and_values(spec, normed, tables))
        if cache is not None:
            cache.begin(k, v)
        places = views.flat(rows)
        own = None if tables is None else (tables[0][places], tables[1][places])
        q = _heads_first(queries(spec, normed[places], own), rows)
        out = masked(q, k, v, views.scored(spec.window, rows), spec.scale, spec.cap)
        return after_attention(spec, x[places], _heads_last(out))


def _parts(batch: Batch, threads: int) -> list[Batch]:
    """The batch in parts of whole rows: as many as there are threads, or more of them that are not too short.

    The stem of a part is its own: the rest of the batch may have shorter ones.
    """
    rows, tokens = batch.ids.shape
    size = min(-(-rows // threads), max(1, PART_TOKENS // tokens))
    parts = []
    for start in range(0, rows, size):
        chosen = slice(start, start + size)
        segments = batch.segments[chosen]
        parts.append(
            Batch(
                ids=batch.ids[chosen],
                positions=batch.positions if len(batch.positions) == 1 else batch.positions[chosen],
                segments=segments,
                stem=batch.stem if batch.stem == tokens else int((segments == 0).sum(1).min()),
                keys=batch.keys[chosen],
                scored=batch.scored[chosen],
            )
        )
    return parts


def _tails(spec: LayerSpec, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Iterator[Tensor]:
    """Attention of one row's tails, one after another: each is causal behind the stem and needs no mask of all."""
    start = stem = batch.stem
    _, lengths = torch.unique_consecutive(batch.segments[0, stem:], return_counts=True)
    for length in lengths.tolist():
        own = slice(start, start + length)
        seen_k, seen_v = (torch.cat((x[:, :, :stem], x[:, :, own]), dim=2) for x in (k, v))
        yield blocked(q[:, :, own], seen_k, seen_v, spec.scale, spec.window)
        start += length


class _TablesByLayer:
    """Tables of one pass, a row of them for each token; layers of the same factors share them."""

    def __init__(self, tables: RotaryTables, positions: Tensor, keys: Sequence[int], rows: int) -> None:
        self.tables, self.positions, self.keys, self.rows = tables, positions, keys, rows
        self._last: tuple[object, Tables] | None = None

    def at(self, placed: PlacedLevel, spec: LayerSpec, like: Tensor) -> Tables | None:
        """Tables for `rotate`, [G * R * T, rotary dim]; None for a layer without rotary position."""
        if not spec.rotary:
            return None
        key = (placed.level.factors, spec.layer_type)
        if self._last is None or self._last[0] != key:
            cos, sin = self.tables.at(self.positions, placed.factors, self.keys, like, spec.layer_type)
            shape = (-1, self.rows, -1, -1)
            self._last = (key, (cos.expand(shape).flatten(0, 2), _signed(sin).expand(shape).flatten(0, 2)))
        return self._last[1]


def _signed(sin: Tensor) -> Tensor:
    half = sin.shape[-1] // 2
    return torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


def _take(x: Tensor, places: Tensor) -> Tensor:
    """From x [G, R, T, hidden] at places [R, S] -> [G, R, S, hidden]."""
    return x.gather(2, places[None, :, :, None].expand(x.shape[0], -1, -1, x.shape[3]))


def _heads_first(x: Tensor, rows: int) -> Tensor:
    """[rows * T, heads, D] -> [rows, heads, T, D]."""
    return x.view(rows, -1, *x.shape[1:]).transpose(1, 2)


def _heads_last(out: Tensor) -> Tensor:
    """[rows, heads, T, D] -> [rows * T, heads * D]."""
    return out.transpose(1, 2).flatten(0, 1).flatten(1)
