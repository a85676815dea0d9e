"""What every benchmark shares: the matmul ceiling, timings in turns and their ratios, the kernels that take the time.

Timings end with the device idle. The arms of a comparison take turns within each repeat, in an order that is turned
round from one repeat to the next, so that a machine that warms up or is shared with others favours none of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from reporting import progress, table

Arm = Callable[[int], float]
"""Does the work of one repeat (its number is given) and returns how much that was, in units of work."""

SHOWN = 12  # rows of a profile
MATMUL_SECONDS = 1.5  # spent on one shape of the ceiling
SQUARES = {"cuda": (4096, 8192, 12288), "cpu": (1024, 2048, 4096)}


@dataclass(frozen=True)
class Ceiling:
    """FLOP/s of large matrix products. shapes: median by "M x N x K"; best: the fastest, which is the ceiling."""

    dtype: str
    shapes: dict[str, float]

    @property
    def best(self) -> str:
        return max(self.shapes, key=lambda name: self.shapes[name])

    @property
    def flops(self) -> float:
        return self.shapes[self.best]

    def show(self) -> None:
        rows = [{"M x N x K": name, "TFLOP/s": flops / 1e12} for name, flops in self.shapes.items()]
        table(f"matrix products in {self.dtype}; the ceiling is {self.best}", rows)

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "tflops": self.flops / 1e12, "shape": self.best,
                "all_tflops": {name: value / 1e12 for name, value in self.shapes.items()}}  # fmt: skip


@dataclass
class Timings:
    """Of one arm: units of work and seconds of each repeat. first: seconds of the warm-up call (loading, compiling)."""

    first: float = 0.0
    work: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Units of work a second, by repeat."""
        return [work / seconds for work, seconds in zip(self.work, self.seconds, strict=True)]


def device_of(name: str | None) -> torch.device:
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_ceiling(
    device: torch.device, dtype: torch.dtype = torch.bfloat16, more: Iterable[tuple[int, int, int]] = ()
) -> Ceiling:
    """Median FLOP/s of x [M, K] times the transpose of w [N, K], as a linear layer does it, on random data.

    more: shapes (M, N, K) beside the large squares, for instance a model's own.
    """
    shapes = [(size, size, size) for size in SQUARES[device.type]] + list(more)
    generator = torch.Generator(device).manual_seed(0)
    found = {}
    for m, n, k in shapes:
        x = torch.randn(m, k, device=device, generator=generator).to(dtype)
        w = torch.randn(n, k, device=device, generator=generator).to(dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)
        found[f"{m} x {n} x {k}"] = (
            2 * m * n * k / _median_seconds(lambda x=x, w=w, out=out: torch.mm(x, w.t(), out=out), device)
        )
        del x, w, out
    return Ceiling(str(dtype).removeprefix("torch."), found)


def matmul_arm(device: torch.device, ceiling: Ceiling, seconds: float = 1.0) -> Arm:
    """The ceiling's best shape for about `seconds`, to be timed in turns with the other arms; its work is in FLOPs.

    A rate over that of the same repeat does not change with the clock or the load of the machine.
    """
    m, n, k = map(int, ceiling.best.split(" x "))
    dtype = getattr(torch, ceiling.dtype)
    generator = torch.Generator(device).manual_seed(1)
    x = torch.randn(m, k, device=device, generator=generator).to(dtype)
    w = torch.randn(n, k, device=device, generator=generator).to(dtype)
    out = torch.empty(m, n, device=device, dtype=dtype)
    flops = 2 * m * n * k
    count = max(3, int(seconds * ceiling.flops / flops))

    def arm(_repeat: int) -> float:
        for _ in range(count):
            torch.mm(x, w.t(), out=out)
        return float(flops * count)

    return arm


def share_of_ceiling(flops: float, timing: Timings, matmul: Timings) -> dict[str, float]:
    """Executed FLOPs a second over the matrix product's of the same repeat: median and range."""
    pairs = zip(timing.seconds, matmul.rates, strict=True)
    return spread([flops / seconds / rate for seconds, rate in pairs])


def _median_seconds(call: Callable[[], Any], device: torch.device) -> float:
    for _ in range(3):
        call()
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < 7 or (time.perf_counter() - started < MATMUL_SECONDS and len(seconds) < 200):
        wait_for(device)
        begin = time.perf_counter()
        call()
        wait_for(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def interleave(
    arms: Mapping[str, Arm], repeats: int, device: torch.device, *, warm_up: bool = True
) -> dict[str, Timings]:
    """Time every arm `repeats` times, taking turns; one call of each before that is warm-up and does not count."""
    timings = {name: Timings() for name in arms}
    if warm_up:
        for name, arm in arms.items():
            timings[name].first = timed(lambda arm=arm: arm(0), device)[1]
    for repeat in range(repeats):
        order = list(arms) if repeat % 2 == 0 else list(reversed(arms))
        for name in order:
            work, seconds = timed(lambda name=name, repeat=repeat: arms[name](repeat), device)
            timings[name].work.append(work)
            timings[name].seconds.append(seconds)
        progress(f"repeat {repeat + 1}/{repeats}: " + ", ".join(f"{n} {t.rates[-1]:.4g}/s" for n, t in timings.items()))
    return timings


def timed(call: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """(what the call returns, seconds until the device is idle again)."""
    wait_for(device)
    begin = time.perf_counter()
    result = call()
    wait_for(device)
    return result, time.perf_counter() - begin


def best_batch(
    run: Callable[[int], Any], sizes: Sequence[int], device: torch.device, name: str
) -> tuple[int, dict[int, float]]:
    """The batch size with the most prompts a second, and what was found at each: `run(size)` runs one such batch.

    Stops where memory ends, or after two sizes that were no faster than the best.
    """
    found: dict[int, float] = {}
    for size in sizes:
        try:
            run(size)
            found[size] = size / min(timed(lambda size=size: run(size), device)[1] for _ in range(2))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        ranking = sorted(found, key=lambda tried: -found[tried])
        if list(found).index(ranking[0]) <= len(found) - 3:
            break
    if not found:
        raise SystemExit(f"{name}: not even a batch of {sizes[0]} fits this device")
    best = max(found, key=lambda size: found[size])
    progress(f"{name}: best batch size {best} of " + ", ".join(f"{size}: {rate:.3g}/s" for size, rate in found.items()))
    return best, found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(ours: Timings, theirs: Timings) -> dict[str, float]:
    """Our rate over theirs, repeat by repeat: median and range."""
    return spread([mine / other for mine, other in zip(ours.rates, theirs.rates, strict=True)])


def top_kernels(call: Callable[[], Any], device: torch.device) -> list[dict[str, Any]]:
    """The kernels (on a CPU: operators) that take the most time in one call, with their share of all."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        call()
        wait_for(device)
    spent = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # On a GPU the events of its kernels alone: operators and annotations hold the same time once more.
    events = [
        event
        for event in profiler.key_averages()
        if not on_gpu or ("CUDA" in str(event.device_type) and not getattr(event, "is_user_annotation", False))
    ]
    total = sum(getattr(event, spent) for event in events) or 1.0
    ranked = sorted(events, key=lambda event: -getattr(event, spent))[:SHOWN]
    return [
        {"kernel": event.key[:90], "calls": event.count, "ms": getattr(event, spent) / 1e3,
         "share": getattr(event, spent) / total}
        for event in ranked
    ]  # fmt: skip
