"""Bad input: one clear line that names the file and the cause, exit code 2, and nothing written."""

import os
import pickle
import shutil
import subprocess
import sys
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
from conftest import TINY, trained_tensors

from unet_cli.main import main
from unet_core import CheckpointError, UNetConfig, safetensors_file
from unet_core.checkpoint import Checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from unet_jax import checkpoint as orbax
from unet_torch import checkpoint as torch_file
from unet_torch.hub import as_torch


def state_dict():
    return {key: as_torch(value) for key, value in trained_tensors(TINY).items()}


def torch_saved(change):
    def make(path):
        state = state_dict()
        torch.save(change(state) or state, path)

    return make


def remove(*keys):
    return torch_saved(lambda state: [state.pop(key) for key in keys] and None)


def cut(make, keep):
    def damaged(path):
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])

    return damaged


def pt(path):
    torch_file.write(path, Checkpoint(TINY, trained_tensors(TINY)))


def safetensors(path):
    safetensors_file.write(path, Checkpoint(TINY, trained_tensors(TINY)))


def orbax_without(name):
    def make(path):
        orbax.write(path, Checkpoint(TINY, trained_tensors(TINY)))
        target = path / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return make


def rezipped(path, compression, twice=False):
    pt(path)
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, data in members + members[:1] * twice:
            archive.writestr(name, data)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


CASES = {
    "nothing there": ("a.pt", lambda path: None, "no such file"),
    "a directory named .pt": ("a.pt", lambda path: path.mkdir(), "is a directory, not a PyTorch file"),
    "a directory that is no checkpoint": ("a", lambda path: path.mkdir(), "no Orbax checkpoint"),
    "a text file named .pt": ("a.pt", lambda path: path.write_text("hello"), "not a PyTorch file"),
    "a text file named .safetensors": (
        "a.safetensors",
        lambda path: path.write_text("hello"),
        "not a sound safetensors",
    ),
    "a pickle named .safetensors": ("a.safetensors", torch_saved(lambda state: None), "not a sound safetensors"),
    "an empty .pt": ("a.pt", lambda path: path.touch(), "empty"),
    "an empty .safetensors": ("a.safetensors", lambda path: path.touch(), "empty"),
    "a .pt cut in the middle": ("a.pt", cut(pt, 0.5), "not a PyTorch file, or one that was cut short"),
    "a .pt one byte short": ("a.pt", cut(pt, -1), "not a PyTorch file, or one that was cut short"),
    "a .safetensors cut in the middle": ("a.safetensors", cut(safetensors, 0.5), "not a sound safetensors"),
    "a .safetensors one byte short": ("a.safetensors", cut(safetensors, -1), "not a sound safetensors"),
    "an unknown suffix": ("a.onnx", lambda path: path.write_text("x"), "unknown suffix .onnx"),
    "a file without a suffix": ("a", lambda path: path.write_text("x"), "does not tell what it is"),
    "a FIFO": ("a.pt", os.mkfifo, "not a regular file"),
    "a missing key": ("a.pt", remove("up1.conv.4.bias"), "missing: up1.conv.4.bias"),
    "several missing keys": (
        "a.pt",
        remove("down1.conv.0.weight", "out.bias", "bottom.conv.3.weight"),
        "missing: down1.conv.0.weight, bottom.conv.3.weight, out.bias",
    ),
    "extra keys": (
        "a.pt",
        torch_saved(lambda state: state.update(head=torch.zeros(1), tail=torch.zeros(1))),
        "not of this network: head, tail",
    ),
    "misshaped keys": (
        "a.pt",
        torch_saved(lambda state: state.update({"up1.conv.0.weight": torch.zeros(4, 10, 5, 5)})),
        "wrong shape: up1.conv.0.weight is 4x10x5x5, not 4x10x3x3",
    ),
    "another network": (
        "a.pt",
        torch_saved(lambda state: {"fc.weight": torch.zeros(3, 3)}),
        "not the tensors of this UNet",
    ),
    "complex weights": (
        "a.pt",
        torch_saved(lambda state: state.update({"out.bias": torch.zeros(2, dtype=torch.complex64)})),
        "no dense tensors of real numbers: out.bias",
    ),
    "integer weights": (
        "a.pt",
        torch_saved(lambda state: state.update({"out.bias": torch.zeros(2, dtype=torch.int32)})),
        "wrong dtype: out.bias is int32",
    ),
    "sparse weights": (
        "a.pt",
        torch_saved(lambda state: state.update({"out.bias": torch.zeros(2).to_sparse()})),
        "no dense tensors",
    ),
    "float8 weights": (
        "a.pt",
        torch_saved(lambda state: state.update({"out.bias": torch.zeros(2).to(torch.float8_e4m3fn)})),
        "no dense tensors of real numbers: out.bias",
    ),
    "tensors that claim more than the file holds": (
        "a.pt",
        torch_saved(lambda state: {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}),
        "claim more numbers than the file holds: down1.conv.0.weight",
    ),
    "a compressed zip": (
        "a.pt",
        lambda path: rezipped(path, zipfile.ZIP_DEFLATED),
        "members compressed or stored twice",
    ),
    "a member twice": (
        "a.pt",
        lambda path: rezipped(path, zipfile.ZIP_STORED, twice=True),
        "compressed or stored twice",
    ),
    "a training checkpoint": (
        "a.pt",
        torch_saved(lambda state: {"state_dict": state, "epoch": 3}),
        "not a plain state_dict: state_dict (a dict), epoch (a int) are no tensors",
    ),
    "a list": ("a.pt", torch_saved(lambda state: [torch.zeros(1)]), "holds a list, not a state_dict"),
    "an empty dict": ("a.pt", lambda path: torch.save({}, path), "holds an empty dict"),
    "a pickled module": (
        "a.pt",
        lambda path: torch.save(torch.nn.Linear(1, 1), path),
        "Python objects beside tensors, which are never run",
    ),
    "a pickled Namespace": (
        "a.pt",
        torch_saved(lambda state: {**state, "args": Namespace(lr=1)}),
        "Python objects beside tensors, which are never run",
    ),
    "code in the zip": ("a.pt", lambda path: torch.save(Evil(), path), "never run"),
    "a raw pickle": ("a.pt", lambda path: path.write_bytes(pickle.dumps(Evil())), "not a PyTorch file"),
    "an Orbax directory without metadata": ("a", orbax_without("_CHECKPOINT_METADATA"), "no Orbax checkpoint"),
    "an Orbax directory without its state": ("a", orbax_without("state"), "no Orbax checkpoint"),
    "an Orbax directory without its arrays": ("a", orbax_without("state/manifest.ocdbt"), "not a sound Orbax"),
    "an Orbax directory without its payload": ("a", orbax_without("state/d"), "not a sound Orbax"),
}


@pytest.mark.parametrize("command", ["convert", "inspect"])
@pytest.mark.parametrize(("name", "make", "message"), CASES.values(), ids=CASES)
def test_one_line_exit_code_2_and_nothing_written(tmp_path, monkeypatch, capfd, command, name, make, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    make(path)
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    assert main([command, str(path), *([str(tmp_path / "b.safetensors")] if command == "convert" else [])]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(path) in err
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_mutated_files_load_whole_or_are_refused(tmp_path, name):
    path = tmp_path / name
    module = torch_file if name == "a.pt" else safetensors_file
    module.write(path, Checkpoint(TINY, trained_tensors(TINY)))
    pristine, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(pristine)
        for place in rng.integers(len(data), size=rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            found = module.read(path)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017  (either outcome is right)
        else:
            assert all(value.tobytes() == found.tensors[key].tobytes() for key, value in trained_tensors(TINY).items())


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


@pytest.mark.parametrize("name", ["b.pt", "b.safetensors", "b"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, name):
    """A limit on file sizes stands in for the full disk."""
    config = UNetConfig(features=(32, 64))
    torch_file.write(tmp_path / "a.pt", Checkpoint(config, trained_tensors(config)))
    code = (
        "import resource, sys; from unet_cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); sys.exit(main(sys.argv[1:]))"
    )
    command = ["convert", str(tmp_path / "a.pt"), str(tmp_path / name), "--no-verify"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "not written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_an_orbax_directory_is_read_and_written_without_a_stray_line(tmp_path):
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, trained_tensors(TINY)))
    for command in (["convert", "a.pt", "a", "--no-verify"], ["inspect", "a"]):
        done = subprocess.run(
            [sys.executable, "-m", "unet_cli.main", *command], capture_output=True, text=True, cwd=tmp_path
        )
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
        "is a directory but no checkpoint",
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


@pytest.mark.parametrize("twin", ["unet_torch", "unet_jax"])
def test_a_twin_names_the_tool_for_the_others_files(tmp_path, twin):
    pt(tmp_path / "a.pt")
    orbax.write(tmp_path / "a", Checkpoint(TINY, trained_tensors(TINY)))
    path = tmp_path / ("a" if twin == "unet_torch" else "a.pt")
    with pytest.raises(CheckpointError, match="unet convert"):
        pytest.importorskip(twin).load(path)
