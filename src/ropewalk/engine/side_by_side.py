"""Independent parts of a batch on the cores of a CPU: a Python thread for each part, in place of many for each kernel.

A kernel that shares its work among threads waits for the slowest of them, and a decoder layer has some sixty kernels.
Parts of a batch need not wait for one another: each kernel runs on one core and its data stays in that core's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

MOST_WORKERS = 8  # the interpreter starts one kernel at a time; more threads than these take part in kernels


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of every part, in their order, as many at a time as torch has threads.

    Torch's threads are divided among the parts that run at a time; the last parts, if they are fewer, get more each.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(parts), MOST_WORKERS)
    if workers < 2:
        return [work(part) for part in parts]
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def alone(part: Part) -> Result:
        torch.set_num_threads(threads // workers)
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):  # both are a thread's own
            return work(part)

    even = len(parts) // workers * workers
    try:
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(alone, parts[:even]))
    finally:
        torch.set_num_threads(threads)  # threads begun later start with the number that was set last
    return found + side_by_side(work, parts[even:])
