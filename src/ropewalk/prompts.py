"""Example + tokenizer -> token ids, and which of them are scored. The one place where text becomes tokens.

Chat template and BOS are applied exactly once. The answer's opening (a quote, for `kv`) is given to the model, so that
a formatting habit does not count as not knowing. The ids are those of the whole string, prompt to closing: where the
tokenizer merges the opening with the answer's first letters, the merged token is the first scored one and the prompt
ends before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ropewalk.errors import DataError, RopewalkError
from ropewalk.tasks.base import Example, TokenSpan

TEMPLATE_DIGEST = "chat_template_sha256"  # in settings, and a tokenizer's attribute: of a template from a file


@dataclass(frozen=True)
class RenderedPrompt:
    """The token ids of one example and its scored span.

    ids: prompt and answer, without what follows the answer. first: index of the first scored token; `ids[:first]` is
    what the model is given. The model's greedy token must equal ids[first:] one by one, and then begin with the text
    `terminator` (the closing, and the answer's last letters where the tokenizer may merge these with it).
    """

    example: Example
    ids: tuple[int, ...]
    first: int
    terminator: str

    @property
    def num_scored(self) -> int:
        """Answer tokens that must come out exactly."""
        return len(self.ids) - self.first


class PromptRenderer:
    """Renders examples for one tokenizer.

    chat_template_kwargs: passed on to the chat template (for instance {"enable_thinking": False}). chat_template: False
    gives the bare prompt and the opening after a space, as in the official completion format; so does a tokenizer
    without a chat template.
    """

    def __init__(
        self, tokenizer: Any, chat_template_kwargs: Mapping[str, Any] | None = None, *, chat_template: bool = True
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise RopewalkError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which does not tell which token covers which letter; "
                "load the model with a fast one (a tokenizer.json)"
            )
        self.tokenizer = tokenizer
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self.uses_chat_template = chat_template and bool(getattr(tokenizer, "chat_template", None))
        if self.chat_template_kwargs and not self.uses_chat_template:
            why = "this tokenizer has no chat template" if chat_template else "the chat template is switched off"
            raise RopewalkError(f"chat template options {self.chat_template_kwargs} were given, but {why}")
        self._leading_ids = [] if self.uses_chat_template else _leading_special_ids(tokenizer)

    def settings(self) -> dict[str, Any]:
        """How prompts are dressed, as JSON: results of different formats are not of the same examples."""
        settings = {
            "format": "chat" if self.uses_chat_template else "plain",
            "chat_template_kwargs": dict(self.chat_template_kwargs),
        }
        digest = getattr(self.tokenizer, TEMPLATE_DIGEST, None) if self.uses_chat_template else None
        return settings | ({TEMPLATE_DIGEST: digest} if digest else {})

    def render(self, example: Example) -> RenderedPrompt:
        """The ids of an example with its first answer."""
        return self._with_answer(example, self.prompt_text(example), example.answers[0] if example.answers else "")

    def render_all(self, example: Example) -> list[RenderedPrompt]:
        """One prompt for each answer that differs from the others, in their order; one for an example with a `span`.

        Raises `DataError` for an empty answer, and for a text that is too short for its windows.
        """
        if example.span is not None:
            return [self._span(example, example.span)]
        head = self.prompt_text(example)
        rendered = [self._with_answer(example, head, answer) for answer in dict.fromkeys(example.answers or ("",))]
        # The ids alone don't tell prompts apart: the end of one answer may be another's terminator.
        return list({(prompt.ids, prompt.first, prompt.terminator): prompt for prompt in rendered}.values())

    def _with_answer(self, example: Example, head: str, answer: str) -> RenderedPrompt:
        if not answer:
            raise DataError(f"example {example.id}: the answer is empty, so there is nothing to score")
        text = head + answer + example.closing
        start, end = len(head), len(head) + len(answer)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets: Sequence[tuple[int, int]] = encoded["offset_mapping"]
        first = next((index for index, (_, stop) in enumerate(offsets) if stop > start), len(offsets))
        stop = next((index for index, (_, stop) in enumerate(offsets) if stop > end), len(offsets))
        if stop < len(offsets) and offsets[stop][0] < end:  # the closing is merged with the answer's last letters
            terminator = text[offsets[stop][0] : end] + example.closing
        else:
            terminator = example.closing
        ids = (*self._leading_ids, *encoded["input_ids"][:stop])
        first += len(self._leading_ids)
        if first == 0 or first >= len(ids):
            raise DataError(f"example {example.id}: prompt or answer has no token of its own, nothing can be scored")
        return RenderedPrompt(example, ids, first, terminator)

    def _span(self, example: Example, span: TokenSpan) -> RenderedPrompt:
        """The window of a plain text up to `span.stop`; a chat template has no place here."""
        text_ids = _text_ids(self.tokenizer, example.prompt)
        begin = _window_start(example.id, span, len(text_ids))
        leading = _leading_special_ids(self.tokenizer)
        ids = (*leading, *text_ids[begin : begin + span.stop].tolist())
        first = max(1, len(leading) + span.start)  # nothing stands before the first token of all, unless there is a BOS
        if first >= len(ids):
            raise DataError(
                f"example {example.id}: tokens {span.start} to {span.stop} of a window of {span.window} leave nothing "
                "to score; expected at least one token with another before it"
            )
        return RenderedPrompt(example, ids, first, "")

    def prompt_text(self, example: Example) -> str:
        """All that stands before the answer, as text: chat template, prompt, opening."""
        if self.uses_chat_template:
            turn = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": example.prompt}],
                tokenize=False,
                add_generation_prompt=True,
                **self.chat_template_kwargs,
            )
            return str(turn) + example.opening
        space = "" if example.prompt[-1:].isspace() else " "
        return example.prompt + space + example.opening


def use_chat_template(tokenizer: Any, path: str | os.PathLike[str], kwargs: Mapping[str, Any] | None = None) -> None:
    """Give a tokenizer the chat template of a file (Jinja, as in tokenizer_config.json) in place of any of its own.

    The template writes BOS itself, as those of transformers do. kwargs: what it will be rendered with. Raises
    `DataError` for a file that can't be read, and for a template that fails or loses what the user says.
    """
    from jinja2 import TemplateError

    try:
        template = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the chat template can't be read ({error})") from None
    words = "what the user says"
    try:
        turn = tokenizer.apply_chat_template(
            [{"role": "user", "content": words}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            **(kwargs or {}),
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a chat template that can be rendered ({error})") from None
    if words not in turn:
        raise DataError(f"{path}: the chat template does not write what the user says; expected messages[…]['content']")
    tokenizer.chat_template = template
    setattr(tokenizer, TEMPLATE_DIGEST, hashlib.sha256(template.encode()).hexdigest())


def _leading_special_ids(tokenizer: Any) -> list[int]:
    """The special tokens a tokenizer puts before a text (BOS, once, or none)."""
    encoded = tokenizer("x", add_special_tokens=True, return_special_tokens_mask=True)
    mask = list(encoded["special_tokens_mask"])
    return list(encoded["input_ids"])[: mask.index(0)]


@lru_cache(maxsize=8)
def _text_ids(tokenizer: Any, text: str) -> npt.NDArray[np.int32]:
    """int32 [tokens]: the ids of a whole text without special tokens; kept, as every window of a book asks for them."""
    return np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int32)


def _window_start(name: str, span: TokenSpan, tokens: int) -> int:
    """Where window `span.index` begins in a text of `tokens` tokens. Without a stride no two windows overlap."""
    low, high = (int(tokens * fraction) for fraction in span.region)
    between = span.window if span.stride is None else span.stride
    needed = span.window + (span.count - 1) * between
    if high - low < needed:
        raise DataError(
            f"example {name}: the text has {tokens} tokens, {high - low} of them in this split, and {span.count} "
            f"windows of {span.window} tokens need {needed}; ask for fewer or shorter windows, or give a longer text"
        )
    if span.stride is not None:
        return low + span.index * span.stride
    return low + span.index * (high - low - span.window) // max(1, span.count - 1)


@lru_cache(maxsize=256)
def terminator_ids(tokenizer: Any, terminator: str) -> tuple[int, ...]:
    """Ids of all tokens that begin with `terminator`; all ids that can end an answer if it is empty.

    Vocabularies store printable ASCII as it is, byte-level ones too, so the stored form is compared: decoding a single
    token may drop its leading space.
    """
    if not terminator.isascii() or not terminator.isprintable() or " " in terminator:
        raise DataError(f"closing {terminator!r}: only printable ASCII without spaces can be recognised in a token")
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return tuple(index for index, token in enumerate(vocabulary) if token and token.startswith(terminator))
