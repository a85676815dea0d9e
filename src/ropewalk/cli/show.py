"""`ropewalk show`: the exact prompt that a model gets, and which of its tokens are scored."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any

from rich.text import Text

from ropewalk.cli.options import RUN, TASK, ModelOptions, Output, SplitName, TaskChoice, described, flag
from ropewalk.errors import RopewalkError
from ropewalk.prompt_view import PromptView, piece_kinds, view
from ropewalk.tasks.base import Example, Task

MARKS = {"": ("", ""), "gold": ("⟪", "⟫"), "scored": ("⟦", "⟧")}
STYLES = {"": "", "gold": "green", "scored": "bold reverse"}
MARKED = re.compile("(⟪.*?⟫|⟦.*?⟧)", re.S)
SHOWN_TOKENS, SHOWN_ENDINGS = 64, 8


def show(
    *,
    model: ModelOptions,
    task: TaskChoice | None = None,
    split: SplitName = "test",
    index: Annotated[int | None, described("Which example of the split, from 0. Default 0.", group=TASK)] = None,
    id: Annotated[str | None, described("Or its id, such as kv-0-test-0@37.", group=TASK)] = None,
    verbose: Annotated[bool, flag("Every accepted answer, not the first one alone.", group=RUN)] = False,
    output: Output | None = None,
) -> dict[str, Any]:
    """Print one prompt as the model gets it, decoded from its token ids, with evidence and scored tokens marked.

    Loads the tokenizer alone.
    """
    from ropewalk.cli import console
    from ropewalk.prompts import PromptRenderer

    made = (task or TaskChoice()).make()
    example = choose(made.examples(split), split, index, id)
    tokenizer = model.load_tokenizer()
    renderer = PromptRenderer(tokenizer, model.template_kwargs(), chat_template=model.chat_template)
    views = [view(tokenizer, prompt) for prompt in renderer.render_all(example)]
    out = console.output()
    if out.is_terminal:
        out.print(Text.assemble(*((text, STYLES[mark]) for text, mark in views[0].stretches())), soft_wrap=True)
    else:
        console.write(marked(views[0]) + "\n")  # as it is: rich would make spaces of tabs
    facts = [*_facts(made, example, views[0]), *_answers(views if verbose else views[:1], len(views))]
    console.say("─" * 40)
    for name, value in facts:
        out.print(f"{name:<11}", _coloured(value) if out.is_terminal else value, sep="", soft_wrap=True, markup=False)
    return _document(made, example, renderer.settings(), views)


def choose(examples: Sequence[Example], split: str, index: int | None, name: str | None) -> Example:
    """The example of that number or id. Raises `RopewalkError` that says what there is."""
    if index is not None and name is not None:
        raise RopewalkError(f"--index {index} and --id {name}: give one of them")
    if name is not None:
        ids = {example.id: example for example in examples}
        if name in ids:
            return ids[name]
        near = difflib.get_close_matches(name, ids, n=1)
        raise RopewalkError(
            f"--id {name}: no such example among the {len(ids)} of the split {split!r}; "
            + (f"did you mean {near[0]}?" if near else f"the first one is {examples[0].id}")
        )
    number = index or 0
    if not 0 <= number < len(examples):
        raise RopewalkError(
            f"--index {number}: expected 0 to {len(examples) - 1}, the split {split!r} has {len(examples)} examples"
        )
    return examples[number]


def marked(prompt: PromptView) -> str:
    """The text with ⟪the evidence⟫ and ⟦the scored tokens⟧ in brackets."""
    return "".join(MARKS[mark][0] + text + MARKS[mark][1] for text, mark in prompt.stretches())


def _coloured(value: str) -> Text:
    """Marked parts in the colours of the prompt above, in place of their brackets."""
    styles = {start: STYLES[mark] for mark, (start, _) in MARKS.items() if start}
    parts = MARKED.split(value)
    return Text.assemble(*((part[1:-1], styles[part[0]]) if MARKED.fullmatch(part) else part for part in parts))


def _facts(task: Task, example: Example, shown: PromptView) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in piece_kinds(example).items())
    gold = [str(number) for number, piece in enumerate(example.pieces, start=1) if piece.kind == "gold"]
    pieces = f"piece{'s' if len(gold) > 1 else ''} {', '.join(gold)}"
    where = f"; gold: ⟪{pieces}⟫ of {len(example.pieces)}" if gold else ""
    positions = ", ".join(str(position) for position in task.positions)
    metric = task.metric
    how = f"generated, at most {metric.max_new_tokens} tokens" if metric.generated else "teacher-forced"
    stop = f", up to {' or '.join(map(repr, metric.stop))}" if metric.generated and metric.stop else ""
    return [
        ("example", example.id + (f" (group {example.group})" if example.group else "")),
        ("position", f"{example.gold_index} (of {positions})"),
        ("pieces", kinds + where),
        ("prompt", f"{shown.prompt.first} tokens"),
        ("metric", f"{metric.name}, {how}{stop}"),
    ]


def _answers(views: Sequence[PromptView], count: int) -> list[tuple[str, str]]:
    rows = []
    for shown in views:
        count_tokens = len(shown.answer_tokens)
        tokens = " ".join(map(repr, shown.answer_tokens[:SHOWN_TOKENS])) + (" …" if count_tokens > SHOWN_TOKENS else "")
        answer = f"⟦{shown.text[slice(*shown.scored)]}⟧ in " if count_tokens <= SHOWN_TOKENS else ""
        rows.append(("scored", f"{answer}{count_tokens} tokens: {tokens}"))
        rows.append(("then", _ending(shown)))
    if count > len(views):
        rows.append(("answers", f"{count}, the likeliest one counts; --verbose shows all"))
    return rows


def _ending(shown: PromptView) -> str:
    if not shown.endings:
        return "anything may follow"
    first = " ".join(map(repr, shown.endings[:SHOWN_ENDINGS]))
    more = " …" if len(shown.endings) > SHOWN_ENDINGS else ""
    return f"one of {len(shown.endings)} tokens that begin with {shown.prompt.terminator!r}: {first}{more}"


def _document(task: Task, example: Example, prompt: dict[str, Any], views: Sequence[PromptView]) -> dict[str, Any]:
    """The first answer's prompt at the top, all of them under `answers`."""
    return {
        "task": {**task.settings(), "prompt": prompt},
        "id": example.id,
        "record": example.record,
        "position": example.gold_index,
        "group": example.group,
        "pieces": piece_kinds(example),
        "closing": example.closing,
        **views[0].to_dict(),
        "answers": [one.to_dict() for one in views],
    }
