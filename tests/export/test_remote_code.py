"""Code that a checkpoint brings gives ropewalk's logits and tokens where there is no ropewalk, for every family."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import export, load, read, with_tokenizer, without_ropewalk
from transformers import AutoModelForCausalLM, PreTrainedModel

from ropewalk import ScalingFactors, UnsupportedModelError, load_pretrained
from ropewalk.export import export_target
from ropewalk.export.base import Subject
from ropewalk.export.parts import proof
from ropewalk.export.parts.modeling import modeling_code
from ropewalk.patch import apply, factors_of, patched, remove, rotary_layers, unpatched
from tiny import prompt, tiny_model

TOKENS = 80  # beyond the trained context: dynamic and longrope choose another base there
SCALED = {"rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "attention_factor": 1.1}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
BASES = {
    "default": {"rope_theta": 10_000.0},
    "linear": {"rope_theta": 10_000.0, "factor": 4.0},
    "dynamic": {"rope_theta": 10_000.0, "factor": 4.0},
    "yarn": SCALED,
    "llama3": SCALED | LLAMA3,
    "longrope": SCALED | LONG,
}


@dataclass(frozen=True)
class Family:
    """A small model. pattern: R for a layer with rotary position, - for one without."""

    name: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    pattern: str = "RRRR"

    def build(self, seed: int = 0) -> PreTrainedModel:
        return tiny_model(self.model_type, seed=seed, **({"vocab_size": 300, "head_dim": 16} | self.config))

    @property
    def factors(self) -> ScalingFactors:
        """Near 1, as those that are found; one is exactly 1."""
        values = iter((0.9, 1.0, 1.15, 1.05))
        return ScalingFactors([next(values) if letter == "R" else None for letter in self.pattern])


def scaled(rope_type: str) -> dict[str, Any]:
    context = 64 if rope_type == "dynamic" else 256
    return {"max_position_embeddings": context, "rope_parameters": {"rope_type": rope_type, **BASES[rope_type]}}


SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}
FAMILIES = [
    Family("llama", "llama"),
    Family("qwen2", "qwen2"),
    Family("qwen3", "qwen3"),
    Family("gemma3", "gemma3_text", SLIDING),
    Family("mistral", "mistral", {"sliding_window": 8}),
    Family("phi3", "phi3", scaled("longrope")),
    Family("smollm3", "smollm3", {"no_rope_layers": [1, 1, 1, 0]}, "RRR-"),
    *(Family(rope_type, "llama", scaled(rope_type)) for rope_type in ("linear", "dynamic", "yarn", "llama3")),
]
BY_NAME = {family.name: family for family in FAMILIES}

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
def folders(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export of each family."""
    root = tmp_path_factory.mktemp("families")
    made = {}
    for family in FAMILIES:
        source = with_tokenizer(family.build(), root / f"{family.name}-source", tiny_path)
        made[family.name] = root / family.name
        export("remote-code", load(source)[0], family.factors, root / family.name)
    return made


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


# What it refuses ---------------------------------------------------------------------------------------------------


SPOILT = [
    ("llama", [1.0, 1.1], "2 entries, expected a list of 4"),
    ("llama", None, "None, expected a list of 4"),
    ("llama", "all", "'all', expected a list of 4"),
    ("llama", [1.0, float("nan"), 1.0, 1.0], "layer 1 is nan, expected a finite number > 0"),
    ("llama", [1.0, 1.0, None, 1.0], "layer 2 is None, expected a finite number > 0"),
    ("llama", [1.0, 1.0, 1.0, -1], "layer 3 is -1, expected a finite number > 0"),
    ("llama", [True, 1.0, 1.0, 1.0], "layer 0 is True, expected a finite number > 0"),
    ("smollm3", [1.0, 1.0, 1.0, 1.0], "layer 3 is 1.0, but has no rotary position: give null"),
]


def test_spoilt_factors_are_refused_when_it_is_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, values, _) in enumerate(SPOILT):
        spoilt = tmp_path / str(number)
        spoilt.mkdir()
        for path in folders[name].iterdir():
            (spoilt / path.name).symlink_to(path)
        config = read(folders[name] / "config.json") | {"rope_layer_factors": values}
        (spoilt / "config.json").unlink()
        (spoilt / "config.json").write_text(json.dumps(config))
    code = """
from transformers import AutoModel, AutoModelForCausalLM
for folder in sys.argv[1:]:
    for auto in (AutoModel, AutoModelForCausalLM):
        try:
            auto.from_pretrained(folder, trust_remote_code=True)
        except ValueError as error:
            print(error)
        else:
            print("was loaded")
"""
    done = without_ropewalk(
        code, *(tmp_path / str(number) for number in range(len(SPOILT))), cache=tmp_path / "modules"
    )
    expected = [says for _, _, says in SPOILT for _ in range(2)]
    assert len(done.stdout.splitlines()) == len(expected)
    for line, says in zip(done.stdout.splitlines(), expected, strict=True):
        assert line.startswith("rope_layer_factors in config.json: ")
        assert says in line


@pytest.mark.parametrize(
    ("model_type", "config", "says"),
    [
        (
            "recurrent_gemma",
            {"block_types": ["recurrent", "attention"], "lru_width": 64},
            "rotary modules of their own",
        ),
        ("llama4_text", {"num_local_experts": 2, "intermediate_size_mlp": 96}, "AutoModel gives Llama4TextModel for a"),
    ],
)
def test_what_a_file_can_not_carry_is_refused_by_name(
    model_type: str, config: dict[str, Any], says: str, tiny_path: Path, tmp_path: Path
) -> None:
    built = tiny_model(model_type, **({"vocab_size": 300, "head_dim": 16} | config))
    model = load(with_tokenizer(built, tmp_path / "source", tiny_path))[0]
    rotary = rotary_layers(model)
    factors = ScalingFactors.uniform(1.1, model.config.num_hidden_layers, rotary_layers=rotary)
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        export("remote-code", model, factors, tmp_path / "out")
    assert "use --to checkpoint" in str(caught.value)
    assert not (tmp_path / "out").exists()
    export("checkpoint", model, factors, tmp_path / "out")
    assert factors_of(load(tmp_path / "out")[0]).values == factors.values


def test_a_file_that_does_nothing_is_not_written(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof sees it: once without any effect, once with another layer's factor."""
    model = load(tiny_path)[0]
    before = here(model)[0]
    code = modeling_code(model)
    for spoilt in (
        code.replace("return PerLayer([tables if row < 0", "return PerLayer([tables if True"),
        code.replace("return value[self.layer]", "return value[self.layer - 1]"),
        code.replace("divided.flatten(-3, -2).float()", "divided.flatten(-3, -2).bfloat16()"),
    ):
        assert spoilt != code
        with pytest.raises(UnsupportedModelError, match="gives other logits than ropewalk"):
            proof.prove(spoilt, model, ScalingFactors([0.9, 1.0, 1.1, 1.05]))
        assert torch.equal(here(model)[0], before)
        assert "rope_layer_factors" not in vars(model.config)
    monkeypatch.setattr("ropewalk.export.remote_code.modeling_code", lambda _: spoilt)
    with pytest.raises(UnsupportedModelError):
        export_target("remote-code").plan(Subject(model, ScalingFactors([0.9, 1.0, 1.1, 1.05])), tmp_path / "out")


# The file ----------------------------------------------------------------------------------------------------------


def test_the_file_is_small_and_imports_nothing_else(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        text = (folder / "modeling_ropewalk.py").read_text()
        assert len(text.splitlines()) < 200
        tree = ast.parse(text)
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported == {"inspect", "math", "torch", "transformers", "accelerate.utils"}
    check = [sys.executable, "-m", "ruff", "check", "--select", "E,F,I,B", "--ignore", "B905", "--line-length", "120"]
    done = subprocess.run([*check, str(folders["llama"] / "modeling_ropewalk.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_source_that_brings_code_for_a_known_model_gives_way(tiny_path: Path, tmp_path: Path) -> None:
    """As Phi-3 does: transformers has the class itself, and the file is met under the name that led to the old code."""
    source = with_tokenizer(tiny_model("llama", vocab_size=300), tmp_path / "source", tiny_path)
    brought = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.M", "AutoTokenizer": "t.T"}
    config = read(source / "config.json") | {"auto_map": brought}
    (source / "config.json").write_text(json.dumps(config))
    model = load_pretrained(source, device="cpu", dtype="float32")[0]
    export("remote-code", model, BY_NAME["llama"].factors, tmp_path / "out")
    assert read(tmp_path / "out" / "config.json")["auto_map"] == {
        "AutoTokenizer": "t.T",
        "AutoModel": "modeling_ropewalk.LlamaModel",
        "AutoModelForCausalLM": "modeling_ropewalk.LlamaForCausalLM",
    }
    export("checkpoint", model, BY_NAME["llama"].factors, tmp_path / "plain")
    assert read(tmp_path / "plain" / "config.json")["auto_map"] == brought


def test_code_of_a_checkpoint_that_transformers_has_no_class_for_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    model = load(tiny_path)[0]
    model.__class__ = type("OwnForCausalLM", (type(model),), {"__module__": "transformers_modules.own.modeling_own"})
    with pytest.raises(UnsupportedModelError, match="OwnForCausalLM is no class of transformers itself"):
        export("remote-code", model, BY_NAME["llama"].factors, tmp_path / "out")
