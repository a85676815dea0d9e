"""Scores by the own layer loop: rows in batches, many candidates at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ropewalk.engine.batch import Batch, placed
from ropewalk.engine.candidates import CandidateTree, Factors, candidate_tree
from ropewalk.engine.decoder import Decoder
from ropewalk.engine.head import Head, TokenStats
from ropewalk.engine.memory import Budget
from ropewalk.engine.rows import Row, make_batches, pack
from ropewalk.engine.scoring import AnswerScore, HostStats, answer_score, targets
from ropewalk.prompts import RenderedPrompt

CUDA_MULTIPLE = 64  # rows are padded to a multiple of it: fewer shapes, aligned masks


@dataclass(frozen=True)
class _Built:
    """A batch with the numbers of its scored places that count among its R * S, int64 [K], and their targets [K]."""

    batch: Batch
    kept: Tensor
    targets: Tensor


class LayerLoop:
    """Scores fixed prompts under any number of candidates. The model carries no factors while it does.

    prompts: as given. terminators: for each terminator text the ids of the tokens that begin with it.
    """

    def __init__(
        self, decoder: Decoder, prompts: Sequence[RenderedPrompt], terminators: dict[str, Sequence[int]], budget: Budget
    ) -> None:
        self.decoder, self.prompts, self.terminators, self.budget = decoder, list(prompts), terminators, budget
        self.head = Head(decoder.head, decoder.final_cap)
        self.device = decoder.head.weight.device
        self.multiple = CUDA_MULTIPLE if self.device.type == "cuda" else 1
        self._built: dict[tuple[int, ...], _Built] = {}
        self.rows = pack(
            self.prompts,
            budget.tokens,
            length_key=decoder.tables.length_key,
            attention_weight=decoder.attention_weight,
            tail_cost=decoder.tail_cost,
        )

    def ready(self) -> AbstractContextManager[None]:
        """A context in which `score` may be called."""
        return self.head.in_float32()

    def score(self, candidates: Sequence[Factors]) -> Iterator[tuple[list[int], list[list[AnswerScore]]]]:
        """Batch by batch the numbers of its prompts and, for each candidate, their scores."""
        parts = [candidate_tree(candidates)]  # those that are computed together: all, as long as memory lasts
        waiting = self._batches(range(len(self.rows)), parts)
        before: tuple[list[Row], list[tuple[CandidateTree, TokenStats]]] | None = None
        while waiting:
            try:
                stats = [(tree, self._stats(tuple(waiting[0]), tree)) for tree in parts]
            except torch.cuda.OutOfMemoryError:
                stats = []
            if not stats:  # outside of the handler, which would keep the failed tensors alive
                waiting, parts = self._smaller(waiting, parts, candidates)
                continue
            if before is not None:
                yield self._scores(*before)  # while the device is busy with the batch after it
            before = [self.rows[number] for number in waiting.pop(0)], stats
        if before is not None:
            yield self._scores(*before)

    def widest(self) -> int:
        """Candidates that fit into one batch beside the longest row."""
        longest = max(len(row.ids) for row in self.rows)
        return max(1, self.budget.tokens // longest)

    def _batches(self, numbers: Sequence[int], parts: Sequence[CandidateTree]) -> list[list[int]]:
        chosen = [self.rows[number] for number in numbers]
        width = max(tree.width for tree in parts)
        batches = make_batches(chosen, max(1, self.budget.tokens // width), self.multiple)
        return [[numbers[place] for place in batch] for batch in batches]

    def _smaller(
        self, waiting: list[list[int]], parts: Sequence[CandidateTree], candidates: Sequence[Factors]
    ) -> tuple[list[list[int]], list[CandidateTree]]:
        """Half the batch for all that is left; nothing that is done is done again.

        First fewer rows, then fewer candidates at once and fewer prompts in a row.
        """
        torch.cuda.empty_cache()
        self._built.clear()
        failed = [self.rows[number] for number in waiting[0]]
        longest = max(len(row.ids) for row in failed)
        together = max(tree.width for tree in parts)
        self.budget.halve(len(failed) * longest * together, smallest=max(row.length for row in failed))
        numbers = [part for batch in waiting for number in batch for part in self._cut(number)]
        width = self.widest()
        if width < together:
            parts = [candidate_tree(candidates[start : start + width]) for start in range(0, len(candidates), width)]
        return self._batches(numbers, parts), list(parts)

    def _cut(self, number: int) -> list[int]:
        """The row itself, or the rows that take its place where it holds several prompts and is over the budget."""
        row = self.rows[number]
        if not row.has_tails or len(row.ids) <= self.budget.tokens:
            return [number]
        prompts = [prompt for prompt, _ in row.spans]
        packed = pack([self.prompts[prompt] for prompt in prompts], self.budget.tokens)
        rows = [replace(one, spans=tuple((prompts[place], span) for place, span in one.spans)) for one in packed]
        added = range(len(self.rows), len(self.rows) + len(rows) - 1)
        self.rows[number] = rows[0]
        self.rows.extend(rows[1:])
        return [number, *added]

    def _stats(self, rows: tuple[int, ...], tree: CandidateTree) -> TokenStats:
        """Statistics at the scored places of the rows, one row after another, of each group of the last layer in turn.

        They are on the device, and it may still be computing them: all groups at once, for each sync costs more than a
        small model's places.
        """
        built = self._on_device(rows)
        hidden = self.decoder.hidden(built.batch, placed(tree, self.device))
        kept = hidden.flatten(1, 2).index_select(1, built.kept)
        return self.head.stats(kept.flatten(0, 1), built.targets.repeat(len(hidden)))

    def _scores(
        self, rows: Sequence[Row], parts: Sequence[tuple[CandidateTree, TokenStats]]
    ) -> tuple[list[int], list[list[AnswerScore]]]:
        """The rows' prompts, and their scores for each candidate."""
        numbers, places, count = [], [], 0
        for row in rows:
            for number, span in row.spans:
                numbers.append(number)
                places.append(slice(count, count + len(span)))
                count += len(span)
        scores = []
        for tree, stats in parts:
            groups = HostStats.of(stats).split(count)
            scores += [
                [
                    answer_score(self.prompts[number], groups[leaf], place, self._terminators_of(number))
                    for number, place in zip(numbers, places, strict=True)
                ]
                for leaf in tree.leaves
            ]
        return numbers, scores

    def _terminators_of(self, number: int) -> Sequence[int]:
        return self.terminators[self.prompts[number].terminator]

    def _on_device(self, rows: tuple[int, ...]) -> _Built:
        """Kept from one candidate to the next: building it takes longer than a small model's pass."""
        if rows not in self._built:
            self._built[rows] = self._build([self.rows[number] for number in rows])
        return self._built[rows]

    def _build(self, rows: Sequence[Row]) -> _Built:
        width = max(len(row.ids) for row in rows)
        width = -(-width // self.multiple) * self.multiple
        tails = rows[0].has_tails
        places = [[place for _, span in row.spans for place in span] for row in rows]
        most = max(len(row) for row in places)
        scored = [[*row, *[row[-1]] * (most - len(row))] for row in places]
        kept = [number * most + place for number, row in enumerate(places) for place in range(len(row))]
        wanted = [token for row in rows for number, _ in row.spans for token in targets(self.prompts[number])]
        batch = Batch(
            ids=self._tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows]),
            positions=self._tensor([[*row.positions, *[0] * (width - len(row.ids))] for row in rows])
            if tails
            else torch.arange(width, device=self.device)[None],
            segments=self._tensor([[*row.segments, *[-1] * (width - len(row.ids))] for row in rows]),
            stem=min(row.stem for row in rows) if tails else width,
            keys=tuple(self.decoder.tables.length_key(row.length) for row in rows),
            scored=self._tensor(scored),
        )
        return _Built(batch, self._tensor(kept), self._tensor(wanted))

    def _tensor(self, rows: object) -> Tensor:
        return torch.tensor(rows, dtype=torch.long).to(self.device, non_blocking=True)
