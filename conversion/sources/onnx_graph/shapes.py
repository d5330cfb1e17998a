"""Shapes, and the same numbers in another order or shape, of ONNX; of what is known already, the result."""

import math
from typing import Any

import numpy as np

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
    whole,
)
from conversion.sources.onnx_graph.values import MOST_NUMBERS, of_sizes
from unet_core.graph.sizes import Dim, Size, divided, largest, smallest

_END = 2**31 - 1
"""From here on, the end of a slice is that of the axis."""


@row("Identity", "Dropout")
def identity(w: Writer, at: Attributes, x: Value, *more: Value | None) -> Value:
    """What it takes; dropout drops nothing when it predicts."""
    if at.operation == "Dropout":
        at("ratio"), at("seed")
        if len(more) > 1 and more[1] is not None and constant(more[1]).number:
            raise UnreadableError("in training mode")
    return x


@row("Shape")
def shape(w: Writer, at: Attributes, x: Value) -> Constant:
    """The sizes."""
    return of_sizes(list(x.shape[at("start", 0) : at("end")]))


@row("Size")
def size(w: Writer, at: Attributes, x: Value) -> Constant:
    """How many numbers it has."""
    return of_sizes(math.prod(x.shape))


@row("ConstantOfShape")
def constant_of_shape(w: Writer, at: Attributes, given: Value) -> Value:
    """One number everywhere."""
    sizes, value = constant(given).sizes, at("value")
    filler = np.zeros(1, np.float32) if value is None else value.reshape(-1)
    if any(isinstance(one, Size) for one in sizes):
        kind = filler.dtype.kind
        dtype = None if kind == "f" else "bool" if kind == "b" else "int64"
        return w.add("full", shape=sizes, value=filler[0].item(), dtype=dtype, numbers=Constant(filler).numbers)
    return Constant(np.full(_bounded(sizes), filler[0]))


def _bounded(sizes: Any) -> tuple[int, ...]:
    """The same, of an array that is small.

    Raises:
        UnreadableError: of a large one.
    """
    if any(one < 0 for one in sizes) or math.prod(sizes) > MOST_NUMBERS:
        raise UnreadableError(f"a constant of {tuple(sizes)}")
    return tuple(sizes)


@row("Range")
def range_(w: Writer, at: Attributes, start: Value, stop: Value, step: Value) -> Constant:
    """Whole numbers one after another."""
    first, last, by = (whole(value)[0] for value in (start, stop, step))
    numbers = range(first, last, by)
    _bounded((len(numbers),))
    return Constant(np.array(numbers, np.int64))


@row("Reshape")
def reshape(w: Writer, at: Attributes, x: Value, given: Value) -> Value:
    """To a shape in which 0 stands for what is there, and -1 for what is left."""
    wanted, zero = list(constant(given).sizes), at("allowzero", 0)
    wanted = [x.shape[axis] if part == 0 and not zero else part for axis, part in enumerate(wanted)]
    if isinstance(x, Constant):
        return Constant(x.array.reshape(whole(of_sizes(wanted))), x.name)
    wanted = _of_batch(w, x, wanted)
    if -1 in wanted:
        place = wanted.index(-1)
        wanted[place] = divided(x.shape, [part for part in wanted if part != -1])
    return w.add("reshape", x, shape=tuple(wanted)) if tuple(wanted) != x.shape else x


def _of_batch(w: Writer, x: Map, wanted: list[Dim]) -> list[Dim]:
    """The same sizes, of any batch where the file has its own batch written into it."""
    if w.fixed_batch and wanted and x.shape and isinstance(x.shape[0], Size) and wanted[0] == w.hint(x.shape[0]):
        return [x.shape[0], *wanted[1:]]
    return wanted


@row("Flatten")
def flatten(w: Writer, at: Attributes, x: Value) -> Value:
    """To rows."""
    axis = at("axis", 1)
    rows, columns = math.prod(x.shape[:axis]), math.prod(x.shape[axis:])
    return w.add("reshape", x, shape=(rows, columns))


@row("Transpose")
def transpose(w: Writer, at: Attributes, x: Value) -> Value:
    """The axes in another order."""
    axes = at.ints("perm", range(rank(x))[::-1])
    if isinstance(x, Constant):
        return Constant(x.array.transpose(axes), x.name and f"{x.name}.transposed")
    return w.add("permute", x, axes=axes)


@row("Squeeze")
def squeeze(w: Writer, at: Attributes, x: Value, given: Value | None = None) -> Value:
    """Without axes of one."""
    axes = at.axes(given)
    if axes is None:
        axes = tuple(axis for axis, one in enumerate(x.shape) if one == 1)
    gone = {axis % rank(x) for axis in axes}
    if isinstance(x, Constant):
        return Constant(x.array.squeeze(tuple(gone)), x.name)
    return w.add("reshape", x, shape=tuple(one for axis, one in enumerate(x.shape) if axis not in gone))


@row("Unsqueeze")
def unsqueeze(w: Writer, at: Attributes, x: Value, given: Value | None = None) -> Value:
    """With new axes of one."""
    axes = at.axes(given) or ()
    count = rank(x) + len(axes)
    new, old = {axis % count for axis in axes}, iter(x.shape)
    sizes = tuple(1 if axis in new else next(old) for axis in range(count))
    if isinstance(x, Constant):
        return Constant(x.array.reshape(sizes), x.name)  # type: ignore[arg-type]
    return w.add("reshape", x, shape=sizes)


@row("Concat")
def concat(w: Writer, at: Attributes, *xs: Value) -> Value:
    """Side by side along an axis."""
    axis = at("axis", 1)
    if all(isinstance(x, Constant) for x in xs):
        arrays = [constant(x).array for x in xs]
        mixed = any(array.dtype.kind == "O" for array in arrays)
        return Constant(np.concatenate([array.astype(object) if mixed else array for array in arrays], axis))
    return w.add("concatenate", *xs, axis=axis) if len(xs) > 1 else xs[0]


@row("Slice")
def slice_(w: Writer, at: Attributes, x: Value, *given: Value | None) -> Value:
    """From start to end along some axes."""
    starts, ends, axes, steps = (*given, None, None, None, None)[:4]
    if at.opset < 10:
        starts, ends = (of_sizes(at(name)) for name in ("starts", "ends"))
        axes = of_sizes(list(at.ints("axes", range(rank(x))) or ()))
    firsts, lasts = constant(starts).sizes, constant(ends).sizes
    places = range(len(firsts)) if axes is None else whole(axes)
    by = (1,) * len(firsts) if steps is None else whole(steps)
    for axis, start, stop, step in zip((place % rank(x) for place in places), firsts, lasts, by, strict=True):
        x = _sliced(w, x, axis, start, stop, step)
    return x


def _sliced(w: Writer, x: Value, axis: int, start: Dim, stop: Dim, step: int) -> Value:
    if isinstance(x, Constant):
        if isinstance(start, Size) or isinstance(stop, Size):
            raise UnreadableError("of a constant, by sizes")
        end = None if step < 0 and stop < -x.shape[axis] else stop
        return Constant(x.array[(*(slice(None),) * axis, slice(start, end, step))])
    length = x.shape[axis]
    if step == -1 and isinstance(stop, int) and stop <= -_END and start in (-1, length - 1, _END):
        return w.add("flip", x, axes=(axis,))
    if step < 1:
        raise UnreadableError(f"with a step of {step}")
    first, last = _place(start, length), _place(stop, length)
    return (
        x if (first, last, step) == (0, length, 1) else w.add("slice", x, axis=axis, start=first, stop=last, step=step)
    )


def _place(place: Dim, length: Dim) -> Dim:
    """Where it is, counted from the beginning and within the axis."""
    if isinstance(place, int) and place < 0:
        return largest(length + place, 0) if isinstance(length, int) else length + place
    return length if isinstance(place, int) and place >= _END else smallest(place, length)


@row("Split")
def split(w: Writer, at: Attributes, x: Value, given: Value | None = None) -> tuple[Value, ...]:
    """Parts one after another along an axis."""
    axis, count = at("axis", 0) % rank(x), at("num_outputs", at.outputs)
    parts: Any = at.ints("split") if given is None else constant(given).sizes
    length = x.shape[axis]
    if parts is None:
        part = (length + count - 1) // count
        parts = (*(part,) * (count - 1), length - part * (count - 1))
    found, start = [], 0
    for part in parts:
        found.append(_sliced(w, x, axis, start, start + part, 1))
        start = start + part
    return tuple(found)


@row("Gather")
def gather(w: Writer, at: Attributes, x: Value, indices: Value) -> Value:
    """Those of some indices."""
    axis, given = at("axis", 0) % rank(x), constant(indices)
    if isinstance(x, Constant):
        places = np.array(whole(given), np.int64).reshape(given.shape)
        _bounded((places.size * x.array.size // max(x.shape[axis], 1),))
        return Constant(np.asarray(np.take(x.array, places, axis), x.array.dtype))
    if rank(given) == 0:
        place = whole(given)[0]
        return w.add("select", x, axis=axis, index=place if place >= 0 else x.shape[axis] + place)
    if rank(given) != 1 or (min(whole(given)) < 0 and not isinstance(x.shape[axis], int)):
        raise UnreadableError(f"of indices of {given.shape}")
    return w.add(
        "take", x, axis=axis, indices=tuple(place % x.shape[axis] if place < 0 else place for place in whole(given))
    )


@row("Expand")
def expand(w: Writer, at: Attributes, x: Value, given: Value) -> Value:
    """Repeated along axes of one."""
    wanted: list[Dim] = list(constant(given).sizes)
    wanted = [*(1 for _ in range(rank(x) - len(wanted))), *wanted]
    old = (1,) * (len(wanted) - rank(x)) + tuple(x.shape)
    sizes = [there if part == 1 else part for there, part in zip(old, wanted, strict=True)]
    if isinstance(x, Constant) and not any(isinstance(part, Size) for part in sizes):
        return Constant(np.broadcast_to(x.array, _bounded(sizes)))
    return w.add("expand", x, shape=tuple(_of_batch(w, x, sizes) if isinstance(x, Map) else sizes))


@row("Tile")
def tile(w: Writer, at: Attributes, x: Value, given: Value) -> Value:
    """Copies side by side."""
    times = constant(given).sizes
    if isinstance(x, Constant):
        _bounded((math.prod(whole(given)) * max(x.array.size, 1),))
        return Constant(np.tile(x.array, whole(given)))
    return w.add("tile", x, times=times)
