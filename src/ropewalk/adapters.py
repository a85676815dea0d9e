"""Adapters of peft, LoRA above all: found in a folder or on the hub, and put onto their base model.

The base model keeps its class: the adapter's layers take the places of its linear ones, as transformers does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ropewalk import files
from ropewalk.errors import DataError, PrerequisiteError, UnsupportedModelError
from ropewalk.quiet import quiet_transformers, without_load_report

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


@dataclass(frozen=True)
class Adapter:
    """source: folder or hub id of the adapter. base: of the model it belongs to. kind: peft's name, such as LORA."""

    source: str
    base: str
    kind: str

    @property
    def folder(self) -> Path:
        """Where its files are: the folder itself, or the hub's copy on this disk."""
        found = _file(self.source, WEIGHTS)
        return found.parent if found else Path(self.source)

    def has(self, name: str) -> bool:
        """Whether there is such a file beside the adapter; one on the hub is fetched."""
        return _file(self.source, name) is not None


def find_adapter(name: str, *, on_hub: bool) -> Adapter | None:
    """The adapter in a folder or, with `on_hub`, behind a hub id; None for anything else.

    Raises `DataError` for a damaged one, `PrerequisiteError` without peft, each in one line.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and (folder.exists() or not on_hub):
        return None
    source = str(folder) if folder.is_dir() else name
    config_file = _file(source, CONFIG)
    if config_file is None:
        return None
    config = files.read_json(config_file)
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise DataError(
            f"{name}: its {CONFIG} names no peft_type; expected an adapter as peft's save_pretrained writes it"
        )
    if folder.is_dir() and (folder / "config.json").exists() and any(folder.glob("model*.safetensors")):
        raise DataError(f"{name}: holds a whole model and an adapter ({CONFIG}); keep one of them there")
    if find_spec("peft") is None:
        raise PrerequisiteError(
            f"{name}: holds an adapter, which needs peft: pip install 'ropewalk[adapters]', or merge it into its base "
            "model (merge_and_unload) and give that"
        )
    adapter = Adapter(source, _base(name, folder, config.get("base_model_name_or_path")), config["peft_type"])
    if adapter.has(WEIGHTS):
        return adapter
    if adapter.has(PICKLED):
        raise DataError(
            f"{name}: its weights are pickled ({PICKLED}), and unpickling can run any code; ropewalk reads safetensors "
            "only. If you trust the file, load it with peft and save it again with save_pretrained"
        )
    raise DataError(f"{name}: holds no {WEIGHTS}")


def attach(model: Any, adapter: Adapter) -> None:
    """Put the adapter into the layers of its base model, which may carry scaling factors.

    Raises `DataError` if it is for another base, `UnsupportedModelError` for a kind that is not made of layers.
    """
    try:
        with quiet_transformers(), without_load_report():
            info = model.load_adapter(str(adapter.folder), use_safetensors=True)
    except SafetensorError as error:
        raise DataError(f"{adapter.source}: its weights are cut short or damaged ({_line(error)})") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise DataError(f"{adapter.source}: its weights have other shapes than those of {_belongs(adapter)}") from error
    except (ValueError, KeyError, TypeError, ImportError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f"{adapter.source}: its adapter ({adapter.kind}) can't be put into {adapter.base}: {_line(error)}"
        ) from error
    for kind, names in (("missing in it", info.missing_keys), ("not used", info.unexpected_keys)):
        if names:
            some = ", ".join(sorted(names)[:2])
            raise DataError(f"{adapter.source}: {len(names)} weights ({some}, …) are {kind}: not {_belongs(adapter)}")


def has_adapter(model: Any) -> bool:
    """True for a PeftModel and for a transformers model with an adapter in its layers."""
    return callable(getattr(model, "get_base_model", None)) or bool(getattr(model, "_hf_peft_config_loaded", False))


def _file(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        source,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def _base(name: str, folder: Path, given: Any) -> str:
    """The base model, whose path may be relative to where we are or to the adapter."""
    if not isinstance(given, str) or not given:
        raise DataError(
            f"{name}: names no base model: write its folder or hub id as base_model_name_or_path into {CONFIG}"
        )
    beside = folder / given
    return str(beside) if not Path(given).expanduser().exists() and beside.is_dir() else given


def _belongs(adapter: Adapter) -> str:
    return f"the adapter of {adapter.base}; base_model_name_or_path in its {CONFIG} names another model than its own"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
