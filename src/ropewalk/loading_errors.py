"""What can go wrong when a checkpoint is loaded, said in one line each."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ropewalk.cache import disk_errors
from ropewalk.errors import DataError, PrerequisiteError, RopewalkError, UnsupportedModelError
from ropewalk.gguf_tokenizer import first_line

UNREACHABLE = re.compile(r"couldn't connect|offline mode|outgoing traffic has been disabled|ConnectionError")


def check_loaded(name: str, info: Mapping[str, Any]) -> None:
    """Weights that are not in the checkpoint would be random: refuse. Weights nobody uses: say so."""
    if info["missing_keys"]:
        raise DataError(
            f"{name}: {_some(info['missing_keys'])} missing in its safetensors; its config.json belongs to another "
            "model, or a file is missing"
        )
    if info["unexpected_keys"]:
        warnings.warn(f"{name}: {_some(info['unexpected_keys'])} not used by the model", stacklevel=3)


def _some(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{len(names)} weights ({first}{', …' if len(names) > 3 else ''}) are"


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Say in one line what transformers says in many; what is not the user's to solve passes unchanged."""
    try:
        with disk_errors(Path(name)):
            yield
    except RopewalkError:
        raise
    except SafetensorError as error:
        raise DataError(
            f"{name}: its weights are cut short or damaged ({first_line(error)}); fetch them again"
        ) from error
    except torch.OutOfMemoryError as error:
        raise PrerequisiteError(f"{name}: does not fit into the device's memory ({first_line(error)})") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise DataError(f"{name}: its weights have other shapes than its config.json says") from error
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _explained(name, error) from error


def _explained(name: str, error: Exception) -> RopewalkError:
    text = str(error)
    if "trust_remote_code" in text:
        return UnsupportedModelError(
            f"{name}: needs code that comes with the checkpoint; read it, and if you trust it say "
            "trust_remote_code=True (--trust-remote-code)"
        )
    if UNREACHABLE.search(text):
        return PrerequisiteError(
            f"{name}: no such folder here, and the model hub can't be reached; check the network, or give a folder"
        )
    if "Unrecognized configuration class" in text:
        return UnsupportedModelError(f"{name}: not a causal language model that transformers knows")
    if isinstance(error, KeyError):
        return DataError(f"{name}: its config.json holds {text}, which transformers does not know")
    return DataError(f"{name}: {first_line(error)}")
