"""The plugin in vLLM's front process: how it is found, what it accepts of a config, what it refuses before a start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("vllm", reason="runs in an environment of its own: make test-vllm")

import vllm.engine.arg_utils as arg_utils
import vllm.model_executor.model_loader.base_loader as base_loader
import vllm.model_executor.model_loader.utils as loader_utils
from vllm_engines import FACTORS, Served, with_factors

from ropewalk.errors import FactorsError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.serving import vllm as plugin

pytestmark = pytest.mark.slow


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin in this process, and vLLM as it was afterwards."""
    monkeypatch.setattr(arg_utils.EngineArgs, "create_model_config", arg_utils.EngineArgs.create_model_config)
    for module in (base_loader, loader_utils):
        monkeypatch.setattr(module, "initialize_model", module.initialize_model)
    plugin.register()


@pytest.fixture
def folder(served: Callable[[str], Served], tmp_path: Path) -> Path:
    """A config without weights: nothing is loaded here."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text((served("llama").folder / "config.json").read_text())
    return made


def configured(folder: Path, **options: Any) -> Any:
    """What `vllm serve` reads of a model before anything is started."""
    return arg_utils.EngineArgs(model=str(folder), skip_tokenizer_init=True, **options).create_model_config()


def test_vllm_finds_it() -> None:
    found = entry_points(group="vllm.general_plugins", name="ropewalk")
    assert [point.load() for point in found] == [plugin.register]


def test_it_can_be_imported_without_vllm() -> None:
    """vLLM logs a plugin that fails to be imported, and goes on: no error may be raised before `register`."""
    code = "import sys; import ropewalk.serving.vllm; assert not any(n.split('.')[0] == 'vllm' for n in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_twice_is_once(registered: None) -> None:
    once = (arg_utils.EngineArgs.create_model_config, loader_utils.initialize_model)
    plugin.register()
    assert (arg_utils.EngineArgs.create_model_config, loader_utils.initialize_model) == once
    assert base_loader.initialize_model is loader_utils.initialize_model


def test_an_unknown_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(loader_utils, "initialize_model")
    with pytest.raises(UnsupportedModelError, match="does not fit this vLLM"):
        plugin.register()


def test_factors_are_read(registered: None, folder: Path) -> None:
    factors = plugin.configured_factors(configured(folder))
    assert factors is not None
    assert factors.values == FACTORS


def test_no_key_no_factors(registered: None, folder: Path) -> None:
    assert plugin.configured_factors(configured(with_factors(folder, None))) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.1, 1.2, 1.3], "holds 3 factors, the model has 4 layers"),
        ([1.1, float("nan"), 1.2, 1.3], "factor of layer 1 is nan"),
        ([1.1, float("inf"), 1.2, 1.3], "factor of layer 1 is inf"),
        ([1.1, 0, 1.2, 1.3], r"factor of layer 1 is 0.0, expected a finite number > 0"),
        ([1.1, -1, 1.2, 1.3], "factor of layer 1 is -1.0"),
        ([1.1, "1", 1.2, 1.3], "factor of layer 1 is '1', expected a number > 0 or null"),
        ("1.1", "factors must be a list"),
        ([], "no factors given"),
        ([None] * 4, "no factors given"),
    ],
)
def test_what_cannot_be_meant_is_refused(registered: None, folder: Path, values: Any, message: str) -> None:
    with pytest.raises(FactorsError, match=message) as caught:
        configured(with_factors(folder, values))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_factors_that_vllm_did_not_read_are_refused(registered: None, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    content = json.loads((folder / "config.json").read_text())
    del content["rope_layer_factors"]
    (other / "config.json").write_text(json.dumps(content))
    with pytest.raises(FactorsError, match="but vLLM has read another config"):
        configured(folder, hf_config_path=str(other))


def test_the_key_of_the_compile_cache_holds_the_factors(registered: None, folder: Path) -> None:
    keys = []
    for values in (FACTORS, FACTORS, (*FACTORS[:3], 1.9001), None):
        with_factors(folder, values)
        keys.append(configured(folder).compute_hash())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


# Where the layers are ----------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """Layers in a list of that name."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        setattr(self, name, nn.ModuleList(nn.Linear(1, 1) for _ in range(count)))


def test_the_outermost_list_of_that_length() -> None:
    model = nn.Module()
    model.model = Layers("layers", 4)
    model.model.layers[0].experts = Layers("layers", 4)
    assert plugin._decoder_layers(model, 4) is model.model.layers
    assert plugin._decoder_layers(model, 5) is None


def test_a_language_model_among_towers() -> None:
    model = nn.Module()
    model.visual, model.language_model = Layers("blocks", 4), Layers("layers", 4)
    with pytest.raises(UnsupportedModelError, match=r"visual\.blocks, language_model\.layers are all lists of 4"):
        plugin._decoder_layers(model, 4)
    model.get_language_model = lambda: model.language_model
    assert plugin._decoder_layers(model, 4) is model.language_model.layers


def test_a_rotary_module_that_is_kept_elsewhere_is_refused() -> None:
    rotary, layer = nn.Linear(1, 1), nn.Module()
    layer.impl = type("Kernel", (), {})()
    layer.impl.rope = rotary
    with pytest.raises(UnsupportedModelError, match=r"Kernel keeps its own reference to a rotary module \(rope\)"):
        plugin._check_no_other_place(layer, {rotary})


def test_layers_without_rotary_modules_are_counted() -> None:
    model = Layers("layers", 4)
    with pytest.raises(
        UnsupportedModelError, match=r"3 of 3 layers .* have no rotary module .* \(layers \[0, 1, 3\]\)"
    ):
        plugin._scale_layers(model, model.layers, ScalingFactors([1.1, 1.2, None, 1.3]))


def test_stages_of_a_pipeline_scale_their_own_layers() -> None:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope
    from vllm.model_executor.models.utils import PPMissingLayer

    model = Layers("layers", 4)
    with set_current_vllm_config(VllmConfig()):
        shared = get_rope(64, 128, True, {"rope_type": "default", "rope_theta": 1e4}, torch.float32)
        for index in (2, 3):
            model.layers[index].rotary_emb = shared
        for index in (0, 1):
            model.layers[index] = PPMissingLayer()
        plugin._scale_layers(model, model.layers, ScalingFactors([1.1, 1.2, 1.0, 1.3]))
    assert model.layers[2].rotary_emb is shared
    assert model.layers[3].rotary_emb is not shared
