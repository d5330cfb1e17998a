"""Training of networks that were read from code: alike in both frameworks, resumed exactly, moved between the two."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import mostly_torch
from graphs import network, small, unpadded

from unet_core.checkpoints.safetensors_file import read
from unet_core.config import UNetConfig
from unet_core.data.batches import Batch
from unet_core.errors import ConfigError, DataError
from unet_core.graph import Sizes
from unet_core.training.history import read_history
from unet_core.training.opening import Job, open_run
from unet_core.training.run import read_run_config
from unet_core.training.settings import Loss, Optimizer
from unet_core.training.state import difference, updated_shapes
from unet_core.training.train_config import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread_at_most")

BASE = TrainConfig(batch=4, crop=8, precision="float64", loss=Loss("cross-entropy+dice"))
RECIPES = {
    "adam, ema, accumulate": dataclasses.replace(BASE, ema=0.9, accumulate=2),
    "adamw, parts": dataclasses.replace(BASE, optimizer=Optimizer("adamw", weight_decay=0.1), norm_parts=2),
    "nesterov, clip": dataclasses.replace(BASE, optimizer=Optimizer("sgd", momentum=0.9, nesterov=True, clip=0.1)),
    "rmsprop": dataclasses.replace(BASE, optimizer=Optimizer("rmsprop", momentum=0.5)),
}
FIRST = next(iter(RECIPES))
"""The one that the quick tests try."""
RATE = 0.01


def batches(recipe, steps=3, channels=3, classes=2):
    rng = np.random.default_rng(0)
    shape = (recipe.batch * recipe.accumulate, recipe.crop, recipe.crop)
    for _ in range(steps):
        labels = rng.integers(classes, size=shape).astype(np.uint8)
        yield Batch(rng.random((*shape, channels), np.float32) + labels[..., None], labels)


class InTorch:
    """A training by the functions of the trainer in PyTorch."""

    def __init__(self, checkpoint, recipe):
        torch = pytest.importorskip("torch")
        from unet_torch.training import states, step

        self.checkpoint, self.recipe, self.states, self.step = checkpoint, recipe, states, step
        self.device, self.made = torch.device("cpu"), 0
        self.live = step.new_state(checkpoint, recipe, self.device)

    def run(self, given):
        update, values = self.step.updater(self.recipe, self.live), []
        for batch in given:
            placed, renewal = self.step.placed(batch, self.recipe, self.device), self.recipe.renewal(self.made)
            values.append(update(*placed, RATE, renewal, self.made).tolist())
            self.made += 1
        return values

    def canonical(self):
        return self.states.canonical_form(self.live.state_dict(self.made), self.checkpoint, self.recipe, "it")

    def back(self, state):
        self.live.load_state_dict(self.states.saved_form(state, self.recipe, RATE))
        self.made = state.step


class InJax:
    """The same in JAX."""

    def __init__(self, checkpoint, recipe):
        self.jax = pytest.importorskip("jax")
        from unet_jax.training import mesh, states, step

        self.checkpoint, self.recipe, self.states, self.step = checkpoint, recipe, states, step
        self.wide, self.made = recipe.precision == "float64", 0
        with self.jax.enable_x64(self.wide):
            self.mesh = mesh.mesh_of({"data": 1}, self.jax.devices()[:1])
            self.live = step.new_state(checkpoint, recipe, self.mesh)
            self.model = step.abstract_model(checkpoint, recipe)
            update = step.updater(recipe, self.model, self.mesh)
            self.update = step.compiled(update, self.live, recipe, self.mesh, checkpoint.config.in_channels)

    def run(self, given):
        values = []
        with self.jax.enable_x64(self.wide):
            for image, labels in self.step.placed(iter(given), self.recipe, self.mesh):
                controls = self.step.controls_of(RATE, self.recipe.renewal(self.made), self.mesh, self.made)
                self.live, value = self.update(self.live, image, labels, controls)
                values.append(value.tolist())
                self.made += 1
        return values

    def canonical(self):
        network = self.step.host_network(self.live.params, self.live.stats, self.checkpoint)
        return self.states.canonical_form(network, self.step.host_arrays(self.live), self.made, self.recipe, "it")

    def back(self, state):
        saved = self.states.saved_form(state, self.recipe)
        with self.jax.enable_x64(self.wide):
            self.live = self.step.new_state(state.network, self.recipe, self.mesh, saved)
        self.made = state.step


SIDES = {"torch": InTorch, "jax": InJax}


def apart(one, other):
    """How far the arrays of two states are, as a part of the largest number of each."""
    ours, theirs = one.arrays(), other.arrays()
    assert ours.keys() == theirs.keys()
    return max(
        float(np.abs(ours[name].astype(float) - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-30))
        for name in ours
    )


@pytest.mark.parametrize(
    "name", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in RECIPES if name != FIRST)]
)
def test_both_frameworks_make_the_same_updates(name):
    checkpoint, recipe = network(dtype=np.float64), RECIPES[name]
    sides = [SIDES[side](checkpoint, recipe) for side in ("torch", "jax")]
    found = [side.run(list(batches(recipe))) for side in sides]
    np.testing.assert_allclose(*found, rtol=1e-12)
    first, second = (side.canonical() for side in sides)
    assert apart(first, second) < 1e-10
    before = checkpoint.tensors
    assert int(first.network.tensors["down.1.num_batches_tracked"]) == (
        int(before["down.1.num_batches_tracked"]) + 3 * recipe.accumulate
    )
    for side in (first, second):  # weight decay is not for what has no gradient
        np.testing.assert_array_equal(side.network.tensors["unused.weight"], before["unused.weight"])
        np.testing.assert_array_equal(side.network.tensors["table"], before["table"])
        assert all(
            set(moments) == set(updated_shapes(checkpoint.config)) for moments in side.optimizer.moments.values()
        )
    changed = dataclasses.replace(recipe, norm_parts=4 if recipe.norm_parts == 2 else 2)
    control = SIDES["torch"](checkpoint, changed)
    control.run(list(batches(recipe)))
    assert apart(control.canonical(), first) > 1e-6


@pytest.mark.slow
def test_three_classes_with_a_softmax_behind(backend):
    graph = small(classes=3, output="softmax")
    side = SIDES[backend](network(graph, dtype=np.float64), BASE)
    found = side.run(list(batches(BASE, classes=3)))
    plain = SIDES[backend](network(small(classes=3), dtype=np.float64), BASE)
    np.testing.assert_array_equal(found, plain.run(list(batches(BASE, classes=3))))


@mostly_torch
@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_the_short_precisions_train(backend, precision):
    recipe = dataclasses.replace(BASE, precision=precision, remat=backend == "jax", ema=0.9)
    checkpoint = network(small(rate=0.3))
    side = SIDES[backend](checkpoint, recipe)
    losses = np.array(side.run(list(batches(recipe, 6))))
    assert np.isfinite(losses).all()
    found = side.canonical()
    assert {value.dtype for value in found.network.tensors.values()} == {np.dtype(np.float32), np.dtype(np.int64)}
    exact = SIDES[backend](network(small(rate=0.3), dtype=np.float64), dataclasses.replace(recipe, precision="float64"))
    assert abs(losses[0, 0] - exact.run(list(batches(recipe, 1)))[0][0]) < (1e-5 if precision == "float32" else 0.2)


# Chance


DROPPING = dataclasses.replace(BASE, precision="float32", accumulate=2, ema=0.9)


@mostly_torch
def test_a_resumed_training_drops_the_same(backend):
    checkpoint, given = network(small(rate=0.5)), list(batches(DROPPING, 4))
    whole = SIDES[backend](checkpoint, DROPPING)
    losses = whole.run(given)
    first = SIDES[backend](checkpoint, DROPPING)
    first.run(given[:2])
    second = SIDES[backend](checkpoint, DROPPING)
    second.back(first.canonical())
    assert second.run(given[2:]) == losses[2:]
    assert not difference(second.canonical(), whole.canonical())


@mostly_torch
def test_what_is_dropped_depends_on_the_step(backend):
    given, found = list(batches(DROPPING, 1)), {}
    for rate in (0.5, 0.0):
        for step in (0, 1, 0) if rate else (0, 1):
            side = SIDES[backend](network(small(rate=rate)), DROPPING)
            side.made = step
            found.setdefault((rate, step), []).append(side.run(given))
    assert found[0.5, 0][0] == found[0.5, 0][1] != found[0.5, 1][0]
    assert found[0.0, 0][0] == found[0.0, 1][0], "the control: nothing else depends on it"


@pytest.mark.slow
def test_what_is_dropped_depends_on_seed_and_part(backend):
    checkpoint, given = network(small(rate=0.5)), list(batches(DROPPING, 1))

    def losses(**changes):
        return SIDES[backend](checkpoint, dataclasses.replace(DROPPING, **changes)).run(given)

    assert losses() == losses() != losses(seed=1)
    half = Batch(*(part[: DROPPING.batch] for part in given[0]))
    given = [Batch(*(np.concatenate((part, part)) for part in half))]
    twice = losses()
    given = [half]
    assert losses(accumulate=1)[0][1] != twice[0][1], "the parts of an update drop otherwise"


# Runs


RECIPE = TrainConfig(
    steps=6,
    batch=2,
    crop=16,
    validation=2,
    validate_every=2,
    save_every=2,
    log_every=3,
    ema=0.9,
    accumulate=2,
    keep=2,
)


def train(backend, path, data, recipe, start=None, **options):
    from conversion.training import train

    pytest.importorskip("grain")
    train(path, backend=backend, data=data, recipe=recipe, **options)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A file with a network for pictures of one channel and masks of two classes, which drops maps."""
    from unet_core.checkpoints.safetensors_file import write

    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    write(path, network(small(channels=1, rate=0.3)))
    return path


def started(path, **changes):
    return dataclasses.replace(RECIPE, start=str(path), **changes)


@pytest.fixture(scope="module")
def whole(cells, start, tmp_path_factory):
    """An uninterrupted run in each framework, made once."""
    made = {}

    def get(backend):
        if backend not in made:
            path = tmp_path_factory.mktemp("whole") / backend
            train(backend, path, cells, started(start))
            made[backend] = path
        return made[backend]

    return get


def states_of(run):
    return sorted((run / "states").iterdir(), key=lambda path: int(path.stem))


@mostly_torch
def test_a_run_keeps_its_graph(backend, whole, start):
    run = whole(backend)
    best = read(run / "best.safetensors")
    assert best.config == read(start).config
    assert best.evidence == read(start).evidence
    assert np.abs(best.tensors["up.weight"] - read(start).tensors["up.weight"]).max() > 1e-4
    np.testing.assert_array_equal(best.tensors["table"], read(start).tensors["table"])
    found = read_history(run / "history.jsonl")
    assert [entry["step"] for entry in found if "validation" in entry] == [2, 4, 6]
    assert len([entry for entry in found if "loss" in entry]) == 6
    assert any((run / "tensorboard").iterdir())


@mostly_torch
@pytest.mark.parametrize("until", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not(backend, until, whole, cells, start, tmp_path, caplog):
    run = whole(backend)
    path = tmp_path / "run"
    caplog.set_level("INFO", "unet_core")
    train(backend, path, cells, started(start), until=until)
    assert caplog.messages[0].endswith(f"; {read(start).config.title}")
    train(backend, path, cells, started(start), resume=True)
    assert (path / "history.jsonl").read_bytes() == (run / "history.jsonl").read_bytes()
    one, other = (read(folder / "best.safetensors").tensors for folder in (path, run))
    assert all(value.tobytes() == other[name].tobytes() for name, value in one.items())


@pytest.mark.slow
def test_the_evaluation_of_several_classes_is_that_of_a_softmax(backend, cells, tmp_path):
    """Whatever the last node makes of the logits: the loss is that of a softmax."""
    from unet_core.checkpoints.safetensors_file import write

    evaluations = []
    for output in ("sigmoid", "logits"):
        write(tmp_path / f"{output}.safetensors", network(small(channels=1, output=output)))
        recipe = started(tmp_path / f"{output}.safetensors", steps=2)
        train(backend, tmp_path / output, cells, recipe)
        evaluations.append(read_history(tmp_path / output / "history.jsonl")[-1]["validation"])
    assert evaluations[0] == evaluations[1]


def untrained():
    return dataclasses.replace(small(channels=1), untrained="its training mode branches on values")


REFUSED = {
    "a size": (small(channels=1, sizes=Sizes(16, 32)), {}, "crop 16: the network takes multiples of 16 from 32 up"),
    "a multiple": (small(channels=1), {"crop": 17}, "crop 17: the network takes multiples of 2 from 4 up"),
    "unpadded": (
        unpadded(channels=1),
        {},
        "crop 16: the network answers 16x16 pixels with 14x14: that is no mask of the picture",
    ),
    "untrained": (untrained(), {}, "the network cannot be trained: its training mode branches on values"),
    "features": (small(channels=1), {"features": (4, 8)}, "--features: the network of --start has its own"),
    "classes": (small(channels=1, classes=5), {}, "its network has 5 output channels; the masks have 2 classes"),
    "one value": (
        small(channels=1, sizes=Sizes()),
        {"crop": 1, "batch": 1},
        "crop 1: leaves down.1 a single value of each channel",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(name, cells, tmp_path, backend):
    graph, changes, message = REFUSED[name]
    recipe = dataclasses.replace(RECIPE, start="start.pt", **changes)
    job = Job(backend, recipe, str(cells), network(graph))
    with pytest.raises(ConfigError) as error, open_run(tmp_path / "run", job):
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_pictures_that_it_does_not_take_are_named(cells, tmp_path, backend):
    graph = small(channels=1, sizes=Sizes(only=((16, 16), (32, 30))))
    job = Job(backend, RECIPE, str(cells), network(graph))
    with pytest.raises(DataError) as error, open_run(tmp_path / "run", job):
        pass
    why = "not to be validated on, for the network takes 16x16 or 32x30 alone: "
    assert str(error.value).startswith(f"{cells}: {why}")
    assert not (tmp_path / "run").exists()


def test_rows_are_not_shared_among_devices():
    pytest.importorskip("jax")
    from jax.sharding import AbstractMesh

    from unet_jax.training.mesh import AXES, check_rows

    with pytest.raises(ConfigError, match="--mesh space=2: rows are shared for networks of this project's family"):
        check_rows(AbstractMesh((1, 1, 2), AXES), BASE, small())
    check_rows(AbstractMesh((2, 2, 1), AXES), BASE, small())


def test_processes_share_no_statistics():
    torch = pytest.importorskip("torch")  # JAX has one program over all devices

    from unet_torch.training.processes import Processes

    several = Processes(torch.device("cpu"), 0, 2)
    with pytest.raises(ConfigError, match="norm_parts 1: several processes have no statistics of the whole batch"):
        several.check(BASE, small())
    several.check(dataclasses.replace(BASE, norm_parts=2), small())
    several.check(BASE, UNetConfig())
    norms = [node for node in small().nodes if node.operation == "batch_norm"]
    frozen = [
        dataclasses.replace(node, attributes={**node.attributes, "frozen": True}) if node in norms else node
        for node in small().nodes
    ]
    several.check(BASE, dataclasses.replace(small(), nodes=tuple(frozen)))


# Moving


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_state_goes_to_the_other_framework_and_back(backend):
    """Bit for bit, and the updates that follow are the same there."""
    recipe = RECIPES["adam, ema, accumulate"]
    checkpoint, given = network(dtype=np.float64), list(batches(recipe, 4))
    other = {"torch": "jax", "jax": "torch"}[backend]
    here, there, back = (SIDES[side](checkpoint, recipe) for side in (backend, other, backend))
    here.run(given[:2])
    state = here.canonical()
    there.back(state)
    assert not difference(there.canonical(), state)
    back.back(there.canonical())
    assert not difference(back.canonical(), state)
    np.testing.assert_allclose(there.run(given[2:]), here.run(given[2:]), rtol=1e-12)
    assert apart(there.canonical(), here.canonical()) < 1e-10
    halved = {
        name: {key: value / 2 for key, value in tensors.items()} for name, tensors in state.optimizer.moments.items()
    }
    back.back(dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, moments=halved)))
    back.run(given[2:])
    assert apart(back.canonical(), here.canonical()) > 1e-3, "the control: other moments"


@pytest.mark.parametrize("changed", [None, "recipe", pytest.param("moments", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_next_update_is_compared_without_chance(changed):
    """As the proof of a moved run does: what is dropped is drawn otherwise in the other framework."""
    from conversion.proof.updates import Continuation, compare, inputs_of, parted

    recipe = dataclasses.replace(RECIPES["adamw, parts"], ema=0.9, crop=80, precision="float32")
    checkpoint = network(small(rate=0.5))
    side = SIDES["torch"](checkpoint, dataclasses.replace(recipe, crop=8))
    side.run(list(batches(side.recipe, 2)))
    state = side.canonical()
    ours = Continuation("torch", recipe, 2, state, [], "it")
    theirs = dataclasses.replace(ours, framework="jax")
    assert inputs_of(ours)[0].shape == (2, 64, 64, 3)
    if changed == "recipe":
        optimizer = dataclasses.replace(recipe.optimizer, rate=1.0)
        theirs = dataclasses.replace(theirs, recipe=dataclasses.replace(recipe, optimizer=optimizer))
        assert "the recipes differ" in parted(ours, theirs).cause
        return
    if changed == "moments":
        moments = {name: {key: value * 2 for key, value in of.items()} for name, of in state.optimizer.moments.items()}
        other = dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, moments=moments))
        theirs = dataclasses.replace(theirs, state=other)
    checks, departure = compare(ours, theirs)
    assert (departure is None) == (changed is None)
    assert all(check.ok for check in checks) == (changed is None)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_run_is_moved_and_goes_on(backend, whole, cells, start, tmp_path):
    from conversion import convert
    from conversion.runs import read_run

    for name in ("torch", "jax"):
        pytest.importorskip(name)
    source = whole(backend)
    path = shutil.copytree(source, tmp_path / "run")
    remove(states_of(path)[-1])
    other = {"torch": "jax", "jax": "torch"}[backend]
    convert(path, tmp_path / "moved", to=other, verify=False)
    assert not difference(read_run(tmp_path / "moved").state, read_run(path).state)
    assert read_run_config(tmp_path / "moved").switches == ((4, backend),)
    train(other, tmp_path / "moved", cells, started(start), resume=True)
    assert read(tmp_path / "moved/best.safetensors").config == read(start).config
    entries = read_history(tmp_path / "moved/history.jsonl")
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4, 5, 6]


def remove(state):
    shutil.rmtree(state) if state.is_dir() else state.unlink()


def test_an_optax_state_over_the_network_is_filled_by_its_names():
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    import optax
    from flax import nnx

    from unet_core.training.state import OptimizerState
    from unet_jax.checkpoint import from_checkpoint
    from unet_jax.training.optimizer_state import fill, to_canonical

    checkpoint = network()
    optimizer = nnx.Optimizer(from_checkpoint(checkpoint), optax.adam(1e-3), wrt=nnx.Param)
    rng = np.random.default_rng(0)
    shapes = updated_shapes(checkpoint.config)
    moments = {
        name: {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
        for name in ("exp_avg", "exp_avg_sq")
    }
    filled, missing = fill(optimizer.opt_state, OptimizerState("adam", 7, moments), checkpoint.config)
    assert missing == []
    del moments["exp_avg"]["up.bias"]
    assert fill(optimizer.opt_state, OptimizerState("adam", 7, moments), checkpoint.config)[1] == ["up.bias"]
    found, left = to_canonical(filled, checkpoint.config)
    assert (found.step, left) == (7, {})
    for name, tensors in moments.items():
        for key, value in tensors.items():
            np.testing.assert_array_equal(found.moments[name][key], value)
        assert not found.moments[name]["unused.weight"].any()


# Several devices


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """The same updates on one device and on eight."""
    pytest.importorskip("jax")
    out = tmp_path_factory.mktemp("eight")
    recipe = dataclasses.replace(BASE, batch=8, ema=0.9, accumulate=2)
    jobs = {
        "one": {},
        "again": {},
        "data": {"mesh": "data=8"},
        "fsdp": {"mesh": "fsdp=8", "then": "data=4,fsdp=2"},
        "both": {"mesh": "data=2,fsdp=4"},
        "shared": {"mesh": "data=4,fsdp=2", "shared": True},
        "parts": {"mesh": "data=8", "parts": 2},
    }
    given = json.dumps({"recipe": recipe.to_dict(), "steps": 2, "jobs": jobs, "graph": small(rate=0.5).to_json()})
    script = Path(__file__).parent / "on_devices.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, script, given, out], capture_output=True, text=True, timeout=400, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {name: dict(np.load(out / f"{name}.npz")) for name in jobs}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "fsdp", "both", "shared"])
def test_a_mesh_trains_the_same(on_eight, name):
    """Dropout too: what is drawn does not depend on where."""
    found, one = on_eight[name], on_eight["one"]
    assert found.keys() == one.keys()
    for key in found.keys() - {"bytes", "arguments"}:
        scale = max(float(np.abs(one[key]).max()), 1e-30)
        assert np.abs(found[key].astype(float) - one[key]).max() / scale < 1e-10, key
    largest, whole = found["bytes"].max(), one["bytes"].max()
    assert (largest < whole) == (name != "data"), "kernels are split"


@pytest.mark.slow
def test_statistics_of_parts_would_be_seen(on_eight):
    assert np.abs(on_eight["parts"]["values"] - on_eight["one"]["values"]).max() > 1e-6
    np.testing.assert_array_equal(on_eight["again"]["values"], on_eight["one"]["values"])


@pytest.mark.slow
def test_two_processes_in_torch_train_as_one_does(cells, tmp_path):
    """Each on its part of the batch, with parameters that get no gradient in either."""
    pytest.importorskip("torch")
    from unet_core.checkpoints.safetensors_file import write

    write(tmp_path / "start.safetensors", network(small(channels=1)))
    options = ["--start", tmp_path / "start.safetensors", "--data", cells, "--out", tmp_path / "two", "--batch", "4"]
    options += [
        "--accumulate",
        "2",
        "--crop",
        "16",
        "--steps",
        "6",
        "--precision",
        "float64",
        "--norm-parts",
        "2",
        "--validate-every",
        "2",
    ]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    done = subprocess.run(
        [
            sys.executable,
            *command,
            "unet_cli.main",
            "train",
            "--backend",
            "torch",
            "--ema",
            "0.9",
            "--validation",
            "2",
            *map(str, options),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    recipe = started(tmp_path / "start.safetensors", batch=4, precision="float64", norm_parts=2)
    train("torch", tmp_path / "one", cells, recipe)
    ours, theirs = (read_history(tmp_path / name / "history.jsonl") for name in ("two", "one"))
    losses = [[entry["loss"] for entry in found if "loss" in entry] for found in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-9)
    two, one = (read(tmp_path / name / "best.safetensors").tensors for name in ("two", "one"))
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-8, atol=1e-12)
