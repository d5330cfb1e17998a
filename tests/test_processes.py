"""Training in PyTorch in several processes, as torchrun starts them: the numbers are one process's, and JAX's."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import validations
from safetensors.numpy import load_file

from unet_core.config import UNetConfig
from unet_core.errors import ConfigError, RunError
from unet_core.training.history import read_history
from unet_core.training.settings import Loss
from unet_core.training.train_config import TrainConfig

torch = pytest.importorskip("torch")
pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

from conversion.training import train
from unet_torch.training.normalisation import GlobalBatchNorm
from unet_torch.training.processes import Processes

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 1e-9
"""The largest difference, as a part of the largest entry of the array that it is in."""
SEEN = 1e-6
"""What every control is beyond."""
CPU = torch.device("cpu")
# Class weights and Dice are no means over parts of a batch; two batches make one update.
RECIPE = TrainConfig(
    features=(4, 6, 8),
    batch=4,
    accumulate=2,
    crop=16,
    steps=20,
    precision="float64",
    ema=0.9,
    validation=2,
    validate_every=20,
    save_every=10,
    loss=Loss("cross-entropy+dice", (1.0, 3.0)),
)
OPTIONS = (
    *("--features", "4", "6", "8", "--batch", "4", "--accumulate", "2", "--crop", "16", "--steps", "20"),
    *("--precision", "float64", "--ema", "0.9", "--validation", "2", "--validate-every", "20", "--save-every", "10"),
    *("--loss", "cross-entropy+dice", "--class-weights", "1", "3"),
)


def command(*arguments):
    """`unet train` in two processes; `--standalone` finds a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "-m", "unet_cli", "train", *map(str, arguments)]


def in_two(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=300)


def distance(run, other):
    """Of losses, norms and best networks."""
    ours, theirs = (
        {
            **load_file(path / "best.safetensors"),
            "steps": np.array([[entry["loss"], entry["norm"]] for entry in steps(path)]),
            "validations": validations(path),
        }
        for path in (run, other)
    )
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[key] - theirs[key]).max() / np.abs(theirs[key]).max()) for key in ours)


def steps(run):
    return [entry for entry in read_history(run / "history.jsonl") if "loss" in entry]


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    """The training in one process of a framework, or in two, by the parts of the batch; each is made once."""
    made = {}

    def get(how, parts=1):
        if (how, parts) not in made:
            made[how, parts] = path = tmp_path_factory.mktemp("processes") / "run"
            if how == "two":
                options = (*OPTIONS, "--norm-parts", str(parts))
                done = in_two("--backend", "torch", "--data", cells, "--out", path, *options)
                assert done.returncode == 0, done.stderr
                assert done.stdout.count("20 steps; best mean IoU") == 1, "one of the two tells"
            else:
                recipe = dataclasses.replace(RECIPE, norm_parts=parts)
                train(path, backend=how, data=cells, recipe=recipe)
        return made[how, parts]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2], ids=["whole batch", "parts"])
@pytest.mark.parametrize("other", ["torch", "jax"])
def test_two_processes_train_as_one_does(parts, other, trained):
    pytest.importorskip(other)
    assert distance(trained("two", parts), trained(other, parts)) < BOUND


@pytest.mark.slow
def test_other_statistics_would_be_seen(trained):
    """The control."""
    assert distance(trained("two", 1), trained("torch", 2)) > SEEN


@pytest.mark.parametrize(("read", "holds"), [([20, 20], True), ([20, 10], False), ([0, 20], False)])
def test_processes_that_read_different_states_do_not_train(read, holds, tmp_path, monkeypatch):
    """They would train different networks without a word."""
    monkeypatch.setattr(Processes, "gathered", lambda self, part: np.array(read))
    together = Processes(CPU, 0, 2)
    if holds:
        assert together.agreed(20, tmp_path) == 20
    else:
        with pytest.raises(RunError, match=r"different steps \(\d+, \d+\).*start them again"):
            together.agreed(20, tmp_path)


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(cells, trained, tmp_path):
    """A signal to the launcher saves the state; what it leaves is a run as any other."""
    run = tmp_path / "run"
    given = ("--backend", "torch", "--data", cells, "--out", run, *OPTIONS, "--steps", "4000", "--save-every", "5")
    process = subprocess.Popen(
        command(*given), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    for _ in range(6000):
        if list((run / "states").glob("*.pt")):
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0].decode()
    assert "stopped by SIGTERM after step" in said
    last = max(int(state.stem) for state in (run / "states").glob("*.pt"))
    assert f"after step {last} of 4000" in said
    recipe = dataclasses.replace(RECIPE, steps=last + 1, save_every=5)
    train(run, backend="torch", data=cells, recipe=recipe, resume=True)
    found, expected = (np.array([entry["loss"] for entry in steps(path)]) for path in (run, trained("torch")))
    common = min(len(found), len(expected))
    assert len(found) == last + 1
    assert np.abs(found[:common] - expected[:common]).max() < BOUND * np.abs(expected).max()


@pytest.mark.slow
def test_what_two_processes_cannot_train_is_refused(cells, tmp_path):
    done = in_two("--backend", "torch", "--data", cells, "--out", tmp_path / "run", *OPTIONS, "--batch", "3")
    assert done.returncode != 0
    assert "unet: batch 3: is not divided by the 2 processes; give a multiple of 2" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 6}, "batch 6: is not divided by the 4 processes; give a multiple of 4"),
        ({"batch": 8, "norm_parts": 2}, "norm_parts 2: the 4 processes do not divide them; give 1, or a multiple of 4"),
        ({"compile": True}, "--compile: is for one process; leave it out"),
    ],
)
def test_what_processes_cannot_share_is_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        Processes(CPU, 1, 4).check(dataclasses.replace(RECIPE, **changes), UNetConfig())
    assert str(error.value) == message


@pytest.mark.parametrize("recipe", [RECIPE, dataclasses.replace(RECIPE, batch=8, norm_parts=8)])
def test_what_processes_can_share_is_not(recipe):
    Processes(CPU, 1, 4).check(recipe, UNetConfig())


@pytest.fixture
def group():
    """Of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("training", [True, False])
def test_the_statistics_of_all_processes_are_torchs_own(training):
    """Answer, gradients and running statistics, where there is one process."""
    torch.manual_seed(0)
    theirs = torch.nn.BatchNorm2d(5).double().train(training)
    torch.nn.init.normal_(theirs.weight)
    twin = torch.nn.BatchNorm2d(5).double()
    twin.load_state_dict(theirs.state_dict())
    ours = GlobalBatchNorm(twin).train(training)
    x = 3 + 2 * torch.randn(2, 5, 4, 6, dtype=torch.float64)
    found = []
    for norm in (ours, theirs):
        given = x.clone().requires_grad_()
        y = norm(given)
        y.sin().sum().backward()
        found.append([y, given.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
