"""One vLLM engine in a process of its own: reads what to run as JSON, writes what it answered to a file.

Not a test. An engine leaves threads, caches and memoised modules behind, so that none shares a process with another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def answer(wanted: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens and the logprob of each, a list a prompt; once more after the weights were loaded again."""
    from vllm import LLM, SamplingParams

    engine = LLM(wanted["model"], **wanted["options"])
    sampling = SamplingParams(temperature=0.0, max_tokens=wanted["new_tokens"], logprobs=1, ignore_eos=True)
    prompts = [{"prompt_token_ids": ids} for ids in wanted["prompts"]]

    def generated() -> list[dict[str, Any]]:
        rows = [output.outputs[0] for output in engine.generate(prompts, sampling, use_tqdm=False)]
        return [
            {
                "tokens": list(row.token_ids),
                "logprobs": [step[token].logprob for token, step in zip(row.token_ids, row.logprobs, strict=True)],
            }
            for row in rows
        ]

    answers = {"first": generated()}
    if wanted["reload"]:
        engine.collective_rpc("reload_weights")
        engine.reset_prefix_cache()
        answers["reloaded"] = generated()
    return answers


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    Path(asked["out"]).write_text(json.dumps(answer(asked)))
