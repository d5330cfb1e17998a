"""Bad input: one clear line that names the file and the cause, exit code 2, and nothing written."""

import os
import resource
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors

from unet_cli.main import main
from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

import unet_jax
import unet_torch
from unet_jax import checkpoint as orbax
from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch


def state_dict():
    return {key: as_torch(value) for key, value in trained_tensors(TINY).items()}


def pt(path):
    torch_file.write(path, Checkpoint(TINY, trained_tensors(TINY)))


@pytest.mark.parametrize("metadata", [None, 3, {"unet_twins": None}, {"unet_twins": {"record": 3}}])
def test_odd_metadata_is_no_record(tmp_path, metadata):
    state = OrderedDict(state_dict())
    state._metadata = metadata
    torch.save(state, tmp_path / "a.pt")
    assert not torch_file.read(tmp_path / "a.pt").config_stored


def test_a_negative_counter_is_not_written_for_jax(tmp_path, capsys):
    tensors = trained_tensors(TINY) | {"up1.conv.1.num_batches_tracked": np.array(-1, np.int64)}
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, tensors))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a"), "--no-verify"]) == 2
    assert "up1.conv.1.num_batches_tracked is -1; JAX counts from 0" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("name", few(["b.pt", "b.safetensors", "b"], "b.pt"))
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, capfd, name):
    """A limit on file sizes stands in for the full disk."""
    config = UNetConfig(features=(32, 64))
    torch_file.write(tmp_path / "a.pt", Checkpoint(config, trained_tensors(config)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        code = main(["convert", str(tmp_path / "a.pt"), str(tmp_path / name), "--no-verify"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capfd.readouterr().err
    assert code == 2
    assert said.count("\n") == 1, said
    assert "not written" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_an_orbax_directory_is_read_and_written_without_a_stray_line(tmp_path):
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, trained_tensors(TINY)))
    code = (
        "from unet_cli.main import main\n"
        "assert main(['convert', 'a.pt', 'a', '--no-verify']) == main(['inspect', 'a']) == 0"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


def test_unreadable_file(tmp_path, capsys, monkeypatch):
    pt(tmp_path / "a.pt")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    assert main(["inspect", str(tmp_path / "a.pt")]) == 2
    assert "permission denied" in capsys.readouterr().err


TARGETS = {
    "an existing file": ("b.pt", lambda path: path.write_text("mine"), [], "exists already"),
    "an existing directory": ("b", lambda path: path.mkdir(), [], "exists already"),
    "a directory that is no checkpoint": (
        "b",
        lambda path: path.mkdir(),
        ["--force"],
        "is a directory of something else",
    ),
    "a link": ("b.pt", lambda path: path.symlink_to("elsewhere.pt"), ["--force"], "is a link or a special file"),
    "a missing folder": ("no/b.pt", lambda path: None, [], "does not exist; make it first"),
    "an unknown suffix": ("b.onnx", lambda path: None, [], "unknown suffix .onnx"),
    "a name too long": (f"{'b' * 300}.pt", lambda path: None, [], "file name too long"),
}


@pytest.mark.parametrize(("name", "make", "options", "message"), TARGETS.values(), ids=TARGETS)
def test_a_target_that_may_not_be_written(tmp_path, capfd, name, make, options, message):
    pt(tmp_path / "a.pt")
    make(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / name), "--no-verify", *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["b.pt", "b.safetensors", "b"])
def test_force_replaces_a_checkpoint(tmp_path, name):
    pt(tmp_path / "a.pt")
    (orbax if name == "b" else torch_file).write(tmp_path / name, Checkpoint(TINY, trained_tensors(TINY, seed=1)))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / name), "--no-verify", "--force"]) == 0
    read = {"b.pt": torch_file, "b.safetensors": safetensors_file, "b": orbax}[name].read
    assert np.array_equal(read(tmp_path / name).tensors["out.bias"], trained_tensors(TINY)["out.bias"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt", name}


def test_a_twin_names_the_tool_for_the_others_files(tmp_path):
    orbax.write(tmp_path / "a", Checkpoint(TINY, trained_tensors(TINY)))
    with pytest.raises(CheckpointError, match="unet convert"):
        unet_torch.load(tmp_path / "a")
    model = unet_jax.UNet.from_config(TINY, rngs=0)
    with pytest.raises(CheckpointError, match="unet convert"):
        unet_jax.save(model, tmp_path / "b.pt")


def test_jax_opens_a_file_of_torchs(tmp_path):
    pt(tmp_path / "a.pt")
    found = orbax.to_checkpoint(unet_jax.load(tmp_path / "a.pt")).tensors
    assert all(np.array_equal(found[key], value) for key, value in trained_tensors(TINY).items())
