"""One training over meshes of eight simulated devices: the numbers are one device's, the memory is a part of it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unet_core.errors import ConfigError
from unet_core.training.train_config import TrainConfig

jax = pytest.importorskip("jax")

from jax.sharding import AbstractMesh, PartitionSpec

from unet_jax.training import mesh as meshes

BOUND = 1e-9
"""The largest difference, as a part of the largest entry of the array that it is in."""
SEEN = 1e-6
"""What every control is beyond."""
JOBS = {
    "one": {},
    "all": {"mesh": "data=2,fsdp=2,space=2"},
    "space, other forms": {"mesh": "data=2,space=4", "forms": "default", "then": "fsdp=8"},
    "space": {"mesh": "data=2,space=4"},
    "data": {"mesh": "data=8", "forms": "default"},  # a CPU's form makes each device compute for all of them
    "fsdp": {"mesh": "data=4,fsdp=2", "forms": "default"},
    "fsdp of all": {"mesh": "fsdp=8", "forms": "default", "then": "data=1,fsdp=4,space=2"},
    "parts": {"mesh": "data=4,fsdp=2", "parts": 8, "forms": "default"},
    "parts on one": {"parts": 8},
    "strips": {"forms": "strips"},
}
QUICK = TrainConfig(
    features=(8, 16), batch=8, crop=32, precision="float64", ema=0.9
)  # 32 wide: kernels' gradients by rows
FULL = dataclasses.replace(QUICK, features=(8, 16, 32, 64, 128), crop=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What came of each job, all of a recipe's in one process."""
    made = {}

    def get(recipe, job):
        steps, jobs = (2, list(JOBS)[:2]) if recipe is QUICK else (20, list(JOBS))
        if recipe not in made:
            made[recipe] = out = tmp_path_factory.mktemp("meshes")
            given = json.dumps({"recipe": recipe.to_dict(), "steps": steps, "jobs": {job: JOBS[job] for job in jobs}})
            script = Path(__file__).with_name("on_devices.py")
            paths = os.pathsep.join((str(script.parents[1]), os.environ.get("PYTHONPATH", "")))
            done = subprocess.run(
                [sys.executable, script, given, out],
                env={**os.environ, "PYTHONPATH": paths},
                capture_output=True,
                text=True,
                timeout=3000,
            )
            assert done.returncode == 0, done.stderr
        with np.load(made[recipe] / f"{job}.npz") as found:
            return dict(found)

    return get


CASES = [pytest.param(QUICK, job, id=f"quick, {job}") for job in list(JOBS)[1:2]] + [
    pytest.param(FULL, job, id=f"full, {job}", marks=pytest.mark.long) for job in list(JOBS)[1:-3]
]


def distance(found, expected):
    """The largest difference of any array, as a part of its largest entry."""
    assert found.keys() == expected.keys()
    names = [name for name in expected if name not in ("bytes", "arguments")]
    return max(float(np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max()) for name in names)


@pytest.mark.parametrize(("recipe", "job"), CASES)
def test_a_mesh_trains_as_one_device_does(recipe, job, trained):
    """Losses, parameters, statistics, moments and average, by the forms of a CPU and of other platforms."""
    assert distance(trained(recipe, job), trained(recipe, "one")) < BOUND


@pytest.mark.long
def test_parts_of_a_batch_are_the_same_on_a_mesh(trained):
    """Whose devices have a part each."""
    found = trained(FULL, "parts")
    assert distance(found, trained(FULL, "parts on one")) < BOUND
    assert distance(found, trained(FULL, "one")) > SEEN, "the control: the whole batch's statistics"


@pytest.mark.long
def test_rows_without_their_neighbours_would_be_seen(trained):
    """The control: as if `space` exchanged nothing; the statistics alone are those of all pixels."""
    assert distance(trained(FULL, "strips"), trained(FULL, "one")) > SEEN


@pytest.mark.parametrize(
    ("recipe", "job", "parts"),
    [(QUICK, "all", 1.9), pytest.param(FULL, "fsdp of all", 7, marks=pytest.mark.long)],
)
def test_fsdp_leaves_each_device_its_part(recipe, job, parts, trained):
    """Of parameters, moments and average, as they lie there; of all that the program takes, as the compiler says."""
    found, whole = trained(recipe, job), trained(recipe, "one")
    assert len(found["bytes"]) == 8
    assert found["bytes"].max() * parts <= whole["bytes"].max()
    if recipe is FULL:
        assert found["arguments"] * parts <= whole["arguments"]
        assert (trained(FULL, "data")["bytes"] == whole["bytes"]).all(), "the control: data splits no parameters"


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 64, 128), (None, None, None, "fsdp")),
        ((1, 1, 64, 1), (None, None, "fsdp")),
        ((3, 3, 3, 6), ()),
        ((64,), ()),
        ((), ()),
    ],
)
def test_kernels_alone_are_split(shape, spec):
    mesh = AbstractMesh((1, 8, 1), meshes.AXES)
    assert meshes.of_state(mesh, jax.ShapeDtypeStruct(shape, np.float32)).spec == PartitionSpec(*spec)


def test_a_batch_is_split_over_all_axes():
    mesh = AbstractMesh((2, 2, 2), meshes.AXES)
    assert meshes.of_batch(mesh).spec == PartitionSpec(None, ("data", "fsdp"), "space")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("data=3", "--mesh data=3: is of 3 devices, and JAX has 8; give sizes that make 8"),
        ("fsdp=16", "--mesh fsdp=16: is of 16 devices, and JAX has 8"),
        ("space=3", "--mesh space=3: is of 6 devices, and JAX has 8"),
        ("data=2,fsdp=3", "--mesh data=2,fsdp=3: is of 6 devices"),
        ("data=8,data=1", "give each of data, fsdp, space once at most, as data=4,fsdp=2,space=1"),
        ("model=8", "--mesh model=8: give each of data, fsdp, space"),
        ("data=0", "--mesh data=0: give each of data, fsdp, space"),
        ("", "--mesh : give each of data, fsdp, space"),
        ("data=4,fsdp=2", "batch 4: is not divided by the 8 devices; give a multiple of 8"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes, message, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(ConfigError) as error:
        meshes.device_mesh(4, sizes)
    assert message in str(error.value)


@pytest.mark.parametrize(("crop", "space", "fits"), [(64, 4, True), (48, 4, False), (33, 2, False), (33, 1, True)])
def test_rows_that_cannot_be_shared_are_refused(crop, space, fits):
    """At the lowest level each device has whole rows."""
    recipe = dataclasses.replace(FULL, crop=crop)
    mesh = AbstractMesh((1, 1, space), meshes.AXES)
    if fits:
        meshes.check_rows(mesh, recipe, recipe.network(3, 2))
        return
    with pytest.raises(ConfigError, match=f"crop {crop}: the {space} devices of space .* a multiple of {16 * space}"):
        meshes.check_rows(mesh, recipe, recipe.network(3, 2))
