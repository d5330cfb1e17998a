"""Columns packed into channels compute what the map does; a CPU tries here what a TPU runs."""

import re
from functools import partial
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import by_examples
from hypothesis import assume
from hypothesis import strategies as st

from unet_core.graph.resampling import Resampling
from unet_jax.kernels import (
    affine,
    convolution,
    group_normalisation,
    normalisation,
    packed_convolutions,
    packing,
    pooling,
    upsampled,
)
from unet_jax.kernels.convolution import convolve_plain
from unet_jax.kernels.general import Geometry, convolved, in_phases, spread
from unet_jax.kernels.packed_convolutions import columns_of, convolved_packed, raised_packed
from unet_jax.kernels.packing import group, packed, packed_kernel, unpacked
from unet_jax.operations.convolutions import convolution as convolve
from unet_jax.operations.convolutions import transposed_convolution
from unet_jax.operations.norms import instance_norm
from unet_jax.operations.rewritten import _taps
from unet_jax.operations.rows import Run

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
        for a, b in zip(*(map(np.asarray, jax.tree.leaves(of)) for of in (found, expected)), strict=True)
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


@by_examples(3, 20, shape=SHAPES, out=st.sampled_from([1, 5, 32]), size=st.sampled_from([1, 3, 5]))
def test_a_packed_convolution_is_the_convolution(shape, out, size):
    with jax.enable_x64(True):
        n, half, width, channels = shape
        given = drawn((n, 2 * half, width, channels), (size, size, channels, out))
        plan = Geometry((1, 1), ((size // 2,) * 2,) * 2, (1, 1), 1)
        if columns_of(width, given[1].shape, plan):
            assert same(partial(convolved_packed, plan=plan), convolve_plain, *given)


@by_examples(
    3,
    20,
    shape=SHAPES,
    window=st.tuples(st.integers(1, 5), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    before=st.integers(0, 3),
    spare=st.integers(1, 4),
    out=st.sampled_from([3, 16, 64]),
)
def test_a_packed_convolution_with_a_stride_is_the_convolution(shape, window, stride, before, spare, out):
    n, half, width, channels = shape
    wide, step = window[1], stride[1]
    beside = before, wide - before - min(spare, step)  # as many columns as the stride divides
    plan = Geometry(stride, ((2, 1), beside), (2, 1), 1)
    given = (n, 2 * half + 6, step * width, channels), (*window, channels, out)
    assume(columns_of(step * width, given[1], plan))
    with jax.enable_x64(True):
        assert same(partial(convolved_packed, plan=plan), partial(convolved, plan=plan), *drawn(*given))


@pytest.mark.parametrize(
    ("width", "window", "channels", "out", "stride", "columns"),
    [
        (256, 3, 32, 64, 2, 2),
        (128, 3, 64, 128, 2, 1),
        (256, 7, 3, 64, 2, 2),
        (64, 1, 64, 128, 2, 1),
        (255, 3, 32, 64, 2, 0),
        (64, 3, 128, 256, 2, 0),
        (254, 3, 32, 64, 2, 1),
        (255, 3, 32, 32, 1, 0),
    ],
)
def test_what_a_convolution_packs(width, window, channels, out, stride, columns):
    plan = Geometry((stride,) * 2, ((window // 2,) * 2,) * 2, (1, 1), 1)
    assert columns_of(width, (window, window, channels, out), plan) == columns
    assert not columns_of(width, (window, window, channels, out), plan._replace(groups=2))


@by_examples(
    3,
    20,
    shape=SHAPES,
    window=st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4])),
    out=st.sampled_from([3, 16, 32]),
)
def test_packed_columns_are_raised_as_they_are(shape, window, out):
    n, half, width, channels = shape
    given = (n, half, width, channels), (*window, out, channels)
    plan = Geometry(window, ((0, 0), (0, 0)), (1, 1), 1)
    size = half * window[0], width * window[1]
    plain = partial(in_phases, plan=plan, size=size)
    with jax.enable_x64(True):
        for on_tpu in (raised_packed, partial(spread, plan=plan, size=size)):
            assert same(on_tpu, plain, *drawn(*given))


@by_examples(2, 20, shape=SHAPES, kinds=st.sampled_from([(True, True), (True, False), (False, True)]))
def test_a_packed_affine_is_the_affine(shape, kinds):
    with jax.enable_x64(True):
        n, half, width, channels = shape
        x, *vectors = drawn((n, half, width, channels), *[(channels,)] * 2)
        vectors = [vector if kind else None for vector, kind in zip(vectors, kinds, strict=True)]
        columns = group(width, channels)
        assert same(partial(affine._packed, columns), affine.affine_plain, x, *vectors)
        gradient = jnp.cos(x)
        found = jax.jit(partial(affine._gradients, columns))(x, *vectors, gradient)
        assert apart(found, jax.jit(affine._gradients_plain)(x, *vectors, gradient)) <= 1e-11


@by_examples(3, 20, shape=SHAPES, parts=st.sampled_from([1, 2, 0]), offset=st.sampled_from([0.0, 100.0]))
def test_packed_groups_are_normalised_as_they_are(shape, parts, offset):
    with jax.enable_x64(True):
        n, half, width, channels = shape
        groups = parts if parts and channels % parts == 0 else channels
        x, gradient, *vectors = drawn(*[(n, 2 * half, width, channels)] * 2, *[(channels,)] * 2)
        x = x + offset

        def by(columns):
            made = group_normalisation._normalised(columns, groups, 1e-5, x, *vectors)
            saved = (x, vectors[0], made.mean, made.variance)
            return made, group_normalisation._gradients(columns, groups, 1e-5, saved, gradient)

        found, expected = (jax.jit(partial(by, columns))() for columns in (group(width, channels), 0))
        assert apart(found[0], expected[0]) <= 1e-12 * (1 + offset)
        assert apart(found[1], expected[1]) <= 1e-11


def test_a_column_in_the_wrong_place_would_be_seen(x64):
    x, kernel = drawn((1, 4, 8, 64), (3, 3, 64, 64))
    y = unpacked(convolve_plain(packed(x, 2), jnp.roll(packed_kernel(kernel, 2), 64, 2)), 2)
    assert apart(y, convolve_plain(x, kernel)) > 1e-2


@by_examples(3, 20, shape=SHAPES)
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


@by_examples(3, 20, shape=SHAPES, levels=st.integers(1, 4))
def test_a_packed_pool_is_the_pool(shape, levels):
    """Of equal elements the first has the gradient: few levels make many that are equal."""
    n, half, width, channels = shape
    assume(group(width, channels) > 1)
    rng = np.random.default_rng(sum(shape))
    x = jnp.asarray(rng.integers(levels, size=(n, 2 * half, width, channels)), jnp.float32)
    gradient = jnp.asarray(rng.standard_normal((n, half, width // 2, channels)), jnp.float32)
    assert (jax.jit(pooling._largest)(x) == jax.jit(pooling.max_pool_of_two_plain)(x)).all()
    found = jax.jit(pooling._to_the_largest_of_packed)(x, gradient)
    assert (found == jax.jit(pooling._to_the_largest_plain)(x, gradient)).all()


@by_examples(
    2,
    20,
    half=st.integers(2, 5),
    width=st.integers(2, 8),
    channels=st.sampled_from([4, 40]),
    out=st.sampled_from([5, 64]),
)
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
    x, gradient, vector, kernel, slope = drawn((2, 4, 8, 16), (2, 2, 4, 16), (16,), (3, 3, 16, 16), (2, 4, 8, 16))
    mean = vector[None].repeat(2, 0)
    saved, strided = (x, vector, mean, jnp.square(mean)), Geometry((2, 2), ((1, 1), (1, 1)), (1, 1), 1)
    taps = [_taps(Resampling("linear", size, 2 * size, None, True, double=True), (0, 0)) for size in (4, 8)]
    forms = [
        lambda: normalisation._normalised(normalisation.one_pass, 4, 1e-5, x, vector, vector, vector),
        lambda: pooling._largest(x),
        lambda: pooling._to_the_largest_of_packed(x, gradient),
        lambda: upsampled.by_products(x, kernel, *taps, packs=True),
        lambda: convolved_packed(x, kernel, strided),
        lambda: raised_packed(x, kernel[:2, :2]),
        lambda: affine._packed(8, x, vector, vector),
        lambda: affine._gradients(8, x, vector, vector, slope)[0],
        lambda: affine._gradients(8, x, vector, vector, slope)[1],
        lambda: affine._gradients(8, x, vector, vector, slope)[2],
        lambda: group_normalisation._normalised(8, 16, 1e-5, x, vector, vector).y,
        *(lambda of=of: group_normalisation._gradients(8, 16, 1e-5, saved, slope)[of] for of in range(3)),
    ]
    expected = jax.jit(lambda: [form() for form in forms])()
    for module in (normalisation, pooling, packed_convolutions, affine, group_normalisation):
        monkeypatch.setattr(module, "packed", lambda x, columns: jnp.roll(packed(x, columns), 1, -1))
    monkeypatch.setattr(upsampled, "packed_kernel", lambda *given: jnp.roll(packed_kernel(*given), 1, -1))
    found = jax.jit(lambda: [form() for form in forms])()
    assert all(apart(moved, known) > 1e-2 for moved, known in zip(found, expected, strict=True))


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


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_tpu_packs_what_other_networks_have(platform):
    """InstanceNorm, biases, strides and transposed convolutions: forward and backward all maps fill the lanes."""

    run = Mock(Run, training=True, dtype=jnp.float32, strips=1)

    def network(x, down, up, vector):
        y = instance_norm(x, weight=vector, bias=vector, epsilon=1e-5, run=run)
        y = convolve(y, weight=down, bias=vector, stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
        whole = {"padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
        return transposed_convolution(y, weight=up, bias=vector, stride=(2, 2), **whole).sum()

    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 8, 64, 32), (3, 3, 32, 32), (2, 2, 32, 32), (32,))
    ]
    exported = jax.export.export(jax.jit(jax.grad(network, (0, 1, 2, 3))), platforms=[platform])(*shapes)
    text = exported.mlir_module()
    work = [line for line in text.splitlines() if re.search(r"stablehlo\.(convolution|dot_general|reduce)\b", line)]
    maps = {shape for line in work for shape in re.findall(r"tensor<2x(\d+x\d+x\d+)xf32>", line)}
    assert maps
    assert all(shape.endswith(("x64", "x128")) for shape in maps) == (platform == "tpu")


def test_packing_is_undone_by_unpacking():
    (x,) = drawn((2, 3, 8, 5))
    assert (packing.unpacked(packing.packed(x, 4), 4) == x).all()
