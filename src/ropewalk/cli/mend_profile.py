"""Where a model loses the middle: the size of a task that is neither too easy nor too hard for it, if there is one.

Scored on search records. Test records would be scored twice, and a test on records that were chosen because vanilla
does badly on them would flatter the factors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ropewalk.cli.console import StageProgress
from ropewalk.cli.mix import TaskMix
from ropewalk.cli.options import ModelOptions, TaskChoice, parse_positions
from ropewalk.constraints import Measure
from ropewalk.errors import DataError
from ropewalk.findings import no_u_to_mend
from ropewalk.results import PERPLEXITY_METRIC

SCHEMA = "ropewalk.mend-profile/1"
SIZES = (3, 5, 10, 20, 40, 75, 140, 300)  # keys; at least 3, for a middle
# Keys to begin with. 75 are hard for models of up to some billion parameters, within a context of 8k. A CPU takes days
# to search on prompts of that length, so there it is as many as a small model finds hard, unless --keys says more.
USUAL, USUAL_ON_CPU = 75, 10
RECORDS = 50  # at each position: the standard error of ends minus middle is then at most 0.07
FIRST_LOOK = 4  # records: where none of their 20 answers is right, 50 would show next to nothing either
NEAR = 0.1  # all positions below it: too hard; all above 1 - NEAR: too easy
ANSWER = 64  # tokens of room for an answer
SPARE = 0.03  # of a prompt's length: records differ by a little
NEEDLE = {"task": "needle", "variant": "multi-key"}  # a single needle is found by nearly every model
FEWEST_WORDS = 50  # the task's own limit

Verdict = Literal["U", "no U", "too hard", "too easy", "open"]
WORDS: dict[Verdict, str] = {
    "U": "the middle is lost",
    "no U": "the middle is not lost",
    "too hard": "too hard: next to nothing is right",
    "too easy": "too easy: nearly all is right",
    "open": "a task without a middle",
}


@dataclass(frozen=True)
class Profiler:
    """Scores the model as it is. choices: what the user said of the tasks."""

    options: ModelOptions
    model: Any
    tokenizer: Any
    asked: TaskMix

    def run(self) -> dict[str, Any]:
        """The profile, as profile.json holds it without its settings.

        tried: every task that was scored, with its figures. tasks: `--task` texts to search on, null where the user
        named them. u: whether a task shows a U, or may. sentence: what came of it.
        """
        tasks: tuple[str, ...] | None = None
        beside: list[dict[str, Any]] = []
        with StageProgress() as progress:
            if names_tasks(self.asked):
                rows = [self._profile(one.choice, progress) for one in self.asked.tasks()]
                deciding = rows
            else:
                sizes = self._sizes()
                rows = walk(sizes, self._start(sizes), lambda keys: self._profile(self._kv(keys), progress))
                tasks, beside = self._mix(rows[-1], progress)
                deciding = rows[-1:]
        shown = any(row["verdict"] in ("U", "open") for row in deciding)
        return {"tried": rows + beside, "tasks": tasks, "u": shown, "sentence": _sentence(rows, shown)}

    def settings(self) -> dict[str, Any]:
        """What the profile depends on, as JSON."""
        from ropewalk.identity import base_scheme, model_identity
        from ropewalk.prompts import TEMPLATE_DIGEST
        from ropewalk.provenance import provenance

        prompt = {name: getattr(self.options, name) for name in ("chat_template", "chat_template_kwargs", "generate")}
        prompt |= {TEMPLATE_DIGEST: own} if (own := getattr(self.tokenizer, TEMPLATE_DIGEST, None)) else {}
        settings = {
            "schema": SCHEMA,
            "model": model_identity(self.model),
            "base": base_scheme(self.model),
            "dtype": provenance(self.model)["dtype"],
            "prompt": prompt,
            "records": RECORDS,
            "tasks": asdict(self.asked),
        }
        return dict(json.loads(json.dumps(settings)))

    def planned(self) -> tuple[str, ...]:
        """`--task` texts of the size that a profile begins with."""
        return self._texts(self._start(self._sizes()))

    def _start(self, sizes: Sequence[int]) -> int:
        """The size to begin with."""
        from ropewalk.provenance import provenance

        on_cpu = provenance(self.model)["device_type"] == "cpu"
        return max((keys for keys in sizes if keys <= (USUAL_ON_CPU if on_cpu else USUAL)), default=sizes[0])

    def _sizes(self) -> list[int]:
        """The numbers of keys that the positions allow and the model's context takes; --keys leaves one."""
        from ropewalk.engine.rope_schemes import longest_input

        if self.asked.keys is not None:
            return [self.asked.keys]
        limit = longest_input(self.model)
        places = 3 if self.asked.positions is None else _places(self.asked.positions)
        allowed = [keys for keys in SIZES if keys >= places]
        sizes = [keys for keys in allowed if limit is None or self._tokens(self._kv(keys)) <= limit]
        if not sizes:
            raise DataError(
                f"the model's context of {limit} tokens takes no object of {allowed[0] if allowed else places} keys, "
                "the smallest to profile: give another --task"
            )
        return sizes

    def _kv(self, keys: int) -> TaskChoice:
        return TaskChoice("kv", keys, self.asked.positions, seed=self.asked.seed)

    def _profile(self, choice: TaskChoice, progress: StageProgress, search_by: Measure | None = None) -> dict[str, Any]:
        """The figures of vanilla on a task, and what they say of it. search_by: likelihood generates no answers."""
        name = ", ".join([choice.task, *([] if choice.keys is None else [f"{choice.keys} keys"]), *choice.option])
        made = choice.make(RECORDS)
        evaluator = self.options.evaluator(self.model, self.tokenizer, made, "search", search_by=search_by)
        first = evaluator.part(range(min(FIRST_LOOK, len(evaluator.records))))
        progress.stage(f"Profile {name}", len(first.examples))
        figures = first.score(None, on_progress=progress.advance).summary()
        if first is not evaluator and max(figures["accuracy"]) > 0:
            progress.stage(f"Profile {name}", len(evaluator.examples))
            figures = evaluator.score(None, on_progress=progress.advance).summary()
        return {
            "name": name,
            "keys": choice.keys,
            "verdict": judge(figures),
            "positions": list(evaluator.task.positions),
            "figures": figures,
        }

    def _mix(self, chosen: dict[str, Any], progress: StageProgress) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        """`--task` texts of the mix, and what was profiled for it.

        Beside the keys a needle in a text of about the same length, so that no format is learnt by heart. Where it does
        not fit, or tells nothing because all or none of its answers are right, or the search may not come, half as many
        keys.
        """
        keys = int(chosen["keys"])
        needle = self._needle(keys) if chosen["verdict"] == "U" else None
        if needle is None:
            return self._texts(keys), []
        options = tuple(f"{name}={value}" for name, value in needle.items() if name != "task")
        choice = TaskChoice("needle", option=options, seed=self.asked.seed)
        row = self._profile(choice, progress, search_by="likelihood")
        return self._texts(keys, needle if row["verdict"] in ("U", "no U") else None), [row]

    def _texts(self, keys: int, partner: dict[str, Any] | None = None) -> tuple[str, ...]:
        own: dict[str, Any] = {"task": "kv", "keys": keys}
        if self.asked.positions is not None:
            own["positions"] = self.asked.positions
        half = max(SIZES[0], keys // 2)
        other = partner or ({"task": "kv", "keys": half} if half < keys else None)
        return tuple(json.dumps(table) for table in (own, other) if table is not None)

    def _needle(self, keys: int) -> dict[str, Any] | None:
        """A needle task as long as that many keys, in tokens; None if that is too short for a text."""
        from ropewalk.haystack import generated_sentences

        sample = "".join(generated_sentences("ropewalk/mend", 400))
        per_word = len(self.tokenizer(sample, add_special_tokens=False)["input_ids"]) / len(sample.split())
        # 100 tokens: instruction, needles, question and the template; 10 per cent: the texts end with a sentence.
        words = int(0.9 * (self._tokens(self._kv(keys)) / (1 + SPARE) - ANSWER - 100) / per_word)
        words -= words % 10
        return None if words < FEWEST_WORDS else {**NEEDLE, "lengths": str(words)}

    def _tokens(self, choice: TaskChoice) -> int:
        """About the most tokens that a prompt of a task and its answer take."""
        from ropewalk.prompts import PromptRenderer

        renderer = PromptRenderer(
            self.tokenizer, self.options.template_kwargs(), chat_template=self.options.chat_template
        )
        first = choice.make(1).examples("search")[0]
        return int(len(renderer.render_all(first)[0].ids) * (1 + SPARE)) + ANSWER


def names_tasks(asked: TaskMix) -> bool:
    """Whether the user says what to search on; --keys alone only says how many."""
    return bool(asked.task or asked.data or asked.option)


def walk(sizes: Sequence[int], start: int, profile: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Profile from one of the sizes on: down while it is too hard, up while it is too easy; never back again."""
    place = sizes.index(start)
    tried: list[dict[str, Any]] = []
    towards = 0
    while True:
        row = profile(sizes[place])
        tried.append(row)
        step = {"too hard": -1, "too easy": 1}.get(row["verdict"], 0)
        if step == 0 or step == -towards or not 0 <= place + step < len(sizes):
            return tried
        towards, place = step, place + step


def judge(figures: dict[str, Any]) -> Verdict:
    """What the figures of vanilla say of a task."""
    accuracy = figures["accuracy"]
    if figures["metric"] == PERPLEXITY_METRIC or len(accuracy) < 3:
        return "open"
    if max(accuracy) <= NEAR:
        return "too hard"
    if min(accuracy) >= 1 - NEAR:
        return "too easy"
    return "U" if no_u_to_mend(figures) is None else "no U"


def search_mix(asked: TaskMix, tasks: Sequence[str] | None) -> TaskMix:
    """The tasks to search on, as `ropewalk search` takes them."""
    if tasks is None:
        return asked
    return replace(asked, task=tuple(tasks), keys=None, positions=None)


def _sentence(rows: Sequence[dict[str, Any]], shown: bool) -> str:
    """What was tried and what came of it."""
    told = "; ".join(f"{row['name']}: {WORDS[row['verdict']]} ({_percents(row)})" for row in rows)
    records = max(row["figures"]["records"] for row in rows)
    if shown:
        return f"{told}; {records} records at each position."
    return (
        f"No U to mend: {told}; {records} records at each position. "
        "Another size or task may show one (--keys, --task); --anyway searches all the same."
    )


def _percents(row: dict[str, Any]) -> str:
    return " ".join(f"{100 * value:.0f}" for value in row["figures"]["accuracy"]) + " %"


def _places(positions: str) -> int:
    """How many keys there must be for these positions, at least 3."""
    asked = parse_positions(positions)
    return max(SIZES[0], asked if isinstance(asked, int) else max(asked) + 1)
