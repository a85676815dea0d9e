"""The model card: README.md with the hub's metadata, the factors, the test, their origin, how to use and undo."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ropewalk.export.parts import evidence
from ropewalk.export.parts.picture import picture_names
from ropewalk.export.parts.source import BASE_README
from ropewalk.factors import ScalingFactors
from ropewalk.modelling_file import MODELING

Json = Mapping[str, Any]
Kind = Literal["checkpoint", "remote-code"]
TAGS = ("ropewalk", "rope", "long-context", "lost-in-the-middle")
TAKEN_OVER = ("license", "license_name", "license_link", "language", "pipeline_tag")  # from the source's own card
ROW = 8  # layers in a row of the table of factors


def model_card(
    kind: Kind,
    factors: ScalingFactors,
    test: Sequence[Json],
    *,
    base_model: str | None,
    source_card: Path | None,
    gguf_sha256: str | None = None,
    scheme: str | None = None,
) -> str:
    """The card of an export, as Markdown with YAML front matter.

    factors: with the model that they are for. base_model: the original's hub id. source_card: the original's card.
    gguf_sha256: digest of the GGUF file that the weights were read from. scheme: the base rope scheme that the export
    has in place of the original's, in words; None: it has the original's.
    """
    name = base_model or str(factors.model["name"])
    parts = [
        _metadata(base_model, source_card),
        f"# {name} with a rotary scaling factor for every layer",
        f"The weights are those of {_link(base_model, name)}{_as_read(gguf_sha256)}. In each layer the rotary position "
        "is divided by a factor of the layer's own, `rope_layer_factors` in `config.json`. Nothing was trained.",
        *_scheme(scheme),
        *_use(kind),
        *_test(test),
        "## Factors",
        *(f"![Scaling factors by layer]({picture})" for picture in picture_names(test)),
        "\n".join(factor_table(factors)),
        "## Where they come from",
        "\n".join(origin(factors)),
        *_undo(kind, base_model, scheme),
        *_licence(source_card, name),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(base_model: str | None, source_card: Path | None) -> str:
    from huggingface_hub import ModelCardData

    taken = {key: value for key, value in _source_metadata(source_card).items() if key in TAKEN_OVER}
    fields = {"pipeline_tag": "text-generation"} | taken | {"library_name": "transformers", "tags": list(TAGS)}
    if base_model:
        fields["base_model"] = base_model
    return f"---\n{ModelCardData(**fields).to_yaml(line_break=chr(10)).rstrip()}\n---"


def _source_metadata(card: Path | None) -> Json:
    """The front matter of the source's card; empty if it has none, or one that can't be read."""
    from huggingface_hub.repocard import metadata_load

    if card is None:
        return {}
    try:
        return metadata_load(card) or {}
    except Exception:  # YAML that somebody wrote by hand: without it the card lacks a licence, and says so
        return {}


def _link(base_model: str | None, name: str) -> str:
    return f"[{base_model}](https://huggingface.co/{base_model})" if base_model else name


def _as_read(gguf_sha256: str | None) -> str:
    if gguf_sha256 is None:
        return ", to the bit"
    return f" as a GGUF file held them (SHA-256 `{gguf_sha256}`), dequantised"


def _scheme(scheme: str | None) -> Iterator[str]:
    if scheme is not None:
        yield (
            f"**The base rope scheme is not the original's: {scheme}.** It stands in `config.json`, so nothing has to "
            "be said to load it; the factors multiply it."
        )


def _use(kind: Kind) -> Iterator[str]:
    yield "## Use"
    if kind == "remote-code":
        yield (
            f"With plain transformers: `{MODELING}` applies the factors, and runs only where you trust it. Read it, it "
            "is short.\n\n"
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("path-or-hub-id", trust_remote_code=True)\n'
            'tokenizer = AutoTokenizer.from_pretrained("path-or-hub-id")\n```'
        )
    yield (
        "With ropewalk:\n\n```python\nfrom ropewalk import load_pretrained\n\n"
        'model, tokenizer = load_pretrained("path-or-hub-id")\n```'
    )
    yield (
        "With vLLM, in an environment where ropewalk is installed: its plugin reads the factors.\n\n"
        "```sh\nvllm serve path-or-hub-id\n```"
    )
    without = "without `trust_remote_code=True`" if kind == "remote-code" else "alone"
    yield (
        f"**Elsewhere the factors are ignored, silently.** Plain transformers {without}, and any engine that does not "
        "know `rope_layer_factors`, loads this folder without a word and gives the original model's answers."
    )


def _test(test: Sequence[Json]) -> Iterator[str]:
    if not test:
        return
    yield "## Test"
    yield "On records that the search has not seen, with and without the factors."
    for block in test:
        yield f"**{evidence.title(block)}**"
        yield "\n".join(evidence.table(block, "with factors"))
        yield str(block["sentence"])
        yield from block.get("short_texts", [])


def factor_table(factors: ScalingFactors) -> Iterator[str]:
    """All of them, a row for every eight layers."""
    width = min(ROW, factors.num_layers)
    yield "| layers |" + " |" * width
    yield "|---|" + "---|" * width
    for start in range(0, factors.num_layers, width):
        row = factors.values[start : start + width]
        cells = ["–" if value is None else f"{value:.6g}" for value in row] + [""] * (width - len(row))
        yield f"| {start}–{start + len(row) - 1} | {' | '.join(cells)} |"
    yield ""
    yield "A factor s means position / s: 1 is the model as trained, – a layer without rotary position."


def origin(factors: ScalingFactors) -> Iterator[str]:
    """Model, search and digest as a list; the factors have to name their model."""
    found, model = factors.found, factors.model
    shape = f"{model['model_type']}, {model['num_layers']} layers"
    yield f"- Model: {model['name']} ({shape}), fingerprint `{model['fingerprint']}`"
    yield f"- Rope parameters that they multiply: `{json.dumps(factors.base)}`"
    for label, text in (
        ("Searched on", _task(found)),
        ("Method", _method(found.get("method"))),
        ("Seed", _seed(found)),
        ("Candidate·prompt evaluations", _text(found.get("evaluations"))),
        ("Versions", _versions(found.get("versions"))),
        ("Made for", _text(dict(found.get("made_for") or {}).get("name"))),
    ):
        if text:
            yield f"- {label}: {text}"
    yield f"- Digest of `factors.json`, which holds all of it: `{factors.digest}`"


def _task(found: Json) -> str:
    given = found.get("tasks") or ([found["task"]] if found.get("task") else [])
    tasks = given if isinstance(given, list) else [given]
    return "; ".join(filter(None, (_settings(task) for task in tasks)))


def _settings(task: Any) -> str:
    """A task with its main settings: what was asked for may lie one level deeper."""
    if not isinstance(task, Mapping):
        return _text(task)
    deeper = task.get("task")
    inner = deeper if isinstance(deeper, Mapping) else task
    shown = {
        key: inner[key] for key in ("keys", "documents", "lengths", "positions", "limit") if inner.get(key) is not None
    }
    return ", ".join([str(inner.get("task", "")), *(f"{key} {value}" for key, value in shown.items())]).strip(", ")


def _method(method: Any) -> str:
    return str(method.get("method", "")) if isinstance(method, Mapping) else _text(method)


def _seed(found: Json) -> str:
    method = found.get("method")
    own = method.get("seed") if isinstance(method, Mapping) else None
    return _text(found.get("seed") if own is None else own)


def _versions(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return ""
    return ", ".join(f"{name} {versions[name]}" for name in ("ropewalk", "torch", "transformers") if name in versions)


def _text(value: Any) -> str:
    is_nothing = value is None or (isinstance(value, float) and not math.isfinite(value))
    return "" if is_nothing else f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def _undo(kind: Kind, base_model: str | None, scheme: str | None) -> Iterator[str]:
    yield "## Undo"
    original = f"load {base_model}" if base_model else "load the original"
    if scheme is not None:
        yield (
            f"To get the model as trained, {original}: this folder has another base rope scheme. `load_pretrained(…, "
            "apply_factors=False)` gives that scheme without the factors, and so does `ropewalk.remove(model)` in a "
            "running program."
        )
        return
    plain = ", or this one without `trust_remote_code`" if kind == "remote-code" else ""
    yield (
        f"To get the model as trained, {original}{plain}, or say `load_pretrained(…, apply_factors=False)`. In a "
        "running program `ropewalk.remove(model)` gives the original outputs back, to the bit."
    )


def _licence(source_card: Path | None, name: str) -> Iterator[str]:
    if source_card is not None:
        yield f"The card of the original is kept in [{BASE_README}]({BASE_README})."
    if "license" not in _source_metadata(source_card):
        yield f"The licence is that of {name}."
