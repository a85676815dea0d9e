"""The other ways to score prompts: Hugging Face `generate` and `model.forward`, each as well as it can be run.

They give verdicts too, by the rule that ours follow: exactly the answer's tokens, then one that begins with what closes
the answer. All of them run under whatever factors the model carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ropewalk.prompts import RenderedPrompt, terminator_ids

Padding = Literal["left", "right"]


@dataclass(frozen=True)
class Outcome:
    """Verdict of one prompt. margin: smallest gap of the best two logits over the scored steps, None if not known."""

    verdict: bool
    margin: float | None = None


class Baselines:
    """Scores prompts with nothing but the model's own methods."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = model.get_input_embeddings().weight.device

    @torch.inference_mode()
    def generate(self, prompts: Sequence[RenderedPrompt]) -> list[Outcome]:
        """Greedy decoding with a cache, left-padded; as many new tokens as the longest answer and its closing need."""
        rows = [prompt.ids[: prompt.first] for prompt in prompts]
        ids, mask = self._padded(rows, "left")
        new = max(prompt.num_scored for prompt in prompts) + 1
        # Everything that a checkpoint's own settings could change about greedy decoding is set here.
        written = self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, num_beams=1, use_cache=True,
            repetition_penalty=1.0, temperature=None, top_p=None, top_k=None, pad_token_id=self._pad,
        )[:, ids.shape[1] :].tolist()  # fmt: skip
        return [Outcome(self._is_right(row, prompt)) for row, prompt in zip(written, prompts, strict=True)]

    @torch.inference_mode()
    def forward(
        self, prompts: Sequence[RenderedPrompt], padding: Padding = "right", *, full_logits: bool = True
    ) -> list[Outcome]:
        """Teacher forcing by one `model.forward` over prompts and answers.

        Left padding comes with its mask and positions; right padding needs none, for causality hides it.
        full_logits: False asks for the logits of the answers' columns alone (`logits_to_keep`).
        """
        rows = [prompt.ids for prompt in prompts]
        ids, mask = self._padded(rows, padding)
        offsets = [ids.shape[1] - len(row) if padding == "left" else 0 for row in rows]
        columns = [range(o + p.first - 1, o + len(p.ids)) for o, p in zip(offsets, prompts, strict=True)]
        masking = {}
        if padding == "left":
            masking = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        if full_logits:
            logits = self.model(input_ids=ids, use_cache=False, **masking).logits
            place = {column: column for column in range(ids.shape[1])}
        else:
            kept = sorted({column for span in columns for column in span})
            keep = torch.tensor(kept, device=self.device)
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=keep, **masking).logits
            place = {column: index for index, column in enumerate(kept)}
        outcomes = []
        for row, (span, prompt) in enumerate(zip(columns, prompts, strict=True)):
            best = logits[row, place[span[0]] : place[span[-1]] + 1].float().topk(2, dim=-1)
            margin = float((best.values[:, 0] - best.values[:, 1]).min())
            outcomes.append(Outcome(self._is_right(best.indices[:, 0].tolist(), prompt), margin))
        return outcomes

    @property
    def _pad(self) -> int:
        for source in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if source is not None:
                return int(source)
        return 0

    def _padded(self, rows: Sequence[Sequence[int]], side: Padding) -> tuple[Tensor, Tensor]:
        """int64 [rows, longest]: ids and the mask that is 1 on tokens."""
        longest = max(len(row) for row in rows)
        ids, mask = [], []
        for row in rows:
            fill = [self._pad] * (longest - len(row))
            ones, zeros = [1] * len(row), [0] * len(fill)
            ids.append([*fill, *row] if side == "left" else [*row, *fill])
            mask.append([*zeros, *ones] if side == "left" else [*ones, *zeros])
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _is_right(self, greedy: Sequence[int], prompt: RenderedPrompt) -> bool:
        """greedy: the most likely token at each scored step, and then at what closes the answer."""
        answer, count = list(prompt.ids[prompt.first :]), prompt.num_scored
        if list(greedy[:count]) != answer:
            return False
        if not prompt.terminator:
            return True
        return len(greedy) > count and greedy[count] in _ends(self.tokenizer, prompt.terminator)


@lru_cache(maxsize=64)
def _ends(tokenizer: Any, terminator: str) -> frozenset[int]:
    return frozenset(terminator_ids(tokenizer, terminator))
