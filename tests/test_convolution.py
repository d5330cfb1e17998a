"""What a CPU does in place of XLA's convolutions is the same in float64, gradients too; with controls."""

import numpy as np
import pytest
from conftest import by_examples, few
from hypothesis import strategies as st
from test_faster import apart
from test_winograd import derivatives, drawn

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from unet_jax.kernels import convolution as convolution_kernels
from unet_jax.kernels.convolution import convolve, convolve_along_rows, convolve_plain
from unet_jax.kernels.general import spread
from unet_jax.kernels.products import Geometry, moved_apart
from unet_jax.operations import convolutions
from unet_jax.operations.convolutions import convolution

SIZES = [(8, 8), (9, 7), (1, 1), (2, 13), (6, 3)]


@pytest.mark.parametrize(
    ("size", "channels"),
    few(
        {f"{size} {channels}": (size, channels) for channels in ((3, 5), (4, 1), (1, 2)) for size in SIZES},
        *(f"{size} (3, 5)" for size in SIZES),
        *("(9, 7) (4, 1)", "(2, 13) (1, 2)"),
    ),
)
def test_a_narrow_convolution_is_the_convolution(x64, size, channels):
    given = drawn((2, *size, channels[0]), (3, 3, *channels), (2, *size, channels[1]))
    assert apart(jax.jit(convolve_along_rows)(*given[:2]), convolve_plain(*given[:2])) < 1e-12
    assert apart(derivatives(convolve, *given), derivatives(convolve_plain, *given)) < 1e-12


def test_a_row_too_far_would_be_seen(x64):
    x, kernel = drawn((1, 9, 7, 3), (3, 3, 3, 5))
    assert apart(convolve_along_rows(x, jnp.roll(kernel, 1, 0)), convolve_plain(x, kernel)) > 1e-2


@pytest.mark.parametrize(
    ("size", "channels"),
    few(
        {
            f"{size} {channels}": (size, channels)
            for size, channels in (
                *(((32, 40), channels) for channels in ((3, 8), (5, 5), (10, 5), (16, 16))),
                ((12, 11), (64, 128)),
            )
        },
        *("(32, 40) (3, 8)", "(12, 11) (64, 128)"),
    ),
)
def test_float32_errs_less_than_by_xlas_own(size, channels):
    """A network errs by these sums; XLA's are one product after the other."""
    rng = np.random.default_rng(0)
    x, kernel = rng.random((4, *size, channels[0])), rng.standard_normal((3, 3, *channels))
    x, kernel = (jnp.asarray(array, jnp.float32) for array in (x, kernel))
    with jax.enable_x64(True):
        exact = np.asarray(convolve_plain(x.astype(jnp.float64), kernel.astype(jnp.float64)))
    found, plain = (np.linalg.norm(jax.jit(function)(x, kernel) - exact) for function in (convolve, convolve_plain))
    assert found < 0.9 * plain


@pytest.mark.parametrize(
    ("platform", "shape", "out", "dtype", "rows"),
    [
        ("cpu", (1, 64, 1024, 3), 16, jnp.float32, True),
        ("cpu", (2, 8, 9, 64), 100, jnp.float32, True),
        ("cpu", (2, 7, 7, 64), 100, jnp.float32, False),
        ("cpu", (1, 64, 1024, 3), 17, jnp.float32, False),
        ("cpu", (2, 8, 9, 3), 16, jnp.bfloat16, False),
        ("tpu", (2, 8, 9, 3), 16, jnp.float32, False),
        ("cuda", (2, 8, 9, 3), 16, jnp.float32, False),
    ],
    ids=["few channels", "few pixels", "fewer than channels", "many of both", "bfloat16", "TPU", "GPU"],
)
def test_a_cpu_alone_takes_it_where_that_pays(platform, shape, out, dtype, rows):
    given = jnp.zeros(shape, dtype), jnp.zeros((3, 3, shape[-1], out), dtype)
    text = jax.jit(convolve).trace(*given).lower(lowering_platforms=(platform,)).as_text()
    assert (f"tensor<1x3x{shape[-1]}x{3 * out}x" in text) == rows


def test_training_errs_less_than_by_winograd():
    """As PyTorch's does, whose convolution errs by less where gradients are asked for."""
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape, np.float32) for shape in ((1, 32, 32, 64), (3, 3, 64, 128))]
    with jax.enable_x64(True):
        exact = np.asarray(convolve_plain(*(jnp.asarray(each, jnp.float64) for each in given)))
    evaluated, trained = jax.jit(lambda *given: (convolve(*given), jax.vjp(convolve, *given)[0]))(*given)
    assert np.linalg.norm(trained - exact) < 0.5 * np.linalg.norm(evaluated - exact)


@pytest.mark.parametrize("out", [5, 16, 70])
def test_a_map_of_no_channels_adds_nothing(out):
    """Some encoders hand one on; its gradients are empty. The control: one channel of ones does add."""
    plan = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    for channels in (0, 1):
        given = jnp.ones((2, 8, 6, channels)), jnp.ones((3, 3, channels, out))
        y, pull = jax.vjp(jax.jit(lambda x, kernel: convolution(x, weight=kernel, **plan._asdict())), *given)
        assert (y.shape, [each.shape for each in pull(y)]) == ((2, 8, 6, out), [each.shape for each in given])
        assert bool((y == 0).all()) == (channels == 0)


def by_xla(x, kernel, plan):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        plan.stride,
        plan.padding,
        rhs_dilation=plan.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=plan.groups,
    )


def both_ways(shape, kernel, plan):
    """A convolution and its gradients, by this project and by XLA."""
    x, weight = drawn(shape, kernel)
    (gradient,) = drawn(by_xla(x, weight, plan).shape)
    found = []
    for function in (
        lambda x, kernel: convolution(x, weight=kernel, **plan._asdict()),
        lambda *both: by_xla(*both, plan),
    ):

        @jax.jit
        def both(x, weight, function=function):
            answer, pull = jax.vjp(function, x, weight)
            return answer, *pull(gradient)

        found.append(both(x, weight))
    return found


@st.composite
def geometries(draw):
    """A map, a kernel, and how it goes over it; maps of few pixels and of many, narrow ones and wide ones."""
    window, stride, far = draw(
        st.sampled_from([(3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 5), (5, 1, 1), (7, 2, 1), (2, 2, 1)])
    )
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    channels, out = (groups * draw(st.sampled_from([1, 3, 20, 70])) for _ in range(2))
    ends = window // 2 * far, window // 2 * far + draw(st.integers(0, 1))
    least = max(far * (window - 1) + 1 - sum(ends), 1)
    size = draw(st.integers(least, 20)), draw(st.integers(least, 34))
    plan = Geometry((stride,) * 2, (ends,) * 2, (far,) * 2, groups)
    return (draw(st.integers(1, 2)), *size, channels), (window, window, channels // groups, out), plan


@by_examples(2, 30, geometries())
def test_a_convolution_of_any_kind_and_its_gradients_are_xlas(given):
    with jax.enable_x64(True):
        ours, theirs = both_ways(*given)
        for name, found, expected in zip(("answer", "by the map", "by the kernel"), ours, theirs, strict=True):
            assert apart(found, expected) < 1e-12, name


STRIDED = (2, 5, 4, 3), (3, 3, 3, 70), Geometry((2, 2), ((1, 1), (1, 1)), (1, 1), 1)


@pytest.mark.parametrize(("which", "part"), [(1, "input_gradient"), (2, "kernel_gradient")])
def test_a_gradient_with_another_border_would_be_seen(x64, monkeypatch, which, part):
    right = getattr(convolutions, part)

    def shifted(*given):
        return right(*(one._replace(padding=((0, 2), (1, 1))) if isinstance(one, Geometry) else one for one in given))

    monkeypatch.setattr(convolutions, part, shifted)
    ours, theirs = both_ways(*STRIDED)
    assert apart(ours[which], theirs[which]) > 1e-2


def test_the_next_row_of_a_dilated_convolution_would_be_seen(x64, monkeypatch):
    right = convolution_kernels._every
    monkeypatch.setattr(convolution_kernels, "_every", lambda x, far: jnp.roll(right(x, far), 1, 0))
    ours, theirs = both_ways((1, 12, 12, 3), (3, 3, 3, 4), Geometry((1, 1), ((2, 2), (2, 2)), (2, 2), 1))
    assert apart(ours[0], theirs[0]) > 1e-2


@pytest.mark.parametrize(
    ("size", "channels"),
    few(
        {
            f"{size} {channels}": (size, channels)
            for channels in ((3, 5), (40, 70))
            for size in ((3, 4), (1, 1), (9, 5), (2, 3, 2))
        },
        *("(3, 4) (3, 5)", "(1, 1) (3, 5)", "(2, 3, 2) (40, 70)"),
    ),
)
def test_a_transposed_convolution_of_windows_that_do_not_overlap_is_xlas(x64, size, channels):
    window = (2, 3, 2)[: len(size)]
    given = drawn((2, *size, channels[0]), (*window, *channels[::-1]))
    plan = Geometry(window, ((0, 0),) * len(size), (1,) * len(size), 1)
    whole = tuple(n * k for n, k in zip(size, window, strict=True))
    (gradient,) = drawn((2, *whole, channels[1]))

    def by_xla(x, kernel):
        return spread(x, kernel, plan, whole)

    assert apart(jax.jit(moved_apart)(*given), by_xla(*given)) < 1e-12
    assert apart(derivatives(moved_apart, *given, gradient), derivatives(by_xla, *given, gradient)) < 1e-12
    assert apart(moved_apart(given[0], given[1][::-1]), by_xla(*given)) > 1e-2, (
        "the control: the rows the other way round"
    )
