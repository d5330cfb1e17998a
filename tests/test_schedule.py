"""The learning rate against torch.optim.lr_scheduler, whose classes have a state where `Schedule` has none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_core.errors import ConfigError
from unet_core.training.schedule import Schedule, drops

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler

STEPS = 40


def torchs(make, steps=STEPS):
    """The rates of a scheduler that is made for an optimiser with the rate 1, one for each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(schedule, steps=STEPS, total=STEPS):
    return [schedule.part(step, total) for step in range(steps)]


def close(a, b):
    return np.allclose(a, b, rtol=0, atol=1e-12)


def off_by_one(rates):
    return [*rates[1:], rates[-1]]


def constant(optimizer):
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


def cosine(optimizer):
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)


def step(optimizer):
    return lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.5)


def warm(warmup, then):
    """A warm-up of so many steps in torch: its first rate is 1/warmup, its last one is full, and so is the next one.

    So LinearLR starts at 1/warmup and takes warmup - 1 steps, and SequentialLR changes over at step `warmup`, to a
    scheduler that begins there: for the cosine with what is left of the steps as its T_max.
    """

    def make(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        return lr_scheduler.SequentialLR(optimizer, [rising, then(optimizer)], milestones=[warmup])

    return make


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Schedule(), constant),
        (Schedule("cosine"), cosine),
        (Schedule("cosine", final=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS, eta_min=0.1)),
        (Schedule("step", drop_every=7, factor=0.5), step),
        (Schedule(warmup=1), warm(1, constant)),
        (Schedule(warmup=5), warm(5, constant)),
        (Schedule("cosine", warmup=5), warm(5, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS - 5))),
        (Schedule("step", warmup=4, drop_every=7, factor=0.5), warm(4, step)),
    ],
    ids=["constant", "cosine", "cosine-final", "step", "warmup-1", "warmup-5", "warmup-cosine", "warmup-step"],
)
def test_a_schedule_is_torchs(schedule, make):
    expected = torchs(make)
    np.testing.assert_allclose(ours(schedule), expected, rtol=0, atol=1e-12)
    if len(set(expected)) > 1:
        assert not close(ours(schedule), off_by_one(expected)), "the control: a step too early"


@pytest.mark.parametrize(("total_iters", "t_max"), [(5, STEPS - 5), (4, STEPS)])
def test_other_arguments_are_another_warmup(total_iters, t_max):
    """The control: LinearLR over `warmup` steps, and a cosine as long as the whole training."""

    def make(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=total_iters)
        falling = lr_scheduler.CosineAnnealingLR(optimizer, T_max=t_max)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[5])

    assert not close(ours(Schedule("cosine", warmup=5)), torchs(make))


def test_a_cosine_stays_at_its_end():
    """A training that is gone on with after its last step; torch's cosine would rise again."""
    assert ours(Schedule("cosine", final=0.1), steps=STEPS + 5)[STEPS:] == [pytest.approx(0.1)] * 5


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "plateau"])
@given(warmup=st.integers(0, 12), steps=st.integers(1, 20), step=st.integers(0, 30))
def test_a_rate_is_a_part_of_the_base_rate(name, warmup, steps, step):
    part = Schedule(name, warmup=warmup, drop_every=3, patience=0).part(step, steps, [1.0, 2.0])
    assert 0 <= part <= 1
    if step < warmup:
        assert part == (step + 1) / warmup


def plateau(losses, patience, factor=0.5):
    """The rate after each loss; `eps` is 0, or torch would leave out drops of rates below 1e-8."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, eps=0)
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


# Few values, so that there are ties; some that are better by a ten thousandth, or by a little less or more.
validations = st.lists(
    st.sampled_from([1.0, 0.9999, 0.99989, 0.99991, 0.5, 0.1, 2.0, 0.0, -1.0, math.nan, math.inf]) | st.floats(0, 1),
    max_size=40,
)


@given(validations, st.integers(0, 4))
def test_a_plateau_is_torchs(losses, patience):
    schedule = Schedule("plateau", factor=0.5, patience=patience)
    found = [schedule.part(100 * n, 10000, losses[:n]) for n in range(1, len(losses) + 1)]
    np.testing.assert_allclose(found, plateau(losses, patience), rtol=1e-12)
    assert schedule.part(0, 10000) == 1


def optaxs(losses, patience):
    """Drops as `optax.contrib.reduce_on_plateau` counts them: as soon as so many in a row were no better."""
    best, bad, count = math.inf, 0, 0
    for loss in losses:
        best, bad = (loss, 0) if loss < best * (1 - 1e-4) else (best, bad + 1)
        if bad == patience:
            bad, count = 0, count + 1
    return count


def test_optaxs_patience_is_one_shorter():
    """The control: the drops of both, where nothing gets better after the first loss."""
    losses = [1.0] * 9
    assert drops(losses, 2) == round(math.log(plateau(losses, 2)[-1], 0.5)) == 2
    assert optaxs(losses, 2) == 4
    assert optaxs(losses, 3) == drops(losses, 2)


def test_optaxs_count_is_optaxs():
    """The control's own control."""
    optax, jnp = pytest.importorskip("optax"), pytest.importorskip("jax.numpy")
    transformation = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=1e-4)
    state = transformation.init(jnp.zeros(()))
    for _ in range(9):
        _, state = transformation.update(jnp.ones(()), state, value=1.0)
    assert state.scale == 0.5 ** optaxs([1.0] * 9, 2)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"warmup": -1}, "warmup -1: give a whole number from 0 up"),
        ({"patience": -1}, "patience -1: give a whole number from 0 up"),
        ({"drop_every": 0}, "drop_every 0: give a whole number from 1 up"),
        ({"final": -0.1}, "final -0.1: give a number from 0 to 1"),
        ({"final": math.nan}, "final nan: give a number from 0 to 1"),
        ({"factor": 1.1}, "factor 1.1: give a number from 0 to 1"),
        ({"schedule": "linear"}, "schedule: one of constant, cosine, step, plateau is needed, got 'linear'"),
    ],
)
def test_a_schedule_that_is_none_is_refused(fields, reason):
    with pytest.raises(ConfigError, match=f"^{reason}$"):
        Schedule(**fields)
