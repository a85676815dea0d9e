"""What a model's rope parameters say of the lengths it takes."""

from __future__ import annotations

from typing import Any

from ropewalk.identity import base_scheme

LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def rope_schemes(model: Any) -> list[dict[str, Any]]:
    """The rope parameters of a model, one dict a scheme (models with several layer types may have several)."""
    base = base_scheme(model)
    nested = [value for value in base.values() if isinstance(value, dict)]
    return nested or [base]


def has_length_dependent_rope(model: Any) -> bool:
    """True if the model chooses its frequencies from the sequence length (dynamic NTK, longrope)."""
    return any(scheme.get("rope_type") in LENGTH_DEPENDENT_ROPE for scheme in rope_schemes(model))


def longest_input(model: Any) -> int | None:
    """Tokens the model takes; None if its config does not say.

    Dynamic NTK gives the length before its extension, and YaRN may do so.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not limit:
        return None
    return max(_extended(scheme, int(limit)) for scheme in rope_schemes(model))


def _extended(scheme: dict[str, Any], limit: int) -> int:
    factor = float(scheme.get("factor") or 1.0)
    if scheme.get("rope_type") == "dynamic":
        return int(limit * factor)
    if scheme.get("rope_type") == "yarn":
        return max(limit, int((scheme.get("original_max_position_embeddings") or 0) * factor))
    return limit
