"""The own layer loop: a decoder's layers, run part by part, so that a batch may hold many candidates and many tails.

It fits decoders of the common make: RMS norm, q, k, v (or one qkv) projections, optional norms of queries and keys,
rotary position by halves, an MLP, with norms before (llama, mistral, qwen2, qwen3, phi3) or around (gemma2, gemma3)
each part. What is told apart here by its modules is checked by result against `model.forward` (self_check.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.engine.attention import causal, masked, visible
from ropewalk.engine.candidates import CandidateTree, Level
from ropewalk.engine.rope_schemes import rope_schemes
from ropewalk.engine.rotary_tables import RotaryTables, Tables
from ropewalk.layers import text_config, text_decoder

_NORMS_BEFORE = {"input_layernorm", "post_attention_layernorm"}
_NORMS_AROUND = _NORMS_BEFORE | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
_FULL_LAST_LAYER = (
    0.5  # with more scored tokens than this share, the last layer runs whole and they are picked after it
)


COMPILED_TOKENS = 2**18


class KeyValueCache:
    """Keys and values of every layer, [R, key-value heads, tokens, head size]; valid only for the factors it was made
    with, for keys are kept as they were rotated.

    room: tokens that will follow those of the prompts.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def begin(self, k: Tensor, v: Tensor) -> None:
        """The next layer's keys and values of the prompts."""
        self.keys.append(nn.functional.pad(k, (0, 0, 0, self.room)))
        self.values.append(nn.functional.pad(v, (0, 0, 0, self.room)))

    def write(self, layer: int, k: Tensor, v: Tensor, places: Tensor) -> None:
        """One token a row, k and v [R, key-value heads, 1, head size], at `places`, int64 [R]."""
        rows = torch.arange(len(places), device=places.device)
        self.keys[layer][rows, :, places] = k[:, :, 0]
        self.values[layer][rows, :, places] = v[:, :, 0]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]


class NotFitError(Exception):
    """The model is not one for the own layer loop; the message says why."""


@dataclass(frozen=True)
class Batch:
    """Rows on the device. ids: int64 [R, T]. positions: int64 [R or 1, T]. segments: int64 [R, T], -1 is padding.

    stem: tokens from the left that are plain causal in every row; the rest needs masks. keys: length key of each row
    (rotary_tables.py). scored: int64 [R, S], places whose logits are wanted, padded with the last one of the row.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    stem: int
    keys: tuple[int, ...]
    scored: Tensor


class Views:
    """The masks of a batch in one pass, built once for all layers that ask for the same."""

    def __init__(self, batch: Batch) -> None:
        self.positions, self.segments = batch.positions.expand_as(batch.segments), batch.segments
        self.stem, self.of_scored = batch.stem, batch.scored
        self._found: dict[tuple[str, int | None, int], Tensor] = {}

    def tails(self, window: int | None, rows: int) -> Tensor:
        """Mask [rows, 1, T - stem, T] for what lies behind the stem; rows is a multiple of R."""
        return self._mask("tails", window, rows, lambda x: x[:, self.stem :])

    def scored(self, window: int | None, rows: int) -> Tensor:
        """Mask [rows, 1, S, T] for the scored places."""
        return self._mask("scored", window, rows, lambda x: x.gather(1, self.of_scored))

    def flat(self, rows: int) -> Tensor:
        """The scored places among rows * T tokens, int64 [rows * S]."""
        key = ("flat", None, rows)
        if key not in self._found:
            starts = torch.arange(rows, device=self.of_scored.device) * self.segments.shape[1]
            places = self.of_scored.repeat(rows // len(self.of_scored), 1) + starts[:, None]
            self._found[key] = places.flatten()
        return self._found[key]

    def _mask(self, name: str, window: int | None, rows: int, pick: Callable[[Tensor], Tensor]) -> Tensor:
        if window is not None and window >= self.segments.shape[1]:
            window = None
        key = (name, window, rows)
        if key not in self._found:
            mask = visible(pick(self.positions), pick(self.segments), self.positions, self.segments, window)
            self._found[key] = mask.repeat(rows // len(mask), 1, 1, 1)
        return self._found[key]


@dataclass(frozen=True)
class PlacedLevel:
    """A `Level` on the device. factors: float64 [groups]. parents: int64 [groups], None where groups are the same."""

    level: Level
    factors: Tensor
    parents: Tensor | None


def placed(tree: CandidateTree, device: torch.device) -> list[PlacedLevel]:
    """All levels in one transfer: one a layer would make the host wait for the device in each."""
    factors = torch.tensor([value for level in tree.levels for value in level.factors], dtype=torch.float64)
    parents = torch.tensor([value for level in tree.levels for value in level.parents or level.factors])
    sizes = [len(level.factors) for level in tree.levels]
    rows = zip(tree.levels, torch.split(factors.to(device), sizes), torch.split(parents.to(device), sizes), strict=True)
    return [PlacedLevel(level, own, None if level.parents is None else index.long()) for level, own, index in rows]


@dataclass(frozen=True)
class LayerSpec:
    """What the loop needs to know of one decoder layer. layer_type: the rotary module's, where it asks for one."""

    layer: Any
    around: bool
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None
    cap: float | None
    rotary: bool
    layer_type: str | None


class Decoder:
    """The layers of a model that carries no factors. Raises `NotFitError` if its make is another one.

    rotary_layers: indices of the layers that use the rotary position.
    """

    def __init__(self, model: nn.Module, rotary_layers: Sequence[int]) -> None:
        self.model, self.decoder = model, text_decoder(model)
        config = text_config(model)
        if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
            raise NotFitError("its layers are spread over several devices")
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
            _layer_spec(layer, index, config, index in rotary_layers, self.tables.by_layer_type)
            for index, layer in enumerate(layers)
        ]
        self.head: Any = model.get_output_embeddings()  # type: ignore[operator]
        if type(self.head) is not nn.Linear or self.head.weight.is_meta:
            raise NotFitError(f"its output layer is a {type(self.head).__name__}, not a plain Linear")
        self.final_cap = getattr(config, "final_logit_softcapping", None)
        self.before: Callable[..., Any] = before_attention
        self.after: Callable[..., Any] = after_attention

    def compile(self) -> None:
        """Compile what lies before and after each layer's attention: one graph each for all layers and shapes."""
        self.before = _compiled(before_attention)
        self.after = _compiled(after_attention)

    def hidden(self, batch: Batch, levels: Sequence[PlacedLevel], cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states behind the final norm at the scored places, [groups of the last layer, R, S, hidden].

        cache: filled with keys and values where it is given (one candidate, rows without tails).
        """
        rows, tokens = batch.ids.shape
        x = self.decoder.embed_tokens(batch.ids).flatten(0, 1)  # type: ignore[operator]
        few = batch.scored.shape[1] < _FULL_LAST_LAYER * tokens
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
        tables = _TablesByLayer(self.tables, positions[:, None], keys, len(ids))
        for number, (spec, level) in enumerate(zip(self.layers, levels, strict=True)):
            q, k, v = (_heads_first(part, len(ids)) for part in before_attention(spec, x, tables.at(level, spec, x)))
            cache.write(number, k, v, positions)
            mask = seen if spec.window is None else seen & (places > positions[:, None] - spec.window)
            past = cache.keys[number][:, :, :stop], cache.values[number][:, :, :stop]
            x = after_attention(spec, x, _heads_last(masked(q, *past, mask[:, None, None], spec.scale, spec.cap)))
        normed: Tensor = self.decoder.norm(x)  # type: ignore[operator]
        return normed

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
            half = sin.shape[-1] // 2
            sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
            shape = (-1, self.rows, -1, -1)
            self._last = (key, (cos.expand(shape).flatten(0, 2), sin.expand(shape).flatten(0, 2)))
        return self._last[1]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled for any number of tokens up to a bound; beyond it, it runs as it is.

    The bound lets kernels index in 32 bits. `dynamic=True` would make the widths unknown too, and the rotation, with
    its divisions by what is then no constant, 6 to 7 times slower.
    """
    fast = torch.compile(function)

    def call(spec: LayerSpec, x: Tensor, more: Tensor | Tables | None) -> Any:
        if not 2 <= x.shape[0] <= COMPILED_TOKENS:
            return function(spec, x, more)
        for tensor in (x, *(more if isinstance(more, tuple) else (more,))):
            if tensor is not None:
                torch._dynamo.mark_dynamic(tensor, 0, min=2, max=COMPILED_TOKENS)
        return fast(spec, x, more)

    return call


def before_attention(spec: LayerSpec, x: Tensor, tables: Tables | None) -> tuple[Tensor, Tensor, Tensor]:
    """Norm, projections and rotation. x: [tokens, hidden]; tables: [tokens, rotary dim]. q, k, v: [tokens, heads, D].

    Tokens are flat, for then the only size that changes from batch to batch is the first one: what torch.compile makes
    of a rotation over rows and tokens of unknown sizes was 20 times slower.
    """
    normed = spec.layer.input_layernorm(x)
    return queries(spec, normed, tables), *keys_and_values(spec, normed, tables)


def after_attention(spec: LayerSpec, x: Tensor, out: Tensor) -> Tensor:
    """Output projection, MLP and both residuals. x, out: [tokens, hidden]."""
    layer = spec.layer
    out = layer.self_attn.o_proj(out)
    if spec.around:
        x = x + layer.post_attention_layernorm(out)
        return x + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x)))  # type: ignore[no-any-return]
    x = x + out
    return x + layer.mlp(layer.post_attention_layernorm(x))  # type: ignore[no-any-return]


def queries(spec: LayerSpec, normed: Tensor, tables: Tables | None) -> Tensor:
    """Rotated queries [tokens, heads, head size]."""
    attention = spec.layer.self_attn
    q = _part(attention, normed, 0, spec) if hasattr(attention, "qkv_proj") else attention.q_proj(normed)
    q = q.view(*q.shape[:-1], -1, spec.head_dim)
    if hasattr(attention, "q_norm"):
        q = attention.q_norm(q)
    return q if tables is None else rotate(q, *tables)


def keys_and_values(spec: LayerSpec, normed: Tensor, tables: Tables | None) -> tuple[Tensor, Tensor]:
    """Rotated keys, and values, [tokens, key-value heads, head size]."""
    attention = spec.layer.self_attn
    if hasattr(attention, "qkv_proj"):
        k, v = (_part(attention, normed, part, spec) for part in (1, 2))
    else:
        k, v = attention.k_proj(normed), attention.v_proj(normed)
    k, v = (part.view(*part.shape[:-1], -1, spec.head_dim) for part in (k, v))
    if hasattr(attention, "k_norm"):
        k = attention.k_norm(k)
    return (k if tables is None else rotate(k, *tables)), v


def _part(attention: Any, normed: Tensor, part: int, spec: LayerSpec) -> Tensor:
    """One of q, k, v from a joint projection."""
    sizes = [count * spec.head_dim for count in (spec.heads, spec.kv_heads, spec.kv_heads)]
    start = sum(sizes[:part])
    return nn.functional.linear(normed, attention.qkv_proj.weight[start : start + sizes[part]])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position by halves; what lies beyond the rotary dim passes through. x: [tokens, heads, head size].

    sin: with the sign of its first half changed, so that x · cos + (x with its halves exchanged) · sin is all there is
    to do. Putting the halves together in any other way made torch.compile's kernel several times slower.
    """
    size = cos.shape[-1]
    turned = x if size == x.shape[-1] else x[..., :size]
    exchanged = turned.view(*turned.shape[:-1], 2, size // 2).flip(-2).flatten(-2)
    turned = turned * cos[:, None] + exchanged * sin[:, None]
    return turned if size == x.shape[-1] else torch.cat((turned, x[..., size:]), dim=-1)


def _layer_spec(layer: Any, index: int, config: Any, rotary: bool, by_layer_type: bool) -> LayerSpec:
    name = type(layer).__name__
    parts = {child for child, module in layer.named_children() if next(module.parameters(), None) is not None}
    norms = parts - {"self_attn", "mlp"}
    if norms not in (_NORMS_BEFORE, _NORMS_AROUND) or not {"self_attn", "mlp"} <= parts:
        raise NotFitError(f"{name} is made of {', '.join(sorted(parts))}: another make than the loop knows")
    attention = layer.self_attn
    projections = {child for child, _ in attention.named_children()}
    if not ({"q_proj", "k_proj", "v_proj", "o_proj"} <= projections or {"qkv_proj", "o_proj"} <= projections):
        raise NotFitError(f"{type(attention).__name__} has other projections ({', '.join(sorted(projections))})")
    if "qkv_proj" in projections and (type(attention.qkv_proj) is not nn.Linear or attention.qkv_proj.bias is not None):
        raise NotFitError(f"its joint projection is a {type(attention.qkv_proj).__name__}, not a Linear without bias")
    if getattr(attention, "is_causal", True) is not True:
        raise NotFitError("its attention is not causal")
    layer_types = getattr(config, "layer_types", None)
    layer_type = layer_types[index] if layer_types else None
    heads, head_dim = config.num_attention_heads, int(attention.head_dim)
    return LayerSpec(
        layer=layer,
        around=norms == _NORMS_AROUND,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=head_dim,
        scale=float(getattr(attention, "scaling", head_dim**-0.5)),
        window=_window(attention, config, layer_type),
        cap=getattr(attention, "attn_logit_softcapping", None),
        rotary=rotary,
        layer_type=layer_type if by_layer_type else None,
    )


def _window(attention: Any, config: Any, layer_type: str | None) -> int | None:
    if hasattr(attention, "sliding_window"):
        window = attention.sliding_window
    else:
        window = None if layer_type == "full_attention" else getattr(config, "sliding_window", None)
    return int(window) if window else None


def _take(x: Tensor, places: Tensor) -> Tensor:
    """From x [G, R, T, hidden] at places [R, S] -> [G, R, S, hidden]."""
    return x.gather(2, places[None, :, :, None].expand(x.shape[0], -1, -1, x.shape[3]))


def _heads_first(x: Tensor, rows: int) -> Tensor:
    """[rows * T, heads, D] -> [rows, heads, T, D]."""
    return x.view(rows, -1, *x.shape[1:]).transpose(1, 2)


def _heads_last(out: Tensor) -> Tensor:
    """[rows, heads, T, D] -> [rows * T, heads * D]."""
    return out.transpose(1, 2).flatten(0, 1).flatten(1)
