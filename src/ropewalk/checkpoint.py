"""Model and tokenizer from a folder, a hub id or a GGUF file, with the scaling factors that the checkpoint carries.

safetensors and JSON only: nothing is ever unpickled, and code of a checkpoint runs only when asked for by name.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ropewalk import files
from ropewalk.adapters import Adapter, attach, find_adapter
from ropewalk.cache import CONVERTER, Report, cached_model, file_digest
from ropewalk.errors import DataError, FactorsError, PrerequisiteError, RopewalkError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.gguf_reader import convert_gguf, parse_dtype, read_gguf
from ropewalk.gguf_tokenizer import first_line, read_tokenizer
from ropewalk.layers import rotary_sites
from ropewalk.loading_errors import UNREACHABLE, check_loaded, one_line_errors
from ropewalk.modelling_file import own_auto_map
from ropewalk.patch import CONFIG_KEY, apply
from ropewalk.quantised import quantiser, refused_by_name, unify_dtype
from ropewalk.quiet import quiet_transformers, without_load_report
from ropewalk.rope_override import ROPE_OVERRIDE, RopeOverride, override_rope

HUB_ID = re.compile(r"[\w][\w.-]*(/[\w.-]+)?")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    any_model: bool = False,
    apply_factors: bool = True,
    rope: str | RopeOverride | None = None,
    weights: bool = True,
    tensor_parallel: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model in eval mode, tokenizer) of a checkpoint, with its `rope_layer_factors` applied.

    path_or_hub_id: a model folder, a hub id such as "org/name", or a .gguf file (converted once into the cache). One
    that holds an adapter (peft) gives its base model with the adapter in its layers.
    dtype: of the weights; None means `default_dtype(device)`, "auto" the checkpoint's own. Quantised ones keep theirs.
    device: None means CUDA if there is one, else the CPU; "auto" spreads the layers over what there is.
    trust_remote_code: run code that comes with the checkpoint. any_model: see `ropewalk.apply`.
    apply_factors: False loads the model as trained and takes the factors out of its config.
    rope: another base scheme for it, such as "linear:2" (`RopeOverride.parse`); factors multiply that one then.
    weights: False makes the modules alone, without factors: other processes have the weights then (`elsewhere`).
    tensor_parallel: each process of a group (the variables of torchrun) loads its part of every weight, in place of
    `device`; no adapters.
    Raises `RopewalkError` with one line for anything missing, damaged, pickled or unsupported; `FactorsError` if the
    checkpoint's factors don't fit.
    """
    name = os.fspath(path_or_hub_id)
    adapter = _adapter(name)
    if adapter is not None and not tensor_parallel:
        return _with_adapter(
            adapter,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            any_model=any_model,
            apply_factors=apply_factors,
            rope=rope,
            weights=weights,
        )
    override = None if rope is None else RopeOverride.parse(str(rope))
    place = _device(device)
    numbers = dtype if dtype == "auto" else parse_dtype(default_dtype(place or "auto") if dtype is None else dtype)
    source = _local_source(name)
    placement = _placement(place, tensor_parallel=tensor_parallel)
    auto: Any = AutoModelForCausalLM  # partly untyped
    with one_line_errors(name), quiet_transformers(), without_load_report():
        config = _own_code_left_out(AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code))
        own_factors = apply_factors and not any_model and getattr(config, CONFIG_KEY, None) is not None
        replaced = None if override is None else _overridden(name, config, override, carries_factors=own_factors)
        tokenizer = _load_tokenizer(name, source, trust_remote_code=trust_remote_code)
        if not weights:
            with torch.device("meta"):
                return auto.from_config(config, trust_remote_code=trust_remote_code).eval(), tokenizer
        with refused_by_name(name, config):
            model, info = auto.from_pretrained(
                source,
                config=config,
                dtype=numbers,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **placement,
            )
    check_loaded(name, info)
    if override is not None:
        _check_scheme(name, model, override)
        vars(model)[ROPE_OVERRIDE] = replaced
    if quantiser(config) is not None:
        unify_dtype(model, None if isinstance(numbers, str) else numbers)
    _restore_factors(name, model, any_model=any_model, apply_factors=apply_factors)
    return model.eval(), tokenizer


def _adapter(name: str) -> Adapter | None:
    with one_line_errors(name):
        return find_adapter(name, on_hub=bool(HUB_ID.fullmatch(name)) and not name.endswith(".gguf"))


def _with_adapter(adapter: Adapter, **options: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model with its factors, and the adapter in it; the adapter's own tokenizer if it has one."""
    try:
        model, tokenizer = load_pretrained(adapter.base, **options)
    except RopewalkError as error:
        raise type(error)(f"{adapter.source}: its base model can't be loaded: {error}") from None
    if options["weights"]:
        with one_line_errors(adapter.source):
            attach(model, adapter)
    if adapter.has("tokenizer_config.json"):
        own = options["trust_remote_code"]
        tokenizer = _load_tokenizer(adapter.source, adapter.source, trust_remote_code=own)
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    if len(tokenizer) > rows:
        raise DataError(
            f"{adapter.source}: its tokenizer has {len(tokenizer)} tokens, its base model {adapter.base} {rows}: merge "
            "them with peft (resize_token_embeddings, merge_and_unload), save that with its tokenizer, and give it"
        )
    model.train(mode=False)
    return model, tokenizer


def load_tokenizer(
    path_or_hub_id: str | os.PathLike[str], *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint alone: no weights are read, fetched or converted.

    path_or_hub_id: as in `load_pretrained`, a folder may be without weights. Raises `RopewalkError` with one line.
    """
    name = os.fspath(path_or_hub_id)
    adapter = _adapter(name)
    if adapter is not None and not adapter.has("tokenizer_config.json"):
        return load_tokenizer(adapter.base, trust_remote_code=trust_remote_code)
    path = Path(name).expanduser()
    with one_line_errors(name), quiet_transformers():
        if path.suffix == ".gguf" and path.is_file():
            return read_tokenizer(path, read_gguf(path)[0])
        source = str(path) if path.is_dir() else _local_source(name)
        return _load_tokenizer(name, source, trust_remote_code=trust_remote_code)


def default_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32.

    CUDA from Ampere on; CPUs with AVX512-BF16 or AMX (which implies it). oneDNN's own check is no guide: it says yes
    on any AVX-512 processor, where bf16 is emulated and slower than float32.
    """
    kind = torch.device(device).type if device != "auto" else _best_device().type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None) if kind == "cpu" else None
    return torch.bfloat16 if native is not None and native() else torch.float32


def _own_code_left_out(config: PreTrainedConfig) -> PreTrainedConfig:
    """A config that leads to the modelling file of an export no more: its factors are applied here, once."""
    auto_map = vars(config).pop("auto_map", None)
    if kept := own_auto_map(auto_map or {}):
        vars(config)["auto_map"] = kept
    return config


def _overridden(name: str, config: PreTrainedConfig, rope: RopeOverride, *, carries_factors: bool) -> str:
    """Give the config another base scheme; what was replaced, in words. Factors of a checkpoint belong to its own."""
    text: Any = config.get_text_config()
    before = copy.deepcopy(getattr(text, "rope_parameters", None))
    try:
        replaced = override_rope(config, rope)
    except RopewalkError as error:
        raise type(error)(f"{name}: {error}") from None
    if carries_factors and text.rope_parameters != before:
        raise FactorsError(
            f"{name}: carries factors that multiply its own scheme {before}, and rope is {rope}: load it without rope, "
            "or take the original checkpoint; to apply them all the same say any_model=True (--any-model)"
        )
    return replaced


def _check_scheme(name: str, model: PreTrainedModel, rope: RopeOverride) -> None:
    """Raise `UnsupportedModelError` if the code of the model goes past the scheme in its config."""
    kinds: set[Any] = set()
    for site in rotary_sites(model):
        own = getattr(site.module, "rope_type", None)
        kinds |= set(own.values()) if isinstance(own, Mapping) else {own}
    if rope.kind not in kinds and not (rope.kind == "default" and kinds == {None}):
        raise UnsupportedModelError(
            f"{name}: rope is {rope}, and the rotary code of {type(model).__name__} takes no scheme from its config"
        )


def _restore_factors(name: str, model: PreTrainedModel, *, any_model: bool, apply_factors: bool) -> None:
    """Apply the factors of the model's config, or take them out of it so that it says what the model does."""
    values = getattr(model.config, CONFIG_KEY, None)
    if values is None:
        return
    if not apply_factors:
        delattr(model.config, CONFIG_KEY)
        return
    try:
        apply(model, ScalingFactors(values), any_model=any_model)
    except FactorsError as error:
        raise FactorsError(f"{name}: {CONFIG_KEY} in its config.json: {error}") from None


def _local_source(name: str) -> str:
    """What transformers is to load: the checked folder, the converted GGUF's folder, or the hub id itself."""
    path = Path(name).expanduser()
    if not name:
        raise DataError("no model given; expected a model folder, a .gguf file or a hub id such as org/name")
    if path.is_dir():
        _check_folder(path)
        return str(path)
    if path.suffix == ".gguf":
        return str(_converted(path))
    if path.exists():
        raise DataError(f"{name}: is a file, expected a model folder, a .gguf file or a hub id such as org/name")
    if not HUB_ID.fullmatch(name):
        raise DataError(f"{name}: no such folder, and not a hub id such as org/name")
    return name


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise DataError(f"{folder}: holds no config.json; expected a model folder as save_pretrained writes it")
    files.read_json(folder / "config.json")
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if not pickled:
        raise DataError(f"{folder}: holds no weights (*.safetensors)")
    raise DataError(
        f"{folder}: its weights are pickled ({pickled[0]}), and unpickling can run any code; ropewalk reads "
        "safetensors only. If you trust the file, convert it once: AutoModelForCausalLM.from_pretrained(folder, "
        "use_safetensors=False).save_pretrained(new_folder), and the tokenizer likewise"
    )


def _converted(gguf: Path) -> Path:
    """The model folder of a GGUF file, converted into the cache once per content."""
    if not gguf.is_file():
        raise DataError(f"{gguf}: no such file")
    digest = file_digest(gguf)
    source = {"gguf_sha256": digest, "dtype": "auto", "converter": CONVERTER}

    def build(folder: Path, report: Report) -> None:
        convert_gguf(gguf, folder, dtype="auto", progress=report)

    return cached_model(f"{gguf.stem}-{digest[:12]}", source, build)


def _best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _device(device: str | torch.device | None) -> torch.device | None:
    """The torch device, None for "auto"."""
    if device is None:
        return _best_device()
    if device == "auto":
        return None
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise RopewalkError(f'device is {device!r}, expected "cpu", "cuda", "cuda:0", … or "auto"') from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise PrerequisiteError(
            f"device is {device!r}, torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here; "
            'give "cpu", or install a torch with CUDA'
        )
    return place


def _placement(place: torch.device | None, *, tensor_parallel: bool) -> dict[str, Any]:
    """What `from_pretrained` is told of where the weights go."""
    if tensor_parallel:
        from transformers.distributed.configuration_utils import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    return {"device_map": "auto"} if place is None else {} if place.type == "cpu" else {"device_map": {"": place}}


def _load_tokenizer(name: str, source: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    auto: Any = AutoTokenizer  # partly untyped
    try:
        tokenizer: PreTrainedTokenizerBase = auto.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        if "trust_remote_code" in str(error) or UNREACHABLE.search(str(error)):
            raise
        raise DataError(
            f"{name}: its tokenizer is missing or damaged ({first_line(error)}); put the model's tokenizer.json and "
            "tokenizer_config.json beside its config.json"
        ) from error
    return tokenizer
