"""Functions of numbers, arithmetic, reductions and products, in ONNX."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conversion.exports.onnx_model.rows import Row, To, named
from conversion.exports.onnx_model.writer import WHOLE, UnwritableError, Writer
from unet_core.graph.operations import Ints, Number, Relation
from unet_core.graph.sizes import Dim

_TRUE = np.dtype(bool)


def _operator(operator: str, **attributes: Any) -> Row:
    """An operator that takes what the operation takes."""

    def row(w: Writer, to: To, *inputs: str) -> str:
        return w.add(operator, *inputs, **attributes, **to)

    return row


def silu(w: Writer, to: To, x: str) -> str:
    return w.add("Mul", x, w.like("Sigmoid", x), **to)


def log_sigmoid(w: Writer, to: To, x: str) -> str:
    return w.add("Neg", w.like("Softplus", w.like("Neg", x)), **to)


def rsqrt(w: Writer, to: To, x: str) -> str:
    return w.add("Reciprocal", w.like("Sqrt", x), **to)


def leaky_relu(w: Writer, to: To, x: str, *, slope: float) -> str:
    return w.add("LeakyRelu", x, alpha=slope, **to)


def prelu(w: Writer, to: To, x: str, *, weight: str) -> str:
    shape = (*w.shapes[weight], *(1,) * (len(w.shapes[x]) - 2))
    return w.add("PRelu", x, w.add("Reshape", weight, w.constant(shape, WHOLE), shape=shape), **to)


def elu(w: Writer, to: To, x: str, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> str:
    of = functools.partial(w.constant, dtype=w.dtypes[x])
    below = w.like("Elu", w.like("Mul", w.like("Min", x, of(0)), of(input_scale)), alpha=alpha)
    above = w.like("Relu", x)
    return w.add("Mul", w.like("Add", above, below), of(scale), **to)


def gelu(w: Writer, to: To, x: str, *, approximate: bool = False) -> str:
    return w.add("Gelu", x, approximate="tanh" if approximate else "none", **to)


def softplus(w: Writer, to: To, x: str, *, beta: float = 1.0, threshold: float = 20.0) -> str:
    of = functools.partial(w.constant, dtype=w.dtypes[x])
    raised = w.like("Mul", x, of(beta))
    above = w.like("Greater", raised, of(threshold), dtype=_TRUE)
    return w.add("Where", above, x, w.like("Div", w.like("Softplus", raised), of(beta)), dtype=w.dtypes[x], **to)


def clamp(w: Writer, to: To, x: str, *, low: float | None = None, high: float | None = None) -> str:
    ends = ["" if end is None else w.constant(end, w.dtypes[x]) for end in (low, high)]
    return w.add("Clip", x, *ends, **to)


def softmax(w: Writer, to: To, x: str, *, axis: int) -> str:
    return w.add("Softmax", x, axis=axis, **to)


def log_softmax(w: Writer, to: To, x: str, *, axis: int) -> str:
    return w.add("LogSoftmax", x, axis=axis, **to)


def _arithmetic(operator: str) -> Row:
    def row(
        w: Writer, to: To, x: str, y: str | None = None, *, left: Number | None = None, right: Number | None = None
    ) -> str:
        one, other = _operands(w, x, y, left, right)
        if operator == "Div" and w.dtypes[one].kind != "f":
            one, other = w.cast(one, np.float32), w.cast(other, np.float32)
        return w.add(operator, one, other, **to)

    return row


def _operands(w: Writer, x: str, y: str | None, left: Number | None, right: Number | None) -> tuple[str, str]:
    """The two in one dtype, as torch promotes them."""
    if y is None:
        number = right if left is None else left
        if isinstance(number, float) and w.dtypes[x].kind != "f":
            x = w.cast(x, np.float32)
        assert number is not None
        y = w.number(number, w.dtypes[x])
    common = np.promote_types(w.dtypes[x], w.dtypes[y])
    if {w.dtypes[x].kind, w.dtypes[y].kind} > {"f"}:
        common = next(w.dtypes[name] for name in (x, y) if w.dtypes[name].kind == "f")
    x, y = w.cast(x, common), w.cast(y, common)
    return (x, y) if left is None else (y, x)


_RELATIONS: Mapping[Relation, str] = {
    "<": "Less",
    "<=": "LessOrEqual",
    ">": "Greater",
    ">=": "GreaterOrEqual",
    "==": "Equal",
    "!=": "Equal",
}


def compare(
    w: Writer,
    to: To,
    x: str,
    y: str | None = None,
    *,
    relation: Relation,
    left: Number | None = None,
    right: Number | None = None,
) -> str:
    found = w.add(_RELATIONS[relation], *_operands(w, x, y, left, right), dtype=_TRUE, **to)
    return w.like("Not", found) if relation == "!=" else found


def where(w: Writer, to: To, condition: str, x: str, y: str) -> str:
    return w.add("Where", condition, *_operands(w, x, y, None, None), dtype=w.dtypes[x], **to)


def matmul(w: Writer, to: To, x: str, y: str) -> str:
    return w.add("MatMul", x, y, **to)


def einsum(w: Writer, to: To, x: str, *more: str, equation: str) -> str:
    return w.add("Einsum", x, *more, equation=equation, **to)


def attention(
    w: Writer,
    to: To,
    query: str,
    key: str,
    value: str,
    mask: str | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    rate: float = 0.0,
) -> str:
    if rate:
        raise UnwritableError("that drops at random when it predicts as well")
    dtype, turned = w.dtypes[query], list(range(len(w.shapes[key])))
    turned[-2:] = turned[:-3:-1]
    shape = w.shapes[key]
    across = w.add("Transpose", key, shape=(*shape[:-2], shape[-1], shape[-2]), perm=turned)
    logits = w.add("MatMul", query, across, shape=(*w.shapes[query][:-1], shape[-2]))
    width = w.shapes[query][-1]
    assert isinstance(width, int)
    logits = w.like("Mul", logits, w.constant(1 / math.sqrt(width) if scale is None else scale, dtype))
    never = w.constant(-np.inf, dtype)
    if causal:
        ones = w.add("Expand", w.constant(True, _TRUE), w.sizes(w.shapes[logits][-2:]), shape=w.shapes[logits][-2:])
        mask = w.like("Trilu", w.cast(ones, WHOLE), upper=0)
        mask = w.cast(mask, _TRUE)
    if mask is not None and w.dtypes[mask] == _TRUE:
        logits = w.add("Where", mask, logits, never, shape=w.shapes[logits], dtype=dtype)
    elif mask is not None:
        logits = w.like("Add", logits, mask)
    return w.add("MatMul", w.like("Softmax", logits, axis=-1), value, **to)


def _reduction(operator: str) -> Row:
    def row(w: Writer, to: To, x: str, *, axes: Ints, keep: bool = False) -> str:
        return w.add(operator, x, w.constant(axes, WHOLE), keepdims=int(keep), **to)

    return row


def _extremum(operator: str) -> Callable[..., str]:
    def row(w: Writer, to: To, x: str, *, axis: int, keep: bool = False) -> str:
        return w.add(operator, x, w.constant([axis], WHOLE), keepdims=int(keep), **to)

    return row


def variance(w: Writer, to: To, x: str, *, axes: Ints, keep: bool = False, correction: float = 1.0) -> str:
    shape, along = w.shapes[x], w.constant(axes, WHOLE)
    gone = {axis % len(shape) for axis in axes}
    kept = tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    residual = w.like("Sub", x, w.add("ReduceMean", x, along, shape=kept))
    total = w.add("ReduceSumSquare", residual, along, shape=to["shape"], keepdims=int(keep))
    count: Dim = 1
    for axis in gone:
        count = count * shape[axis]
    number = w.like("Sub", w.number(count, w.dtypes[x]), w.constant(correction, w.dtypes[x]))
    return w.add("Div", total, number, **to)


def vector_norm(w: Writer, to: To, x: str, *, axes: Ints, keep: bool = False, order: float = 2.0) -> str:
    known = {1.0: "ReduceL1", 2.0: "ReduceL2", math.inf: "ReduceMax", -math.inf: "ReduceMin"}
    if order == 0:
        raise UnwritableError("of order 0")
    along = w.constant(axes, WHOLE)
    x = x if order in (1, 2) else w.like("Abs", x)
    if order in known:
        return w.add(known[order], x, along, keepdims=int(keep), **to)
    powers = w.like("Pow", x, w.constant(order, w.dtypes[x]))
    total = w.add("ReduceSum", powers, along, shape=to["shape"], keepdims=int(keep))
    return w.add("Pow", total, w.constant(1 / order, w.dtypes[x]), **to)


ROWS: dict[str, Row] = (
    named(silu, log_sigmoid, rsqrt, leaky_relu, prelu, elu, gelu, softplus, clamp, softmax, log_softmax)
    | named(compare, where, matmul, einsum, attention, variance, vector_norm)
    | {"hardtanh": clamp, "hardsigmoid": _operator("HardSigmoid", alpha=1 / 6, beta=0.5)}
    | {
        name: _operator(operator)
        for name, operator in {
            "relu": "Relu",
            "sigmoid": "Sigmoid",
            "tanh": "Tanh",
            "mish": "Mish",
            "hardswish": "HardSwish",
            "softsign": "Softsign",
            "exp": "Exp",
            "log": "Log",
            "sqrt": "Sqrt",
            "absolute": "Abs",
            "negative": "Neg",
            "reciprocal": "Reciprocal",
            "floor": "Floor",
            "sine": "Sin",
            "cosine": "Cos",
            "erf": "Erf",
        }.items()
    }
    | {
        name: _arithmetic(operator)
        for name, operator in {
            "add": "Add",
            "subtract": "Sub",
            "multiply": "Mul",
            "divide": "Div",
            "power": "Pow",
            "maximum": "Max",
            "minimum": "Min",
        }.items()
    }
    | {
        name: _reduction(operator)
        for name, operator in {
            "mean": "ReduceMean",
            "sum": "ReduceSum",
            "amax": "ReduceMax",
            "amin": "ReduceMin",
        }.items()
    }
    | {"largest": _extremum("ReduceMax"), "smallest": _extremum("ReduceMin")}
)
