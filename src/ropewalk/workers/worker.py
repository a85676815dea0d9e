"""What a worker does: it holds a model, says which one it is, and answers blocks of prompts under given factors.

It knows no cluster: a process with the right model is all that it needs.
"""

from __future__ import annotations

import hashlib
import socket
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ropewalk.answers import Answers, Block, LocalAnswers, Questions
from ropewalk.checkpoint import load_pretrained
from ropewalk.elsewhere import Facts
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.layers import input_device
from ropewalk.patch import layer_reports
from ropewalk.provenance import peak_memory, provenance

SAMPLES = 16  # of each weight: fine-tuning changes nearly all numbers of a weight that it changes


@dataclass(frozen=True)
class ModelSource:
    """Which model is loaded, and how, as `load_pretrained` takes it.

    gpus: of a worker. ranks: processes of a worker that share each weight (`ropewalk.workers.ranks`), one a GPU; with
    one process several GPUs share the layers.
    """

    path: str
    dtype: str | None = None
    trust_remote_code: bool = False
    rope: str | None = None
    gpus: int = 0
    ranks: int = 1

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer on the worker's own devices, without the factors that the checkpoint may carry."""
        return load_pretrained(
            self.path,
            dtype=self.dtype,
            device="cpu" if self.gpus == 0 else "auto" if self.gpus > 1 and self.ranks == 1 else "cuda",
            tensor_parallel=self.ranks > 1,
            trust_remote_code=self.trust_remote_code,
            apply_factors=False,
            rope=self.rope,
        )


@dataclass(frozen=True)
class Done:
    """What a worker found. reason: why it used `model.forward`, None for the own layer loop. memory_gib: its most."""

    answers: list[Answers]
    reason: str | None
    memory_gib: float


@dataclass(frozen=True)
class Failed:
    """What a worker raised: the traceback, and the error itself where it speaks to the user."""

    text: str
    error: RopewalkError | None

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """The error that is being handled."""
        return cls(traceback.format_exc(), error if isinstance(error, RopewalkError) else None)


class Worker:
    """A model, ready to answer. threads: for a CPU. leads: starts the other processes, if several share the model."""

    def __init__(self, source: ModelSource, threads: int | None = None, *, leads: bool = True) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._followers = None
        if leads and source.ranks > 1:
            from ropewalk.workers.ranks import Followers

            self._followers = Followers(source, threads)
        self.model, self.tokenizer = source.load()
        self._sources: dict[int, LocalAnswers] = {}

    def facts(self) -> Facts:
        """Which model this is and on what it runs."""
        with self._together("facts"):
            return Facts(
                model_identity(self.model),
                base_scheme(self.model),
                tuple(layer_reports(self.model)),
                provenance(self.model),
                digest(self.model, self.tokenizer),
            )

    def knows(self, key: int) -> bool:
        """Whether it has been given these questions."""
        return key in self._sources

    def take(self, key: int, questions: Questions) -> None:
        """Keep questions, to be asked by their key."""
        with self._together("take", key, questions):
            self._sources[key] = LocalAnswers(self.model, self.tokenizer, questions)

    def answers(
        self, key: int, block: Block, candidates: Sequence[ScalingFactors | None], any_model: bool
    ) -> Done | Failed:
        """What the model answers to a block of the questions under each of the factors; never raises an Exception."""
        try:
            with self._together("answers", key, block, tuple(candidates), any_model):
                source = self._sources[key]
                found = source.answers([block], candidates, any_model, lambda count: None)
                return Done(found, source.reason, peak_memory(input_device(self.model).type))
        except Exception as error:
            return Failed.of(error)

    @contextmanager
    def _together(self, method: str, *arguments: Any) -> Iterator[None]:
        """The others of this worker, if there are any, do the same inside the block."""
        if self._followers is None:
            yield
            return
        self._followers.tell(method, *arguments)
        failed = True
        try:
            yield
            failed = False
        finally:
            self._followers.agree(failed=failed)


def digest(model: Any, tokenizer: Any) -> str:
    """SHA-256 over samples of every weight in its own dtype, and over the tokenizer; hexadecimal."""
    found = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for name, weight in model.named_parameters():
        own: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if own.device.type != "meta":  # accelerate has put it onto a disk
            flat = own.detach().flatten()
            sample = flat[:: max(1, flat.numel() // SAMPLES)].cpu().contiguous()
            found.update(sample.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def host() -> str:
    """The name of the machine."""
    return socket.gethostname()
