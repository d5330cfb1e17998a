"""What version 0.7.0 wrote still opens: `tests/data/0.7.0.tar.xz` holds checkpoints, certificates and runs of it."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import few

from unet_cli.main import main
from unet_core.training.history import read_history

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp

import unet_jax
import unet_torch


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with what 0.7.0 wrote."""
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(Path(__file__).parent / "data" / "0.7.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def answer(written):
    """A picture, NCHW, and what the network of the checkpoints made of it in float64."""
    with np.load(written / "answer.npz") as arrays:
        return arrays["input"], arrays["output"]


@pytest.mark.parametrize("name", ["options.pt", "options.safetensors"])
def test_a_checkpoint_opens_in_torch(written, answer, name):
    x, expected = answer
    with torch.no_grad():
        found = unet_torch.load(written / name)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", few(["options_jax", "options.safetensors"], "options_jax"))
def test_a_checkpoint_opens_in_jax(written, answer, name):
    x, expected = answer
    found = jax.jit(unet_jax.load(written / name).__call__)(jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(np.asarray(found).transpose(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["options_jax", "options.safetensors"])
def test_a_certificate_is_confirmed(written, capsys, name):
    assert main(["verify", "--certificate", str(written / f"{name}.certificate.json")]) == 0
    assert "options.pt" in capsys.readouterr().out


@pytest.mark.parametrize("backend", few(["torch", "jax"], "torch"))
def test_a_run_goes_on(written, backend):
    run = written / f"run_{backend}"
    assert main(["train", "--resume", "--out", str(run)]) == 0
    losses = [record["loss"] for record in read_history(run / "history.jsonl") if "loss" in record]
    # What 0.7.0 itself got in steps 3 and 4 of this run.
    np.testing.assert_allclose(losses[-2:], [0.730582058429718, 0.6996115446090698], rtol=1e-5)
