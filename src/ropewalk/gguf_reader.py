"""GGUF -> a fresh, unquantised model folder that transformers loads: config, safetensors, tokenizer, chat template.

transformers reads the tensors. What its reader drops without a word is checked here: rope scaling, values of the
config that differ from the file's, tensors nobody read, weights nobody filled; and the tokenizer is completed in
`gguf_tokenizer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, modeling_gguf_pytorch_utils

from ropewalk.cache import Report, fresh_folder
from ropewalk.errors import DataError, RopewalkError
from ropewalk.gguf_tokenizer import check_reload, first_line, read_tokenizer
from ropewalk.quiet import quiet_transformers

VOCABULARY = {f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type", "merges")}


def convert_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype = "bfloat16",
    progress: Report | None = None,
) -> Path:
    """Convert a GGUF file into the model folder `out`, which appears complete or not at all.

    source: the file. out: a folder that does not exist or is empty.
    dtype: of the weights written; "auto" keeps float32 and float16 files as they are, and takes bfloat16 for the rest.
    progress: called with (stage, steps done, steps in all) as the work goes on.
    Returns `out`. Raises `DataError` for a file that is no GGUF or is cut short, `RopewalkError` for one whose model
    would come out different from what the file says (rope scaling, an unknown pre-tokenizer, unread tensors).
    """
    path, target = Path(source), Path(out)
    tell = progress or (lambda _stage, _done, _total: None)
    wanted = None if dtype == "auto" else parse_dtype(dtype)
    tell("reading the file", 0, 0)
    metadata, tensors, types = read_gguf(path)
    check_readable(path, metadata, tensors)
    tokenizer = read_tokenizer(path, metadata)
    with fresh_folder(target) as folder:
        with _tensor_progress(tell):
            model = _fresh_model(path, metadata, tensors, wanted or _own_dtype(types))
        tell("writing safetensors", 0, 0)
        with quiet_transformers():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        check_reload(path, folder, tokenizer)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors are written private; a model is meant to be read by others
        tell("writing safetensors", 1, 1)
    return target


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, int], set[str]]:
    """(metadata, values per tensor by name, the tensors' types) of a GGUF file.

    The vocabulary's lists are given by their lengths.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a GGUF file")
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise DataError(f"{path}: not a GGUF file (it does not start with the letters GGUF)")
    try:
        reader = GGUFReader(path)
        metadata = {
            key: len(field.data) if key in VOCABULARY else field.contents() for key, field in reader.fields.items()
        }
        tensors = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        types = {tensor.tensor_type.name for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, OSError) as error:
        raise DataError(f"{path}: cut short or damaged ({first_line(error)}); fetch it again") from error
    if "general.architecture" not in metadata:
        raise DataError(f"{path}: names no general.architecture; is it a model?")
    return metadata, tensors, types


def check_readable(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, int]) -> None:
    """Raise `RopewalkError` for what transformers' reader would drop or half read without a word."""
    architecture = metadata["general.architecture"]
    harmless = {"rope.scaling.type": ("none", "linear"), "rope.scaling.factor": (0, 1), "rope.scale_linear": (0, 1)}
    for key, values in harmless.items():
        stated = metadata.get(f"{architecture}.{key}", values[0])
        if stated not in values:
            raise RopewalkError(
                f"{path}: {architecture}.{key} is {stated!r}, rope scaling that transformers drops when it reads a "
                "GGUF: positions would be wrong; use the model's safetensors checkpoint instead"
            )
    for name in tensors:
        if name.rsplit(".", 1)[0].endswith(("rope_freqs", "rope_factors_long", "rope_factors_short")):
            raise RopewalkError(
                f"{path}: the tensor {name} scales the rotary frequencies (llama3 or longrope), which transformers "
                "drops when it reads a GGUF: positions would be wrong; use the model's safetensors checkpoint instead"
            )
    if metadata.get("split.count", 1) > 1:
        raise RopewalkError(
            f"{path}: split.count is {metadata['split.count']}, one file of several; "
            "join them with llama-gguf-split --merge first"
        )


def _fresh_model(
    path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, int], dtype: torch.dtype
) -> PreTrainedModel:
    """The file's model with ordinary weights: a new one of the same config without the mark of quantisation."""
    read, info = _read_model(path, dtype)
    config = read.config
    for lost in ("quantization_config", "gguf_file", "_model_name_or_path"):
        if hasattr(config, lost):
            delattr(config, lost)
    _set_token_ids(config, metadata)
    config._name_or_path = ""
    auto: Any = AutoModelForCausalLM  # partly untyped
    with torch.device("meta"), quiet_transformers(warnings=True):
        model: Any = auto.from_config(config, dtype=dtype)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    generation: Any = GenerationConfig  # untyped
    model.generation_config = generation(
        **{key: value for key in _TOKEN_IDS.values() if (value := getattr(config, key, None)) is not None}
    )
    _check_weights(path, model, info, tensors)
    _check_config(path, config, metadata)
    fresh: PreTrainedModel = model
    return fresh


def _read_model(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
    auto: Any = AutoModelForCausalLM  # partly untyped
    try:
        with quiet_transformers(warnings=True):
            model, info = auto.from_pretrained(
                str(path.parent), gguf_file=path.name, dtype=dtype, output_loading_info=True, local_files_only=True
            )
    except (ValueError, KeyError, IndexError, NotImplementedError, AttributeError, RuntimeError, OSError) as error:
        raise DataError(f"{path}: transformers can't read it ({first_line(error)})") from error
    return model, info


@contextmanager
def _tensor_progress(progress: Report) -> Iterator[None]:
    """Report the reader's own loop over the tensors in place of the bar it would print."""

    def watch(items: Sequence[Any], **_options: Any) -> Iterator[Any]:
        progress("reading the file", 1, 1)
        for done, item in enumerate(items):
            progress("unpacking the weights", done, len(items))
            yield item
        progress("unpacking the weights", len(items), len(items))

    reader: Any = modeling_gguf_pytorch_utils
    printed = getattr(reader, "tqdm", None)
    if printed is None:  # a transformers that shows no bar
        yield
        return
    reader.tqdm = watch
    try:
        yield
    finally:
        reader.tqdm = printed


_TOKEN_IDS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}


def _set_token_ids(config: Any, metadata: Mapping[str, Any]) -> None:
    """The file's own special tokens: a config class has defaults that may belong to another vocabulary."""
    for key, attribute in _TOKEN_IDS.items():
        setattr(config, attribute, metadata.get(f"tokenizer.ggml.{key}_token_id"))


def _check_weights(path: Path, model: PreTrainedModel, info: Mapping[str, Any], tensors: Mapping[str, int]) -> None:
    """Every weight of the model comes from the file, and every value of the file went into the model."""
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            some = ", ".join(str(name) for name in sorted(info[kind], key=str)[:3])
            raise RopewalkError(f"{path}: transformers could not fill every weight from this file ({kind}: {some})")
    layers = model.config.get_text_config().num_hidden_layers
    in_file = sum(count for name, count in tensors.items() if _layer(name) < layers)  # later ones predict ahead (MTP)
    in_model = sum(weight.numel() for weight in model.parameters())
    if in_file != in_model:
        raise RopewalkError(
            f"{path}: holds {in_file} values, transformers' {type(model).__name__} took {in_model}: tensors would be "
            "dropped or invented; use the model's safetensors checkpoint instead"
        )


def _layer(tensor: str) -> int:
    parts = tensor.split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else -1


def _check_config(path: Path, config: Any, metadata: Mapping[str, Any]) -> None:
    """The values on which the positions hang are the file's own."""
    architecture, text = metadata["general.architecture"], config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    for key, found in {
        "rope.freq_base": _theta(text),
        "rope.dimension_count": int(head * _partial(text)),
        "attention.key_length": head,
        "attention.sliding_window": getattr(text, "sliding_window", None) or 0,
    }.items():
        stated = metadata.get(f"{architecture}.{key}")
        if stated is not None and found is not None and float(stated) != float(found):
            raise RopewalkError(
                f"{path}: {architecture}.{key} is {stated}, transformers read {found}: the model would not be the "
                "file's; use the model's safetensors checkpoint instead"
            )


def _rope_parameters(config: Any) -> Mapping[str, Any]:
    """The rope parameters of the global layers where a model has several kinds."""
    parameters: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    full = parameters.get("full_attention")
    return full if isinstance(full, Mapping) else parameters


def _theta(config: Any) -> float | None:
    theta = _rope_parameters(config).get("rope_theta", getattr(config, "rope_theta", None))
    return None if theta is None else float(theta)


def _partial(config: Any) -> float:
    return float(_rope_parameters(config).get("partial_rotary_factor", 1.0))


def _own_dtype(types: set[str]) -> torch.dtype:
    """The smallest dtype that holds an unquantised file's values; norms are float32 in every file."""
    if types == {"F32"}:
        return torch.float32
    return torch.float16 if types <= {"F32", "F16"} else torch.bfloat16


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The floating-point torch dtype of that name; anything else is a `RopewalkError`."""
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise RopewalkError(f"dtype is {dtype!r}, expected bfloat16, float16 or float32")
    return found
