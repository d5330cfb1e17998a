"""Each known difference between the frameworks, layer by layer, against torch or NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_core import UNetConfig
from unet_core.resize import interpolation_matrix

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx
from jax import lax

from unet_jax import layers
from unet_jax.normalisation import two_pass

sizes = st.integers(1, 24)


def nchw(x):
    return torch.from_numpy(np.asarray(x)).permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1).detach().numpy()


def norms(channels, **config):
    """BatchNorm in both frameworks, float64, in training mode."""
    options = UNetConfig(**config)
    ours = layers.BatchNorm(channels, config=options, param_dtype=jnp.float64)
    theirs = torch.nn.BatchNorm2d(channels, eps=options.norm_epsilon, momentum=options.norm_momentum).double()
    return ours, theirs


@given(sizes, sizes, st.booleans())
def test_interpolation_matrix_is_torchs(size, target, align_corners):
    x = torch.eye(size, dtype=torch.float64)[None]
    expected = torch.nn.functional.interpolate(x, target, mode="linear", align_corners=align_corners)[0].T
    matrix = interpolation_matrix(size, target, align_corners=align_corners)
    np.testing.assert_allclose(matrix, expected.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "target"), [((4, 4), (8, 8)), ((5, 3), (11, 6)), ((1, 1), (2, 3)), ((2, 1), (5, 1))])
def test_upsample_is_torchs(x64, size, target, align_corners):
    x = np.random.default_rng(0).standard_normal((2, *size, 3))
    expected = torch.nn.functional.interpolate(nchw(x), target, mode="bilinear", align_corners=align_corners)
    found = layers.upsample(jnp.asarray(x), *target, align_corners=align_corners)
    np.testing.assert_allclose(found, nhwc(expected), rtol=0, atol=1e-14)


def test_half_pixel_corners_are_another_network(x64):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 1)))
    aligned, half = (layers.upsample(x, 8, 8, align_corners=corners) for corners in (True, False))
    assert np.abs(aligned - half).max() > 0.1
    np.testing.assert_allclose(half, jax.image.resize(x, (1, 8, 8, 1), "linear"), atol=1e-12)


def test_upsample_keeps_float32_weights_under_bfloat16():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 7, 7, 2)), jnp.bfloat16)
    found = layers.upsample(x, 14, 14, align_corners=True)
    exact = layers.upsample(x.astype(jnp.float32), 14, 14, align_corners=True)
    assert found.dtype == jnp.bfloat16
    assert (found == exact.astype(jnp.bfloat16)).all()


def test_convolution_is_torchs(x64):
    x = np.random.default_rng(0).standard_normal((2, 7, 6, 3))
    theirs = torch.nn.Conv2d(3, 5, 3, padding=1).double()
    ours = layers.Convolution(3, 5, 3, bias=True, param_dtype=jnp.float64)
    ours.kernel[...] = jnp.asarray(theirs.weight.detach().numpy().transpose(2, 3, 1, 0))
    ours.bias[...] = jnp.asarray(theirs.bias.detach().numpy())
    np.testing.assert_allclose(ours(jnp.asarray(x)), nhwc(theirs(nchw(x))), rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 2, 3)[1:]])
def test_max_pool_floors_odd_sizes(x64, size):
    x = np.random.default_rng(0).standard_normal((2, *size, 3))
    np.testing.assert_array_equal(layers.max_pool(jnp.asarray(x)), nhwc(torch.nn.functional.max_pool2d(nchw(x), 2)))


def test_max_pool_gives_a_ties_gradient_to_torchs_element(x64):
    x = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3)).astype(np.float64)
    cotangent = np.random.default_rng(1).standard_normal((4, 4, 4, 3))
    theirs = nchw(x).requires_grad_()
    torch.nn.functional.max_pool2d(theirs, 2).backward(nchw(cotangent))
    _, pull = jax.vjp(layers.max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(pull(jnp.asarray(cotangent))[0], nhwc(theirs.grad))


def test_relu_has_no_gradient_at_zero():
    assert jax.grad(layers.relu)(0.0) == 0.0
    assert jax.grad(lambda x: jnp.maximum(x, 0))(0.0) == 0.5, "the control: the other ReLU has one"


@pytest.mark.parametrize("momentum", [0.1, 0.01, 1.0])
def test_batch_norm_trains_as_torchs(x64, momentum):
    ours, theirs = norms(3, norm_momentum=momentum)
    for step in range(3):
        x = np.random.default_rng(step).standard_normal((2, 2, 4, 3)) * 3 + 5
        np.testing.assert_allclose(ours(jnp.asarray(x)), nhwc(theirs(nchw(x))), rtol=0, atol=1e-14)
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, rtol=1e-14)
    np.testing.assert_allclose(ours.var[...], theirs.running_var, rtol=1e-14)
    assert int(ours.num_batches_tracked[...]) == int(theirs.num_batches_tracked) == 3


def test_the_biased_variance_would_be_seen():
    """The control: at n = 16, Flax's own BatchNorm tracks a variance 16/15 too small."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 4, 3)), jnp.float32)
    ours = layers.BatchNorm(3, config=UNetConfig(norm_momentum=1.0))
    flax = nnx.BatchNorm(3, momentum=0.0, rngs=nnx.Rngs(0))
    ours(x), flax(x)
    np.testing.assert_allclose(ours.var[...] / flax.var[...], 16 / 15, rtol=1e-5)


def test_batch_norm_predicts_as_torchs(x64):
    ours, theirs = norms(3, norm_epsilon=1e-3)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
    for module in (ours, theirs):
        module(jnp.asarray(x) if module is ours else nchw(x))
        module.eval()
    np.testing.assert_allclose(ours(jnp.asarray(x)), nhwc(theirs(nchw(x))), rtol=0, atol=1e-14)
    assert int(ours.num_batches_tracked[...]) == 1, "eval mode leaves the statistics alone"


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


def test_statistics_stay_float32_under_bfloat16():
    norm = layers.BatchNorm(4, config=UNetConfig(), dtype=jnp.bfloat16)
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 4)).astype(np.float32)
    answer = norm(jnp.asarray(x, jnp.bfloat16))
    assert answer.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    np.testing.assert_allclose(norm.mean[...], 0.1 * rounded.mean((0, 1, 2)), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3)])
def test_one_value_per_channel_is_an_error_in_training_alone(shape):
    norm = layers.BatchNorm(3, config=UNetConfig())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(jnp.ones(shape))
    norm.eval()
    assert norm(jnp.ones(shape)).shape == shape


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(2, 5), st.floats(-100, 100), st.floats(0.01, 100))
def test_statistics_are_numpys(n, height, width, mean, deviation):
    x = np.random.default_rng(0).standard_normal((n, height, width, 2)) * deviation + mean
    with jax.enable_x64(True):
        found = two_pass(jnp.asarray(x))
    np.testing.assert_allclose(found[0], x.mean((0, 1, 2)), rtol=1e-12, atol=1e-12 * deviation)
    np.testing.assert_allclose(found[1], x.var((0, 1, 2)), rtol=1e-11)


def test_interpolation_has_no_gather_and_no_scatter():
    def loss(x):
        return jnp.square(layers.upsample(x, 15, 19, align_corners=True)).sum()

    text = jax.jit(jax.value_and_grad(loss)).lower(jnp.ones((1, 7, 9, 3))).as_text()
    assert "gather" not in text
    assert "scatter" not in text
    control = jax.jit(jax.grad(lambda x: x[:, jnp.array([0, 0, 1])].sum())).lower(jnp.ones((1, 7, 9, 3))).as_text()
    assert "scatter" in control


def test_products_ask_for_the_highest_precision():
    jaxpr = jax.make_jaxpr(lambda x: layers.upsample(x, 8, 8, align_corners=True))(jnp.ones((1, 4, 4, 1)))
    precisions = {str(eqn.params["precision"]) for eqn in jaxpr.eqns if eqn.primitive is lax.dot_general_p}
    assert precisions == {str((lax.Precision.HIGHEST, lax.Precision.HIGHEST))}
