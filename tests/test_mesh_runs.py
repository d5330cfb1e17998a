"""Runs over a mesh: their states are on no devices, so that they go on, and convert, anywhere."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import validations
from safetensors.numpy import load_file

from unet_cli.main import main
from unet_core.checkpoints.checkpoint import digest
from unet_core.training.history import read_history

pytest.importorskip("jax")
pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

import unet_jax.checkpoint
from conversion import convert
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.training.run import read_run_config
from unet_jax.training.state_folder import training_item

RECIPE = ("--backend", "jax", "--features", "8", "16", "--steps", "4", "--batch", "8", "--crop", "16", "--ema", "0.9")
OFTEN = ("--precision", "float64", "--save-every", "2", "--validate-every", "4")
BOUND = 1e-9


def on_eight(*arguments):
    """`unet train` in a process with eight devices."""
    return subprocess.run(
        [sys.executable, "-m", "unet_cli", "train", *map(str, arguments)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def on_one(*arguments):
    assert main(["train", *map(str, arguments)]) == 0


@pytest.fixture(scope="module")
def split(cells, tmp_path_factory):
    """The state after two steps on eight devices, parameters split over all."""
    path = tmp_path_factory.mktemp("split") / "run"
    done = on_eight("--data", cells, "--out", path, *RECIPE, *OFTEN, "--mesh", "fsdp=8", "--until", "2")
    assert done.returncode == 0, done.stderr
    assert "on 8 devices: data=1, fsdp=8, space=1" in done.stdout
    return path


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    """The same training on one device, to its end."""
    path = tmp_path_factory.mktemp("whole") / "run"
    on_one("--data", cells, "--out", path, *RECIPE, *OFTEN)
    return path


def distance(run, other):
    """Of losses and best networks, as a part of the largest entry of each array."""
    ours, theirs = (
        {
            **load_file(path / "best.safetensors"),
            "losses": np.array([entry["loss"] for entry in steps(path)]),
            "validations": validations(path),
        }
        for path in (run, other)
    )
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[key] - theirs[key]).max() / np.abs(theirs[key]).max()) for key in ours)


def steps(run):
    return [entry for entry in read_history(run / "history.jsonl") if "loss" in entry]


@pytest.mark.slow
def test_a_state_of_eight_devices_goes_on_on_one(split, whole, tmp_path):
    shutil.copytree(split, tmp_path / "run")
    on_one("--resume", "--out", tmp_path / "run")
    assert distance(tmp_path / "run", whole) < BOUND


@pytest.mark.slow
def test_a_state_of_eight_devices_converts_without_them(split, tmp_path):
    """To a .pt file, bit for bit; and the run to PyTorch. Every array has the digest that was stored for it."""
    pytest.importorskip("torch")
    import unet_torch.checkpoint

    state = split / "states/2"
    convert(state, tmp_path / "net.pt", verify=False)
    ours, theirs = unet_jax.checkpoint.read(state).tensors, unet_torch.checkpoint.read(tmp_path / "net.pt").tensors
    assert {key: digest(value) for key, value in ours.items()} == {key: digest(value) for key, value in theirs.items()}
    record = json.loads((state / "digests/metadata").read_text())
    assert record["sha256"] == {name: digest(value) for name, value in training_item(state, 2).items()}
    convert(split, tmp_path / "moved", to="torch", verify=False)
    assert read_run_config(tmp_path / "moved").switches == ((2, "jax"),)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data=8", "data=2,fsdp=2,space=2", "fsdp=4,space=2"])
def test_a_state_of_one_device_goes_on_on_eight(mesh, cells, whole, tmp_path):
    run = tmp_path / "run"
    on_one("--data", cells, "--out", run, *RECIPE, *OFTEN, "--until", "2")
    done = on_eight("--resume", "--out", run, "--mesh", mesh)
    assert done.returncode == 0, done.stderr
    assert "on 8 devices: " in done.stdout
    assert distance(run, whole) < BOUND


@pytest.mark.slow
def test_another_step_would_be_seen(split, whole, tmp_path):
    """The control: a resumed training that has lost its moments ends elsewhere."""
    shutil.copytree(split, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/states")
    on_one("--resume", "--out", tmp_path / "run", "--steps", "2")
    assert abs(steps(tmp_path / "run")[-1]["loss"] - steps(whole)[-1]["loss"]) > BOUND


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mesh", "fsdp=2"), "--mesh fsdp=2: is of 2 devices, and JAX has 1; give sizes that make 1"),
        (("--mesh", "fsdp"), "--mesh fsdp: give each of data, fsdp, space once at most, as data=4,fsdp=2,space=1"),
        (("--mesh", "data=1", "--backend", "torch"), "--mesh is for --backend jax"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(options, message, cells, tmp_path, capsys):
    arguments = ["train", "--data", str(cells), "--out", str(tmp_path / "run"), *RECIPE, *options]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"unet: {message}\n"
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_shared_are_refused_before_anything_is_written(cells, tmp_path, capsys, monkeypatch):
    from jax.sharding import AbstractMesh

    import unet_jax.training.mesh

    monkeypatch.setattr(
        unet_jax.training.mesh, "device_mesh", lambda *_: AbstractMesh((1, 1, 3), unet_jax.training.mesh.AXES)
    )
    assert main(["train", "--data", str(cells), "--out", str(tmp_path / "run"), *RECIPE, "--mesh", "space=3"]) == 2
    assert "crop 16: the 3 devices of space cannot share its rows" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_tiles_of_a_large_picture_are_validated_on_several_devices(tmp_path):
    write_folder(Synthetic(count=2, size=1000), tmp_path / "data")
    recipe = ("--data", tmp_path / "data", *RECIPE, *OFTEN)
    on_one(*recipe, "--out", tmp_path / "one")
    done = on_eight(*recipe, "--out", tmp_path / "eight")
    assert done.returncode == 0, done.stderr
    assert distance(tmp_path / "eight", tmp_path / "one") < BOUND
