"""The models of benchmarks/overhead.py, which share their weights, and the two kinds of work that they are timed at."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, StaticCache

import ropewalk
from measure import spread, wait_for
from reporting import progress
from ropewalk.factors import ScalingFactors
from ropewalk.layers import decoder_layers, text_decoder

VANILLA, AGAIN, FACTORS, NAIVE = "vanilla", "vanilla again", "factors", "naive hook"
Seconds = tuple[float, float]
"""By the clock, and of the processors: the latter is steadier where others use the machine too."""
Work = Callable[[], Seconds]
"""Does a piece of work once and returns the seconds that it took; what prepares it is not timed."""


def models(vanilla: Any, factors: ScalingFactors) -> dict[str, Any]:
    """Twins of the model: two as they are, which show what equal models differ by, and those with factors.

    The model itself is no arm: its modules lie closer together in memory than a copy's, which the host feels.
    """
    found = {name: twin(vanilla) for name in (VANILLA, AGAIN, FACTORS, NAIVE)}
    ropewalk.apply(found[FACTORS], factors)
    naive_hooks(found[NAIVE], factors)
    return found


def twin(model: Any) -> Any:
    """Other modules with the same weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def naive_hooks(model: Any, factors: ScalingFactors) -> None:
    """The obvious way: each layer's hook asks the rotary module for tables at p / s anew."""
    rotary: Any = text_decoder(model).rotary_emb

    def hook_of(factor: float) -> Callable[..., Any]:
        def hook(_layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            positions = kwargs["position_ids"].float() / factor
            return args, kwargs | {"position_embeddings": rotary(hidden, position_ids=positions)}

        return hook

    for layer, factor in zip(decoder_layers(model), factors.values, strict=True):
        layer.register_forward_pre_hook(hook_of(factor or 1.0), with_kwargs=True)


def prefill(model: Any, call: Any, tokens: int, device: torch.device) -> Work:
    """One prompt of so many tokens, logits of its last one. call: the model, or the compiled one."""
    ids = _ids(model, tokens, device)

    def work() -> Seconds:
        with _Timer(device) as timer, torch.no_grad():
            call(input_ids=ids, use_cache=False, logits_to_keep=1)
        return timer.seconds

    return work


def decode(model: Any, call: Any, prompt: int, tokens: int, device: torch.device, *, static: bool) -> Work:
    """So many tokens one by one behind a cached prompt.

    static: a cache of fixed size, which compiling wants; else one that grows.
    """
    ids = _ids(model, prompt, device)
    places = list(torch.arange(prompt, prompt + tokens, device=device).view(-1, 1, 1))
    token = ids[:, :1].clone()
    fixed = StaticCache(config=model.config, max_cache_len=prompt + tokens) if static else None

    def work() -> Seconds:
        cache: Any = fixed or DynamicCache(config=model.config)
        with torch.no_grad():
            if static:
                cache.reset()
            model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
            with _Timer(device) as timer:
                for place in places:
                    call(input_ids=token, position_ids=place, past_key_values=cache)
        return timer.seconds

    return work


class _Timer:
    """From an idle device to an idle device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: Seconds = (0.0, 0.0)

    def __enter__(self) -> _Timer:
        wait_for(self._device)
        self._begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wait_for(self._device)
        self.seconds = time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]


def _ids(model: Any, tokens: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(10, model.config.vocab_size, (1, tokens), generator=generator).to(device)


def in_turns(arms: Mapping[str, Work], repeats: int) -> dict[str, list[Seconds]]:
    """Seconds of each repeat. Two calls of each before that do not count: they compile, and fill caches."""
    for _ in range(2):
        for work in arms.values():
            work()
    seconds: dict[str, list[Seconds]] = {name: [] for name in arms}
    names = list(arms)
    for repeat in range(repeats):
        first = repeat // 2 % len(names)
        order = [*names[first:], *names[:first]]
        for name in order if repeat % 2 else reversed(order):
            seconds[name].append(arms[name]())
        if repeat % 10 == 9:
            progress(f"repeat {repeat + 1}/{repeats}")
    return seconds


def summary(seconds: Mapping[str, list[Seconds]], tokens: int) -> dict[str, Any]:
    """By arm: tokens a second, and seconds over vanilla's of the same repeat, by the clock and of the processors."""
    found: dict[str, Any] = {}
    for name, own in seconds.items():
        pairs = list(zip(own, seconds[VANILLA], strict=True))
        found[name] = {
            "tokens_per_second": spread([tokens / one[0] for one in own]),
            "over_vanilla": _quartiles([one[0] / other[0] for one, other in pairs]),
        }
        if all(one[1] and other[1] for one, other in pairs):
            found[name]["processor_time_over_vanilla"] = _quartiles([one[1] / other[1] for one, other in pairs])
    return found


def _quartiles(values: list[float]) -> dict[str, float]:
    """Median and the middle half, with the range."""
    ordered = torch.tensor(values, dtype=torch.float64)
    low, high = (float(ordered.quantile(share)) for share in (0.25, 0.75))
    whole = spread(values)
    return {"median": whole["median"], "low": low, "high": high, "least": whole["low"], "most": whole["high"]}


def shapes_of(found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind of work and mode, what was found by arm) of one shape's results."""
    return ((name, value) for name, value in found.items() if isinstance(value, dict))
