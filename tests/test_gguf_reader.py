"""GGUF -> safetensors: the weights and tokens are the file's own, and what can't be read faithfully is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gguf_factory import CHAT_TEMPLATE, TOKENS, tiny_model, write_gguf
from ropewalk.errors import DataError, PrerequisiteError, RopewalkError
from ropewalk.gguf_reader import check_readable, convert_gguf
from ropewalk.gguf_tokenizer import PRETOKENIZERS

IDS = torch.tensor([[5, 80, 33, 120, 7, 200, 41, 16, 99, 3, 250, 61]])


@pytest.mark.parametrize(("model_type", "pre"), [("llama", "smollm"), ("qwen2", "qwen2")])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_the_source_models(tmp_path: Path, model_type: str, pre: str, tied: bool) -> None:
    source = tiny_model(model_type, tied=tied)
    folder = convert_gguf(write_gguf(tmp_path / "m.gguf", source, pre=pre), tmp_path / "out", dtype="float32")
    converted = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert converted.dtype == torch.float32
    assert converted.config.tie_word_embeddings is tied
    assert converted.config.rope_parameters["rope_theta"] == 50000.0
    with torch.no_grad():
        assert torch.equal(converted(IDS).logits, source(IDS).logits)


def test_the_folder_is_a_plain_checkpoint(tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama"))
    folder = convert_gguf(gguf, tmp_path / "out", progress=lambda *stage: stages.append(stage))
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [1, 2, 3]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert [generation[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [1, 2, 3]
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.glob("*.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert len(tokenizer) == len(TOKENS)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert ("unpacking the weights", 38, 38) in stages
    assert stages[-1] == ("writing safetensors", 1, 1)


@pytest.mark.parametrize(
    ("pre", "text", "tokens"),
    [
        # Each digit alone, so the two spaces before it stay together; GPT-2's regex would join one to the digit.
        ("smollm", "hi  12", ["hi", "ĠĠ", "1", "2"]),
        ("smollm", "\n\n12", ["ĊĊ", "1", "2"]),
        ("smollm", '"a', ['"', "a"]),
        ("gpt-2", "hi  12", ["hi", "Ġ", "Ġ", "12"]),
        ("llama-bpe", "hi 1234", ["<bos>", "hi", "Ġ", "123", "4"]),
        ("llama-bpe", 'x\n"a', ["<bos>", "x", "Ċ", '"a']),
        ("qwen2", "hi 123", ["hi", "Ġ", "1", "2", "3"]),
        ("qwen2", 'x\n"a', ["x", "Ċ", '"a']),
        ("qwen2", "e\u0301", ["Ã", "©"]),  # NFC, as Qwen2's own tokenizer
        ("tekken", "123", ["<bos>", "1", "2", "3"]),
    ],
)
def test_pretokenizers(tmp_path: Path, pre: str, text: str, tokens: list[str]) -> None:
    folder = convert_gguf(write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1), pre=pre), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(encoded) == tokens
    assert encoded == [TOKENS.index(token) for token in tokens]


def test_begin_token_as_the_file_says(tmp_path: Path) -> None:
    entries = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1), entries=entries)
    tokenizer = AutoTokenizer.from_pretrained(convert_gguf(gguf, tmp_path / "out"))
    assert tokenizer("hi").tokens() == ["<bos>", "hi", "<eos>"]


def test_no_begin_token_is_invented(tmp_path: Path) -> None:
    """LlamaConfig's default is token 1, whatever token that is; a base model without chat template has none."""
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1), bos=None, chat_template=None)
    folder = convert_gguf(gguf, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(folder).config.bos_token_id is None
    assert "bos_token_id" not in json.loads((folder / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.bos_token is None
    assert tokenizer.chat_template is None


def test_regexes_are_the_readers_own() -> None:
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    theirs = mapping.GGUF_PRE_TOKENIZER_SPLITS
    shared = [word for word in PRETOKENIZERS if word in theirs]
    assert {"llama-bpe", "qwen2", "tekken"} <= set(shared)
    assert {word: PRETOKENIZERS[word].regex for word in shared} == {word: theirs[word] for word in shared}


@pytest.mark.parametrize("pre", ["default", "some-new-one", None])
def test_an_unknown_pretokenizer_is_refused(tmp_path: Path, pre: str | None) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1), pre=pre)
    with pytest.raises(RopewalkError, match=rf"tokenizer\.ggml\.pre is '{pre}'"):
        convert_gguf(gguf, tmp_path / "out")


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, "llama.rope.scaling.factor"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "llama.rope.scaling.type"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type"),
        ({"llama.rope.scaling.factor": 2.0}, "llama.rope.scaling.factor"),
        ({"llama.rope.scale_linear": 2.0}, "llama.rope.scale_linear"),
        ({"split.count": 3}, "split.count"),
    ],
)
def test_rope_scaling_and_split_files_are_refused(tmp_path: Path, entries: dict, key: str) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1), entries=entries)
    with pytest.raises(RopewalkError, match=key.replace(".", r"\.")):
        convert_gguf(gguf, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["rope_freqs.weight", "rope_factors_long.weight", "blk.0.rope_factors_short.weight"])
def test_scaled_frequencies_are_refused(tmp_path: Path, name: str) -> None:
    tensors = {name: np.linspace(1, 8, 8, dtype=np.float32)}
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1), tensors=tensors)
    with pytest.raises(RopewalkError, match=name.replace(".", r"\.")):
        convert_gguf(gguf, tmp_path / "out")


def test_scaling_that_does_nothing_is_accepted() -> None:
    for scaling in ({"type": "none"}, {"type": "linear", "factor": 1.0}, {"factor": 0.0}):
        metadata = {"general.architecture": "llama"} | {f"llama.rope.scaling.{key}": v for key, v in scaling.items()}
        check_readable(Path("m.gguf"), metadata, {})


def test_a_dropped_rope_base_is_refused(tmp_path: Path) -> None:
    """transformers' reader ignores rope.freq_base of this architecture: the default base would be silently wrong."""
    model = tiny_model("starcoder2", use_bias=True)
    with pytest.raises(RopewalkError, match=r"starcoder2\.rope\.freq_base is 50000"):
        convert_gguf(write_gguf(tmp_path / "m.gguf", model, pre="starcoder"), tmp_path / "out")


def test_a_tensor_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), tensors={"blk.1.attn_q.bias": np.ones(64, np.float32)})
    with pytest.raises(RopewalkError, match="dropped or invented"):
        convert_gguf(gguf, tmp_path / "out")


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), without="blk.2.ffn_up.weight")
    with pytest.raises(RopewalkError, match=r"missing_keys: model\.layers\.2\.mlp\.up_proj\.weight"):
        convert_gguf(gguf, tmp_path / "out")


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1)).read_bytes()
    (tmp_path / "zork.gguf").write_bytes(content.replace(b"llama", b"zorky"))
    with pytest.raises(RopewalkError, match="zorky"):
        convert_gguf(tmp_path / "zork.gguf", tmp_path / "out")


@pytest.mark.parametrize("kept", [4, 20, 100, 3000, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, kept: float) -> None:
    content = write_gguf(tmp_path / "m.gguf", tiny_model("llama")).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(DataError, match="cut short or damaged") as caught:
        convert_gguf(cut, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "empty.gguf").write_bytes(b"")
    for name, message in (("text", "not a GGUF file"), ("empty", "not a GGUF file"), ("none", "no such file")):
        with pytest.raises(DataError, match=message):
            convert_gguf(tmp_path / f"{name}.gguf", tmp_path / "out")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", tiny_model("llama", layers=1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        convert_gguf(gguf, tmp_path / "out")
    with pytest.raises(PrerequisiteError, match="can't be written"):
        convert_gguf(gguf, gguf / "out")
    with pytest.raises(RopewalkError, match="dtype is 'int4'"):
        convert_gguf(gguf, tmp_path / "other", dtype="int4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "out"]
