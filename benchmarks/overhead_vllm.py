"""vLLM's part of benchmarks/overhead.py: a checkpoint served with and without factors, two engines in turns.

Run by vLLM's own interpreter it is one engine: it reads lines of JSON, works, and answers with the seconds it took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

MARK = "@@"  # before an answer: vLLM writes to the same stream
PREFILL_TOKENS, PROMPT_TOKENS, NEW_TOKENS = 4096, 128, 32
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the engines take turns on the same cores
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


class Engine:
    """A process that serves one model."""

    def __init__(self, python: Path, folder: Path, eager: bool) -> None:
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).resolve()), str(folder), "eager" if eager else "compiled"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT,
        )  # fmt: skip
        self.started = self._answer()
        if "ropewalk" not in self.started["plugins"]:
            self.stop()
            raise SystemExit(f"ropewalk is not installed beside the vLLM of {python}: it would ignore the factors")

    def seconds(self, work: str) -> float:
        """Of one prompt (prefill) or of so many tokens behind one (decode)."""
        assert self._process.stdin is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise SystemExit(f"vLLM ended with code {self._process.wait()}; what it said stands above")


@contextmanager
def engines(python: Path, model: Path, seed: int, eager: bool) -> Iterator[dict[str, Engine]]:
    """Two of the model as it is, one of the same with factors in its config, the weights shared on the disk."""
    from overhead_arms import AGAIN, FACTORS, VANILLA
    from ropewalk import load_pretrained
    from ropewalk.export.checkpoint import write_checkpoint
    from workload import candidates

    loaded, _ = load_pretrained(model, dtype="bfloat16", device="cpu")
    factors = candidates(len(loaded.model.layers), 1, seed)[0]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch) / "with-factors"
        write_checkpoint(loaded, factors, folder)
        del loaded
        found = {}
        for name, one in ((VANILLA, model), (AGAIN, model), (FACTORS, folder)):
            found[name] = Engine(python, one, eager)
            stack.callback(found[name].stop)
        yield found


def served(python: Path, model: Path, seed: int, repeats: int) -> dict[str, Any] | None:
    """Seconds with factors over seconds without, by mode and work; None where there is no such interpreter."""
    from overhead_arms import AGAIN, FACTORS, VANILLA, in_turns, shapes_of, summary
    from reporting import progress, table

    if not python.exists():
        progress(f"no vLLM measured: there is no {python}; `make test-vllm` makes the environment")
        return None
    found, rows = {}, []
    for mode in ("eager", "compiled"):
        with engines(python, model, seed, mode == "eager") as started:
            for work, tokens in (("prefill", PREFILL_TOKENS), ("decode", NEW_TOKENS)):
                progress(f"vLLM, {mode}, {work}")
                arms = {
                    name: lambda engine=engine, work=work: (engine.seconds(work), 0.0)
                    for name, engine in started.items()
                }
                found[f"{work}, {mode}"] = summary(in_turns(arms, repeats), tokens)
            found["version"] = started[VANILLA].started["version"]
    for work, by_arm in shapes_of(found):
        over = {name: by_arm[name]["over_vanilla"] for name in (FACTORS, AGAIN)}
        rows.append({"work": work, "vanilla tokens/s": by_arm[VANILLA]["tokens_per_second"], **over})
    table("vLLM: seconds with factors over those without, of the same repeat", rows)
    return found


def main() -> None:
    """The engine's process."""
    folder, mode = sys.argv[1:]
    import vllm

    engine = vllm.LLM(
        folder, dtype="bfloat16", max_model_len=PREFILL_TOKENS + 64, enforce_eager=mode == "eager",
        enable_prefix_caching=False, max_num_batched_tokens=PREFILL_TOKENS + 64,
    )  # fmt: skip
    work = {"prefill": (PREFILL_TOKENS, 1), "decode": (PROMPT_TOKENS, NEW_TOKENS + 1)}

    def answer(value: Any) -> None:
        print(MARK + json.dumps(value), flush=True)

    def run(tokens: int, new: int) -> float:
        sampling = vllm.SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True, detokenize=False)
        begin = time.perf_counter()
        prompt = {"prompt_token_ids": [10 + 7 * place % 30000 for place in range(tokens)]}
        engine.generate([prompt], sampling, use_tqdm=False)
        return time.perf_counter() - begin

    plugins = [entry.name for entry in entry_points(group="vllm.general_plugins")]
    answer({"version": vllm.__version__, "plugins": plugins})
    for line in sys.stdin:
        tokens, new = work[line.strip()]
        # The first token is the prompt's work, so decoding is what the others take.
        answer(run(tokens, new) - (run(tokens, 1) if new > 1 else 0.0))


if __name__ == "__main__":
    main()
