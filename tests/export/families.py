"""The families and rope schemes whose exports are run, each as a small model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from ropewalk import ScalingFactors
from tiny import tiny_model

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
