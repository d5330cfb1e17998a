"""`divergence` names the layer and the cause of every planted difference, and nothing where there is none."""

import dataclasses

import numpy as np
import pytest
from conftest import few, trained_tensors

from unet_core import UNetConfig
from unet_core.checkpoint import Checkpoint

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from torch import nn
from torch.nn import functional

import unet_jax.layers
import unet_jax.normalisation
from comparison.divergence import COTANGENT, GRADIENT, MOVED, OUTPUT, STATISTICS, STEP, TIED, divergence
from conversion.jax_runner import JaxRunner
from conversion.runners import Forced
from conversion.samples import Sample
from conversion.suspects import _bfloat16, _tf32
from conversion.torch_runner import TorchRunner, runner_of
from unet_torch.checkpoint import from_checkpoint

CONFIG = UNetConfig(2, 2, (6, 8))
SAMPLE = Sample("random", np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32))


def checkpoint(config=CONFIG, seed=0, **changed):
    return Checkpoint(config, {**trained_tensors(config, seed), **changed})


def in_torch(config=CONFIG, change=None, **changed):
    given = checkpoint(config, **changed)
    model = from_checkpoint(given)
    if change is not None:
        change(model)
    return TorchRunner(model, given, "B")


A = in_torch()


class Rounded(nn.Conv2d):
    """Its operands are rounded in float32, as a GPU's matrix units do."""

    rounding = staticmethod(_tf32)

    def forward(self, x):
        if x.dtype != torch.float32:
            return super().forward(x)
        x, kernel = map(self.rounded, (x, self.weight))
        return functional.conv2d(x, kernel, self.bias, padding=self.padding)

    def rounded(self, value):
        exact = value.detach()
        return value + (torch.from_numpy(self.rounding(exact.numpy())).float() - exact)


class Bfloat16(Rounded):
    rounding = staticmethod(_bfloat16)


class Reflecting(nn.Conv2d):
    def forward(self, x):
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, self.weight, self.bias)


class FastVariance(nn.BatchNorm2d):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = (x * x).mean((0, 2, 3), keepdim=True) - mean * mean
        return self.scaled((x - mean) / torch.sqrt(variance + self.eps), x)

    def scaled(self, y, x):
        functional.batch_norm(x, self.running_mean, self.running_var, None, None, True, self.momentum, self.eps)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class Unbiased(FastVariance):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=True)
        return self.scaled((x - mean) / torch.sqrt(variance + self.eps), x)


class BiasedTracking(nn.BatchNorm2d):
    def forward(self, x):
        y = super().forward(x)
        if self.training:
            n = x.numel() // x.shape[1]
            with torch.no_grad():
                batch = x.var((0, 2, 3), unbiased=True)
                self.running_var.data -= self.momentum * batch / n
        return y


def become(name, kind):
    """A change of a model: one of its layers gets another class."""

    def change(model):
        model.get_submodule(name).__class__ = kind

    return change


def kernel(name):
    value = trained_tensors(CONFIG)[f"{name}.weight"]
    return {f"{name}.weight": np.ascontiguousarray(value.swapaxes(2, 3))}


PLANTED = {
    "TF32": (
        lambda: in_torch(change=become("bottom.conv.3", Rounded)),
        ("bottom.conv.3", OUTPUT, "float32", "its products are rounded to TF32"),
    ),
    "bfloat16": (
        lambda: in_torch(change=become("up1.conv.0", Bfloat16)),
        ("up1.conv.0", OUTPUT, "float32", "its products are rounded to bfloat16"),
    ),
    "biased variance, tracked": (
        lambda: in_torch(change=become("bottom.conv.1", BiasedTracking)),
        ("bottom.conv.1", STATISTICS, "float64", "the variance tracked is the biased one"),
    ),
    "unbiased variance, normalising": (
        lambda: in_torch(change=become("up1.conv.1", Unbiased)),
        ("up1.conv.1", OUTPUT, "float64", "unbiased variance"),
    ),
    "fast variance": (
        lambda: in_torch(change=become("up1.conv.4", FastVariance)),
        ("up1.conv.4", MOVED, "float64", "E[x^2] - E[x]^2"),
    ),
    "half-pixel corners": (
        lambda: in_torch(dataclasses.replace(CONFIG, align_corners=False)),
        ("up1.join", OUTPUT, "float64", "half-pixel corners"),
    ),
    "concatenation order": (
        lambda: in_torch(dataclasses.replace(CONFIG, skip_first=True)),
        ("up1.join", OUTPUT, "float64", "the concatenation order is swapped"),
    ),
    "padding of odd sizes": (
        lambda: in_torch(dataclasses.replace(CONFIG, fit="pad")),
        ("up1.join", OUTPUT, "float64", "an odd size is padded"),
    ),
    "padding of the picture": (
        lambda: in_torch(change=become("down1.conv.3", Reflecting)),
        ("down1.conv.3", OUTPUT, "float64", "padded with its reflection"),
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
        lambda: in_torch(**kernel("bottom.conv.0")),
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
    class Odd(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 1.001

    result = divergence(A, in_torch(change=become("down1.conv.3", Odd)), SAMPLE)
    assert (result.layer, result.cause) == ("down1.conv.3", None)
    assert not any(trial.vanishes for trial in result.trials)


@pytest.mark.parametrize(
    ("place", "broken", "found"),
    [
        pytest.param(
            (unet_jax.normalisation, "two_pass"),
            lambda _: lambda x: (x.mean((0, 1, 2)), (x * x).mean((0, 1, 2)) - x.mean((0, 1, 2)) ** 2),
            ("down1.conv.1", MOVED, "float64", "E[x^2] - E[x]^2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (unet_jax.layers.Convolution, "apply"),
            lambda apply: staticmethod(lambda x, kernel: apply(_rounded(x), _rounded(kernel))),
            ("down1.conv.0", OUTPUT, "float32", "its products are rounded to bfloat16"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (unet_jax.layers, "relu"),
            lambda _: lambda x: jnp.maximum(x, 0),
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
    monkeypatch.setattr(owner, name, broken(getattr(owner, name)))
    result = divergence(A, JaxRunner.of_checkpoint(checkpoint(), "B"), SAMPLE)
    layer, quantity, precision, cause = found
    assert (result.layer, result.quantity, result.precision) == (layer, quantity, precision)
    assert cause in (result.cause or "")


def _rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32) if x.dtype == jnp.float32 else x


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


@pytest.mark.parametrize("seed", few(range(8), 0, 1))
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
