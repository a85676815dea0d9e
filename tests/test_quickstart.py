"""examples/quickstart.ipynb runs from start to end on the demo's model, and is kept without outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from doc_blocks import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
LIMIT = 600  # seconds that a cell may take on a slow machine


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_every_cell_runs(demo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    assert demo_path.is_dir()
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "HF_HUB_OFFLINE": "1"})
    said = "".join(str(cell.get("outputs")) for cell in notebook.cells)
    assert "on the search records" in said
    assert "image/svg+xml" in said
    assert (tmp_path / "factors.json").exists()
