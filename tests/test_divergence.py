"""`divergence` names the layer and the cause of every planted difference, and nothing where there is none."""

import dataclasses

import numpy as np
import pytest
from conftest import few

from unet_core import UNetConfig

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from planting import CONFIG, by_moments, checkpoint, in_torch, transposed
from torch.nn import functional

import unet_jax.kernels.normalisation
import unet_jax.operations.convolutions
from conversion.backends.backend import Forced
from conversion.backends.jax_backend import JaxRunner
from conversion.backends.torch_backend import TorchRunner, runner_of
from conversion.diagnosis.trials import _bfloat16, _tf32
from conversion.proof.samples import Sample
from unet_compare.divergence import COTANGENT, GRADIENT, MOVED, OUTPUT, STATISTICS, STEP, TIED, WHOLE, divergence
from unet_jax.operations import OPERATIONS
from unet_torch.checkpoint import from_checkpoint

SAMPLE = Sample("random", np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32))
A = in_torch()


def rounding(rounded):
    """The operands of a convolution are rounded in float32, as a GPU's matrix units do."""

    def near(value):
        exact = value.detach()
        return value + (torch.from_numpy(rounded(exact.numpy())).float() - exact)

    def fault(row, x, *, weight):
        return row(x, weight=weight) if x.dtype != torch.float32 else row(near(x), weight=near(weight))

    return fault


def reflecting(_, x, *, weight):
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), weight)


def fast(x):
    mean = x.mean((0, 2, 3), keepdim=True)
    return mean, (x * x).mean((0, 2, 3), keepdim=True) - mean * mean


def unbiased(x):
    return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=True)


def tracking_biased(row, x, *, run, **tensors):
    y = row(x, **tensors)
    if run.training:
        n = x.numel() // x.shape[1]
        run.track("variance", run.tracked["variance"] - 0.1 * x.var((0, 2, 3), unbiased=True).detach() / n)
    return y


PLANTED = {
    "TF32": (
        lambda: in_torch(at="bottom.conv.3", fault=rounding(_tf32)),
        ("bottom.conv.3", OUTPUT, "float32", "its products are rounded to TF32"),
    ),
    "bfloat16": (
        lambda: in_torch(at="up1.conv.0", fault=rounding(_bfloat16)),
        ("up1.conv.0", OUTPUT, "float32", "its products are rounded to bfloat16"),
    ),
    "biased variance, tracked": (
        lambda: in_torch(at="bottom.conv.1", fault=tracking_biased),
        ("bottom.conv.1", STATISTICS, "float64", "the variance tracked is the biased one"),
    ),
    "unbiased variance, normalising": (
        lambda: in_torch(at="up1.conv.1", fault=by_moments(unbiased)),
        ("up1.conv.1", OUTPUT, "float64", "unbiased variance"),
    ),
    "fast variance": (
        lambda: in_torch(at="up1.conv.4", fault=by_moments(fast)),
        ("up1.conv.4", MOVED, "float64", "E[x^2] - E[x]^2"),
    ),
    "half-pixel corners": (
        lambda: in_torch(dataclasses.replace(CONFIG, align_corners=False)),
        ("interpolate", OUTPUT, "float64", "half-pixel corners"),
    ),
    "concatenation order": (
        lambda: in_torch(dataclasses.replace(CONFIG, skip_first=True)),
        ("concatenate", OUTPUT, "float64", "the concatenation order is swapped"),
    ),
    "padding of odd sizes": (
        lambda: in_torch(dataclasses.replace(CONFIG, fit="pad")),
        ("interpolate", OUTPUT, "float64", "an odd size is padded"),
    ),
    "padding of the picture": (
        lambda: in_torch(at="down1.conv.3", fault=reflecting),
        ("down1.conv.3", OUTPUT, "float64", "padded with its reflection"),
    ),
    "no activation": (
        lambda: in_torch(at="bottom.conv.2", fault=lambda row, x: functional.silu(x)),
        ("bottom.conv.2", OUTPUT, "float64", "a SiLU stands in place of the ReLU"),
    ),
    "a mean in place of a maximum": (
        lambda: in_torch(at="max_pool", fault=lambda row, x: functional.avg_pool2d(x, 2)),
        ("max_pool", OUTPUT, "float64", "takes the mean instead of the maximum"),
    ),
    "epsilon": (
        lambda: in_torch(dataclasses.replace(CONFIG, norm_epsilon=1e-3)),
        ("down1.conv.1", OUTPUT, "float64", "epsilon is 0.001 instead of 1e-05"),
    ),
    "momentum": (
        lambda: in_torch(dataclasses.replace(CONFIG, norm_momentum=0.01)),
        ("down1.conv.1", STATISTICS, "float64", "the momentum is 0.01 instead of 0.1"),
    ),
    "a permuted kernel": (
        lambda: in_torch(**transposed("bottom.conv.0")),
        ("bottom.conv.0", OUTPUT, "float64", "height and width of the kernel are swapped"),
    ),
}


@pytest.mark.parametrize(("planted", "found"), few(PLANTED, *list(PLANTED)[::2]))
def test_a_planted_difference_is_named(planted, found):
    result = divergence(A, planted(), SAMPLE)
    layer, quantity, precision, cause = found
    assert (result.layer, result.quantity, result.precision) == (layer, quantity, precision)
    assert cause in (result.cause or "")
    assert result.trials[0].vanishes
    assert cause in result.trials[0].switch
    assert sum(trial.vanishes for trial in result.trials) == 1, "no other switch explains it"


def test_what_is_at_fault_departs_alone_and_what_follows_only_on_the_way():
    tables = {(table.pass_, table.mode): table for table in divergence(A, PLANTED["epsilon"][0](), SAMPLE).tables}
    alone, travelled = (
        {row.layer for row in tables["eval", mode].rows if not row.ok} for mode in ("isolated", "cumulative")
    )
    assert alone == {layer for layer in alone if layer.endswith((".conv.1", ".conv.4"))}
    assert "out" in travelled - alone


def test_an_unknown_cause_is_left_open():
    result = divergence(A, in_torch(at="down1.conv.3", fault=lambda row, x, **of: row(x, **of) * 1.001), SAMPLE)
    assert (result.layer, result.cause) == ("down1.conv.3", None)
    assert not any(trial.vanishes for trial in result.trials)


@pytest.mark.parametrize(
    ("place", "broken", "found"),
    [
        pytest.param(
            (unet_jax.kernels.normalisation, "two_pass"),
            lambda _: lambda x: (x.mean((0, 1)), (x * x).mean((0, 1)) - x.mean((0, 1)) ** 2),
            ("down1.conv.1", MOVED, "float64", "E[x^2] - E[x]^2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (unet_jax.operations.convolutions, "convolve"),
            lambda convolve: lambda x, kernel: convolve(_rounded(x), _rounded(kernel)),
            ("down1.conv.0", OUTPUT, "float32", "its products are rounded to bfloat16"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (OPERATIONS, "relu"),
            lambda row: dataclasses.replace(row, function=lambda x: jnp.maximum(x, 0)),
            ("up1.conv.4", TIED, "float64", "the ReLU's gradient at 0 is 0.5"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["fast variance", "bfloat16", "jnp.maximum"],
)
def test_a_broken_jax_twin_is_found(monkeypatch, request, place, broken, found):
    owner, name = place
    request.addfinalizer(jax.clear_caches)  # branches by platform are traced once for all
    jax.clear_caches()
    if isinstance(owner, dict):
        monkeypatch.setitem(owner, name, broken(owner[name]))
    else:
        monkeypatch.setattr(owner, name, broken(getattr(owner, name)))
    result = divergence(A, JaxRunner.of_checkpoint(checkpoint(), "B"), SAMPLE)
    layer, quantity, precision, cause = found
    assert (result.layer, result.quantity, result.precision) == (layer, quantity, precision)
    assert cause in (result.cause or "")


def _rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32) if x.dtype == jnp.float32 else x


@pytest.mark.slow
def test_a_faithful_conversion_raises_no_alarm():
    result = divergence(A, JaxRunner.of_checkpoint(checkpoint(), "B"), SAMPLE)
    assert (result.layer, result.cause, result.trials) == (None, None, ())
    assert {(table.pass_, table.mode) for table in result.tables} == {
        (pass_, mode) for pass_ in ("eval", "training", "backward", "update") for mode in ("isolated", "cumulative")
    }
    quantities = {row.quantity for table in result.tables for row in table.rows}
    assert quantities == {OUTPUT, STATISTICS, MOVED, COTANGENT, GRADIENT, TIED, STEP}


@pytest.mark.slow
@pytest.mark.parametrize(
    "features",
    [
        (4, 6),
        (16, 32),
        *(pytest.param(widths, marks=pytest.mark.long) for widths in ((5, 7, 9), (8, 4), (6, 8, 10, 12))),
    ],
    ids=str,
)
def test_fifty_random_networks_raise_no_alarm(features):
    """Ten of each, converted; what compiles alike compiles once."""
    config = UNetConfig(3, 2, features)
    for seed in range(10):
        x = np.random.default_rng(seed).standard_normal((2, 3 * config.minimum_size + 3, 29, 3), np.float32)
        one = checkpoint(config, seed)
        runners = TorchRunner.of_checkpoint(one, "A"), JaxRunner.of_checkpoint(one, "B")
        result = divergence(*(runners if seed % 2 else runners[::-1]), Sample("random", x), seed=seed)
        assert result.layer is None, f"{features} {seed}: {result.layer} {result.quantity} {result.error}"


@pytest.mark.parametrize("seed", few(range(8), 0))
def test_another_order_of_sums_raises_no_alarm(seed):
    """Random networks of the family against themselves, laid out otherwise in memory."""
    config = UNetConfig(
        3, 2, (5, 8, 6), ("bilinear", "transposed")[seed % 2], skip_first=seed % 3 == 0, conv_bias=seed % 4 == 1
    )
    one, other = (from_checkpoint(checkpoint(config, seed)) for _ in range(2))
    other = other.to(memory_format=torch.channels_last)
    x = np.random.default_rng(seed).standard_normal((2, 21, 18, 3), np.float32)
    result = divergence(runner_of(one, "A"), runner_of(other, "B"), Sample("random", x), seed=seed)
    assert result.layer is None, f"{result.layer} {result.quantity} {result.error}"


@pytest.mark.parametrize("kind", [TorchRunner, JaxRunner])
def test_a_fed_layer_errs_by_itself_alone(kind):
    """Forced to hand on zeros, every layer still answers what it would, given zeros."""
    trace = kind.of_checkpoint(checkpoint(), "B").tracer("float64", training=True)
    cotangent = np.ones((2, 11, 13, 2), np.float32)
    plain = trace(SAMPLE.x, cotangent)
    zeros = Forced(*({name: value * 0 for name, value in of.items()} for of in (plain.outputs, plain.cotangents)))
    fed = trace(SAMPLE.x, cotangent, zeros)
    assert np.array_equal(fed.outputs["down1.conv.0"], plain.outputs["down1.conv.0"]), "it is fed the same input"
    assert np.abs(fed.outputs["bottom.conv.0"]).max() == 0
    assert np.array_equal(fed.cotangents["out"], plain.cotangents["out"])
    assert np.abs(fed.cotangents["up1.conv.3"]).max() == 0
    assert list(fed.outputs) == list(plain.outputs)
    assert np.abs(fed.gradients["bottom.conv.0.weight"]).max() == 0 < np.abs(plain.gradients["out.bias"]).max()


def test_both_twins_trace_the_same():
    cotangent = np.random.default_rng(1).standard_normal((2, 11, 13, 2)).astype(np.float32)
    one, other = (
        kind.of_checkpoint(checkpoint(), "B").tracer("float64", training=True)(SAMPLE.x, cotangent)
        for kind in (TorchRunner, JaxRunner)
    )
    for field in ("outputs", "cotangents", "gradients", "statistics"):
        ours, theirs = getattr(one, field), getattr(other, field)
        assert list(ours) == list(theirs), field
        for name, value in ours.items():
            np.testing.assert_allclose(theirs[name], value, rtol=0, atol=1e-12 * max(np.abs(value).max(), 1e-3))


def test_a_node_that_b_lacks_is_passed_by():
    result = divergence(in_torch(dataclasses.replace(CONFIG, fit="pad")), A, SAMPLE)
    assert (result.layer, result.quantity) == ("interpolate", OUTPUT)
    assert result.cause == "an odd size is resized instead of padded with zeros"


@pytest.mark.slow
def test_a_program_that_is_no_graphs_is_seen(monkeypatch):
    """Where a rewrite is at fault, every node by itself is right."""
    monkeypatch.setattr("unet_jax.rewrites.rewritten", lambda graph, tensors: (graph, _scaled(tensors)))
    result = divergence(A, JaxRunner.of_checkpoint(checkpoint(), "B"), SAMPLE)
    assert (result.layer, result.quantity) == (WHOLE, OUTPUT)
    assert "the programs that are run compute something else" in result.cause


def _scaled(tensors):
    return {name: value * 1.001 if name == "out.weight" else value for name, value in tensors.items()}
