"""What the tests of exports share: small models in folders, and a process in which ropewalk can't be imported."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.export import export_target
from ropewalk.export.base import ExportPlan, Subject
from ropewalk.export.parts.writer import write_export

FACTORS = ScalingFactors([0.8, 1.0, 1.25, 1.1])
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# The first thing that such a process does; a package that were found all the same would end it.
HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ropewalk":
            raise ImportError("ropewalk is hidden from this process")

sys.meta_path.insert(0, Hidden())
try:
    import ropewalk
except ImportError:
    pass
else:
    raise SystemExit("ropewalk could be imported")
"""


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def load(folder: Path, **options: Any) -> tuple[Any, Any]:
    return load_pretrained(folder, **({"device": "cpu", "dtype": "float32"} | options))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(4, 40)[None]).logits


def with_tokenizer(model: Any, folder: Path, tiny_path: Path) -> Path:
    """A model's folder with the tiny checkpoint's tokenizer."""
    model.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(tiny_path / name, folder / name)
    return folder


def export(target: str, model: Any, factors: ScalingFactors, out: Path, **more: Any) -> ExportPlan:
    """Plan and write."""
    plan = export_target(target).plan(Subject(model, factors, **more), out)
    write_export(plan)
    return plan


def without_ropewalk(
    code: str, *arguments: object, cache: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that can't import ropewalk. cache: where transformers keeps modelling files."""
    command = [sys.executable, "-c", HIDDEN + code, *map(str, arguments)]
    environment = os.environ | {"HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As if the disk were full: no file may grow beyond `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
