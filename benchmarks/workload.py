"""What the benchmarks score: kv prompts in two data modes, prompts of random ids, candidates, random-weight models.

Nothing here is fetched: the prompts and the weights of the models below come from the seed.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from ropewalk.factors import ScalingFactors
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.tasks.base import Example, TaskOptions
from ropewalk.tasks.kv import KeyValueRetrieval, generate_pairs

Mode = Literal["gold moved", "generated"]
"""gold moved: one gold pair a record, moved to each position, as in the official file. generated: the record stays as
it is and another of its pairs is asked for at each position: the prompts of a record share all but the query."""

FIRST_ID = 10  # random ids leave out the special tokens that a vocabulary may begin with

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "7b": ("llama", {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "intermediate_size": 11008, "vocab_size": 32000, "max_position_embeddings": 4096 + 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "tie_word_embeddings": False,
    }),
    "70b": ("llama", {  # Llama 2's: 138 GB in bf16
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672, "vocab_size": 32000, "max_position_embeddings": 4096 + 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "tie_word_embeddings": False,
    }),
    "0.5b": ("qwen2", {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 4864, "vocab_size": 151936, "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True,
    }),
    "0.1b": ("llama", {
        "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4,
        "intermediate_size": 4096, "vocab_size": 32000, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 4096},
        "tie_word_embeddings": False,
    }),
    "host": ("llama", {  # as many layers as 0.5b and next to no arithmetic: what it takes is the host's time
        "hidden_size": 64, "num_hidden_layers": 24, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "tie_word_embeddings": False,
    }),
    "tiny": ("llama", {
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "tie_word_embeddings": False,
    }),
}  # fmt: skip


def random_model(shape: str, device: torch.device, dtype: torch.dtype, seed: int) -> tuple[Any, Any]:
    """(model, tokenizer) of one of `SHAPES` with random weights, made on the device."""
    kind, sizes = SHAPES[shape]
    torch.manual_seed(seed)
    with device:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), dtype=dtype)
    model.generation_config.eos_token_id = None
    return model.eval(), plain_tokenizer(sizes["vocab_size"])


def split_random_model(shape: str, dtype: torch.dtype, seed: int) -> tuple[Any, Any]:
    """The same, each process of a group (torchrun's variables) with its part of every weight, by transformers' plan."""
    from accelerate import init_empty_weights
    from torch.distributed.tensor import DTensor
    from transformers.distributed.configuration_utils import DistributedConfig

    kind, sizes = SHAPES[shape]
    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), dtype=dtype)
    config, device, mesh = model.prepare_distribute_model(DistributedConfig(tp_plan="auto"))
    model.maybe_distribute_model(model, config, mesh)
    torch.manual_seed(seed)
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            is_split = isinstance(weight, DTensor)
            size = weight.to_local().shape if is_split else weight.shape
            local = torch.empty(size, dtype=dtype, device=device)
            local.normal_(0, 0.02) if weight.dim() > 1 else local.fill_(1.0)
            if is_split:
                local = DTensor.from_local(local, weight.device_mesh, weight.placements, run_check=False)
            module._parameters[name] = torch.nn.Parameter(local, requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    model.generation_config.eos_token_id = None
    return model.eval(), plain_tokenizer(sizes["vocab_size"])


def plain_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer for prompts that are ids already: id n is the word "tn"."""
    words = {f"t{number}": number for number in range(vocabulary)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="t0")))


def kv_prompts(
    tokenizer: Any, mode: Mode, *, keys: int, positions: int, records: int, seed: int
) -> list[RenderedPrompt]:
    """Rendered kv prompts, record by record, each record at every position."""
    options = TaskOptions(positions=positions, keys=keys, limit=records, seed=seed)
    if mode == "generated":
        examples = KeyValueRetrieval(options).examples("test")
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = write_official(Path(folder) / "records.jsonl.gz", keys, records, seed)
            examples = KeyValueRetrieval(TaskOptions(positions, keys, path, records, seed)).examples("all")
    renderer = PromptRenderer(tokenizer)
    return [renderer.render(example) for example in examples]


def write_official(path: Path, keys: int, records: int, seed: int) -> Path:
    """A file in the official format of the kv task: one JSON object a line, with its pairs and the one asked for."""
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        for index in range(records):
            pairs = generate_pairs(seed, "test", index, keys)
            key, value = pairs[index % keys]
            stream.write(json.dumps({"ordered_kv_records": pairs, "key": key, "value": value}) + "\n")
    return path


def random_prompts(count: int, tokens: int, answer: int, vocabulary: int, seed: int) -> list[RenderedPrompt]:
    """Prompts of `tokens` random ids, the last `answer` of them scored; no two begin alike."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(FIRST_ID, vocabulary, (count, tokens))
    return [_prompt(f"random-{number}", 0, row.tolist(), answer) for number, row in enumerate(rows)]


def mdqa_like_prompts(
    records: int, tokens: int, vocabulary: int, seed: int, *, documents: int = 10, positions: int = 5, answer: int = 5
) -> list[RenderedPrompt]:
    """Prompts of random ids laid out as multi-document questions are: one record's prompts hold the same documents.

    Instruction (shared by all), `documents` stretches of equal length, question, answer. The gold document stands at
    each of `positions` places, the others keep their order, and the document at place i begins with the id of i: what
    two positions of a record have in common is what they would have in MDQA.
    """
    generator = np.random.default_rng(seed)
    instruction = generator.integers(FIRST_ID, vocabulary, 40).tolist()
    places = np.round(np.linspace(0, documents - 1, positions)).astype(int).tolist()
    length = (tokens - len(instruction) - 20 - answer) // documents - 1
    question = tokens - len(instruction) - documents * (length + 1) - answer  # 20 and what the division left
    found = []
    for record in range(records):
        gold, *others = generator.integers(FIRST_ID, vocabulary, (documents, length)).tolist()
        tail = generator.integers(FIRST_ID, vocabulary, question + answer).tolist()
        for place in places:
            order = [*others[:place], gold, *others[place:]]
            body = [token for number, text in enumerate(order) for token in (FIRST_ID + number, *text)]
            found.append(_prompt(f"mdqa-{record}", place, [*instruction, *body, *tail], answer))
    return found


def _prompt(record: str, place: int, ids: list[int], answer: int) -> RenderedPrompt:
    example = Example(f"{record}@{place}", record, place, (), ("t",), closing="t")
    return RenderedPrompt(example, tuple(ids), len(ids) - answer, "t")  # every token of `plain_tokenizer` ends it


def candidates(
    num_layers: int, count: int, seed: int, *, low: float = 0.8, high: float = 1.2, skip_first: int = 0
) -> list[ScalingFactors]:
    """`count` different random Bézier curves of four points; `skip_first` layers keep factor 1 (the paper: two)."""
    generator = np.random.default_rng(seed)
    space = SearchSpace(num_layers, skip_first=skip_first, low=low, high=high)
    found: dict[Candidate, ScalingFactors] = {}
    while len(found) < count:
        x = [0.0, *sorted(generator.random(2).tolist()), 1.0]
        y = generator.choice(space.grid(), 4).tolist()
        candidate = Candidate(tuple(zip(x, y, strict=True)))
        found[candidate] = space.factors(candidate)
    return list(found.values())
