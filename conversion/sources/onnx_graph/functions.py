"""Functions of each number, and reductions of ONNX."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conversion.sources.onnx_graph.numbers import Ratio, each
from conversion.sources.onnx_graph.rows import (
    Attributes,
    Constant,
    Map,
    UnreadableError,
    Value,
    Writer,
    constant,
    rank,
    row,
)
from unet_core.graph.sizes import Size


def _rounded(size: Any, *, up: bool) -> Any:
    if isinstance(size, Ratio):
        return Ratio(size.whole(up=up))
    return (np.ceil if up else np.floor)(size)


_FOLDED: Mapping[str, Callable[..., Any]] = {
    "Floor": lambda x: _rounded(x, up=False),
    "Ceil": lambda x: _rounded(x, up=True),
    "Neg": operator.neg,
    "Abs": abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Reciprocal": lambda x: 1 / x,
}
_FUNCTIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Mish": "mish",
    "HardSwish": "hardswish",
    "Exp": "exp",
    "Softsign": "softsign",
    "Log": "log",
    "Sqrt": "sqrt",
    "Abs": "absolute",
    "Neg": "negative",
    "Erf": "erf",
    "Reciprocal": "reciprocal",
    "Floor": "floor",
    "Ceil": "",
    "Sin": "sine",
    "Cos": "cosine",
    "Softplus": "softplus",
}


@row(*_FUNCTIONS)
def function(w: Writer, at: Attributes, x: Value) -> Value:
    """Of each number."""
    if isinstance(x, Constant) and at.operation in _FOLDED:
        return each(_FOLDED[at.operation], x)
    if not _FUNCTIONS[at.operation]:
        raise UnreadableError("of a map")
    return w.add(_FUNCTIONS[at.operation], x)


@row("LeakyRelu")
def leaky_relu(w: Writer, at: Attributes, x: Value) -> Map:
    """A slope below zero."""
    return w.add("leaky_relu", x, slope=at("alpha", 0.01))


@row("Elu", "Selu")
def elu(w: Writer, at: Attributes, x: Value) -> Map:
    """Exponential below zero."""
    if at.operation == "Elu":
        return w.add("elu", x, alpha=at("alpha", 1.0))
    return w.add("elu", x, alpha=at("alpha", 1.6732631921768188), scale=at("gamma", 1.0507010221481323))


@row("HardSigmoid")
def hard_sigmoid(w: Writer, at: Attributes, x: Value) -> Map:
    """A line between 0 and 1."""
    slope, middle = at("alpha", 0.2), at("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-7 and middle == 0.5:
        return w.add("hardsigmoid", x)
    return w.add("clamp", w.add("add", w.add("multiply", x, right=slope), right=middle), low=0.0, high=1.0)


@row("Gelu")
def gelu(w: Writer, at: Attributes, x: Value) -> Map:
    """Exact, or by tanh."""
    return w.add("gelu", x, approximate=at("approximate", "none") == "tanh")


@row("Clip")
def clip(w: Writer, at: Attributes, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Between two numbers."""
    ends = (
        [at("min"), at("max")]
        if at.opset < 11
        else [None if end is None else constant(end).number for end in (low, high)]
    )
    if isinstance(x, Constant):
        raise UnreadableError("of a constant")
    return w.add("clamp", x, low=_float(ends[0]), high=_float(ends[1]))


def _float(number: Any) -> float | None:
    """None where the end is that of the dtype, which leaves all numbers."""
    return None if number is None or abs(number) > 3e38 else float(number)


@row("Softmax", "LogSoftmax")
def softmax(w: Writer, at: Attributes, x: Value) -> Map:
    """Over one axis; before version 13, over all from one on."""
    axis = at("axis", -1 if at.opset >= 13 else 1) % rank(x)
    if at.opset < 13 and any(size != 1 for size in x.shape[axis + 1 :]):
        raise UnreadableError(f"over all axes from {axis} on")
    return w.add("softmax" if at.operation == "Softmax" else "log_softmax", x, axis=axis)


_REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "amax",
    "ReduceMin": "amin",
    "ReduceL2": "vector_norm",
    "ReduceProd": "",
}


@row(*_REDUCTIONS)
def reduction(w: Writer, at: Attributes, x: Value, given: Value | None = None) -> Value:
    """Along some axes, or all."""
    axes, keep = at.axes(given), bool(at("keepdims", 1))
    if not axes and at("noop_with_empty_axes", 0):
        return x
    if isinstance(x, Constant) and rank(x) <= 1:
        product = functools.reduce(operator.mul, x.sizes, 1)
        if at.operation != "ReduceProd":
            raise UnreadableError("of a constant")
        made = np.array([product], object if isinstance(product, Size) else np.int64)
        return Constant(made if keep else made.reshape(()))
    if not _REDUCTIONS[at.operation]:
        raise UnreadableError("of a map")
    return w.add(_REDUCTIONS[at.operation], x, axes=axes or tuple(range(rank(x))), keep=keep)
