"""What part of the devices' peak a training uses: operations of the graph by time and peak, where the peak is known."""

import re
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import mostly_torch

from conversion.training import train
from unet_core.graph.family import graph
from unet_core.graph.summary import operations
from unet_core.training import peaks, recorder
from unet_core.training.history import read_history
from unet_core.training.opening import Job, open_run
from unet_core.training.peaks import PEAKS, Peak, peak
from unet_core.training.train_config import TrainConfig

pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

RECIPE = TrainConfig(
    features=(3, 4), steps=5, batch=2, accumulate=2, crop=16, validate_every=5, save_every=5, log_every=2
)
SECONDS = 2
"""Between two looks at the clock."""


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by so much each time that the recorder looks at it."""
    times = iter(range(0, 10**6, SECONDS))
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: next(times)))


def plant(monkeypatch, tflops):
    """A figure for the CPU, which has none."""
    monkeypatch.setattr(peaks, "PEAKS", {**PEAKS, "cpu": Peak(tflops)})


def trained(backend, path, data, **options):
    told = []
    train(
        path,
        backend=backend,
        data=data,
        recipe=RECIPE,
        progress=lambda line, _: told.append(line),
        **options,
    )
    return [line for line in told if line.startswith("step")]


def steps(path):
    return [entry for entry in read_history(path / "history.jsonl") if "loss" in entry]


def without(entries):
    return [{name: value for name, value in entry.items() if name != "mfu"} for entry in entries]


@mostly_torch
def test_the_figure_is_operations_over_time_and_peak(backend, cells, tmp_path, monkeypatch, clock):
    """In the line of the last step of those that it is of; without a peak there is neither key nor word."""
    trained(backend, tmp_path / "none", cells)
    plant(monkeypatch, 1e-6)
    told = trained(backend, tmp_path / "run", cells)
    with open_run(tmp_path / "run", Job(backend, RECIPE, str(cells), resume=True)) as run:
        network = graph(run.start.config)
    update = 2 * 2 * operations(network, 1, (16, 16), training=True)
    assert 2 < update / (2 * 2 * operations(network, 1, (16, 16))) < 3  # the picture has no gradient
    entries = steps(tmp_path / "run")
    expected = {2: 2 * update / SECONDS / 1e6, 4: 2 * update / SECONDS / 1e6, 5: update / SECONDS / 1e6}
    assert {entry["step"]: entry["mfu"] for entry in entries if "mfu" in entry} == pytest.approx(expected, rel=1e-12)
    found = {int(re.match(r"step (\d+)", line)[1]): line for line in told}
    assert all(f", MFU {part:.1%}, " in found[step] for step, part in expected.items())
    assert without(entries) == steps(tmp_path / "none")


@mostly_torch
def test_a_cpu_has_no_figure(backend, cells, tmp_path):
    told = trained(backend, tmp_path / "run", cells)
    assert not any("MFU" in line for line in told)
    assert all(set(entry) == {"step", "loss", "norm", "rate"} for entry in steps(tmp_path / "run"))


@mostly_torch
def test_a_run_goes_on_where_the_peak_is_not_known(backend, cells, tmp_path, monkeypatch, clock):
    with monkeypatch.context() as there:
        plant(there, 1e-6)
        trained(backend, tmp_path / "run", cells, until=3)
    before = (tmp_path / "run/history.jsonl").read_bytes()
    trained(backend, tmp_path / "run", cells, resume=True)
    assert (tmp_path / "run/history.jsonl").read_bytes().startswith(before)
    entries = steps(tmp_path / "run")
    assert [entry["step"] for entry in entries if "mfu" in entry] == [2, 3]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("device", "precision", "tf32", "tflops"),
    [
        ("TPU v5 lite", "bfloat16", True, 197),
        ("TPU v5 lite", "float32", True, 197),
        ("TPU v3", "bfloat16", True, 61.5),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", False, 312),
        ("NVIDIA A100-SXM4-80GB", "float32", True, 156),
        ("NVIDIA A100-SXM4-80GB", "float32", False, 19.5),
        ("NVIDIA A100-SXM4-80GB", "float64", False, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", False, None),
        ("NVIDIA H100 80GB HBM3", "bfloat16", True, 989.4),
        ("Tesla T4", "float32", True, 8.1),
        ("Tesla T4", "bfloat16", True, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "float32", True, None),
        ("cpu", "float32", True, None),
    ],
)
def test_peaks_are_of_a_device_and_a_precision(device, precision, tf32, tflops):
    assert peak(device, precision, tf32=tf32) == (None if tflops is None else tflops * 1e12)


def test_the_peaks_of_all_devices_are_added_up():
    jax = pytest.importorskip("jax")
    from unet_jax.training.mesh import peak_of

    eight = Mock(jax.sharding.Mesh, size=8, devices=np.array([SimpleNamespace(device_kind="TPU v4")] * 8))
    assert peak_of(eight, "bfloat16") == 8 * 275e12
    eight.devices = np.array([SimpleNamespace(device_kind="TPU of tomorrow")] * 8)
    assert peak_of(eight, "bfloat16") is None


def test_the_peaks_of_all_processes_are_added_up(monkeypatch):
    torch = pytest.importorskip("torch")
    from unet_torch.training.processes import Processes

    plant(monkeypatch, 3)
    assert Processes(torch.device("cpu"), 1, 4).peak("float32") == 4 * 3e12
    assert Processes(torch.device("cpu"), 1, 4).peak("bfloat16") is None
