"""The convolution with fewer multiplications is the convolution: in float64, in float32's error, with controls."""

import numpy as np
import pytest
from conftest import few, trained_tensors
from test_faster import FAMILY, apart, both, inputs

from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from unet_jax.checkpoint import from_checkpoint
from unet_jax.kernels import convolution, products, winograd
from unet_jax.kernels.convolution import convolve, convolve_plain
from unet_jax.model import UNet
from unet_jax.network import frozen
from unet_jax.predict import Predictor

SMALL = UNetConfig(3, 2, (2, 3), skip_first=True)
FEW = (3, 5)
"""Channels in and out."""


@pytest.fixture
def wide(monkeypatch):
    """Even convolutions of one channel take fewer multiplications, on maps of any size."""
    for name in ("_LEAST", "_WIDER", "_PIXELS"):
        monkeypatch.setattr(winograd, name, 1)
    monkeypatch.setattr(winograd, "_COLUMNS", 1)
    monkeypatch.setattr(products, "_FEW", 0)


def summed(model):
    """Whether some convolution of a network has its taps summed beforehand."""
    return any(node.operation == "summed_convolution" for node in model.graph.nodes)


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal(shape)) for shape in shapes)


def cases(*sizes):
    """Each size with one picture and with two, of other channels."""
    return [(size, *more) for size in sizes for more in ((1, FEW), (2, (4, 1)))]


QUICK = ((9, 7), 1, FEW), ((8, 8), 2, (4, 1)), ((1, 1), 2, (4, 1))


def derivatives(function, x, kernel, gradient):
    """By the input and by the kernel."""
    return jax.jit(lambda *given: jax.vjp(function, *given)[1](gradient))(x, kernel)


@pytest.mark.parametrize(
    "kind", [winograd.DIRECT, winograd.FOUR, *(winograd.transform(0.0, 1.0, -1.0, *more) for more in ((), (2.0, 0.5)))]
)
def test_a_transform_gives_sums_of_three_products(kind):
    inputs, taps = np.random.default_rng(0).standard_normal(len(kind.inputs)), np.array([2.0, -3.0, 5.0])
    found = kind.outputs @ ((kind.taps @ taps) * (kind.inputs @ inputs))
    np.testing.assert_allclose(found, np.correlate(inputs, taps, "valid"), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "batch", "channels"), few(cases((8, 8), (9, 7), (1, 1), (2, 13), (6, 3)), *QUICK, ((2, 13), 2, (4, 1)))
)
def test_it_is_the_convolution(x64, size, batch, channels):
    x, kernel = drawn((batch, *size, channels[0]), (3, 3, *channels))
    assert apart(jax.jit(winograd.convolve)(x, kernel), convolve_plain(x, kernel)) < 1e-12


@pytest.mark.parametrize(
    ("size", "batch", "channels"),
    few(cases((8, 8), (9, 7), (1, 1), (2, 13), (70, 3), (5, 2100)), *QUICK, ((5, 2100), 1, FEW)),
)
@pytest.mark.parametrize("least", [1, 3, 64])
def test_its_kernels_gradient_is_the_convolutions(x64, untraced, monkeypatch, size, batch, channels, least):
    """With fewer multiplications, and with all of them, few channels in or not; in one block and in several."""
    monkeypatch.setattr(winograd, "_LEAST", least)
    x, kernel, gradient = drawn((batch, *size, channels[0]), (3, 3, *channels), (batch, *size, channels[1]))
    expected = derivatives(convolve_plain, x, kernel, gradient)[1]
    assert apart(jax.jit(winograd.kernel_gradient)(x, gradient), expected) < 1e-12


@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_the_gradients_of_wide_convolutions_are_the_convolutions(x64, wide, size):
    given = drawn((2, *size, FEW[0]), (3, 3, *FEW), (2, *size, FEW[1]))
    assert apart(derivatives(convolve, *given), derivatives(convolve_plain, *given)) < 1e-12


@pytest.mark.parametrize("part", few(["inputs", "taps", "outputs"], "inputs"))
def test_a_wrong_weight_would_be_seen(x64, wide, untraced, monkeypatch, part):
    weights = getattr(winograd.FOUR, part).copy()
    weights[1, 1] *= 1.01
    monkeypatch.setattr(winograd, "FOUR", winograd.FOUR._replace(**{part: weights}))
    given = drawn((1, 8, 8, FEW[0]), (3, 3, *FEW), (1, 8, 8, FEW[1]))
    assert apart(jax.jit(winograd.convolve)(*given[:2]), convolve_plain(*given[:2])) > 1e-4
    for found, expected in zip(derivatives(convolve, *given), derivatives(convolve_plain, *given), strict=True):
        assert apart(found, expected) > 1e-4


@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_a_kernel_turned_for_the_input_only_half_would_be_seen(x64, wide, untraced, monkeypatch, axes):
    def half(convolution, gradient, kernel):
        return convolution(gradient, jnp.flip(kernel, axes).swapaxes(2, 3))

    monkeypatch.setattr(convolution, "_input_gradient", half)
    given = drawn((1, 8, 8, FEW[0]), (3, 3, *FEW), (1, 8, 8, FEW[1]))
    assert apart(derivatives(convolve, *given)[0], derivatives(convolve_plain, *given)[0]) > 1e-2


def test_float32_errs_as_the_convolution_does():
    """Of positive inputs, as a ReLU leaves them; the answer, and the gradients by input and kernel.

    The gradient by the input, a sum of terms of either sign, is less exact than the direct one (docs/performance.md).
    """
    rng = np.random.default_rng(0)
    x, kernel = rng.random((1, 32, 48, 64)) + 0.5, rng.standard_normal((3, 3, 64, 128))
    gradient = rng.standard_normal((1, 32, 48, 128))

    def answers(function, dtype):
        given = [jnp.asarray(array, dtype) for array in (x, kernel, gradient)]
        return jax.jit(function)(*given[:2]), *derivatives(function, *given)

    with jax.enable_x64(True):
        exact = [np.asarray(array) for array in answers(convolve_plain, jnp.float64)]
    found, direct = answers(convolve, jnp.float32), answers(convolve_plain, jnp.float32)
    for ours, plain, right, factor in zip(found, direct, exact, (1.25, 2.5, 1.25), strict=True):
        assert not np.array_equal(ours, plain)
        assert np.linalg.norm(ours - right) <= factor * np.linalg.norm(plain - right)


@pytest.mark.parametrize(
    ("channels", "prepared"), [((64, 64), True), ((256, 512), True), ((63, 512), False), ((512, 3), False)]
)
def test_channels_decide_which_kernels_are_prepared(channels, prepared):
    assert winograd.saves(*channels) == prepared


@pytest.mark.parametrize(
    ("size", "channels", "dtype", "fewer"),
    [
        ((32, 32), (64, 128), jnp.float32, True),
        ((32, 31), (64, 128), jnp.float32, False),
        ((256, 256), (64, 64), jnp.float32, False),
        ((256, 256), (128, 63), jnp.float32, False),
        ((32, 32), (64, 128), jnp.bfloat16, False),
    ],
)
def test_channels_pixels_and_dtype_decide_what_a_training_takes(size, channels, dtype, fewer):
    assert winograd.saves_unprepared((1, *size, channels[0]), channels[1], dtype) == fewer


@pytest.mark.parametrize(("platform", "fewer"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_a_cpu_alone_convolves_with_fewer_multiplications(platform, fewer):
    given = jnp.zeros((1, 32, 32, 64)), jnp.zeros((3, 3, 64, 128))
    for function in (convolve, jax.grad(lambda x, kernel: convolve(x, kernel).sum())):
        text = jax.jit(function).trace(*given).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == (6 if fewer else 1)


def test_bfloat16_sums_no_kernels_gradient_in_bfloat16():
    """XLA's own is in float32; a sum of 5000 ones would end at 256."""
    x, kernel = jnp.ones((1, 50, 100, 1), jnp.bfloat16), jnp.zeros((3, 3, 1, 1), jnp.bfloat16)
    found = jax.jit(jax.grad(lambda kernel: convolve(x, kernel).astype(jnp.float32).sum()))(kernel)
    assert abs(float(found[1, 1, 0, 0]) - 5000) < 50


@pytest.mark.parametrize("config", [SMALL, *(pytest.param(config, marks=pytest.mark.slow) for config in FAMILY)])
@pytest.mark.slow
def test_the_network_folded_for_a_cpu_predicts_the_same(x64, wide, config):
    model, _ = both(config)
    x = inputs(config, (9, 14))[0]
    folded = frozen(model, "cpu")
    assert summed(folded)
    model.eval()
    assert apart(*(jax.jit(network.logits)(x) for network in (folded, model))) < 1e-12


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_any_other_platform_keeps_its_kernels(wide, platform):
    model = UNet(3, 1, features=(2, 3, 4), rngs=0)
    assert not summed(frozen(model, platform))


def test_bfloat16_stays_direct(wide):
    assert not summed(frozen(UNet(3, 1, features=(2, 3, 4), dtype=jnp.bfloat16, rngs=0), "cpu"))


@pytest.mark.slow
def test_tiles_are_predicted_as_the_whole(x64, wide):
    model, _ = both(SMALL)
    assert summed(frozen(model, "cpu"))
    model.eval()
    picture = np.random.default_rng(0).random((45, 33, 3)).astype(np.float32)
    found = Predictor(model, tile=(36, 36), batch=2).logits(picture)
    assert apart(found, np.asarray(jax.jit(model.logits)(picture[None]))[0]) < 1e-12


@pytest.mark.slow
def test_the_full_networks_float32_error_is_within_its_budget():
    """Beside torch's own, as the proof of a conversion asks for; of random numbers and of a photograph."""
    torch = pytest.importorskip("torch")
    from conversion.proof.samples import samples
    from unet_torch.checkpoint import from_checkpoint as to_torch

    config = UNetConfig()
    checkpoint = Checkpoint(config, trained_tensors(config))
    folded = frozen(from_checkpoint(checkpoint), "cpu")
    assert summed(folded)
    ours = jax.jit(folded.logits)
    for sample in samples(config):
        x = torch.from_numpy(sample.x).permute(0, 3, 1, 2)
        with torch.inference_mode():
            exact = to_torch(checkpoint).double().eval().logits(x.double()).permute(0, 2, 3, 1).numpy()
            theirs = to_torch(checkpoint).eval().logits(x).permute(0, 2, 3, 1).numpy()
        errors = [np.linalg.norm(np.asarray(answer, np.float64) - exact) for answer in (ours(sample.x), theirs)]
        assert errors[0] <= 1.25 * errors[1]
