"""BatchNorm's statistics in one pass, and its gradient: against NumPy and the plain form, in both dtypes."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import lax

from unet_jax.kernels.normalisation import (
    inverse_deviation,
    normalise,
    normalise_plain,
    one_pass,
    two_pass,
    variance_of,
)
from unet_jax.model import UNet
from unet_jax.operations import norms

EPSILON = 1e-5


def spread(mean, shape=(2, 37, 70, 3), dtype=np.float32):
    """Values of this mean and deviation 1."""
    return (np.random.default_rng(0).standard_normal(shape) + mean).astype(dtype)


def errors(found, x):
    """Of the mean, in deviations beyond what the mean's own rounding is; and of the variance, relative."""
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    return (
        np.abs(np.asarray(found[0], np.float64) - mean).max() / (1 + np.abs(mean).max()),
        np.abs(np.asarray(found[1], np.float64) / variance - 1).max(),
    )


@pytest.mark.parametrize("mean", [0, 1, -30, 1e3, 1e5])
@pytest.mark.parametrize("guess", [0, "mean", 1e3, 1e8, -1e30, np.nan, np.inf])
def test_any_guess_gives_accurate_statistics(mean, guess):
    x = spread(mean)
    at = jnp.full(3, mean if guess == "mean" else guess, jnp.float32)
    of_mean, of_variance = errors(jax.jit(one_pass)(x, at), x)
    assert of_mean < 3e-7
    assert of_variance < 1e-6


def test_the_sums_alone_would_lose_the_variance(monkeypatch):
    """The control: without the second branch."""
    x = spread(1e3)
    monkeypatch.setattr(lax, "cond", lambda _, near, __, x: near(x))
    assert errors(one_pass(jnp.asarray(x), jnp.zeros(3)), x)[1] > 1e-3


@pytest.mark.parametrize(
    ("guesses", "two"),
    [
        ([0, 0, 0], False),
        ([0.98, -0.98, 0.5], False),
        ([1.02, 0, 0], True),
        ([0, 0, -1.02], True),
        ([0, np.nan, 0], True),
        ([np.inf, 0, 0], True),
    ],
)
def test_the_two_passes_are_taken_where_a_guess_is_far(monkeypatch, guesses, two):
    monkeypatch.setattr("unet_jax.kernels.normalisation.two_pass", lambda x: (jnp.full(3, -1.0), jnp.full(3, -1.0)))
    x = spread(0)
    x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    mean, _ = jax.jit(lambda x, guess: one_pass(x, guess))(x, jnp.asarray(guesses, jnp.float32))
    assert (mean == -1).all() == two


def flat(shape):
    """A picture most of whose points are the same, as of a dark background; what it shows is a quarter of it."""
    x = np.full(shape, 0.3, np.float32)
    height, width = shape[1] // 2, shape[2] // 2
    x[:, :height, :width] = np.random.default_rng(0).uniform(0, 3, (shape[0], height, width, shape[-1]))
    return x


FLAT = [(1, 6, 5, 8), (1, 32, 24, 4), (2, 32, 32, 4), (1, 100, 130, 8)]


@pytest.mark.parametrize("shape", FLAT)
def test_flat_pictures_have_accurate_statistics(shape):
    of_mean, of_variance = errors(jax.jit(two_pass)(flat(shape)), flat(shape))
    assert of_mean < 3e-7
    assert of_variance < 1e-6


def test_one_sum_over_a_flat_picture_would_be_far_off():
    """The control: every sum is rounded to the same side."""
    x = flat((1, 32, 24, 4))
    sums = functools.reduce(np.add, x.reshape(-1, 4))
    assert errors((sums / np.float32(32 * 24), x.var((0, 1, 2))), x)[0] > 3e-6


def test_the_deviations_errors_are_to_both_sides():
    variance = np.random.default_rng(0).uniform(0.01, 2, 100_000).astype(np.float32)
    exact = 1 / np.sqrt(variance.astype(np.float64))

    def one_sided(function):
        return abs(np.mean(np.asarray(jax.jit(function)(variance), np.float64) / exact - 1))

    assert one_sided(lambda variance: inverse_deviation(variance, 0.0)) < 2e-9
    assert one_sided(lambda variance: 1 / jnp.sqrt(variance)) > 5e-9, "the control: else it need not be"


@pytest.mark.parametrize(("share", "units"), [(0.1, 0.6), (0.9, 0.6), (1.0, 0.5), (0.0, 0.0)])
def test_a_statistic_moves_with_hardly_more_than_one_rounding(share, units):
    rng = np.random.default_rng(0)
    old, new = rng.uniform(1, 2, (2, 100_000)).astype(np.float32)
    exact = (1 - np.float32(share).astype(float)) * old + np.float32(share).astype(float) * new.astype(float)

    def furthest(found):
        return (np.abs(np.asarray(found, np.float64) - exact) / np.spacing(exact.astype(np.float32))).max()

    assert furthest(jax.jit(norms._moved)(old, new, share)) <= units
    if 0 < share < 1:
        assert furthest(np.float32(1 - share) * old + np.float32(share) * new) > 1, "the control: three roundings"


def test_a_statistic_that_is_replaced_keeps_nothing_of_the_old_one():
    old, new = np.float32([1, 1e6]), np.float32([1e-6, 3e-8])
    np.testing.assert_array_equal(jax.jit(norms._moved)(old, new, 1.0), new)


@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (2, 1, 1, 3), (1, 1, 5000, 2), (3, 7, 1500, 2), (9000, 1, 1, 2)])
def test_any_shape_gives_numpys_statistics(x64, shape):
    x = spread(3, shape, np.float64)
    mean, variance = one_pass(jnp.asarray(x), jnp.full(shape[-1], 2.0))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("place", [(0, 0, 0, 1), (1, 36, 69, 1)])
def test_what_is_no_number_stays_in_its_channel(value, place):
    x = spread(0)
    x[place] = value
    expected = jax.jit(two_pass)(x)
    for found, known in zip(jax.jit(one_pass)(x, jnp.zeros(3)), expected, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-7)
    assert not np.isfinite(expected[1][1])
    assert np.isfinite(expected[1])[[0, 2]].all()


def test_variance_survives_a_large_mean():
    """|mean| = 1000 deviations: E[x^2] - E[x]^2 in float32 would lose everything."""
    x = (1000 + np.random.default_rng(0).standard_normal((4, 32, 32, 2))).astype(np.float32)
    exact = x.astype(np.float64).var((0, 1, 2))
    mean, variance = two_pass(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(variance, exact, rtol=1e-5)
    fast = jnp.square(x).mean((0, 1, 2)) - jnp.square(jnp.asarray(x).mean((0, 1, 2)))
    assert np.abs(fast / exact - 1).max() > 1e-2, "the control: the fast variance is far off"


def test_statistics_gradient_is_that_of_the_plain_formulas(x64):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 2)))

    def plain(x):
        return (x.mean((0, 1, 2)) * 3 + x.var((0, 1, 2)) ** 2).sum()

    def ours(x):
        mean, variance = two_pass(x)
        return (mean * 3 + variance**2).sum()

    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(plain)(x), rtol=0, atol=1e-16)


def test_a_constant_channel_has_no_variance():
    x = np.full((2, 40, 64, 3), 0.1, np.float32)
    for guess in (0.0, 0.1, 0.1 + 1e-7):
        assert (np.asarray(jax.jit(one_pass)(x, jnp.full(3, guess, jnp.float32))[1]) <= 1e-15).all()


def pulled(function, x, guess, gradients, dtype=jnp.float64):
    """What a form of BatchNorm answers, and its gradients of x, scale and bias."""
    channels = x.shape[-1]
    scale, bias = (jnp.asarray(np.random.default_rng(seed).standard_normal(channels), dtype) for seed in (1, 2))

    @jax.jit
    def run(x, scale, bias, guess, gradients):
        made, pull = jax.vjp(lambda *given: tuple(function(*given, guess, EPSILON)), x, scale, bias)
        return made, pull(gradients)

    return run(x, scale, bias, guess, gradients)


def cotangents(shape, dtype=np.float64):
    rng = np.random.default_rng(3)
    return tuple(jnp.asarray(rng.standard_normal(part), dtype) for part in (shape, shape[-1], shape[-1]))


def relative(found, expected):
    """The largest difference of any array, by its largest value."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.fixture(params=["cpu", "elsewhere"])
def on(request, monkeypatch):
    """`normalise` as a CPU runs it, and as another platform does."""
    if request.param == "elsewhere":
        monkeypatch.setattr(lax, "platform_dependent", lambda *given, default, **_: default(*given))


@pytest.mark.parametrize("guess", [0.0, pytest.param(2.5, marks=pytest.mark.slow), 1e6])
def test_answers_and_gradients_are_the_plain_ones(x64, on, guess):
    """Those of mean and variance, too."""
    x = jnp.asarray(spread(2, (2, 9, 10, 3), np.float64))
    given = (x, jnp.full(3, guess), cotangents(x.shape))
    assert relative(pulled(normalise, *given), pulled(normalise_plain, *given)) < 1e-12


def test_a_gradient_without_the_statistics_would_be_seen(x64):
    """The control."""

    def constant(x, scale, bias, guess, epsilon):
        mean, variance = lax.stop_gradient(two_pass(x))
        return (x - mean) * (scale / jnp.sqrt(variance + epsilon)) + bias, mean, variance

    x = jnp.asarray(spread(2, (2, 9, 10, 3), np.float64))
    given = (x, jnp.zeros(3), cotangents(x.shape))
    assert relative(pulled(constant, *given), pulled(normalise_plain, *given)) > 1e-2


@pytest.mark.parametrize("mean", [0, pytest.param(3, marks=pytest.mark.slow), 1e3])
def test_float32_gradients_are_as_accurate_as_the_plain_ones(on, mean):
    x = spread(mean)
    exact = x.astype(np.float64)
    with jax.enable_x64(True):
        given = (jnp.asarray(exact), jnp.zeros(3), cotangents(x.shape))
        expected = jax.tree.map(np.asarray, pulled(normalise_plain, *given))
    given = (jnp.asarray(x), jnp.zeros(3), cotangents(x.shape, np.float32))
    found, plain = (pulled(form, *given, dtype=jnp.float32) for form in (normalise, normalise_plain))
    assert relative(found, expected) < max(1.25 * relative(plain, expected), 1e-6)


def test_bfloat16_is_rounded_once(on):
    """The gradient of x is computed in float32 and rounded at its end."""
    x = jnp.asarray(spread(1), jnp.bfloat16)
    gradients = cotangents(x.shape, np.float32)
    (_, (found, *_)), (_, (expected, *_)) = (
        pulled(normalise, given, jnp.zeros(3), gradients, jnp.float32) for given in (x, x.astype(jnp.float32))
    )
    assert found.dtype == jnp.bfloat16
    assert (found == expected.astype(jnp.bfloat16)).all()


def test_remat_gives_the_same_gradient(x64, on):
    x = jnp.asarray(spread(2, (2, 9, 10, 3), np.float64))
    given = (x, jnp.zeros(3), cotangents(x.shape))
    again = jax.checkpoint(normalise, static_argnums=4)
    assert relative(pulled(again, *given), pulled(normalise, *given)) < 1e-14


def test_what_is_saved_for_the_gradient_is_the_map_as_it_is():
    """No copy of it in float32."""
    x = jnp.zeros((2, 8, 8, 3), jnp.bfloat16)
    ones = jnp.ones(3)
    pull = jax.eval_shape(lambda x: jax.vjp(functools.partial(normalise, epsilon=EPSILON), x, ones, ones, ones)[1], x)
    assert [like.dtype for like in jax.tree.leaves(pull) if like.shape == x.shape] == [jnp.bfloat16]


@pytest.mark.slow
def test_the_network_guesses_its_running_mean(monkeypatch):
    seen = []
    monkeypatch.setattr(norms, "normalise", lambda *given: seen.append(given[3]) or normalise(*given))
    model = UNet(1, 1, features=(2, 3), rngs=0)
    mean = dict(model.variables())["down1.conv.1.running_mean"]
    mean.set_value(jnp.asarray([1.0, 2.0]))
    model.logits(jnp.ones((1, 8, 8, 1)))
    np.testing.assert_array_equal(seen[0], [1, 2])
    assert not (mean[...] == seen[0]).any(), "the control: it has moved on"


def test_there_is_no_forward_derivative():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(
            lambda x: normalise(x, *[jnp.ones(1)] * 3, EPSILON).y, (jnp.ones((1, 4, 4, 1)),), (jnp.ones((1, 4, 4, 1)),)
        )


@pytest.mark.parametrize(("platform", "passes"), [("cpu", 2), ("tpu", 1), ("cuda", 1)])
def test_each_platform_takes_its_own_way(platform, passes):
    ones = jnp.ones(3)
    program = jax.jit(lambda x: normalise(x, ones, ones, ones, EPSILON).mean)
    text = program.trace(jnp.zeros((2, 6, 8, 3))).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.compare" in text) == (passes == 1), "whether the guess is near"


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from unet_jax.kernels.normalisation import one_pass
jax.config.update("jax_enable_x64", True)
mesh = jax.make_mesh((2,), ("data",))
x = np.random.default_rng(0).standard_normal((4, 40, 64, 3)) + 1
x[2:] += 10  # each device alone would find another mean
split = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
for guess in (0.0, 6.0, 100.0):
    mean, variance = jax.jit(one_pass, out_shardings=jax.NamedSharding(mesh, jax.P()))(split, jnp.full(3, guess))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-12)
"""


def test_a_batch_over_two_devices_has_the_statistics_of_the_whole():
    environment = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_rounding_makes_no_variance_negative():
    """As of a flat map of large numbers, whose mean square about a shift is rounded to less than the offset's."""
    offset = jnp.float32(8.0)
    square = jnp.nextafter(jnp.square(offset), jnp.float32(0))
    assert variance_of(square, offset) == 0
    assert variance_of(2 * square, offset) > 0
