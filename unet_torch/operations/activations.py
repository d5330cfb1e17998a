"""Functions of each number."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_core.graph.operations import Dtype
from unet_torch.operations.rows import Row, Run, named


def _function(function: Any) -> Row:
    def row(x: Tensor) -> Tensor:
        return function(x)

    return row


def leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return F.leaky_relu(x, slope)


def prelu(x: Tensor, *, weight: Tensor) -> Tensor:
    return F.prelu(x, weight)


def elu(x: Tensor, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    return torch.ops.aten.elu(x, alpha, scale, input_scale)


def gelu(x: Tensor, *, approximate: bool = False) -> Tensor:
    return F.gelu(x, approximate="tanh" if approximate else "none")


def softplus(x: Tensor, *, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return F.softplus(x, beta, threshold)


def clamp(x: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    return torch.clamp(x, low, high)


def hardtanh(x: Tensor, *, low: float, high: float) -> Tensor:
    return F.hardtanh(x, low, high)


def softmax(x: Tensor, *, axis: int) -> Tensor:
    return F.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    return F.log_softmax(x, axis)


def cast(x: Tensor, *, dtype: Dtype | None = None, run: Run) -> Tensor:
    return x.to(run.dtype if dtype is None else getattr(torch, dtype))


ROWS = named(leaky_relu, prelu, elu, gelu, softplus, clamp, hardtanh, softmax, log_softmax, cast) | {
    name: _function(function)
    for name, function in {
        "relu": F.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": F.silu,
        "mish": F.mish,
        "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid,
        "log_sigmoid": F.logsigmoid,
        "softsign": F.softsign,
        "exp": torch.exp,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "absolute": torch.abs,
        "negative": torch.neg,
        "reciprocal": torch.reciprocal,
        "floor": torch.floor,
        "sine": torch.sin,
        "cosine": torch.cos,
        "erf": torch.erf,
    }.items()
}
