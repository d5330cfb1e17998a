"""A profile of some updates of a training: it is written, it is of the right ones, and it changes no number."""

import dataclasses
import gzip
import json
import logging
import re
from contextlib import contextmanager

import pytest
from conftest import mostly_torch
from safetensors.numpy import load_file

from conversion.training import train
from unet_core.training.profiling import WARM_UP, Profile
from unet_core.training.train_config import TrainConfig

pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

# JAX 0.12 warns so of its own type, inside its own C++: as an error, that would end the process.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type event_stats has no __module__:DeprecationWarning")

RECIPE = TrainConfig(features=(3, 4), steps=7, batch=2, crop=16, validate_every=7, save_every=7, log_every=3)


@contextmanager
def messages():
    """What is logged of profiles."""
    said, logger = [], logging.getLogger("unet_core.training.profiling")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def trained(backend, path, data, recipe=RECIPE, **options):
    with messages() as said:
        train(path, backend=backend, data=data, recipe=recipe, **options)
    return said


def made(path):
    """What a run has found, and what it is gone on with by."""
    tensors = load_file(path / "best.safetensors")
    config, history = ((path / name).read_bytes() for name in ("config.json", "history.jsonl"))
    return config, history, {name: array.tobytes() for name, array in tensors.items()}


def updates(path, backend):
    """The numbers of the updates that a profile is of, in the order of time."""
    if backend == "jax":
        from jax.profiler import ProfileData

        (file,) = (path / "profile").glob("plugins/profile/*/*.xplane.pb")
        lines = (line for plane in ProfileData.from_file(str(file)).planes for line in plane.lines)
        steps = [event for line in lines for event in line.events if event.name == "train"]
        return [dict(event.stats)["step_num"] for event in sorted(steps, key=lambda event: event.start_ns)]
    (file,) = (path / "profile").glob("*.pt.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [event for event in events if re.fullmatch(r"ProfilerStep#\d+", event.get("name", ""))]
    return [int(event["name"].split("#")[1]) for event in sorted(steps, key=lambda event: event["ts"])]


@mostly_torch
def test_a_profile_changes_no_number(backend, cells, tmp_path):
    """And is no part of what a run is gone on with by."""
    with_one, without = tmp_path / "with", tmp_path / "without"
    assert trained(backend, with_one, cells, profile=2) == [
        f"the profile of updates 4 to 5 is in {with_one / 'profile'}"
    ]
    assert trained(backend, without, cells) == []
    assert made(with_one) == made(without)
    assert updates(with_one, backend) == [4, 5]
    assert not (without / "profile").exists()


@mostly_torch
def test_a_run_goes_on_with_another_profile_or_none(backend, cells, tmp_path):
    """The updates that each process makes first are left out."""
    run = tmp_path / "run"
    assert trained(backend, run, cells, profile=2, until=2) == [
        f"nothing was profiled: the first {WARM_UP} updates are left out, and 2 were made"
    ]
    assert trained(backend, run, cells, resume=True, profile=9) == [
        f"the profile of updates 6 to 7 is in {run / 'profile'}"
    ]
    assert updates(run, backend) == [6, 7]
    trained(backend, tmp_path / "whole", cells)
    assert made(run) == made(tmp_path / "whole")
    trained(backend, tmp_path / "other", cells, dataclasses.replace(RECIPE, seed=1))
    assert all(one != other for one, other in zip(made(run), made(tmp_path / "other"), strict=True))


@mostly_torch
def test_a_training_goes_on_without_the_profile_that_cannot_be_written(backend, cells, tmp_path):
    run = tmp_path / "run"
    trained(backend, run, cells, until=1)
    (run / "profile").write_text("in the way")
    (line,) = trained(backend, run, cells, resume=True, profile=1)
    assert line.startswith(f"{run / 'profile'}: no profile: ")
    assert (run / "best.safetensors").exists()


class Recorded:
    """A profiler that notes what it is asked for."""

    def __init__(self, fails=""):
        self.asked, self.fails = [], fails

    def ask(self, what):
        self.asked.append(what)
        if self.fails == what:
            raise RuntimeError("no space\nwith details")

    def start(self, folder):
        self.ask("start")

    def stop(self):
        self.ask("stop")

    @contextmanager
    def update(self, number):
        self.ask(number)
        yield


def profiled(folder, steps, start, end, profiler):
    with messages() as said, Profile(steps, folder, profiler) as profile:
        for step in range(start, end):
            with profile.update(step):
                pass
    return said


@pytest.mark.parametrize(
    ("steps", "start", "end", "asked", "said"),
    [
        (2, 0, 9, ["start", 4, 5, "stop"], "the profile of updates 4 to 5 is in"),
        (2, 100, 109, ["start", 104, 105, "stop"], "the profile of updates 104 to 105 is in"),
        (5, 0, 5, ["start", 4, 5, "stop"], "the profile of updates 4 to 5 is in"),
        (1, 0, 3, [], "nothing was profiled: the first 3 updates are left out, and 3 were made"),
        (1, 0, 0, [], "nothing was profiled: the first 3 updates are left out, and 0 were made"),
        (None, 0, 9, [], None),
    ],
)
def test_which_updates_are_profiled(steps, start, end, asked, said, tmp_path):
    profiler = Recorded()
    lines = profiled(tmp_path / "profile", steps, start, end, profiler)
    assert profiler.asked == asked
    assert [line.startswith(said) for line in lines] == [True] * (said is not None)


@pytest.mark.parametrize(("fails", "asked"), [("start", ["start"]), ("stop", ["start", 4, "stop"])])
def test_a_profiler_that_fails_is_given_up(fails, asked, tmp_path):
    profiler = Recorded(fails)
    lines = profiled(tmp_path / "profile", 1, 0, 9, profiler)
    assert profiler.asked == asked
    assert lines == [f"{tmp_path / 'profile'}: no profile: no space"]


def test_a_profile_is_closed_where_the_training_fails(tmp_path):
    profiler = Recorded()
    profile = Profile(5, tmp_path / "profile", profiler)

    def fail():
        with profile:
            for step in range(5):
                with profile.update(step):
                    if step == 3:
                        raise ValueError("the training's")

    with messages() as said, pytest.raises(ValueError, match="the training's"):
        fail()
    assert profiler.asked == ["start", 4, "stop"]
    assert said == [f"the profile of no whole update is in {tmp_path / 'profile'}"]
