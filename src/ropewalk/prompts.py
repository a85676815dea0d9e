"""Example + tokenizer -> token ids, and which of them are scored. The one place where text becomes tokens.

Chat template and BOS are applied exactly once. The answer's opening (a quote, for `kv`) is given to the model, so that
a formatting habit does not count as not knowing. The ids are those of the whole string, prompt to closing: where the
tokenizer merges the opening with the answer's first letters, the merged token is the first scored one and the prompt
ends before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ropewalk.errors import DataError, RopewalkError
from ropewalk.tasks.base import Example


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
        return {
            "format": "chat" if self.uses_chat_template else "plain",
            "chat_template_kwargs": dict(self.chat_template_kwargs),
        }

    def render(self, example: Example) -> RenderedPrompt:
        """The ids of an example with its first answer."""
        answer = example.answers[0] if example.answers else ""
        if not answer:
            raise DataError(f"example {example.id}: the answer is empty, so there is nothing to score")
        head = self.prompt_text(example)
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


def _leading_special_ids(tokenizer: Any) -> list[int]:
    """The special tokens a tokenizer puts before a text (BOS, once, or none)."""
    encoded = tokenizer("x", add_special_tokens=True, return_special_tokens_mask=True)
    mask = list(encoded["special_tokens_mask"])
    return list(encoded["input_ids"])[: mask.index(0)]


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
