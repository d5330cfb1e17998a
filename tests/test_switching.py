"""A training that changes its framework on the way ends where an uninterrupted one does, in float64."""

import copy
import dataclasses
import functools
import itertools

import numpy as np
import pytest
from conftest import few, trained_tensors

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.training.schedule import Schedule
from unet_core.training.settings import Loss, Optimizer
from unet_core.training.state import TrainingState
from unet_core.training.train_config import TrainConfig

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import optax

import unet_jax.training.states
import unet_torch.training.states
from unet_jax.operations import OPERATIONS
from unet_jax.training import step as in_jax
from unet_jax.training.mesh import device_mesh
from unet_torch.training import step as in_torch

STEPS, STOPS = 50, (1, 17, 49, 50)
BOUND = 1e-9
"""The largest difference, as a part of the largest entry of the array that it is in."""
SEEN = 10 * BOUND
"""What every control is beyond."""

BASE = TrainConfig(features=(4, 6), batch=2, crop=8, steps=STEPS, precision="float64")
OPTIMIZERS = {
    "adam": dataclasses.replace(BASE, optimizer=Optimizer(rate=0.003), ema=0.9),
    "adam, decay": dataclasses.replace(BASE, optimizer=Optimizer(rate=0.003, weight_decay=0.01, clip=0.2)),
    "adamw": dataclasses.replace(BASE, optimizer=Optimizer("adamw", 0.003), accumulate=2, upsampling="transposed"),
    "sgd": dataclasses.replace(BASE, optimizer=Optimizer("sgd", 0.1, clip=0.4), ema=0.8),
    "sgd, momentum": dataclasses.replace(BASE, optimizer=Optimizer("sgd", 0.05, momentum=0.9), accumulate=2),
    "sgd, nesterov, decay": dataclasses.replace(
        BASE, optimizer=Optimizer("sgd", 0.01, 0.01, momentum=0.9, nesterov=True), loss=Loss("cross-entropy+dice")
    ),
    "rmsprop": dataclasses.replace(BASE, optimizer=Optimizer("rmsprop", 0.001), accumulate=2, ema=0.95),
    "rmsprop, momentum": dataclasses.replace(
        BASE, optimizer=Optimizer("rmsprop", 0.001, momentum=0.5, clip=0.2), upsampling="transposed", ema=0.9
    ),
}
SCHEDULES = {
    f"{name}, warmup" if warmup else name: Schedule(name, warmup, final=0.1, drop_every=9, factor=0.5, patience=1)
    for name in ("constant", "cosine", "step", "plateau")
    for warmup in (0, 6)
}
VALIDATIONS = (0.9, 0.7, 0.72, 0.71, 0.5, 0.6, 0.6, 0.6, 0.4)
"""Made-up losses, of a validation after every five steps; the plateau drops its rate after 20 steps and after 35."""
CASES = list(itertools.product(OPTIMIZERS, SCHEDULES))
CHANNELS, CLASSES = 3, 2


@pytest.fixture(scope="module", autouse=True)
def _float64_on_one_thread():
    """Torch's threads wait for each other longer than such a network takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with jax.enable_x64(True):
        yield
    torch.set_num_threads(threads)


def recipe_of(optimizer, schedule):
    return dataclasses.replace(OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule])


def rates_of(recipe):
    """Of every update."""
    return [recipe.part(step, list(VALIDATIONS[: step // 5])) for step in range(STEPS)]


@functools.cache
def start(upsampling):
    config = dataclasses.replace(BASE, upsampling=upsampling).network(CHANNELS, CLASSES)
    return Checkpoint(config, trained_tensors(config, dtype=np.float64))


@functools.cache
def batches(size):
    """For every update, and one more; there is something to learn in them."""
    rng = np.random.default_rng(0)
    shape = (STEPS + 1, size, BASE.crop, BASE.crop)
    images = rng.random((*shape, CHANNELS), np.float32)
    labels = (images[..., 0] + 0.2 * rng.standard_normal(shape) > 0.5).astype(np.uint8)
    return [Batch(image, label) for image, label in zip(images, labels, strict=True)]


def data_of(recipe):
    return batches(recipe.batch * recipe.accumulate)


class InTorch:
    """A training that starts, or goes on from a state of the canonical form."""

    def __init__(self, recipe, state=None):
        self.recipe = recipe
        self.live = in_torch.new_state(start(recipe.upsampling), recipe, torch.device("cpu"))
        if state is not None:
            self.live.load_state_dict(unet_torch.training.states.saved_form(state, recipe, rate=0.123))
        self.update = in_torch.updater(recipe, self.live)

    def step(self, batch, rate, renewal):
        placed = in_torch.placed(batch, self.recipe, torch.device("cpu"))
        return self.update(*placed, rate, renewal).tolist()

    def state(self, step):
        saved = copy.deepcopy(self.live.state_dict(step))
        return unet_torch.training.states.canonical_form(saved, start(self.recipe.upsampling), self.recipe, "the state")


class InJax:
    """The twin."""

    def __init__(self, recipe, state=None, made=None):
        self.recipe = recipe
        self.mesh = device_mesh(recipe.batch)
        self.update, fresh = made or compiled(dataclasses.replace(recipe, schedule=Schedule()))
        self.live = jax.tree.map(jax.numpy.copy, fresh)
        if state is not None:
            saved = unet_jax.training.states.saved_form(state, recipe)
            self.live = in_jax.new_state(state.network, recipe, self.mesh, saved)

    def step(self, batch, rate, renewal):
        ((image, labels),) = in_jax.placed(iter([batch]), self.recipe, self.mesh)
        self.live, values = self.update(self.live, image, labels, in_jax.controls_of(rate, renewal, self.mesh))
        return values.tolist()

    def state(self, step):
        network = in_jax.host_network(self.live.params, self.live.stats, start(self.recipe.upsampling))
        return unet_jax.training.states.canonical_form(
            network, in_jax.host_arrays(self.live), step, self.recipe, "the state"
        )


IN = {"torch": InTorch, "jax": InJax}


@functools.cache
def compiled(recipe):
    """The update in JAX, one for all schedules: the rate is an argument of it; and the state before the first one."""
    mesh = device_mesh(recipe.batch)
    checkpoint = start(recipe.upsampling)
    fresh = in_jax.new_state(checkpoint, recipe, mesh)
    update = in_jax.updater(recipe, in_jax.abstract_model(checkpoint, recipe))
    return in_jax.compiled(update, fresh, recipe, mesh, checkpoint.config.in_channels), fresh


@dataclasses.dataclass
class Reached:
    """How far a training has come."""

    state: TrainingState
    losses: list
    """And norms, of every update."""


def go_on(training, reached, end, rates, data, *, off=0):
    """Train on from what is reached up to step `end`, with a count of updates that is so much off."""
    first = reached.state.step
    seen = [training.step(data[step], rates[step], training.recipe.renewal(step)) for step in range(first, end)]
    return Reached(counted(training.state(end + off), -off), reached.losses + seen)


def counted(state, more):
    """A state that says that it has made so many updates more."""
    optimizer = dataclasses.replace(state.optimizer, step=state.optimizer.step + more)
    return dataclasses.replace(state, step=state.step + more, optimizer=optimizer)


def plans():
    """For every case one switch either way, and two; the stops and the order of the two take turns.

    Quick are a few of the diagonal.
    """
    for number, case in enumerate(CASES):
        stop, swapped = (1, 17, 49)[number % 3], (number + number // len(SCHEDULES)) % 2
        one, other = ("jax", "torch") if swapped else ("torch", "jax")
        row, column = divmod(number, len(SCHEDULES))
        three = (
            (("torch", stop), ("jax", STEPS)),
            (("jax", stop), ("torch", STEPS)),
            ((one, 17), (other, 33), (one, STEPS)),
        )
        for turn, plan in enumerate(three):
            quick = row == column == turn == 0
            marks = [] if quick else pytest.mark.slow
            yield pytest.param(case, plan, marks=marks, id=f"{named(case)}-{named(plan)}")


@functools.cache
def whole(case, framework):
    """An uninterrupted training, as it is after some steps."""
    recipe = recipe_of(*case)
    training = IN[framework](recipe)
    reached = {0: Reached(training.state(0), [])}
    for before, stop in itertools.pairwise((0, *STOPS)):
        reached[stop] = go_on(training, reached[before], stop, rates_of(recipe), data_of(recipe))
    return reached


def switched(case, plan):
    """A training in pieces, each a framework and the last step that is made in it."""
    recipe = recipe_of(*case)
    (framework, end), *rest = plan
    reached = whole(case, framework)[end]
    for framework, end in rest:
        training = IN[framework](recipe, reached.state)
        reached = go_on(training, reached, end, rates_of(recipe), data_of(recipe))
    return reached


def distance(found, expected):
    """The largest difference of any array or of the losses; infinite where they are not of the same kind."""
    one, other = found.state, expected.state
    arrays, theirs = one.arrays(), other.arrays()
    counts = (one.step, one.optimizer.step) == (other.step, other.optimizer.step)
    if not counts or arrays.keys() != theirs.keys() or any(arrays[name].shape != theirs[name].shape for name in theirs):
        return np.inf
    pairs = [(arrays[name], theirs[name]) for name in theirs]
    pairs += zip(np.transpose(found.losses), np.transpose(expected.losses), strict=True)
    parts = [np.abs(np.float64(a) - b).max() / (np.abs(b).max() or 1) for a, b in pairs]
    return np.nan_to_num(parts, nan=np.inf).max()


def named(value):
    """The id of a case, or of a plan: `torch 17, jax 50`."""
    return ", ".join(" ".join(map(str, part)) if isinstance(part, tuple) else part for part in value)


@pytest.mark.parametrize(("case", "plan"), list(plans()))
def test_a_switched_training_ends_where_an_uninterrupted_one_does(case, plan):
    found = switched(case, plan)
    for framework in IN:
        assert distance(found, whole(case, framework)[STEPS]) <= BOUND


def test_the_schedules_are_eight():
    assert len({tuple(rates_of(recipe_of("adam", schedule))) for schedule in SCHEDULES}) == 8


# The controls: what a switch could do wrong, and that the comparison above sees it.

EITHER = pytest.mark.parametrize(
    ("first", "second"), [("torch", "jax"), pytest.param("jax", "torch", marks=pytest.mark.slow)]
)


FLAT = ("constant", "cosine")
"""Of the schedules, the one that cannot be off, and the one that is tried by the quick tests."""


def apart(case, first, second, *, stop=17, state=lambda state: state, off=0, rates=None, data=None, made=None):
    """How far from the uninterrupted trainings a switch ends that has something else than is right."""
    recipe, reached = recipe_of(*case), whole(case, first)[stop]
    given = {} if made is None else {"made": made}
    training = IN[second](recipe, counted(state(reached.state), off), **given)
    found = go_on(training, reached, STEPS, rates or rates_of(recipe), data or data_of(recipe), off=off)
    return min(distance(found, whole(case, framework)[STEPS]) for framework in IN)


def with_moments(state, change):
    """`change` takes the name of a moment, the key of a parameter and all moments."""
    moments = state.optimizer.moments
    changed = {name: {key: change(name, key, moments) for key in moments[name]} for name in moments}
    return dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, moments=changed))


@EITHER
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("rmsprop, momentum", marks=pytest.mark.slow)])
def test_swapped_moments_would_be_seen(optimizer, first, second):
    """The mean squares that they give are made positive: others are no numbers after a step."""

    def swapped(state):
        one, other = state.optimizer.moments
        partner = {one: other, other: one}
        return with_moments(state, lambda name, key, moments: np.abs(moments[partner[name]][key]))

    assert apart((optimizer, "constant"), first, second, state=swapped) > SEEN


@EITHER
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd, momentum", marks=pytest.mark.slow)])
def test_moments_in_another_layout_would_be_seen(optimizer, first, second):
    """Height and width of a kernel are alike."""

    def turned(state):
        def turn(name, key, moments):
            value = moments[name][key]
            return np.ascontiguousarray(value.swapaxes(2, 3)) if value.ndim == 4 else value

        return with_moments(state, turn)

    assert apart((optimizer, "constant"), first, second, state=turned) > SEEN


@pytest.mark.slow
@EITHER
@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "sgd"])
def test_lost_moments_would_be_seen(optimizer, first, second):
    def lost(state):
        return with_moments(state, lambda name, key, moments: np.zeros_like(moments[name][key]))

    assert apart((optimizer, "constant"), first, second, state=lost) > SEEN


@EITHER
@pytest.mark.parametrize("optimizer", ["adam"])
@pytest.mark.parametrize("off", few([-1, 1], 1))
def test_a_count_of_updates_that_is_off_by_one_would_be_seen(optimizer, off, first, second):
    assert apart((optimizer, "constant"), first, second, off=off) > SEEN


@pytest.mark.slow
@EITHER
@pytest.mark.parametrize(
    "schedule", ["cosine", *(pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULES if name not in FLAT)]
)
def test_a_schedule_that_is_off_by_one_would_be_seen(schedule, first, second):
    rates = rates_of(recipe_of("sgd", schedule))
    assert apart(("sgd", schedule), first, second, stop=1, rates=[*rates[1:], rates[-1]]) > SEEN


@EITHER
def test_a_batch_that_is_left_out_would_be_seen(first, second):
    case = ("adam", "constant")
    assert apart(case, first, second, data=data_of(recipe_of(*case))[1:]) > SEEN


@EITHER
def test_an_average_that_starts_anew_would_be_seen(first, second):
    def anew(state):
        return dataclasses.replace(state, average=state.network.tensors)

    assert apart(("adam", "constant"), first, second, state=anew) > SEEN


def test_a_biased_variance_would_be_seen(monkeypatch):
    """Flax's own BatchNorm tracks it."""
    row = OPERATIONS["batch_norm"]

    @functools.wraps(row.function)
    def biased(x, *, run, **given):
        y = row.function(x, run=run, **given)
        if run.training:
            run.track("variance", 0.9 * given["variance"] + 0.1 * x.var((0, 1, 2)))
        return y

    monkeypatch.setitem(OPERATIONS, "batch_norm", dataclasses.replace(row, function=biased))
    made = compiled.__wrapped__(OPTIMIZERS["adam"])
    assert apart(("adam", "constant"), "torch", "jax", made=made) > SEEN


@pytest.mark.slow
@pytest.mark.parametrize("schedule", few(["constant", "step"], "step"))
def test_optaxs_own_rmsprop_would_be_seen_where_the_rate_changes(schedule, monkeypatch):
    """Its momentum holds steps of former rates, not gradients: the same thing while the rate stays."""
    case = ("rmsprop, momentum", schedule)
    recipe, reached = recipe_of(*case), whole(case, "torch")[17]
    rates, settings = rates_of(recipe), recipe.optimizer
    chain = optax.chain(
        optax.scale_by_rms(settings.alpha, settings.epsilon, eps_in_sqrt=False),
        optax.scale_by_schedule(lambda count: jax.numpy.asarray(rates)[count]),
        optax.trace(settings.momentum),
    )

    def scaled(state, by):
        return with_moments(
            state, lambda name, key, moments: moments[name][key] * (by if name == "momentum_buffer" else 1)
        )

    monkeypatch.setattr(in_jax, "optimizer_of", lambda _: chain)
    training = InJax(recipe, scaled(reached.state, rates[16]), compiled.__wrapped__(recipe))
    found = go_on(training, reached, STEPS, [1.0] * STEPS, data_of(recipe))
    found.state = scaled(found.state, 1 / rates[-1])
    found = distance(found, whole(case, "torch")[STEPS])
    assert found <= BOUND if schedule == "constant" else found > SEEN
