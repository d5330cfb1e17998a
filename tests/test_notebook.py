"""The notebook of examples/ runs as it stands, says what is stored in it, and is small."""

import json
import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "port_your_network.ipynb"


def said(notebook):
    """What its cells print; rounding is another machine's matter."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    lines = "".join(output.text for output in outputs if output.output_type == "stream").splitlines()
    return [line for line in lines if "float" not in line and not line.startswith("loss ")]


def test_what_it_shows_is_stored():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 300_000
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "the networks are the same: all 10 checks are within their budgets" in said(notebook)
    assert '"image/png"' in json.dumps(notebook)
    assert "Error" not in "".join(said(notebook))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_runs(tmp_path, monkeypatch):
    for package in ("torch", "jax", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = said(notebook)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert said(notebook) == stored
