"""The notebooks of examples/ run as they stand, say what is stored in them, and are small."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
FINDINGS = {
    "port_your_network": ["the networks are the same: all 10 checks are within their budgets"],
    "fine_tune": [
        "known by code: run against theirs.py:Net",
        "on 2 devices: data=2",
        "going on after step 40 of 80",
        "best.safetensors -> tuned.pt: 14 tensors, verified",
        "All keys matched",
    ],
    "compare_frameworks": [
        "SAME: The networks are the same: every layer is within its budget, in every pass.",
        "departs first: the upsampling uses half-pixel corners instead of align_corners.",
        "jax is equivalent to torch within 0.02 of mean IoU",
    ],
}
MEASURED = re.compile(r"[-+]?\d+\.\d+(e[-+]\d+)?|\d+e[-+]\d+|\d+ (s|min)\b|(?<=after step )\d+(?=:)")
"""Rounding and time, which are another machine's matter, and which validation was the best."""
notebooks = pytest.mark.parametrize("name", FINDINGS)


def stored(name):
    return nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)


def said(notebook):
    """What its cells print, without breaks of lines."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return " ".join("".join(output.text for output in outputs if output.output_type == "stream").split())


def comparable(notebook):
    return MEASURED.sub("0", said(notebook)).split()


@notebooks
def test_what_it_shows_is_stored(name):
    notebook = stored(name)
    nbformat.validate(notebook)
    assert (ROOT / "examples" / f"{name}.ipynb").stat().st_size < 300_000
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert [finding for finding in FINDINGS[name] if finding not in said(notebook)] == []
    assert '"image/png"' in json.dumps(notebook)
    assert "Error" not in said(notebook)


@notebooks
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_runs(name, tmp_path, monkeypatch):
    for package in ("torch", "jax", "matplotlib", "scipy"):
        pytest.importorskip(package)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = stored(name)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert comparable(notebook) == comparable(stored(name))


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        ("+0.0002 [-0.0030, +0.0027], p = 0.0026", "-0.0000 [-0.0050, +0.0052], p = 1.3e-02", True),
        ("after 48 s; best after step 70: run", "after 2 min; best after step 80: run", True),
        ("14 of 14 tensors", "13 of 14 tensors", False),
        ("jax is equivalent", "jax is different", False),
        ("going on after step 40 of 80", "going on after step 0 of 80", False),
    ],
)
def test_only_what_is_measured_may_differ(here, there, same):
    outputs = [nbformat.v4.new_output("stream", text=text) for text in (here, there)]
    one, other = (nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]) for output in outputs)
    assert (comparable(one) == comparable(other)) is same
