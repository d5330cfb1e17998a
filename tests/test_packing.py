"""Columns packed into channels compute what the map does; a CPU tries here what a TPU runs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unet_core.graph.resampling import Resampling
from unet_jax.kernels import convolution, normalisation, packing, pooling, upsampled
from unet_jax.kernels.convolution import convolve_plain
from unet_jax.kernels.packing import group, packed, packed_kernel, unpacked
from unet_jax.operations.rewritten import _taps

SHAPES = st.tuples(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 10).map(lambda half: 2 * half), st.sampled_from([3, 8, 24, 64])
)
"""Of maps: examples, rows (half as many), columns, channels."""


def drawn(*shapes):
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]


def apart(found, expected):
    return max(
        float(abs(a - b).max() / abs(b).max())
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


def both(function, plain, *given):
    """Of both functions the values and gradients."""
    for one in (function, plain):
        yield jax.jit(partial(pulled, one))(*given)


def pulled(function, *given):
    values, backward = jax.vjp(function, *given)
    return values, backward(jax.tree.map(jnp.cos, values))


def same(function, plain, *given):
    (found, gradients), (expected, known) = both(function, plain, *given)
    return apart(found, expected) <= 1e-12 and apart(gradients, known) <= 1e-11


@pytest.mark.parametrize(
    ("width", "channels", "columns"),
    [(256, (64,), 2), (256, (3, 64), 2), (256, (32,), 4), (256, (65,), 1), (255, (64,), 1), (6, (16,), 2)],
)
def test_as_many_columns_are_packed_as_fill_the_lanes(width, channels, columns):
    assert group(width, *channels) == columns


@given(shape=SHAPES, out=st.sampled_from([1, 5, 32]), size=st.sampled_from([1, 3, 5]))
@settings(max_examples=5)
def test_a_packed_convolution_is_the_convolution(shape, out, size):
    with jax.enable_x64(True):
        n, half, width, channels = shape
        given = drawn((n, 2 * half, width, channels), (size, size, channels, out))
        assert same(partial(convolution._packed, convolve_plain), convolve_plain, *given)


def test_a_column_in_the_wrong_place_would_be_seen(x64):
    x, kernel = drawn((1, 4, 8, 64), (3, 3, 64, 64))
    y = unpacked(convolve_plain(packed(x, 2), jnp.roll(packed_kernel(kernel, 2), 64, 2)), 2)
    assert apart(y, convolve_plain(x, kernel)) > 1e-2


@given(shape=SHAPES)
@settings(max_examples=5)
def test_packed_batchnorm_is_batchnorm(shape):
    with jax.enable_x64(True):
        n, half, width, channels = shape
        x, *vectors = drawn((n, 2 * half, width, channels), *[(channels,)] * 3)

        def by(columns, x, scale, bias, guess):
            made = normalisation._normalised(normalisation.one_pass, columns, 1e-5, x, scale, bias, guess)
            saved = (x, scale, made.mean, made.variance)
            gradient = normalisation.Normalised(jnp.cos(x), jnp.sin(scale), jnp.sin(bias))
            return made, normalisation._gradients(columns, 1e-5, saved, gradient)

        found, expected = (jax.jit(partial(by, columns))(x, *vectors) for columns in (group(width, channels), 1))
        assert apart(found, expected) <= 1e-11


@given(shape=SHAPES, levels=st.integers(1, 4))
@settings(max_examples=5)
def test_a_packed_pool_is_the_pool(shape, levels):
    """Of equal elements the first has the gradient: few levels make many that are equal."""
    n, half, width, channels = shape
    assume(group(width, channels) > 1)
    rng = np.random.default_rng(sum(shape))
    x = jnp.asarray(rng.integers(levels, size=(n, 2 * half, width, channels)), jnp.float32)
    gradient = jnp.asarray(rng.standard_normal((n, half, width // 2, channels)), jnp.float32)
    assert (pooling._largest(x) == pooling.max_pool_of_two_plain(x)).all()
    found = pooling._to_the_largest_of_packed(x, gradient)
    assert (found == pooling._to_the_largest_plain(x, gradient)).all()


@given(half=st.integers(2, 5), width=st.integers(2, 8), channels=st.sampled_from([4, 40]), out=st.sampled_from([5, 64]))
@settings(max_examples=4)
def test_columns_raised_into_packed_ones_are_the_upsampled(half, width, channels, out):
    with jax.enable_x64(True):
        rows, columns = (
            _taps(Resampling("linear", length, 2 * length, None, True, double=True), (0, 0)) for length in (half, width)
        )
        given = drawn((2, half, width, channels), (3, 3, channels, out))
        plain = partial(upsampled.by_shifts, rows=rows, columns=columns)
        assert same(partial(upsampled.by_products, rows=rows, columns=columns, packs=True), plain, *given)


def test_channels_in_the_wrong_place_would_be_seen(x64, monkeypatch):
    """The controls of the other forms: each packs channels that are moved by one."""
    x, gradient, vector, kernel = drawn((2, 4, 8, 16), (2, 2, 4, 16), (16,), (3, 3, 16, 16))
    taps = [_taps(Resampling("linear", size, 2 * size, None, True, double=True), (0, 0)) for size in (4, 8)]
    forms = [
        lambda: normalisation._normalised(normalisation.one_pass, 4, 1e-5, x, vector, vector, vector),
        lambda: pooling._largest(x),
        lambda: pooling._to_the_largest_of_packed(x, gradient),
        lambda: upsampled.by_products(x, kernel, *taps, packs=True),
    ]
    expected = [form() for form in forms]
    for module in (normalisation, pooling):
        monkeypatch.setattr(module, "packed", lambda x, columns: jnp.roll(packed(x, columns), 1, -1))
    monkeypatch.setattr(upsampled, "packed_kernel", lambda *given: jnp.roll(packed_kernel(*given), 1, -1))
    assert all(apart(form(), known) > 1e-2 for form, known in zip(forms, expected, strict=True))


@pytest.mark.parametrize(("platform", "columns"), [("tpu", 8), ("cuda", 16)])
def test_a_tpu_alone_packs(platform, columns):
    def network(x, kernel, vector):
        y = convolution.convolve(x, kernel)
        y = normalisation.normalise(y, vector, vector, vector, 1e-5).y
        return pooling.max_pool_of_two(jax.nn.relu(y)).sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 4, 16, 64), (3, 3, 64, 64), (64,))]
    exported = jax.export.export(jax.jit(jax.grad(network, (0, 1))), platforms=[platform])(*shapes)
    convolved = [line for line in exported.mlir_module().splitlines() if "stablehlo.convolution" in line]
    assert convolved
    assert all(f"x{columns}x{1024 // columns}xf32>" in line for line in convolved)
    assert ("select_and_scatter" in exported.mlir_module()) == (platform != "tpu")


def test_packing_is_undone_by_unpacking():
    (x,) = drawn((2, 3, 8, 5))
    assert (packing.unpacked(packing.packed(x, 4), 4) == x).all()
