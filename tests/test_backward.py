"""What departs in the backward pass or in an update alone is named with its cause; an unknown cause is left open."""

import dataclasses
from unittest import mock

import numpy as np
import optax
import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

import torch
from conftest import few
from planting import by_moments, in_torch
from torch import nn
from torch.nn import functional

from conversion.backends.backend import Forced
from conversion.backends.torch_backend import TorchRunner, optimizer_of
from conversion.diagnosis.backward import output_trials
from conversion.diagnosis.nodes import network_of
from conversion.diagnosis.trials import _bfloat16, _tf32
from conversion.proof.samples import Sample
from unet_compare.divergence import COTANGENT, GRADIENT, STEP, TIED, divergence
from unet_core import UNetConfig

SAMPLE = Sample("random", np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32))
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

    return lambda row, x, *, weight: Product.apply(x, weight)


def of_maximum(_, x):
    return torch.maximum(x, torch.zeros_like(x))


def constant(*moments):
    """A BatchNorm whose statistics are constants for the gradient."""

    def found(x):
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        named = (("mean", mean), ("variance", variance))
        return [value.detach() if name in moments else value for name, value in named]

    return by_moments(found)


def doubled(row, x, **tensors):
    y = row(x, **tensors)
    return y + (y - y.detach())


def clipping(row, x, **tensors):
    """Its gradient is one of no known kind."""
    y = row(x, **tensors)
    y.register_hook(lambda gradient: gradient.clamp(-2e-4, 2e-4)) if y.requires_grad else None
    return y


def pooled_by_axes(_, x):
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))


def pooled_from_the_end(_, x):
    h, w = (size // 2 * 2 for size in x.shape[2:])
    return functional.max_pool2d(x[:, :, :h, :w].flip(2, 3), 2).flip(2, 3)


BACKWARD = {
    "ReLU's gradient at 0": (
        lambda: in_torch(at="bottom.conv.2", fault=of_maximum),
        ("bottom.conv.1", TIED, "float64", "the ReLU's gradient at 0 is 0.5"),
    ),
    "statistics without a gradient": (
        lambda: in_torch(at="up1.conv.4", fault=constant("mean", "variance")),
        ("up1.conv.3", COTANGENT, "float64", "no gradient goes through the batch's mean and variance"),
    ),
    "a variance without a gradient": (
        lambda: in_torch(at="down1.conv.1", fault=constant("variance")),
        ("down1.conv.0", COTANGENT, "float64", "no gradient goes through the batch's variance"),
    ),
    "ties shared in the pool": (
        lambda: in_torch(at="max_pool", fault=pooled_by_axes),
        ("down1.conv.5", COTANGENT, "float64", "shares the gradient among equal values"),
    ),
    "ties to the last in the pool": (
        lambda: in_torch(at="max_pool", fault=pooled_from_the_end),
        ("down1.conv.5", COTANGENT, "float64", "to the last of equal values"),
    ),
    "a skip connection without a gradient": (
        lambda: in_torch(at="concatenate", fault=lambda row, x, skip: row(x, skip.detach())),
        ("down1.conv.5", COTANGENT, "float64", "no gradient goes through the skip connection"),
    ),
    "a layer without a gradient": (
        lambda: in_torch(at="up1.conv.0", fault=lambda row, x, **of: row(x.detach(), **of)),
        ("concatenate", COTANGENT, "float64", "no gradient arrives"),
    ),
    "a factor": (
        lambda: in_torch(at="bottom.conv.0", fault=doubled),
        ("bottom.conv.0", GRADIENT, "float64", "the gradient is 2 times as large"),
    ),
    "TF32, backward": (
        lambda: in_torch(at="up1.conv.3", fault=rounding(_tf32)),
        ("up1.conv.3", GRADIENT, "float32", "rounded to TF32"),
    ),
    "bfloat16, backward": (
        lambda: in_torch(at="bottom.conv.3", fault=rounding(_bfloat16)),
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
            with mock.patch(
                "conversion.backends.torch_backend.optimizer_of", lambda given, owners: make(given, owners)
            ):
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


@pytest.mark.parametrize(
    ("planted", "found"), few(BACKWARD, "ReLU's gradient at 0", "a layer without a gradient", "TF32, backward")
)
def test_a_difference_of_the_backward_pass_is_named(planted, found):
    check(divergence(A, planted(), SAMPLE), found)


@pytest.mark.parametrize(("planted", "cause"), few(UPDATE, *list(UPDATE)[::2]))
@pytest.mark.slow
def test_a_difference_of_the_update_is_named(planted, cause):
    check(divergence(A, planted(), SAMPLE), ("down1.conv.0", STEP, "float64", cause))


def test_a_fault_of_a_is_said_to_be_its_own():
    result = divergence(in_torch(at="bottom.conv.2", fault=of_maximum), A, SAMPLE)
    assert (result.layer, result.quantity) == ("bottom.conv.1", TIED)
    assert result.cause == "in A, the ReLU's gradient at 0 is 0.5 instead of 0 (jnp.maximum)"


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (lambda: in_torch(at="up1.conv.3", fault=clipping), ("up1.conv.3", GRADIENT)),
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
        UNetConfig(2, 2, (4, 6)),
        UNetConfig(2, 2, (4, 6), skip_first=True, fit="pad"),
        UNetConfig(2, 2, (4, 6), "transposed"),
    ],
    ids=str,
)
def test_nothing_is_left_where_nothing_is_switched(config):
    """A doubled gradient leaves only "2 times", at every node."""
    runner = in_torch(config=config)
    x = np.random.default_rng(0).standard_normal((2, 19, 21, 2), np.float32)
    cotangent = np.random.default_rng(1).standard_normal((2, 19, 21, 2)).astype(np.float32)
    trace = runner.tracer("float64", training=True)
    forced = Forced.of(trace(x, cotangent))
    found = trace(x, cotangent, forced)
    network = network_of(runner, x, forced.outputs, forced.cotangents, training=True)
    for name in list(network.nodes)[:-2]:
        exact = found.cotangents[name]
        best = output_trials(network, name, exact, 2 * exact, "float64", 1e-13)[0]
        assert (best.switch, best.vanishes) == ("the gradient is 2 times as large", True), name
