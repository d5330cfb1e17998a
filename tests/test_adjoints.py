"""What departs in the backward pass or in an update alone is named with its cause; an unknown cause is left open."""

import dataclasses
from unittest import mock

import numpy as np
import optax
import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

import torch
from conftest import few, trained_tensors
from torch import nn
from torch.nn import functional

import unet_torch.model
from comparison.adjoints import Scene, output_trials
from comparison.divergence import COTANGENT, GRADIENT, STEP, TIED, divergence
from conversion.runners import Forced, layers_of
from conversion.samples import Sample
from conversion.suspects import _bfloat16, _tf32
from conversion.torch_runner import TorchRunner, optimizer_of
from unet_core import UNetConfig
from unet_core.checkpoint import Checkpoint
from unet_torch.checkpoint import from_checkpoint
from unet_torch.layers import join, max_pool

CONFIG = UNetConfig(2, 2, (6, 8))
SAMPLE = Sample("random", np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32))


def in_torch(name=None, kind=None, runner=TorchRunner, config=CONFIG):
    """A runner of a network, one of whose layers is of another class."""
    checkpoint = Checkpoint(config, trained_tensors(config))
    model = from_checkpoint(checkpoint)
    if name is not None:
        model.get_submodule(name).__class__ = kind
    return runner(model, checkpoint, "B")


A = in_torch()


def rounding(rounded):
    """A convolution that rounds the operands of its backward pass alone, in float32."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(context, x, kernel):
            context.save_for_backward(x, kernel)
            return functional.conv2d(x, kernel, padding=1)

        @staticmethod
        def backward(context, gradient):
            given = [gradient, *context.saved_tensors]
            if gradient.dtype == torch.float32:
                given = [torch.from_numpy(rounded(value.detach().numpy())).float() for value in given]
            gradient, x, kernel = given
            return (
                nn.grad.conv2d_input(x.shape, kernel, gradient, padding=1),
                nn.grad.conv2d_weight(x, kernel.shape, gradient, padding=1),
            )

    class Rounding(nn.Conv2d):
        def forward(self, x):
            return Product.apply(x, self.weight)

    return Rounding


class OfMaximum(nn.ReLU):
    def forward(self, x):
        return torch.maximum(x, torch.zeros_like(x))


class Constant(nn.BatchNorm2d):
    """Its statistics are constants for the gradient."""

    mean = variance = True

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        functional.batch_norm(x.detach(), self.running_mean, self.running_var, None, None, True, self.momentum)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        mean, variance = mean.detach() if self.mean else mean, variance.detach() if self.variance else variance
        y = (x - mean) / torch.sqrt(variance + self.eps)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class ConstantVariance(Constant):
    mean = False


class Doubled(nn.Conv2d):
    def forward(self, x):
        y = super().forward(x)
        return y + (y - y.detach())


class Detached(nn.Conv2d):
    def forward(self, x):
        return super().forward(x.detach())


class Clipping(nn.Conv2d):
    """Its gradient is one of no known kind."""

    def forward(self, x):
        y = super().forward(x)
        y.register_hook(lambda gradient: gradient.clamp(-2e-4, 2e-4)) if y.requires_grad else None
        return y


def with_patch(name, function):
    """A runner that runs the network with another function of its module."""

    class Patched(TorchRunner):
        def tracer(self, precision, *, training):
            trace = super().tracer(precision, training=training)

            def patched(*given):
                with mock.patch.object(unet_torch.model, name, function):
                    return trace(*given)

            return patched

    return in_torch(runner=Patched)


def pooled_by_axes(x):
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))


def pooled_from_the_end(x):
    h, w = (size // 2 * 2 for size in x.shape[2:])
    return max_pool(x[:, :, :h, :w].flip(2, 3)).flip(2, 3)


BACKWARD = {
    "ReLU's gradient at 0": (
        lambda: in_torch("bottom.conv.2", OfMaximum),
        ("bottom.conv.1", TIED, "float64", "the ReLU's gradient at 0 is 0.5"),
    ),
    "statistics without a gradient": (
        lambda: in_torch("up1.conv.4", Constant),
        ("up1.conv.3", COTANGENT, "float64", "no gradient goes through the batch's mean and variance"),
    ),
    "a variance without a gradient": (
        lambda: in_torch("down1.conv.1", ConstantVariance),
        ("down1.conv.0", COTANGENT, "float64", "no gradient goes through the batch's variance"),
    ),
    "ties shared in the pool": (
        lambda: with_patch("max_pool", pooled_by_axes),
        ("down1.conv.4", TIED, "float64", "shares the gradient among equal values"),
    ),
    "ties to the last in the pool": (
        lambda: with_patch("max_pool", pooled_from_the_end),
        ("down1.conv.4", TIED, "float64", "to the last of equal values"),
    ),
    "a skip connection without a gradient": (
        lambda: with_patch("join", lambda x, skip, *given: join(x, skip.detach(), *given)),
        ("down1.conv.4", COTANGENT, "float64", "no gradient goes through the skip connection"),
    ),
    "a layer without a gradient": (
        lambda: in_torch("up1.conv.0", Detached),
        ("bottom.conv.4", COTANGENT, "float64", "no gradient arrives"),
    ),
    "a factor": (
        lambda: in_torch("bottom.conv.0", Doubled),
        ("bottom.conv.0", GRADIENT, "float64", "the gradient is 2 times as large"),
    ),
    "TF32, backward": (
        lambda: in_torch("up1.conv.3", rounding(_tf32)),
        ("up1.conv.3", GRADIENT, "float32", "rounded to TF32"),
    ),
    "bfloat16, backward": (
        lambda: in_torch("bottom.conv.3", rounding(_bfloat16)),
        ("bottom.conv.3", GRADIENT, "float32", "rounded to bfloat16"),
    ),
}


class Uncorrected(torch.optim.Optimizer):
    """Adam, but that its means start at zero and stay too small."""

    def step(self):
        for owner in self.param_groups[0]["params"]:
            state = self.state[owner]
            state["mean"] = 0.9 * state.get("mean", 0) + 0.1 * owner.grad
            state["square"] = 0.999 * state.get("square", 0) + 0.001 * owner.grad**2
            owner.data -= 1e-3 * state["mean"] / (state["square"].sqrt() + 1e-8)


class Optax(torch.optim.Optimizer):
    """An optax optimiser under torch's face, in float64."""

    def __init__(self, parameters, transform):
        super().__init__(parameters, {})
        self.transform = transform
        self.now = [owner.detach().numpy().astype(np.float64) for owner in self.param_groups[0]["params"]]
        self.slots = transform.init(self.now)

    def step(self):
        import jax

        owners = self.param_groups[0]["params"]
        with jax.enable_x64(True):
            given = [owner.grad.numpy().astype(np.float64) for owner in owners]
            steps, self.slots = self.transform.update(given, self.slots, self.now)
        for owner, step in zip(owners, steps, strict=True):
            owner.data += torch.from_numpy(np.array(step)).to(owner.dtype)
        self.now = [owner.detach().numpy().astype(np.float64) for owner in owners]


def updating(make):
    """A runner whose optimiser is another one."""

    class Updating(TorchRunner):
        def stepped(self, gradients, settings, precision):
            with mock.patch("conversion.torch_runner.optimizer_of", lambda given, owners: make(given, owners)):
                return super().stepped(gradients, settings, precision)

    return in_torch(runner=Updating)


def set_to(**changed):
    return lambda: updating(lambda given, owners: optimizer_of(dataclasses.replace(given, **changed), owners))


UPDATE = {
    "epsilon inside the root": (
        lambda: updating(lambda _, owners: Optax(owners, optax.adam(1e-3, eps=0.0, eps_root=1e-8))),
        "epsilon stands inside the square root",
    ),
    "no bias correction": (
        lambda: updating(lambda _, owners: Uncorrected(owners, {})),
        "Adam's bias correction is missing",
    ),
    "AdamW's decay": (
        set_to(optimizer="adamw", weight_decay=1e-2),
        "the weights decay by 0.01 of themselves",
    ),
    "AdamW's decay, optax's default": (
        set_to(optimizer="adamw", weight_decay=1e-4),
        "the weights decay by 0.0001 of themselves",
    ),
    "L2": (set_to(weight_decay=1e-4), "a weight decay of 0.0001 is added to the gradients"),
    "the rate": (set_to(rate=1.01e-3), "the learning rate is 0.00101 instead of 0.001"),
    "beta1": (set_to(betas=(0.5, 0.999)), "Adam's beta1 is 0.5 instead of 0.9"),
    "beta2": (set_to(betas=(0.9, 0.99)), "Adam's beta2 is 0.99 instead of 0.999"),
    "Keras's epsilon": (set_to(epsilon=1e-7), "Adam's epsilon is 1e-07 instead of 1e-08"),
}


def check(result, found):
    layer, quantity, precision, cause = found
    assert (result.layer, result.quantity, result.precision) == (layer, quantity, precision)
    assert cause in (result.cause or ""), result.trials
    assert [cause in trial.switch for trial in result.trials if trial.vanishes] == [True], "no other switch explains it"


@pytest.mark.parametrize(("planted", "found"), few(BACKWARD, *list(BACKWARD)[::2]))
def test_a_difference_of_the_backward_pass_is_named(planted, found):
    check(divergence(A, planted(), SAMPLE), found)


@pytest.mark.parametrize(("planted", "cause"), few(UPDATE, *list(UPDATE)[::2]))
def test_a_difference_of_the_update_is_named(planted, cause):
    check(divergence(A, planted(), SAMPLE), ("down1.conv.0", STEP, "float64", cause))


def test_a_fault_of_a_is_said_to_be_its_own():
    result = divergence(in_torch("bottom.conv.2", OfMaximum), A, SAMPLE)
    assert (result.layer, result.quantity) == ("bottom.conv.1", TIED)
    assert result.cause == "in A, the ReLU's gradient at 0 is 0.5 instead of 0 (jnp.maximum)"


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (lambda: in_torch("up1.conv.3", Clipping), ("up1.conv.3", GRADIENT)),
        (lambda: updating(lambda given, owners: torch.optim.Adamax(owners, given.rate)), ("down1.conv.0", STEP)),
    ],
    ids=["gradient", "update"],
)
def test_an_unknown_cause_is_left_open(planted, found):
    result = divergence(A, planted(), SAMPLE)
    assert (result.layer, result.quantity, result.cause) == (*found, None)
    assert result.trials
    assert not any(trial.vanishes for trial in result.trials)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(2, 2, (4, 6, 8)),
        UNetConfig(2, 2, (4, 6, 8), skip_first=True, fit="pad"),
        UNetConfig(2, 2, (4, 6, 8), align_corners=False, conv_bias=True),
        UNetConfig(2, 2, (4, 6, 8), "transposed"),
        UNetConfig(2, 2, (4, 6, 8), "transposed", fit="pad"),
    ],
    ids=str,
)
def test_nothing_is_left_where_nothing_is_switched(config):
    """In every configuration the gradients in NumPy are those of autograd; a doubled one leaves only "2 times"."""
    runner = in_torch(config=config)
    x = np.random.default_rng(0).standard_normal((2, 19, 21, 2), np.float32)
    cotangent = np.random.default_rng(1).standard_normal((2, 19, 21, 2)).astype(np.float32)
    trace = runner.tracer("float64", training=True)
    forced = Forced.of(trace(x, cotangent), config)
    found = trace(x, cotangent, forced)
    outputs = {**found.outputs, **forced.outputs}
    for layer in layers_of(config)[:-1]:
        scene = Scene(config, runner.tensors, layer, x, outputs, forced.cotangents, "float64")
        exact = found.cotangents[layer]
        best = output_trials(scene, exact, 2 * exact, 1e-13)[0]
        assert (best.switch, best.vanishes) == ("the gradient is 2 times as large", True), layer
