"""Rendered prompts on disk, found again by what determines them, so that long texts are tokenised once.

One safetensors file holds the prompts of one set of examples. Its name is a digest of the tokenizer's content, the way
prompts are dressed and every example's text, so a file is never out of date; and it holds a digest of its own content,
so a damaged one is made again without a word. A cache that can't be written costs time, never a run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ropewalk import files
from ropewalk.cache import cache_root
from ropewalk.errors import DataError
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks.base import Example, Piece

FORMAT = 1  # raise it when the rendering or the file changes
MAX_FILES = 256
MAX_BYTES = 1 << 30

Arrays = dict[str, npt.NDArray[Any]]


def rendered(renderer: PromptRenderer, examples: Sequence[Example]) -> list[list[RenderedPrompt]]:
    """What `renderer.render_all` gives for each example, from the cache where the same was asked for before.

    Raises what the renderer raises; whatever is wrong with the cache itself is no error.
    """
    try:
        key = cache_key(renderer, examples)
        path = cache_root() / "prompts" / f"{key}.safetensors"
    except (TypeError, RuntimeError):  # chat template options that are no JSON; a user without a home
        return [renderer.render_all(example) for example in examples]
    prompts = _load(path, key, examples)
    if prompts is None:
        prompts = [renderer.render_all(example) for example in examples]
        _store(path, key, prompts)
    return prompts


def cache_key(renderer: PromptRenderer, examples: Sequence[Example]) -> str:
    """SHA-256 of all that the ids follow from, hexadecimal. Raises `TypeError` for what can't be written as JSON."""
    tokenizer = renderer.tokenizer
    probe = Example("probe@0", "probe", 0, (Piece("probe", "query"),), ("x",))
    described = {
        "format": FORMAT,
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "versions": [version("tokenizers"), version("transformers")],
        "special": [str(token) for token in tokenizer.all_special_tokens],
        "leading": tokenizer("x", add_special_tokens=True)["input_ids"],
        "template": getattr(tokenizer, "chat_template", None) if renderer.uses_chat_template else None,
        "kwargs": renderer.chat_template_kwargs,
        "probe": renderer.prompt_text(probe),  # some chat templates write today's date
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    texts: dict[str, str] = {}  # a book is the text of many windows: it is read once
    for example in examples:
        text = example.prompt
        if text not in texts:
            texts[text] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        span = None if example.span is None else dataclasses.astuple(example.span)
        line = [texts[text], example.answers, example.opening, example.closing, span]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def _store(path: Path, key: str, prompts: Sequence[Sequence[RenderedPrompt]]) -> None:
    flat = [prompt for group in prompts for prompt in group]
    lengths = [len(prompt.ids) for prompt in flat]
    ids = np.fromiter((token for prompt in flat for token in prompt.ids), np.int32, sum(lengths))
    arrays: Arrays = {
        "ids": ids,
        "offsets": np.cumsum([0, *lengths], dtype=np.int64),
        "firsts": np.array([prompt.first for prompt in flat], np.int64),
        "counts": np.array([len(group) for group in prompts], np.int64),
    }
    terminators = json.dumps([prompt.terminator for prompt in flat])
    metadata = {"key": key, "terminators": terminators, "sha256": _content_digest(arrays, terminators)}
    content = save(arrays, metadata)
    if len(content) > MAX_BYTES:
        return
    with suppress(DataError, OSError):  # a folder that can't be written, a full disk
        files.write_bytes(path, content)
        _prune(path.parent)


def _load(path: Path, key: str, examples: Sequence[Example]) -> list[list[RenderedPrompt]] | None:
    """The prompts of a file, or None if there is none or it is not what `_store` wrote."""
    try:
        with safe_open(path, "numpy") as stream:
            arrays: Arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 it is no mapping
            metadata = stream.metadata() or {}
        terminators = metadata["terminators"]
        if metadata["key"] != key or metadata["sha256"] != _content_digest(arrays, terminators):
            return None
        prompts = _unpacked(arrays, json.loads(terminators), examples)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None
    with suppress(OSError):
        os.utime(path)  # the least recently used goes first
    return prompts


def _unpacked(arrays: Arrays, terminators: list[str], examples: Sequence[Example]) -> list[list[RenderedPrompt]]:
    """Raises `ValueError` where the arrays don't fit one another or the examples."""
    counts, offsets = arrays["counts"].tolist(), arrays["offsets"].tolist()
    owners = [example for example, count in zip(examples, counts, strict=True) for _ in range(count)]
    # One object an id of the vocabulary: millions of tokens would else be millions of Python integers.
    numbers = np.arange(int(arrays["ids"].max(initial=0)) + 1).astype(object)
    flat = iter(
        [
            RenderedPrompt(example, tuple(numbers[arrays["ids"][start:stop]].tolist()), first, terminator)
            for example, start, stop, first, terminator in zip(
                owners, offsets[:-1], offsets[1:], arrays["firsts"].tolist(), terminators, strict=True
            )
        ]
    )
    return [[next(flat) for _ in range(count)] for count in counts]


def _content_digest(arrays: Arrays, terminators: str) -> str:
    digest = hashlib.sha256(terminators.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _prune(folder: Path) -> None:
    """Drop the least recently used files, also what a killed process left, until the folder is within its bounds."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may drop the same
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    room, places = MAX_BYTES, MAX_FILES
    for _, size, path in sorted(found, reverse=True):
        room, places = room - size, places - 1
        if room < 0 or places < 0:
            with suppress(OSError):
                path.unlink()
