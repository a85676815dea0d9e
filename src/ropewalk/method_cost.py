"""What a method costs: tokens a second while a prompt is read and while it is answered, and the memory that takes.

All arms go one road, `model.forward` with its KV cache, one prompt at a time, so that they can be compared: a method
that the layer loop can't run has no other, and the loop's ways of sharing work are not what a user of the method gets.
Arms take turns on the same prompts; a pass of each before that warms up and is where memory is measured.
"""

from __future__ import annotations

import inspect
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ropewalk.engine.forward import forget_longest
from ropewalk.engine.rope_schemes import has_length_dependent_rope
from ropewalk.engine.rotary_tables import kept_base
from ropewalk.engine.scorer import evaluation_mode
from ropewalk.layers import input_device, scored_model

NEW_TOKENS = 16  # of an answer: enough for the cost of a step to show
ROAD = "model.forward with its KV cache, one prompt at a time, greedy"
MEMORY = {
    "cuda": "peak of what PyTorch allocates on the GPU for a prompt and its answer, beyond what was there before",
    "cpu": "peak of what PyTorch allocates for a prompt and its answer, beyond what was there before; buffers that a "
    "kernel takes for itself, past PyTorch's allocator, are not in it",
}


@dataclass(frozen=True)
class CostArm:
    """One way to run the model. on: puts it on the model for a `with` block. prompts: token ids, one list a prompt.

    A method that changes the prompt has prompts of its own; speeds count the tokens of the first arm's all the same, so
    that a longer prompt shows as a lower speed.
    """

    on: Callable[[], AbstractContextManager[Any]]
    prompts: Sequence[Sequence[int]]


def measure_cost(
    model: Any,
    arms: Mapping[str, CostArm],
    *,
    new_tokens: int = NEW_TOKENS,
    on_progress: Callable[[int], None] = lambda prompts: None,
) -> dict[str, Any]:
    """Speed and memory of every arm, as JSON; the first arm is what the others are held against.

    By arm: `read` and `write`, each with `tokens_per_second` (median over the prompts), its `range`, `ratio` to the
    first arm's on the same prompt (median) and the `ratio_range`; `cache_bytes` and `peak_bytes` of the first prompt.
    on_progress: told how many prompts were just run. Leaves the model as it was.
    """
    model = scored_model(model)
    reference = next(iter(arms))
    names = list(arms)
    memory: dict[str, dict[str, int]] = {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with torch.no_grad(), evaluation_mode(model), kept_base(model):
        for name, arm in arms.items():
            with arm.on():
                memory[name] = _memory(model, arm.prompts[0], new_tokens)
            on_progress(1)
        for number in range(len(arms[reference].prompts)):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:  # else one arm would always run after the same other one
                with arms[name].on():
                    seconds[name].append(_run(model, arms[name].prompts[number], new_tokens)[:2])
                on_progress(1)
    lengths = [len(prompt) for prompt in arms[reference].prompts]
    answers = [new_tokens] * len(lengths)
    read, write = ({name: [run[phase] for run in runs] for name, runs in seconds.items()} for phase in (0, 1))
    return {
        "road": ROAD,
        "prompts": len(lengths),
        "prompt_tokens": lengths,
        "new_tokens": new_tokens,
        "memory": MEMORY[input_device(model).type if input_device(model).type in MEMORY else "cpu"],
        "arms": {
            name: {
                "read": _speed(lengths, read[name], read[reference]),
                "write": _speed(answers, write[name], write[reference]),
                **memory[name],
            }
            for name in names
        },
    }


def _run(model: Any, prompt: Sequence[int], new_tokens: int) -> tuple[float, float, Any]:
    """Seconds to read a prompt, seconds for so many further tokens, and the KV cache."""
    device = input_device(model)
    if has_length_dependent_rope(model):
        forget_longest(model)
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    ids = torch.tensor([list(prompt)], device=device)
    started = time.perf_counter()
    output = model(input_ids=ids, use_cache=True, **few)
    token = output.logits[:, -1:].argmax(-1)
    token.tolist()  # waits for every GPU that had a part in it
    read = time.perf_counter()
    for _ in range(new_tokens):
        output = model(input_ids=token.to(device), past_key_values=output.past_key_values, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    token.tolist()
    return read - started, time.perf_counter() - read, output.past_key_values


def _memory(model: Any, prompt: Sequence[int], new_tokens: int) -> dict[str, int]:
    """Bytes of the KV cache at the end, and at the peak of all that was allocated on the way; over all GPUs."""
    gpus = sorted({parameter.device.index for parameter in model.parameters() if parameter.device.type == "cuda"})
    if gpus:
        before = sum(map(torch.cuda.memory_allocated, gpus))
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        cache = _run(model, prompt, new_tokens)[2]
        return {
            "cache_bytes": _cache_bytes(cache),
            "peak_bytes": sum(map(torch.cuda.max_memory_allocated, gpus)) - before,
        }
    from torch.profiler import ProfilerActivity, profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it writes to standard error that it begins and ends
    # The resident size of the process would tell the first arm from the others, whose memory is there already.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        cache = _run(model, prompt, new_tokens)[2]
        size = _cache_bytes(cache)
    kineto: Any = profiler.profiler.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return {"cache_bytes": size, "peak_bytes": peak}


def _cache_bytes(cache: Any) -> int:
    """Of all tensors that the layers of a cache hold."""
    held = [value for layer in cache.layers for value in vars(layer).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in held)


def _speed(tokens: Sequence[int], seconds: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    speeds = [count / second for count, second in zip(tokens, seconds, strict=True)]
    ratios = [other / own for own, other in zip(seconds, reference, strict=True)]
    return {
        "tokens_per_second": statistics.median(speeds),
        "range": [min(speeds), max(speeds)],
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }
