"""The faster network is the plain one: logits, gradients, statistics, in float64, with controls."""

from functools import partial

import numpy as np
import pytest
from conftest import few, trained_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.graph.resampling import Resampling, weights

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx
from jax.extend.core import jaxprs_in_params

import unet_jax
from unet_core.errors import CheckpointError
from unet_jax.checkpoint import from_checkpoint
from unet_jax.compilation import compiler_options
from unet_jax.kernels import upsampled, winograd
from unet_jax.kernels.convolution import convolve, convolve_plain
from unet_jax.kernels.pooling import max_pool_of_two as max_pool
from unet_jax.kernels.pooling import max_pool_of_two_plain as max_pool_plain
from unet_jax.kernels.upsampled import by_products, by_shifts, convolve_upsampled
from unet_jax.model import UNet
from unet_jax.network import frozen
from unet_jax.operations import OPERATIONS, rewritten
from unet_jax.operations.interpolation import interpolate
from unet_jax.rewrites.parts import part_of
from unet_jax.training.layout import in_torchs_layout, kernels_first

FAMILY = [
    UNetConfig(3, 2, (2, 3, 4)),
    UNetConfig(3, 2, (2, 3, 4), align_corners=False, skip_first=True, conv_bias=True),
    UNetConfig(3, 2, (2, 3, 4), fit="pad"),
    UNetConfig(3, 2, (2, 3, 4), fit="pad", align_corners=False),
    UNetConfig(3, 2, (2, 3, 4), upsampling="transposed"),
    UNetConfig(3, 2, (2, 3, 4), upsampling="transposed", fit="pad", skip_first=True),
]


def both(config, dtype=np.float64):
    """The faster network and the plain one, of the same weights, in training mode."""
    tensors = {
        key: value.astype(dtype) if value.dtype == np.float32 else value
        for key, value in trained_tensors(config).items()
    }
    ours = from_checkpoint(Checkpoint(config, tensors))
    ours.train()
    plain = UNet.from_config(config, param_dtype=dtype, rewrites=False, rngs=None)
    nnx.update(plain, nnx.state(ours))
    return ours, plain


def trained(model, x, cotangent):
    """Logits, statistics, and gradients of the parameters and of the input."""
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    @jax.jit
    def run(params, x):
        def loss(params, x):
            model = nnx.merge(graph, params, stats, copy=True)
            logits = model.logits(x)
            return (logits * cotangent).mean(), (logits, nnx.state(model, nnx.BatchStat))

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    return jax.tree.map(np.asarray, run(params, x))


def taps_of(below, size, align_corners=True, fit="resize"):
    """How so many points below are brought to this size."""
    target = size if fit == "resize" else 2 * below
    return rewritten._taps(Resampling("linear", below, target, None, align_corners), (0, size - target))


def apart(found, expected):
    """The largest difference of any array, relative to its largest value or the scale of all."""
    leaves = [*zip(*(map(np.asarray, jax.tree.leaves(of)) for of in (found, expected)), strict=True)]
    scale = max(np.abs(b).max() for _, b in leaves)
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3 * scale) for a, b in leaves)


def inputs(config, size, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.standard_normal((2, *size, channels))) for channels in (config.in_channels, config.out_channels)
    )


@pytest.mark.parametrize(
    "config", [FAMILY[0], *(pytest.param(config, marks=pytest.mark.slow) for config in FAMILY[1:])]
)
@pytest.mark.parametrize("fewer", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.slow
def test_the_faster_network_trains_as_the_plain_one(x64, monkeypatch, config, fewer):
    """On a size that is odd at one level for the rows, at the other for the columns; one of the maps is wide.

    And with `fewer` multiplications, as wide convolutions have them on a CPU.
    """
    for name in ("_LEAST", "_WIDER", "_PIXELS") if fewer else ():
        monkeypatch.setattr(winograd, name, 1)
    ours, plain = both(config)
    given = inputs(config, (14, 41))
    assert apart(trained(ours, *given), trained(plain, *given)) < 1e-12


@settings(deadline=None, max_examples=6)
@given(st.integers(2, 12), st.integers(2, 12), st.booleans(), st.sampled_from(["resize", "pad"]))
@pytest.mark.slow
def test_any_size_is_upsampled_and_convolved_as_plainly(height, width, align_corners, fit):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, height // 2, width // 2, 3)), rng.standard_normal((3, 3, 3, 2))
    taps = [taps_of(size // 2, size, align_corners, fit) for size in (height, width)]
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(x), jnp.asarray(kernel)
        target = (height, width) if fit == "resize" else (height // 2 * 2, width // 2 * 2)

        @jax.jit
        def plainly(x, kernel):
            raised = interpolate(x, mode="linear", size=target, align_corners=align_corners)
            lacking = [(0, size - had) for size, had in zip((height, width), target, strict=True)]
            return convolve_plain(jnp.pad(raised, ((0, 0), *lacking, (0, 0))), kernel)

        found = jax.jit(lambda x, kernel: convolve_upsampled(x, kernel, *taps))(x, kernel)[:, :height, :width]
        np.testing.assert_allclose(found, plainly(x, kernel), rtol=0, atol=1e-13)


def test_another_upsampling_would_be_seen(x64, monkeypatch):
    ours, plain = both(FAMILY[0])

    taps = rewritten._taps
    monkeypatch.setattr(rewritten, "_taps", lambda how, border: taps(how._replace(align_corners=False), border))
    x = inputs(FAMILY[0], (16, 16))[0]
    ours.eval(), plain.eval()
    assert apart(jax.jit(ours.logits)(x), jax.jit(plain.logits)(x)) > 1e-3


@pytest.mark.parametrize("size", few([((8, 8),), ((9, 12),), ((11, 5),), ((2, 3),)], ((11, 5),)))
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("few", [0, 64])
def test_all_ways_of_upsampling_the_taps_are_one(x64, untraced, monkeypatch, size, align_corners, few):
    """The one of CPUs and those of the other platforms, on constants and inside a compiled function."""
    monkeypatch.setattr(upsampled, "_FEW", few)
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, *(points // 2 for points in size), 4)), rng.standard_normal((3, 3, 4, 2))
    taps = [taps_of(points // 2, points, align_corners) for points in size]
    given = jnp.asarray(x), jnp.asarray(kernel), *taps
    expected = by_shifts(*given)
    for way in (jax.jit(by_shifts), by_products, jax.jit(by_products)):
        assert apart(way(*given), expected) < 1e-13


@pytest.mark.parametrize("strips", few([2, 4, 8], 4))
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("few", [0, 64])
def test_rows_in_strips_are_upsampled_as_the_whole(x64, monkeypatch, strips, align_corners, few):
    """The gradients, too; down to a single row in each."""
    monkeypatch.setattr(upsampled, "_FEW", few)
    rng = np.random.default_rng(0)
    x, kernel, cotangent = map(rng.standard_normal, ((2, 8, 3, 4), (3, 3, 4, 2), (2, 16, 6, 2)))
    rows, columns = (taps_of(size, 2 * size, align_corners) for size in (8, 3))

    @partial(jax.jit, static_argnums=0)
    def trained(strips):
        y, backward = jax.vjp(lambda *given: by_products(*given, rows, columns, strips), *map(jnp.asarray, (x, kernel)))
        return y, *backward(jnp.asarray(cotangent))

    assert apart(trained(strips), trained(1)) < 1e-13


def test_strips_without_their_neighbours_would_be_seen(x64):
    x, kernel = (jnp.asarray(np.random.default_rng(0).random(shape)) for shape in ((2, 8, 3, 4), (3, 3, 4, 2)))
    rows, columns = (taps_of(size, 2 * size) for size in (8, 3))
    alone = [by_products(x[:, part], kernel, rows[part], columns) for part in (slice(0, 4), slice(4, 8))]
    assert apart(jnp.concatenate(alone, 1), by_products(x, kernel, rows, columns)) > 1e-2


@pytest.mark.parametrize("swapped", [(0, 1), (0, 2)])
def test_swapped_taps_would_be_seen(x64, swapped):
    x, kernel = np.random.default_rng(0).standard_normal((1, 5, 6, 3)), np.random.default_rng(1).random((3, 3, 3, 2))
    taps = [taps_of(size, 2 * size) for size in (5, 6)]
    found = jax.jit(lambda kernel: convolve_upsampled(jnp.asarray(x), kernel, *taps))
    expected = jax.jit(
        lambda: convolve_plain(
            interpolate(jnp.asarray(x), mode="linear", size=(10, 12), align_corners=True), jnp.asarray(kernel)
        )
    )()
    assert apart(found(kernel), expected) < 1e-14
    order = [0, 1, 2]
    order[swapped[0]], order[swapped[1]] = order[swapped[1]], order[swapped[0]]
    assert apart(found(kernel[:, order]), expected) > 1e-2


def test_float32_is_as_exact_as_the_plain_network():
    config = UNetConfig(3, 1, (16, 32))
    x = inputs(config, (48, 64))[0]
    with jax.enable_x64(True):
        exact = both(config)[1]
        exact.eval()
        expected = np.asarray(jax.jit(exact.logits)(x.astype(jnp.float64)))
    errors = []
    for model in both(config, np.float32):
        model.eval()
        errors.append(np.linalg.norm(np.asarray(jax.jit(model.logits)(x), np.float64) - expected))
    assert errors[0] <= 1.25 * errors[1]


def arrays_of(function, *arguments):
    """The shapes of all that a function makes."""
    found = set()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            found.update(tuple(variable.aval.shape) for variable in equation.outvars)
            for inner in jaxprs_in_params(equation.params):
                walk(inner)

    walk(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def test_neither_the_upsampled_map_nor_the_concatenation_is_made():
    config = UNetConfig(1, 1, (3, 5, 7))
    x = jnp.zeros((1, 32, 32, 1))
    raised, joint = (1, 16, 16, 7), (1, 16, 16, 12)
    ours, plain = (UNet.from_config(config, rewrites=rewrites, rngs=None) for rewrites in (True, False))
    for model in (ours, plain):
        model.eval()
    assert not arrays_of(ours.logits, x) & {raised, joint}
    assert arrays_of(plain.logits, x) >= {raised, joint}, "the control"


@pytest.mark.parametrize(("platform", "by_rows"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_each_platform_takes_its_own_kernel_gradient(platform, by_rows):
    x, kernel = jnp.zeros((1, 8, 64, 8)), jnp.zeros((3, 3, 8, 8))
    program = jax.jit(jax.grad(lambda kernel: convolve(x, kernel).sum()))
    text = program.trace(kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == by_rows


def test_a_pools_gradient_is_xlas_on_odd_sizes(x64):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 9, 3)))
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 4, 3)))
    found, expected = (jax.vjp(pool, x)[1](cotangent)[0] for pool in (max_pool, max_pool_plain))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "config", [FAMILY[5], *(pytest.param(config, marks=pytest.mark.slow) for config in FAMILY[:5])]
)
def test_the_folded_network_predicts_the_same(x64, config):
    model, _ = both(config)
    x = inputs(config, (21, 38))[0]
    folded = frozen(model)
    assert not folded.training
    assert model.training, "the network itself stays as it is"
    model.eval()
    assert apart(jax.jit(folded.logits)(x), jax.jit(model.logits)(x)) < 1e-13
    assert not jax.tree.leaves(nnx.state(folded, nnx.BatchStat))


def test_a_folded_network_is_neither_saved_nor_trained(tmp_path):
    folded = frozen(UNet(1, 1, features=(2, 3), rngs=0))
    with pytest.raises(CheckpointError):
        unet_jax.save(folded, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    folded.train()
    assert not folded.training


def test_float64_is_compiled_without_the_options():
    assert compiler_options("cpu", wide=True) is None


def test_compiler_options_that_xla_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr("unet_jax.compilation._CPU", {"xla_cpu_of_another_day": "true"})
    compiler_options.cache_clear()
    assert compiler_options("cpu") is None
    compiler_options.cache_clear()
    assert compiler_options("tpu") is None


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_flat_map_stays_what_it_is_at_every_size(align_corners, antialias):
    raised = [
        Resampling("linear", length, target, align_corners=align_corners, antialias=antialias, double=double)
        for length, target in ((7, 15), (9, 19), (10, 21), (37, 75), (30, 11))
        for double in (False, True)
    ]
    sums = [weights(how).astype(np.float32).astype(np.float64).sum(1) for how in raised]
    assert all((found == 1).all() for found in sums[::2])
    assert any((found != 1).any() for found in sums[1::2]), "the control: each weight rounded by itself"


def test_interpolation_has_no_gather_and_no_scatter():
    def loss(x):
        return jnp.square(interpolate(x, mode="linear", size=(15, 19), align_corners=True)).sum()

    text = jax.jit(jax.value_and_grad(loss)).lower(jnp.ones((1, 7, 9, 3))).as_text()
    assert "gather" not in text
    assert "scatter" not in text
    control = jax.jit(jax.grad(lambda x: x[:, jnp.array([0, 0, 1])].sum())).lower(jnp.ones((1, 7, 9, 3))).as_text()
    assert "scatter" in control


def test_a_max_pool_gives_a_ties_gradient_to_the_first(x64):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3)).astype(np.float64))
    cotangent = jnp.ones((4, 4, 4, 3))
    found = jax.vjp(max_pool, x)[1](cotangent)[0].reshape(4, 4, 2, 4, 2, 3).transpose(0, 1, 3, 5, 2, 4)
    windows = x.reshape(4, 4, 2, 4, 2, 3).transpose(0, 1, 3, 5, 2, 4)
    expected = jax.nn.one_hot(windows.reshape(4, 4, 4, 3, 4).argmax(-1), 4).reshape(windows.shape)
    np.testing.assert_array_equal(found, expected)


def test_relu_has_no_gradient_at_zero():
    relu = OPERATIONS["relu"].function
    assert jax.grad(relu)(0.0) == 0.0
    assert jax.grad(lambda x: jnp.maximum(x, 0))(0.0) == 0.5, "the control: the other ReLU has one"


@pytest.mark.parametrize(
    ("cut", "moved"),
    [(part_of, False), pytest.param(lambda kernel, first, last: kernel[:, first:last], True, id="in torch's layout")],
)
def test_the_gradient_of_a_kernel_in_parts_is_put_together_as_the_kernel_lies(cut, moved):
    """It is never transposed, for the optimiser would read it across the memory; the second is the control."""

    def loss(kernel):
        parts = (cut(in_torchs_layout(kernel), *ends) for ends in ((0, 3), (3, 8)))
        return sum((kernels_first(part) ** 2).sum() for part in parts)

    kernel = jax.ShapeDtypeStruct((3, 3, 8, 4), "float32")
    text = jax.jit(jax.grad(loss)).lower(kernel).compile().as_text()
    assert (" transpose(" in text) == moved
