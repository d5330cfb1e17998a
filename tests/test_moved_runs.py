"""Runs that are moved to the other framework: nothing is lost on the way, and they go on as if nothing had happened."""

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import by_examples, few, trained_tensors
from hypothesis import strategies as st
from test_train import interrupt

from conversion import convert
from conversion.runs import read_run
from conversion.training import train
from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.training.history import read_history
from unet_core.training.run import read_run_config
from unet_core.training.schedule import Schedule
from unet_core.training.settings import Loss, Optimizer
from unet_core.training.state import MOMENTS, OptimizerState, TrainingState, difference, parameter_shapes
from unet_core.training.train_config import TrainConfig

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from safetensors.numpy import load_file

import unet_jax.training.states
import unet_torch.training.states
from unet_jax.training import step as in_jax
from unet_jax.training.mesh import device_mesh
from unet_jax.training.state_folder import States
from unet_torch.training import step as in_torch

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = TrainConfig(
    features=(4, 6), steps=4, batch=2, crop=16, validation=2, validate_every=2, save_every=2, log_every=3
)
RECIPES = {
    "adam": dataclasses.replace(SMALL, ema=0.9),
    "adam, decay": dataclasses.replace(SMALL, optimizer=Optimizer(weight_decay=0.1, clip=1.0), precision="float64"),
    "adam, bfloat16": dataclasses.replace(SMALL, precision="bfloat16"),
    "adamw": dataclasses.replace(SMALL, optimizer=Optimizer("adamw"), loss=Loss("dice"), precision="float64", ema=0.9),
    "sgd": dataclasses.replace(SMALL, optimizer=Optimizer("sgd", 0.1), upsampling="transposed", ema=0.9),
    "sgd, momentum": dataclasses.replace(SMALL, optimizer=Optimizer("sgd", 0.1, momentum=0.9), accumulate=2),
    "sgd, nesterov, decay": dataclasses.replace(
        SMALL, optimizer=Optimizer("sgd", 0.1, 0.01, momentum=0.9, nesterov=True), loss=Loss("cross-entropy+dice")
    ),
    "rmsprop": dataclasses.replace(SMALL, optimizer=Optimizer("rmsprop"), upsampling="transposed", precision="float64"),
    "rmsprop, momentum": dataclasses.replace(SMALL, optimizer=Optimizer("rmsprop", momentum=0.9), ema=0.9),
}
KEPT = ("history.jsonl", "best.safetensors")
OTHER = {"torch": "jax", "jax": "torch"}
FRAMEWORKS = {"torch": unet_torch.training.states, "jax": unet_jax.training.states}


def state_of(recipe, *, channels=3, classes=2, seed=0):
    """A state as a training by this recipe could leave it behind, with the numbers that are easily lost."""
    rng = np.random.default_rng(seed)
    dtype = np.float64 if recipe.precision == "float64" else np.float32
    config = recipe.network(channels, classes)
    network, average = (trained_tensors(config, number, dtype) for number in (seed, seed + 1))

    def moment(name, shape):
        value = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)
        for odd in (-0.0, np.finfo(dtype).smallest_subnormal):
            value[rng.random(shape) < 0.1] = odd
        return (np.abs(value) if name in ("exp_avg_sq", "square_avg") else value).astype(dtype)

    given = recipe.optimizer
    names = MOMENTS[given.optimizer]
    kept = [name for name in names if name != "momentum_buffer" or given.momentum]
    moments = {name: {key: moment(name, shape) for key, shape in parameter_shapes(config).items()} for name in kept}
    step = int(rng.integers(1, 10**6))
    optimizer = OptimizerState(given.optimizer, step, moments)
    return TrainingState(step, Checkpoint(config, network), optimizer, average if recipe.ema else None)


def through_torch(state, recipe):
    saved = unet_torch.training.states.saved_form(state, recipe, 0.1)
    return unet_torch.training.states.canonical_form(saved, state.network, recipe, "the state")


def through_jax(state, recipe):
    arrays = unet_jax.training.states.saved_form(state, recipe)
    return unet_jax.training.states.canonical_form(state.network, arrays, state.step, recipe, "the state")


def live_in_torch(state, recipe):
    live = in_torch.new_state(state.network, recipe, torch.device("cpu"))
    live.load_state_dict(unet_torch.training.states.saved_form(state, recipe, 0.1))
    return unet_torch.training.states.canonical_form(live.state_dict(state.step), state.network, recipe, "the state")


def live_in_jax(state, recipe):
    with jax.enable_x64(recipe.precision == "float64"):
        arrays = unet_jax.training.states.saved_form(state, recipe)
        live = in_jax.new_state(state.network, recipe, device_mesh(recipe.batch), arrays)
        network = in_jax.host_network(live.params, live.stats, state.network)
        arrays = in_jax.host_arrays(live)
    return unet_jax.training.states.canonical_form(network, arrays, state.step, recipe, "the state")


@pytest.mark.parametrize("name", few(list(RECIPES), "adam", "adamw", "sgd, nesterov, decay", "rmsprop, momentum"))
@pytest.mark.parametrize("classes", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", [through_torch, through_jax, live_in_torch, live_in_jax])
def test_no_bit_of_a_state_is_lost(way, name, classes):
    state = state_of(RECIPES[name], classes=classes)
    assert difference(state, way(state, RECIPES[name])) == []


optimizers = st.one_of(
    st.builds(
        Optimizer,
        st.sampled_from(["adam", "adamw"]),
        weight_decay=st.none() | st.floats(0, 1),
        betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    ),
    st.builds(
        Optimizer, st.sampled_from(["sgd", "rmsprop"]), st.floats(0, 1), st.floats(0, 1), momentum=st.floats(0, 0.999)
    ),
    st.builds(Optimizer, st.just("sgd"), momentum=st.floats(0.1, 0.999), nesterov=st.just(True)),
)
recipes = st.builds(
    TrainConfig,
    features=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    upsampling=st.sampled_from(["bilinear", "transposed"]),
    precision=st.sampled_from(["float32", "float64", "bfloat16"]),
    ema=st.none() | st.just(0.9),
    optimizer=optimizers,
)


@by_examples(4, 8, recipes, st.integers(1, 5), st.integers(2, 5), st.integers(0, 2**31))
def test_no_bit_of_any_state_is_lost(recipe, channels, classes, seed):
    state = state_of(recipe, channels=channels, classes=classes, seed=seed)
    assert difference(state, through_torch(state, recipe)) == []
    assert difference(state, through_jax(state, recipe)) == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", few(list(RECIPES), "adamw", "rmsprop, momentum", "adam, bfloat16"))
def test_no_bit_of_a_state_is_lost_on_the_disk(framework, name, tmp_path):
    states, recipe = FRAMEWORKS[framework], RECIPES[name]
    state = state_of(recipe)
    states.write(tmp_path / "states", state, recipe, 0.1)
    assert states.steps_in(tmp_path / "states") == [state.step]
    assert difference(state, states.read(tmp_path / "states", state.step, state.network, recipe)) == []


def test_slots_that_are_named_by_their_place_are_read(tmp_path):
    """As JAX states of release 0.3 have them."""
    states, recipe = FRAMEWORKS["jax"], RECIPES["adam"]
    state = state_of(recipe)
    states.write(tmp_path / "states", state, recipe, 0.1)
    found = []
    with States(tmp_path / "states", 3) as old:
        old.newest(lambda network, training: found.append((network, training)))
    ((network, training),) = found
    placed = {name.replace("slots.", "slots.0.", 1): value for name, value in training.items()}
    assert placed.keys() != training.keys()
    with States(tmp_path / "older", 1) as older:
        older.save(state.step, network, placed)
    assert difference(states.read(tmp_path / "older", state.step, state.network, recipe), state) == []


@pytest.mark.parametrize("way", [through_torch, through_jax])
def test_a_count_that_is_not_the_runs_is_refused(way):
    state = state_of(SMALL)
    wrong = dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, step=state.step + 1))
    with pytest.raises(CheckpointError, match=f"has made {state.step + 1} updates, its run {state.step}"):
        way(wrong, SMALL)


@pytest.fixture(scope="session")
def classes(cells, tmp_path_factory):
    """Masks of four classes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("classes") / "data"
    shutil.copytree(cells, folder)
    for number, path in enumerate(sorted((folder / "masks").iterdir())):
        mask = np.asarray(Image.open(path)) // 255
        mask[:8] += number % 2 + 1
        Image.fromarray(mask).save(path)
    return folder


@pytest.fixture(scope="session")
def trained(cells, classes, tmp_path_factory):
    """Trainings to their last step, each made once; those with dice in the loss have four classes."""
    made = {}

    def get(framework, name):
        if (framework, name) not in made:
            path = tmp_path_factory.mktemp("trained") / "run"
            recipe = RECIPES[name]
            data = classes if "dice" in recipe.loss.parts else cells
            made[framework, name] = path
            train(path, backend=framework, data=data, recipe=recipe)
        return made[framework, name]

    return get


def contents(folder):
    """Every file in it, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def move(run, target, to):
    return convert(run, target, to=to, verify=False)


@pytest.mark.parametrize(
    ("framework", "name"),
    [
        ("torch", "adam"),
        *(pytest.param("torch", name, marks=pytest.mark.slow) for name in RECIPES if name != "adam"),
        pytest.param("jax", "rmsprop", marks=pytest.mark.slow),
    ],
)
def test_there_and_back_no_bit_of_a_run_is_lost(framework, name, trained, tmp_path):
    run = trained(framework, name)
    before, state = contents(run), read_run(run).state
    move(run, tmp_path / "there", OTHER[framework])
    move(tmp_path / "there", tmp_path / "back", framework)
    for moved in (tmp_path / "there", tmp_path / "back"):
        assert difference(state, read_run(moved).state) == []
        assert {name: (moved / name).read_bytes() for name in KEPT} == {name: before[name] for name in KEPT}
    assert contents(run) == before, "the run itself"


def test_a_run_keeps_the_network_that_it_started_from(cells, trained, tmp_path):
    recipe = dataclasses.replace(SMALL, start=str(trained("torch", "adam") / "best.safetensors"))
    train(tmp_path / "run", backend="torch", data=cells, recipe=recipe)
    move(tmp_path / "run", tmp_path / "there", "jax")
    one, other = ((tmp_path / name / "start.safetensors").read_bytes() for name in ("run", "there"))
    assert one == other


@pytest.mark.slow
@pytest.mark.usefixtures("small_proof")
@pytest.mark.parametrize("name", RECIPES)
def test_the_next_update_is_proven(name, trained, tmp_path):
    assert convert(trained("torch", name), tmp_path / "there", to="jax").proof.equal


@pytest.mark.slow
def test_the_next_update_of_biases_before_a_batch_norm_is_proven(cells, tmp_path):
    """Their gradients are rounding alone."""
    config = UNetConfig(1, 1, SMALL.features, conv_bias=True)
    start = tmp_path / "start.safetensors"
    safetensors_file.write(start, Checkpoint(config, trained_tensors(config)))
    train(tmp_path / "run", backend="torch", data=cells, recipe=dataclasses.replace(SMALL, start=str(start)))
    assert convert(tmp_path / "run", tmp_path / "there", to="jax").proof.equal


def with_value(state, change):
    """The state with another first moment of its first parameter."""
    moment, tensors = next(iter(state.optimizer.moments.items()))
    key = next(iter(tensors))
    moments = {**state.optimizer.moments, moment: {**tensors, key: change(tensors[key])}}
    return dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, moments=moments))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: np.nextafter(value, np.inf, dtype=value.dtype),
        lambda value: value.astype(np.float64),
        lambda value: value[::-1],
        lambda value: value.reshape(-1),
        lambda value: np.where(value == 0, 0, value).astype(value.dtype),
    ],
    ids=["the last place", "the dtype", "the order", "the shape", "the sign of a zero"],
)
def test_a_lost_bit_would_be_seen(change):
    state = state_of(SMALL)
    changed = with_value(state, change)
    assert difference(state, changed) == ["exp_avg of down1.conv.0.weight"]


PLATEAU = dataclasses.replace(
    SMALL,
    steps=8,
    precision="float64",
    ema=0.5,
    optimizer=Optimizer("rmsprop", 0.02, momentum=0.5),
    schedule=Schedule("plateau", warmup=2, patience=0, factor=0.5),
)
"""Its best validation is the first one, after two steps; the rate drops after four steps and after six."""


def numbers_in(run):
    """All that the lines of its history tell, each as numbers."""
    lines = []
    for entry in read_history(run / "history.jsonl"):
        found = entry.get("validation")
        told = (
            [found["loss"], *np.ravel(found["confusion"])] if found else [entry["loss"], entry["norm"], entry["rate"]]
        )
        lines.append([entry["step"], *told])
    return lines


@pytest.fixture(scope="session")
def in_pieces(cells, tmp_path_factory):
    """The run of pieces, each a framework and the step that it ends at; each made once."""
    made = {}

    def get(*pieces):
        if pieces not in made:
            made[pieces] = tmp_path_factory.mktemp("pieces") / "run"
            *before, (framework, end) = pieces
            if before:
                move(get(*before), made[pieces], framework)
            with pytest.MonkeyPatch.context() as patch:
                if end < PLATEAU.steps:
                    interrupt(patch, after=end)
                outcome = train(made[pieces], backend=framework, data=cells, recipe=PLATEAU, resume=True)
            assert outcome.step == end
        return made[pieces]

    return get


PIECES = pytest.mark.parametrize(
    "pieces",
    [(("torch", 3), ("jax", 8)), (("jax", 3), ("torch", 8)), (("torch", 3), ("jax", 5), ("torch", 8))],
    ids=lambda pieces: " ".join(framework for framework, _ in pieces),
)
EITHER = pytest.mark.parametrize("framework", ["torch", "jax"])


@pytest.mark.slow
@PIECES
@EITHER
def test_a_run_that_was_moved_has_the_history_of_one_that_was_not(pieces, framework, in_pieces):
    found, expected = numbers_in(in_pieces(*pieces)), numbers_in(in_pieces((framework, 8)))
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-9)


@pytest.mark.slow
@PIECES
@EITHER
def test_a_run_that_was_moved_keeps_the_same_best_network(pieces, framework, in_pieces):
    ours, theirs = (load_file(run / "best.safetensors") for run in (in_pieces(*pieces), in_pieces((framework, 8))))
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-9 * np.abs(value).max())


@pytest.mark.slow
@PIECES
def test_a_run_tells_its_pieces(pieces, in_pieces):
    ends = [0, *(end for _, end in pieces)]
    expected = [(first, last, framework) for first, (framework, last) in zip(ends, pieces, strict=False)]
    *earlier, (first, _, framework) = expected
    assert read_run_config(in_pieces(*pieces)).pieces == (*earlier, (first, None, framework))


@pytest.mark.slow
def test_the_rate_has_dropped_after_the_switches(in_pieces):
    rates = [line[3] for line in numbers_in(in_pieces(("torch", 8))) if len(line) == 4]
    assert rates == [0.01, 0.02, 0.02, 0.02, 0.01, 0.01, 0.005, 0.005]


@pytest.mark.slow
def test_a_plateau_that_forgot_the_validations_would_be_seen(in_pieces, cells, tmp_path):
    move(in_pieces(("jax", 3)), tmp_path / "run", "torch")
    path = tmp_path / "run/history.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "validation" not in line))
    train(tmp_path / "run", backend="torch", data=cells, recipe=PLATEAU, resume=True)
    found, expected = (numbers_in(run)[-2] for run in (tmp_path / "run", in_pieces(("torch", 8))))
    assert found[0] == expected[0] == 8
    assert found != pytest.approx(expected, rel=1e-4)


def test_a_state_with_moments_of_some_parameters_alone_is_refused():
    """A run updates all of them together; zeros would go unnoticed."""
    state = state_of(SMALL)
    moments = {name: dict(list(tensors.items())[1:]) for name, tensors in state.optimizer.moments.items()}
    partial = dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, moments=moments))
    for way in (through_torch, through_jax):
        with pytest.raises(CheckpointError):
            way(partial, SMALL)
