"""Training in JAX on several hosts, each a process of its own here: the numbers are one host's, however it ends."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import validations
from safetensors.numpy import load_file
from test_mesh_runs import BOUND, RECIPE, on_one, steps

from unet_cli.main import main
from unet_core.errors import RunError

pytest.importorskip("jax")
pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

from packed import packed

import unet_jax.checkpoint
from unet_jax.training import hosts as module
from unet_jax.training.hosts import started
from unet_jax.training.state_folder import training_item

OFTEN = ("--precision", "float64", "--save-every", "2", "--validate-every", "2", "--schedule", "plateau")
LONG = (
    *("--backend", "jax", "--features", "4", "8", "--steps", "60", "--batch", "8", "--crop", "16"),
    *("--precision", "float64", "--save-every", "5", "--validate-every", "60"),
)
NOTICED = 30
"""Seconds in which the others end."""


class Together:
    """`unet train` on several hosts with some devices each; they find each other on a free port.

    The second one may get more arguments than the others; `program` is how Python runs the command.
    """

    def __init__(self, folder, count, devices, *arguments, second=(), program=("-m", "unet_cli")):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        self.said = [folder / f"said.{index}" for index in range(count)]
        self.hosts = []
        for index, said in enumerate(self.said):
            command = [sys.executable, *program, "train", *map(str, arguments)]
            command += ["--hosts", str(count), "--host", str(index), "--coordinator", place]
            command += map(str, second if index == 1 else ())
            with said.open("w") as file:
                self.hosts.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for host in self.hosts:
            host.kill()
            host.wait()

    def codes(self, timeout=300):
        """Of all hosts, once they have ended."""
        until = time.monotonic() + timeout
        return [host.wait(max(until - time.monotonic(), 0)) for host in self.hosts]

    def text(self, index):
        """What a host has said, without the notes of the libraries."""
        lines = self.said[index].read_text().splitlines()
        return "\n".join(line for line in lines if not line.startswith(("[Gloo]", "W", "E", "I")))


def trained(folder, count, devices, *arguments):
    """Train to the end on several hosts."""
    folder.mkdir(exist_ok=True)
    with Together(folder, count, devices, *arguments) as together:
        assert together.codes() == [0] * count, [together.text(index) for index in range(count)]
        return together.text(0)


def arrays(run):
    """History, best network, and the newest state, whatever devices it was written by."""
    step = max(int(path.name) for path in (run / "states").iterdir())
    state = run / "states" / str(step)
    history = np.array([[entry["loss"], entry["norm"], entry["rate"]] for entry in steps(run)])
    network, training = unet_jax.checkpoint.read(state).tensors, training_item(state, step)
    judged = {"history": history, "validations": validations(run)}
    return {**judged, **load_file(run / "best.safetensors"), **network, **training}


def distance(run, other):
    ours, theirs = arrays(run), arrays(other)
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[key] - theirs[key]).max() / max(np.abs(theirs[key]).max(), 1e-300)) for key in ours)


def flip(state):
    """One bit in the middle of an array's first part."""
    packed(state, "slots.mu.bottom.conv.0.weight", "training").flip(0.5)


def spoil(state):
    """The digest of the second part of an array, which the second of two hosts alone reads."""
    file = state / "digests/metadata"
    record = json.loads(file.read_text())
    split = next(stored for stored in record["sha256"].values() if isinstance(stored, dict))
    split["sha256"][1] = "0" * 64
    file.write_text(json.dumps(record))


def swap(state):
    """The digests of the two parts of an array, which the storage's own checksums do not cover."""
    file = state / "digests/metadata"
    record = json.loads(file.read_text())
    split = next(stored for stored in record["sha256"].values() if isinstance(stored, dict))
    split["sha256"].reverse()
    file.write_text(json.dumps(record))


def saved(run, step, together, timeout=120):
    """Wait until the state of a step, or a later one, is there."""
    until = time.monotonic() + timeout
    while not any(path.name.isdecimal() and int(path.name) >= step for path in (run / "states").glob("*")):
        assert time.monotonic() < until, [together.text(index) for index in range(len(together.hosts))]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def two(cells, tmp_path_factory):
    """The states after the first steps on two hosts, parameters split between them."""
    folder = tmp_path_factory.mktemp("two")
    said = trained(folder, 2, 1, "--data", cells, "--out", folder / "run", *RECIPE, *OFTEN, "--mesh", "fsdp=2")
    assert "on 2 devices of 2 hosts: data=1, fsdp=2, space=1" in said
    return folder / "run"


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    """The same training in one process."""
    path = tmp_path_factory.mktemp("whole") / "run"
    on_one("--data", cells, "--out", path, *RECIPE, *OFTEN)
    return path


def test_two_hosts_train_as_one_does(two, whole):
    assert distance(two, whole) < BOUND


@pytest.mark.slow
def test_another_batch_would_be_seen(cells, whole, tmp_path):
    """The control."""
    run = tmp_path / "run"
    on_one("--data", cells, "--out", run, *RECIPE, *OFTEN, "--seed", "1")
    assert abs(steps(run)[0]["loss"] - steps(whole)[0]["loss"]) > BOUND


def test_a_state_of_two_hosts_holds_the_digests_of_their_parts(two):
    record = unet_jax.checkpoint.read(two / "states/4")
    assert record.digests_stored
    text = (two / "states/4/digests/metadata").read_text()
    assert text.count('"axis"') == sum(array.ndim == 4 for array in training_item(two / "states/4", 4).values())


@pytest.mark.parametrize("damage", [flip, pytest.param(swap, marks=pytest.mark.slow)])
def test_a_damaged_part_of_an_array_is_seen_and_one_host_goes_on(damage, two, whole, tmp_path, capsys):
    """From the state of two hosts before it."""
    run = tmp_path / "run"
    shutil.copytree(two, run)
    damage(run / "states/4")
    on_one("--resume", "--out", run)
    said = capsys.readouterr().out
    assert f"{run / 'states/4'} is damaged and passed over" in said
    assert "going on after step 2 of 4" in said
    assert distance(run, whole) < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, swap, spoil])
def test_a_state_damaged_for_one_host_is_passed_over_by_all(damage, two, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    damage(run / "states/4")
    said = trained(tmp_path, 2, 1, "--resume", "--out", run, "--mesh", "fsdp=2")
    assert f"{run / 'states/4'} is damaged and passed over" in said
    assert distance(run, whole) < BOUND


@pytest.mark.parametrize(
    ("count", "devices", "mesh"),
    [
        pytest.param(2, 1, "space=2", marks=pytest.mark.slow),
        pytest.param(2, 4, "space=2", marks=pytest.mark.long),
        pytest.param(4, 1, "data=2,fsdp=2", marks=pytest.mark.long),
    ],
)
def test_a_state_of_one_host_goes_on_on_several(count, devices, mesh, cells, whole, tmp_path):
    run = tmp_path / "run"
    on_one("--data", cells, "--out", run, *RECIPE, *OFTEN, "--until", "2")
    trained(tmp_path, count, devices, "--resume", "--out", run, "--mesh", mesh)
    assert distance(run, whole) < BOUND


@pytest.fixture(scope="module")
def undisturbed(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    on_one("--data", cells, "--out", path, *LONG)
    return path


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(
    ("number", "code", "index", "count", "devices"),
    [
        pytest.param(signal.SIGTERM, 0, 1, 1, 1, marks=pytest.mark.slow, id="SIGTERM, half"),
        pytest.param(signal.SIGTERM, 0, 0, 2, 2, marks=pytest.mark.long, id="SIGTERM, twice"),
        pytest.param(signal.SIGINT, 130, 0, 2, 2, marks=pytest.mark.long, id="SIGINT, twice"),
        pytest.param(signal.SIGINT, 130, 1, 1, 1, marks=pytest.mark.long, id="SIGINT, half"),
    ],
)
def test_a_signal_to_one_host_stops_all_at_the_same_step(
    number, code, index, count, devices, cells, undisturbed, tmp_path
):
    """And half as many devices, or twice as many, go on as if nothing had happened."""
    run = tmp_path / "run"
    with Together(tmp_path, 2, 1, "--data", cells, "--out", run, *LONG) as together:
        saved(run, 5, together)
        together.hosts[index].send_signal(number)
        codes = together.codes(timeout=60)
        assert codes[1] == 0
        assert codes[0] == (code if index == 0 else 0)
        said = together.text(0)
    made = len(steps(run))
    assert made < 60
    assert f"after step {made} of 60; the state is saved: go on with --resume" in said
    assert (run / "states" / str(made)).is_dir()
    trained(tmp_path, count, devices, "--resume", "--out", run) if count > 1 else on_one("--resume", "--out", run)
    assert distance(run, undisturbed) < BOUND


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed else pytest.mark.slow) for seed in range(10)]
)
def test_the_others_of_a_host_that_was_killed_end_and_say_which(seed, cells, undisturbed, tmp_path):
    """At random, in whatever it was doing; the restart goes on."""
    rng = np.random.default_rng(seed)
    run, index = tmp_path / "run", int(rng.integers(2))
    with Together(tmp_path, 2, 1, "--data", cells, "--out", run, *LONG) as together:
        saved(run, int(rng.integers(1, 45)), together)
        time.sleep(float(rng.random()))
        if together.hosts[index].poll() is None:
            together.hosts[index].kill()
            begun = time.monotonic()
            other = together.hosts[1 - index].wait(NOTICED)
            assert time.monotonic() - begun < NOTICED
            assert other == 2
            said = together.text(1 - index).splitlines()[-1]
            assert said.startswith(f"unet: host {index} (")
            assert said.endswith(f"process {together.hosts[index].pid}) has ended; go on with --resume")
    trained(tmp_path, 2, 1, "--resume", "--out", run)
    assert distance(run, undisturbed) < BOUND


def listening(process):
    """The addresses at which a process listens, as the kernel has them."""
    sockets = set()
    for number in Path(f"/proc/{process}/fd").glob("*"):
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(number))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            place, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(place)
    return found


@pytest.mark.slow
def test_strangers_at_every_door_of_a_training_do_not_matter(cells, undisturbed, tmp_path):
    """Whatever the first host listens at, for as long as it trains: the watch, JAX's service, gloo."""
    run, seen, strangers = tmp_path / "run", set(), []
    with Together(tmp_path, 2, 1, "--data", cells, "--out", run, *LONG) as together:
        while together.hosts[0].poll() is None:
            with contextlib.suppress(OSError):
                for place in listening(together.hosts[0].pid):
                    seen.add(place)
                    stranger = socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2], 16)), timeout=1)
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(100))
                    strangers.append(stranger)
            if len(strangers) > 200:
                strangers.pop(0).close()
            time.sleep(0.01)
        assert together.codes() == [0, 0], [together.text(index) for index in range(2)]
    for stranger in strangers:
        stranger.close()
    assert seen
    assert not any(place.startswith(("00000000:", f"{0:032x}:")) for place in seen), "every interface"
    assert distance(run, undisturbed) < BOUND


@pytest.mark.slow
def test_a_host_that_fails_ends_the_others_and_says_why(two, tmp_path):
    """It is asked to go on with another recipe than the run's."""
    run = tmp_path / "run"
    shutil.copytree(two, run)
    arguments = ("--resume", "--out", run)
    with Together(tmp_path, 2, 1, *arguments, second=("--crop", "32")) as together:
        assert together.codes(timeout=60) == [2, 2]
        why = f"{run}: this run was started with another --crop; leave that out, or train into a new folder"
        assert together.text(1).splitlines()[-1] == f"unet: {why}"
        said = together.text(0).splitlines()[-1]
        assert said.startswith("unet: host 1 (")
        assert f"has ended: {why[:150]}" in said


@pytest.mark.long
@pytest.mark.parametrize(("count", "devices"), [(2, 4), (4, 2)])
@pytest.mark.parametrize("mesh", ["data=8", "data=4,fsdp=2", "data=2,space=4"])
def test_twenty_steps_on_several_hosts_are_those_of_one(count, devices, mesh, cells, tmp_path):
    recipe = ("--backend", "jax", "--features", "8", "16", "32", "64", "128", "--batch", "8", "--crop", "64")
    recipe += ("--steps", "20", "--precision", "float64", "--ema", "0.9", "--validate-every", "20", "--validation", "2")
    on_one("--data", cells, "--out", tmp_path / "one", *recipe)
    trained(tmp_path, count, devices, "--data", cells, "--out", tmp_path / "run", *recipe, "--mesh", mesh)
    assert distance(tmp_path / "run", tmp_path / "one") < BOUND


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hosts", "2"), "--hosts 2: needs --host, the number of this one, and --coordinator NAME:PORT"),
        (("--hosts", "0"), "--hosts 0: give a whole number from 1 up"),
        (("--host", "1"), "--host and --coordinator: are for --hosts 2 and more; give all three, or none"),
        (("--hosts", "2", "--host", "2", "--coordinator", "a:1"), "--host 2: give a number from 0 to 1"),
        (
            ("--hosts", "2", "--host", "0", "--coordinator", "node1"),
            "--coordinator node1: give the first host's name and a free port of it, as node1:8476",
        ),
        (("--hosts", "2", "--backend", "torch"), "--hosts is for --backend jax"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(options, message, cells, tmp_path, capsys):
    assert main(["train", "--data", str(cells), "--out", str(tmp_path / "run"), *RECIPE, *options]) == 2
    assert capsys.readouterr().err == f"unet: {message}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NODELIST": "node[1-4]", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NODELIST": "node1", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "4"}, False),  # a batch script's own process is no task of a step
    ],
)
def test_slurm_says_whether_there_are_several(variables, several, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    begun = []
    monkeypatch.setattr(module.jax.distributed, "initialize", lambda *given, **_: begun.append(given))
    with started() as hosts:
        assert hosts.count == 1
    assert begun == ([(None, None, None)] if several else [])
    with started(1) as hosts:
        assert hosts.count == 1
    assert len(begun) == several


def test_hosts_that_do_not_find_each_other_are_an_error_of_one_line(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED: barrier timed out\nmore")

    monkeypatch.setattr(module.jax.distributed, "initialize", fail)
    with (
        pytest.raises(RunError, match=r"^the hosts do not find each other: .*timed out; start all of them within"),
        started(2, 1, "node1:8476"),
    ):
        pass


@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_host_whose_others_do_not_come_ends_with_one_line(index):
    """JAX itself would abort."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    script = f"""
import unet_jax.training.hosts
unet_jax.training.hosts._START = 1
with unet_jax.training.hosts.started(2, {index}, "{place}"):
    pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    advice = "start all of them within 1 seconds, or give --hosts 1 to train on this one alone"
    assert done.stderr.splitlines()[-1] == f"unet: the hosts are not all there: {advice}"
