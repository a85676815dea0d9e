"""What a studio's worker loads in its tests: the tiny model, with an evaluator that some factors do harm to."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.evaluate import Evaluator
from ropewalk.results import TaskResult
from ropewalk.studio.bench import Bench
from small_search import evaluator

RAISES, IS_KILLED, IS_HELD = 0.9, 0.8, 0.7  # the first factor


@dataclass(frozen=True)
class TinyModel:
    """Can be sent to another process. folder: `calls` there has a line a scoring; one that is held waits for `go`."""

    model: Path
    folder: Path

    def __call__(self) -> tuple[Bench, Evaluator]:
        """Model and examples."""
        on = evaluator(*load_pretrained(self.model, device="cpu", dtype="float32"), "validation", tokens_per_batch=1)
        on.fault = self.fault
        bench = Bench.of(on, "validation")
        (self.folder / "pid").write_text(str(os.getpid()))
        return bench, on

    def fault(self, given: ScalingFactors, result: TaskResult) -> TaskResult:
        """What the factors do."""
        with (self.folder / "calls").open("a") as calls:
            calls.write(f"{given[0]}\n")
        if given[0] == RAISES:
            raise RuntimeError("out of paper\nand of ink")
        if given[0] == IS_KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        while given[0] == IS_HELD and not (self.folder / "go").exists():
            time.sleep(0.02)
        return result
