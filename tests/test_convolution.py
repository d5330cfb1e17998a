"""The narrow convolution is the convolution: in float64, with a smaller error than XLA's in float32, with a control."""

import numpy as np
import pytest
from test_faster import apart
from test_winograd import derivatives, drawn

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from unet_jax.kernels.convolution import convolve, convolve_narrow, convolve_plain


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1), (2, 13), (6, 3)])
@pytest.mark.parametrize("channels", [(3, 5), (4, 1), (1, 2)])
def test_a_narrow_convolution_is_the_convolution(x64, size, channels):
    given = drawn((2, *size, channels[0]), (3, 3, *channels), (2, *size, channels[1]))
    assert apart(jax.jit(convolve_narrow)(*given[:2]), convolve_plain(*given[:2])) < 1e-12
    assert apart(derivatives(convolve, *given), derivatives(convolve_plain, *given)) < 1e-12


def test_a_row_too_far_would_be_seen(x64):
    x, kernel = drawn((1, 9, 7, 3), (3, 3, 3, 5))
    assert apart(convolve_narrow(x, jnp.roll(kernel, 1, 0)), convolve_plain(x, kernel)) > 1e-2


@pytest.mark.parametrize("channels", [(3, 8), (5, 5), (10, 5), (16, 16)])
def test_float32_errs_less_than_by_xlas_own(channels):
    """A network of few channels errs by these sums; XLA's are one product after the other."""
    rng = np.random.default_rng(0)
    x, kernel = rng.random((4, 32, 40, channels[0])), rng.standard_normal((3, 3, *channels))
    x, kernel = (jnp.asarray(array, jnp.float32) for array in (x, kernel))
    with jax.enable_x64(True):
        exact = np.asarray(convolve_plain(x.astype(jnp.float64), kernel.astype(jnp.float64)))
    found, plain = (np.linalg.norm(jax.jit(function)(x, kernel) - exact) for function in (convolve, convolve_plain))
    assert found < 0.9 * plain


@pytest.mark.parametrize(
    ("platform", "channels", "dtype", "narrow"),
    [
        ("cpu", (64, 16), jnp.float32, True),
        ("cpu", (3, 17), jnp.float32, False),
        ("cpu", (3, 16), jnp.bfloat16, False),
        ("tpu", (3, 16), jnp.float32, False),
        ("cuda", (3, 16), jnp.float32, False),
    ],
)
def test_a_cpu_alone_takes_it_of_few_channels(platform, channels, dtype, narrow):
    given = jnp.zeros((1, 8, 8, channels[0]), dtype), jnp.zeros((3, 3, *channels), dtype)
    text = jax.jit(convolve).trace(*given).lower(lowering_platforms=(platform,)).as_text()
    assert (f"tensor<1x3x{channels[0]}x{3 * channels[1]}x" in text) == narrow
