"""Do short texts stay intact? Perplexity and multiple choice in contexts of a few hundred tokens, before and after.

Every final test asks this of the model, whatever the task: factors are found where contexts are long, and served where
they are short too. Nothing has to be downloaded: the text is a user's, or the built-in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropewalk.builtin_text import BUILTIN
from ropewalk.engine.rope_schemes import longest_input
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent
from ropewalk.factors import ScalingFactors
from ropewalk.heldout import before_and_after
from ropewalk.splits import Split
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

STAGE = "Short texts"
WINDOW = 512  # tokens of a short text
WINDOWS, QUESTIONS = 16, 100  # at most
PASSAGE, TOKENS_PER_WORD = 64, 16  # words of a passage, which fits the window with any tokenizer
SPECIAL_TOKENS = 2  # a BOS before a window, and one to spare


def short_text_checks(
    model: Any, tokenizer: Any, records: int, source: str = BUILTIN, split: Split = "test"
) -> dict[str, Evaluator]:
    """The loaded model with windows of a text (`perplexity`) and passages that go on (`choice`), bare of any template.

    records: of the test that this accompanies, which also are how many windows and questions there are, at most 16 and
    100. source: a text file, or "builtin". A model that reads less than 512 tokens has windows of its own length, and
    shorter passages. Raises `DataError` for a text that can't be read or is too short.
    """
    limit = longest_input(model)
    window = min(WINDOW, limit - SPECIAL_TOKENS) if limit else WINDOW
    windows = TaskOptions(1, data=source, limit=min(records, WINDOWS), options={"window": window})
    passage = min(PASSAGE, max(1, window // TOKENS_PER_WORD))
    questions = TaskOptions(data=source, limit=min(records, QUESTIONS), options={"passage": passage})
    tasks = [make_task("perplexity", windows), make_task("choice", questions)]
    return {
        task.name: Evaluator(
            model, tokenizer, task, task.examples(split), chat_template=False, overflow="skip", generate=False
        )
        for task in tasks
    }


def short_text_test(
    checks: Mapping[str, Evaluator], factors: ScalingFactors, on_event: OnEvent, *, any_model: bool = False
) -> dict[str, Any]:
    """By the check's name vanilla, the factors, and the paired comparison, as JSON."""
    return {name: before_and_after(check, factors, any_model, on_event, STAGE) for name, check in checks.items()}


def prompts_of(checks: Mapping[str, Evaluator]) -> int:
    """How many prompts the test scores."""
    return sum(2 * len(check.examples) for check in checks.values())
