"""Code that a checkpoint brings gives ropewalk's logits and tokens where there is no ropewalk, for every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import export, load, read, without_ropewalk
from families import BY_NAME, TOKENS
from transformers import AutoModelForCausalLM

from ropewalk.patch import apply, factors_of, patched, remove, unpatched
from tiny import prompt

# Per folder: logits and tokens, left padded, in both types; again after saving and loading; the body alone; the maps.
APART = """
import json
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
found = {}
for folder in json.loads(sys.argv[1]):
    prompt = torch.load(sys.argv[2])
    mask = torch.ones_like(prompt)
    mask[0, :5] = 0
    asked = {"input_ids": prompt, "attention_mask": mask}
    one = {}

    def run(model, name):
        with torch.no_grad():
            one[name] = model(**asked).logits
            one[name + " tokens"] = model.generate(**asked, max_new_tokens=6, do_sample=False)

    for dtype in ("float32", "bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=dtype)
        run(model, dtype)
    model = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype="float32", device_map={"": "cpu"}, attn_implementation="eager"
    )
    run(model, "eager")
    model.save_pretrained(folder + "-again")
    again = AutoModelForCausalLM.from_pretrained(folder + "-again", trust_remote_code=True, dtype="float32")
    body = AutoModel.from_pretrained(folder + "-again", trust_remote_code=True, dtype="float32")
    with torch.no_grad():
        one["hidden"] = body(**asked).last_hidden_state
        one["hidden of the whole"] = again.base_model(**asked).last_hidden_state
    run(again, "again")
    body.save_pretrained(folder + "-body")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    run(plain, "vanilla")
    one["class"] = type(model).__name__, type(model).__mro__[1].__name__
    found[folder] = one
torch.save(found, sys.argv[3])
"""


@pytest.fixture(scope="module")
def apart(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without ropewalk computes with all of them."""
    scratch = tmp_path_factory.mktemp("apart")
    torch.save(prompt(tokens=TOKENS), scratch / "prompt")
    paths = json.dumps([str(folder) for folder in folders.values()])
    without_ropewalk(APART, paths, scratch / "prompt", scratch / "found", cache=scratch / "modules")
    return torch.load(scratch / "found")


def here(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids = prompt(tokens=TOKENS)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    return logits, model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)


# What it computes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_it_computes_what_ropewalk_does_to_the_bit(name: str, folders: dict[str, Path], apart: dict[str, Any]) -> None:
    found, family = apart[str(folders[name])], BY_NAME[name]
    for dtype in ("float32", "bfloat16"):
        model = load(folders[name].with_name(f"{name}-source"), dtype=dtype)[0]
        plain, _ = here(model)
        apply(model, family.factors)
        expected, tokens = here(model)
        assert torch.equal(found[dtype], expected), dtype
        assert torch.equal(found[f"{dtype} tokens"], tokens), dtype
        assert not torch.equal(expected, plain)
    assert torch.equal(found["again"], found["float32"])
    assert torch.equal(found["again tokens"], found["float32 tokens"])
    assert torch.equal(found["hidden"], found["hidden of the whole"])
    kept = [(0, slice(5, None)), (1, slice(None))]  # rows of padding are whatever an attention makes of them
    for row in kept:
        torch.testing.assert_close(found["eager"][row], found["float32"][row], rtol=1e-4, atol=1e-4)
    assert found["class"][0] == found["class"][1]


@pytest.mark.parametrize("name", BY_NAME)
def test_without_trust_it_is_the_model_as_trained(name: str, folders: dict[str, Path], apart: dict[str, Any]) -> None:
    model = load(folders[name].with_name(f"{name}-source"))[0]
    expected, tokens = here(model)
    found = apart[str(folders[name])]
    assert torch.equal(found["vanilla"], expected)
    assert torch.equal(found["vanilla tokens"], tokens)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_saved_one_is_whole_again(name: str, folders: dict[str, Path], apart: dict[str, Any]) -> None:
    assert apart
    folder, again = folders[name], folders[name].with_name(f"{name}-again")
    first, second = read(folder / "config.json"), read(again / "config.json")
    source = read(folder.with_name(f"{name}-source") / "config.json")
    assert first["architectures"] == second["architectures"] == source["architectures"]
    assert first["auto_map"] == second["auto_map"]
    assert set(first["auto_map"]) == {"AutoModel", "AutoModelForCausalLM"}
    assert first["rope_layer_factors"] == second["rope_layer_factors"] == list(BY_NAME[name].factors.values)
    file = "modeling_ropewalk.py"
    assert (again / file).read_text() == (folder / file).read_text()
    body = read(folder.with_name(f"{name}-body") / "config.json")  # transformers names the class that it saves
    assert body["auto_map"] == first["auto_map"]
    assert body["architectures"] == [type(BY_NAME[name].build().base_model).__name__]


@pytest.mark.parametrize("trust_remote_code", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma3", "smollm3"])
def test_ropewalk_scales_it_once(
    name: str, trust_remote_code: bool, folders: dict[str, Path], apart: dict[str, Any], tmp_path: Path
) -> None:
    """Its own code is left out; what is saved then is an ordinary checkpoint, that asks for no code."""
    model, _ = load(folders[name], trust_remote_code=trust_remote_code)
    assert type(model).__module__.startswith("transformers.models.")
    logits, tokens = here(model)
    assert torch.equal(logits, apart[str(folders[name])]["float32"])
    assert torch.equal(tokens, apart[str(folders[name])]["float32 tokens"])
    model.save_pretrained(tmp_path / "saved")
    assert "auto_map" not in read(tmp_path / "saved" / "config.json")
    remove(model)
    assert torch.equal(here(model)[0], apart[str(folders[name])]["vanilla"])


def test_a_model_that_scales_by_its_own_code_is_taken_over(
    folders: dict[str, Path], apart: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`apply`, `remove` and `unpatched` on a model that transformers loaded with the file."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    found, family = apart[str(folders["llama"])], BY_NAME["llama"]

    def own() -> Any:
        return AutoModelForCausalLM.from_pretrained(folders["llama"], trust_remote_code=True, dtype="float32")

    model = own()
    with unpatched(model):
        assert torch.equal(here(model)[0], found["vanilla"])
    assert torch.equal(here(model)[0], found["float32"])
    assert factors_of(model).values == family.factors.values
    model = own()
    other = [1.2, 1.1, 0.9, 1.0]
    apply(model, other)
    native = load(folders["llama"].with_name("llama-source"))[0]
    with patched(native, other):
        assert torch.equal(here(model)[0], here(native)[0])
    model.save_pretrained(tmp_path / "other")
    assert read(tmp_path / "other" / "config.json")["rope_layer_factors"] == other
    remove(model)
    assert torch.equal(here(model)[0], found["vanilla"])
    export("remote-code", own(), family.factors, tmp_path / "third")  # and it can be exported again
    third = tmp_path / "third"
    assert (third / "modeling_ropewalk.py").read_text() == (folders["llama"] / "modeling_ropewalk.py").read_text()


@pytest.mark.slow
def test_it_compiles_in_one_graph(folders: dict[str, Path], tmp_path: Path) -> None:
    code = """
import torch
from transformers import AutoModelForCausalLM
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="float32")
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        eager = model(input_ids=ids, use_cache=False).logits
        compiled = torch.compile(model, fullgraph=True)(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
"""
    names = ("llama", "qwen2", "qwen3", "gemma3", "mistral", "phi3")
    without_ropewalk(code, *(folders[name] for name in names), cache=tmp_path)


def test_offloaded_weights_copies_and_a_lost_hook(folders: dict[str, Path], tmp_path: Path) -> None:
    """accelerate fetches layer by layer what lies on the disk; a copy has factors of its own."""
    code = """
import copy
import torch
from transformers import AutoModelForCausalLM
ids = torch.arange(3, 23)[None]
whole = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, dtype="float32")
places = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
places |= {f"model.layers.{layer}": "cpu" if layer < 2 else "disk" for layer in range(4)}
spread = AutoModelForCausalLM.from_pretrained(
    sys.argv[1], trust_remote_code=True, dtype="float32", device_map=places, offload_folder=sys.argv[2],
    offload_buffers=True,
)
assert spread.hf_device_map["model.layers.3"] == "disk"
copied = copy.deepcopy(whole)
with torch.no_grad():
    expected = whole(input_ids=ids).logits
    assert torch.equal(spread(input_ids=ids).logits, expected)
    copied.model.rope_layer_factors.remove()
    assert not torch.equal(copied(input_ids=ids).logits, expected)
    assert torch.equal(whole(input_ids=ids).logits, expected)
whole.train()
whole.gradient_checkpointing_enable()
whole(input_ids=ids, labels=ids).loss.backward()
whole.model.rotary_emb._forward_hooks.clear()  # as if a later transformers passed the tables in another way
try:
    whole(input_ids=ids)
except RuntimeError as error:
    assert "layer 0 got no rotary tables of its own, so its factor would have no effect" in str(error)
else:
    raise SystemExit("layers were left as trained without a word")
"""
    without_ropewalk(code, folders["llama"], tmp_path / "offloaded", cache=tmp_path / "modules")
