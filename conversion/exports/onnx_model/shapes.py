"""Padding, cutting, joining, and other shapes, in ONNX."""

import numpy as np

from conversion.exports.onnx_model.rows import Row, To, named
from conversion.exports.onnx_model.writer import WHOLE, UnwritableError, Writer
from unet_core.graph.operations import Amounts, Dims, Dtype, Ints, Number, Padding
from unet_core.graph.sizes import Dim

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(w: Writer, to: To, x: str, *, amounts: Amounts, mode: Padding = "constant", value: float = 0.0) -> str:
    amount = w.sizes([before for before, _ in amounts] + [after for _, after in amounts])
    return w.add("Pad", x, amount, w.constant(value, w.dtypes[x]), mode=_MODES[mode], **to)


def slice_(w: Writer, to: To, x: str, *, axis: int, start: Dim, stop: Dim, step: int = 1) -> str:
    ends = (w.size(start), w.size(stop), w.constant([axis], WHOLE), w.constant([step], WHOLE))
    return w.add("Slice", x, *ends, **to)


def select(w: Writer, to: To, x: str, *, axis: int, index: Dim) -> str:
    return w.add("Squeeze", _at(w, x, w.size(index), axis, 1), w.constant([axis], WHOLE), **to)


def take(w: Writer, to: To, x: str, *, axis: int, indices: Ints) -> str:
    return w.add("Gather", x, w.constant(indices, WHOLE), axis=axis, **to)


def _at(w: Writer, x: str, indices: str, axis: int, count: int) -> str:
    shape = tuple(count if at == axis % len(w.shapes[x]) else size for at, size in enumerate(w.shapes[x]))
    return w.add("Gather", x, indices, shape=shape, axis=axis)


def concatenate(w: Writer, to: To, x: str, *more: str, axis: int) -> str:
    return w.add("Concat", x, *more, axis=axis, **to)


def stack(w: Writer, to: To, x: str, *more: str, axis: int) -> str:
    axis %= len(to["shape"])
    shape = tuple(1 if at == axis else size for at, size in enumerate(to["shape"]))
    parts = [w.add("Unsqueeze", part, w.constant([axis], WHOLE), shape=shape) for part in (x, *more)]
    return w.add("Concat", *parts, axis=axis, **to)


def reshape(w: Writer, to: To, x: str, *, shape: Dims) -> str:
    return w.add("Reshape", x, w.sizes(shape), **to)


def permute(w: Writer, to: To, x: str, *, axes: Ints) -> str:
    return w.add("Transpose", x, perm=axes, **to)


def expand(w: Writer, to: To, x: str, *, shape: Dims) -> str:
    return w.add("Expand", x, w.sizes(shape), **to)


def tile(w: Writer, to: To, x: str, *, times: Dims) -> str:
    before = w.shapes[x]
    rank = len(to["shape"])
    if len(before) < rank:
        grown = (1,) * (rank - len(before)) + before
        x = w.add("Reshape", x, w.sizes(grown), shape=grown)
    return w.add("Tile", x, w.sizes((1,) * (rank - len(times)) + tuple(times)), **to)


def flip(w: Writer, to: To, x: str, *, axes: Ints) -> str:
    back = w.constant([-1] * len(axes), WHOLE)
    ends = w.constant([np.iinfo(WHOLE).min] * len(axes), WHOLE)
    return w.add("Slice", x, back, ends, w.constant(axes, WHOLE), back, **to)


def roll(w: Writer, to: To, x: str, *, shifts: Dims, axes: Ints) -> str:
    shape = w.shapes[x]
    for shift, axis in zip(shifts, axes, strict=True):
        length = shape[axis]
        cut = w.size(length - shift % length)
        along = w.constant([axis], WHOLE)
        parts = (
            w.like("Slice", x, cut, w.size(length), along),
            w.like("Slice", x, w.constant([0], WHOLE), cut, along),
        )
        x = w.add("Concat", *parts, shape=shape, axis=axis)
    return w.add("Identity", x, **to)


def constant(w: Writer, to: To, *, values: tuple[float, ...], shape: Ints, dtype: Dtype | None = None) -> str:
    return w.constant(np.array(values).reshape(shape), _dtype(w, dtype))


def full(w: Writer, to: To, *, shape: Dims, value: Number, dtype: Dtype | None = None) -> str:
    return w.add("Expand", w.number(value, _dtype(w, dtype)), w.sizes(shape), **to)


def cast(w: Writer, to: To, x: str, *, dtype: Dtype | None = None) -> str:
    return w.cast(x, _dtype(w, dtype))


def _dtype(w: Writer, dtype: Dtype | None) -> np.dtype:
    """In a file of float32, what the code has in float64 is in float32 as well."""
    if dtype == "bfloat16":
        raise UnwritableError("in bfloat16")
    return w.dtype if dtype in (None, "float64") else np.dtype(dtype)


def parameter(w: Writer, to: To, *, value: str) -> str:
    return value


def dropout(w: Writer, to: To, x: str, *, rate: float, kind: str = "elements", always: bool = False) -> str:
    if always and rate:
        raise UnwritableError("that drops at random when it predicts as well")
    return x


ROWS: dict[str, Row] = named(
    *(pad, slice_, select, take, concatenate, stack, reshape, permute, expand, tile, flip, roll),
    *(constant, full, cast, parameter, dropout),
)
