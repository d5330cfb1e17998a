"""Shapes: what is cut, joined, turned and made."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from unet_core.graph.sizes import Dim, divided, smallest
from unet_torch.reading.aten.rows import of_rank, row
from unet_torch.reading.program import Array, Constant, Map, Program, UnreadableError


def reshaped(p: Program, x: Array, shape: Sequence[Dim]) -> Array:
    """The same numbers in another shape, of which one size may be -1."""
    sizes = list(shape)
    unknown = [axis for axis, size in enumerate(sizes) if size == -1]
    for axis in unknown:
        rest = sizes[:axis] + sizes[axis + 1 :]
        sizes[axis] = divided(x.shape, rest)
    return x if tuple(sizes) == tuple(x.shape) else p.add("reshape", x, shape=tuple(sizes))


@row("view", "reshape", "_unsafe_view")
def view(p: Program, x: Array, size: Sequence[Dim] = (), shape: Sequence[Dim] = ()) -> Array:
    """The same numbers in another shape."""
    return reshaped(p, x, size or shape)


@row("view_as", "reshape_as")
def view_as(p: Program, x: Array, y: Array) -> Array:
    """In the shape of another."""
    return reshaped(p, x, y.shape)


@row("flatten")
def flatten(p: Program, x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Some axes as one."""
    first, last = start_dim % len(x.shape), end_dim % len(x.shape)
    return reshaped(p, x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@row("unflatten")
def unflatten(p: Program, x: Array, dim: int, sizes: Sequence[Dim]) -> Array:
    """An axis as some."""
    dim %= len(x.shape)
    made = list(sizes)
    if -1 in made:
        axis = made.index(-1)
        made[axis] = divided(x.shape[dim : dim + 1], made[:axis] + made[axis + 1 :])
    return reshaped(p, x, (*x.shape[:dim], *made, *x.shape[dim + 1 :]))


@row("unsqueeze")
def unsqueeze(p: Program, x: Array, dim: int) -> Array:
    """One more axis."""
    dim %= len(x.shape) + 1
    return reshaped(p, x, (*x.shape[:dim], 1, *x.shape[dim:]))


@row("squeeze")
def squeeze(p: Program, x: Array, dim: Any = None) -> Array:
    """Without axes of one."""
    gone = range(len(x.shape)) if dim is None else [axis % len(x.shape) for axis in of_rank(dim, 1)]
    return reshaped(p, x, tuple(size for axis, size in enumerate(x.shape) if axis not in gone or size != 1))


@row("permute")
def permute(p: Program, x: Array, dims: Sequence[int]) -> Array:
    """The axes in another order."""
    axes = tuple(axis % len(x.shape) for axis in dims)
    return x if axes == tuple(range(len(axes))) else p.add("permute", x, axes=axes)


@row("transpose", "swapaxes", "swapdims")
def transpose(p: Program, x: Array, dim0: int, dim1: int) -> Array:
    """Two axes for one another."""
    axes = list(range(len(x.shape)))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return permute(p, x, axes)


@row("t", "numpy_T", "mT")
def turned(p: Program, x: Array) -> Array:
    """The last two axes for one another, or what there is."""
    return x if len(x.shape) < 2 else transpose(p, x, -1, -2)


@row("movedim", "moveaxis")
def movedim(p: Program, x: Array, source: Any, destination: Any) -> Array:
    """Axes to other places."""
    rank = len(x.shape)
    sources = [axis % rank for axis in of_rank(source, 1)]
    places = dict(zip([axis % rank for axis in of_rank(destination, 1)], sources, strict=True))
    rest = iter(axis for axis in range(rank) if axis not in sources)
    return permute(p, x, [places[axis] if axis in places else next(rest) for axis in range(rank)])


@row("expand")
def expand(p: Program, x: Array, size: Sequence[Dim]) -> Array:
    """Repeated along axes of one."""
    new = len(size) - len(x.shape)
    shape = tuple(x.shape[axis - new] if length == -1 else length for axis, length in enumerate(size))
    return x if shape == tuple(x.shape) else p.add("expand", x, shape=shape)


@row("expand_as")
def expand_as(p: Program, x: Array, y: Array) -> Array:
    """To the shape of another."""
    return expand(p, x, y.shape)


@row("repeat", "tile")
def repeat(p: Program, x: Array, repeats: Sequence[Dim] = (), dims: Sequence[Dim] = ()) -> Array:
    """Copies side by side."""
    times = tuple(repeats or dims)
    return x if set(times) <= {1} and len(times) <= len(x.shape) else p.add("tile", x, times=times)


@row("repeat_interleave")
def repeat_interleave(p: Program, x: Array, repeats: Any, dim: int | None = None) -> Array:
    """Each one several times."""
    if not isinstance(repeats, int) or dim is None:
        raise UnreadableError(f"{p.place}: repeat_interleave by a tensor")
    dim %= len(x.shape)
    before, after = x.shape[: dim + 1], x.shape[dim + 1 :]
    grown = p.add("expand", reshaped(p, x, (*before, 1, *after)), shape=(*before, repeats, *after))
    return reshaped(p, grown, (*before[:-1], before[-1] * repeats, *after))


def cut(p: Program, x: Array, axis: int, start: Dim, stop: Dim, step: int = 1) -> Array:
    """A part of an axis; nothing where it is all of it."""
    if start == 0 and stop == x.shape[axis] and step == 1:
        return x
    return p.add("slice", x, axis=axis % len(x.shape), start=start, stop=stop, step=step)


@row("slice")
def slice_(p: Program, x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    """A part of an axis, counted from either end."""
    size = x.shape[dim]
    return cut(p, x, dim, place(p, size, start, 0), place(p, size, end, size), step)


def place(p: Program, size: Dim, index: Any, default: Dim) -> Dim:
    """A place on an axis, counted from its beginning, as torch takes one that is beyond its ends.

    Whether a size is beyond is decided as where the code was traced; that it holds elsewhere is found by trying.
    """
    if index is None:
        return default
    if isinstance(index, int) and index >= 2**62:
        return size
    if p.hint(index) < 0:
        return index + size if p.hint(index + size) > 0 else 0
    if isinstance(index, int):
        return smallest(index, size)
    return index if p.hint(index) <= p.hint(size) else size


@row("narrow")
def narrow(p: Program, x: Array, dim: int, start: Dim, length: Dim) -> Array:
    """So many from a place on."""
    start = place(p, x.shape[dim], start, 0)
    return cut(p, x, dim, start, start + length)


@row("select")
def select(p: Program, x: Array, dim: int, index: Dim) -> Map:
    """One of an axis."""
    start = index + x.shape[dim] if p.hint(index) < 0 else index
    return p.add("select", x, axis=dim % len(x.shape), index=start)


@row("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def split(p: Program, x: Array, split_size: Any = None, dim: int = 0, split_sizes: Any = None) -> tuple[Array, ...]:
    """Parts of one size, the last of what is left; or of the sizes that are given."""
    sizes = split_size if split_sizes is None else split_sizes
    whole = x.shape[dim]
    if isinstance(sizes, list | tuple):
        stops = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    else:
        count = -(-p.hint(whole) // p.hint(sizes))
        stops = [sizes * (number + 1) for number in range(count - 1)] + [whole]
    return tuple(cut(p, x, dim, start, stop) for start, stop in zip([0, *stops], stops, strict=False))


@row("chunk", "unsafe_chunk")
def chunk(p: Program, x: Array, chunks: int, dim: int = 0) -> tuple[Array, ...]:
    """So many parts at most, all but the last of one size."""
    return split(p, x, (x.shape[dim] + chunks - 1) // chunks, dim)


@row("unbind")
def unbind(p: Program, x: Array, dim: int = 0) -> tuple[Map, ...]:
    """Each one of an axis."""
    count = x.shape[dim]
    if not isinstance(count, int):
        raise UnreadableError(f"{p.place}: unbind along an axis of {count}")
    return tuple(select(p, x, dim, index) for index in range(count))


@row("cat", "concat", "concatenate")
def concatenate(p: Program, xs: Sequence[Array], dim: int = 0) -> Array:
    """Side by side."""
    axis = dim % max(len(x.shape) for x in xs)
    return xs[0] if len(xs) == 1 else p.add("concatenate", *xs, axis=axis)


@row("stack")
def stack(p: Program, xs: Sequence[Array], dim: int = 0) -> Map:
    """Along a new axis."""
    return p.add("stack", *xs, axis=dim % (len(xs[0].shape) + 1))


@row("index_select")
def index_select(p: Program, x: Array, dim: int, index: Any) -> Map:
    """Those of some indices."""
    return _taken(p, x, dim, index)


@row("index")
def index(p: Program, x: Array, indices: Sequence[Any]) -> Array:
    """By one tensor of whole numbers that stand in the code."""
    given = [axis for axis, one in enumerate(indices) if one is not None]
    if len(given) != 1:
        raise UnreadableError(f"{p.place}: indexed by {len(given)} tensors at once")
    (axis,) = given
    numbers = indices[axis]
    taken = _taken(p, x, axis, numbers)
    return reshaped(p, taken, (*x.shape[:axis], *numbers.shape, *x.shape[axis + 1 :]))


@row("embedding")
def embedding(p: Program, weight: Array, indices: Any) -> Array:
    """Rows of a table, by whole numbers that stand in the code."""
    return index(p, weight, [indices])


def _taken(p: Program, x: Array, axis: int, numbers: Any) -> Map:
    if not isinstance(numbers, Constant) or numbers.dtype not in (torch.int64, torch.int32):
        raise UnreadableError(f"{p.place}: indexed by what is computed")
    size = p.hint(x.shape[axis])
    indices = tuple(number % size for number in numbers.tensor.flatten().tolist())
    return p.add("take", x, axis=axis % len(x.shape), indices=indices)


@row("pad", "constant_pad_nd")
def pad(p: Program, x: Array, pad: Sequence[Dim], mode: str = "constant", value: float | None = None) -> Array:
    """By amounts for the last axes, from the last one on."""
    rank = len(x.shape)
    amounts: list[tuple[Dim, Dim]] = [(0, 0)] * rank
    for number in range(len(pad) // 2):
        amounts[rank - 1 - number] = pad[2 * number], pad[2 * number + 1]
    if set(amounts) == {(0, 0)}:
        return x
    return p.add("pad", x, amounts=tuple(amounts), mode=mode, value=float(value or 0.0))


@row("flip")
def flip(p: Program, x: Array, dims: Sequence[int]) -> Map:
    """Backward."""
    return p.add("flip", x, axes=tuple(dims))


@row("roll")
def roll(p: Program, x: Array, shifts: Sequence[Dim], dims: Sequence[int] = ()) -> Map:
    """Round and round along some axes."""
    if not dims:
        raise UnreadableError(f"{p.place}: a roll of all axes at once")
    return p.add("roll", x, shifts=of_rank(shifts, 1), axes=of_rank(dims, 1))


@row("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(p: Program, x: Array, groups: int) -> Array:
    """Channels of groups, one of each in turn."""
    channels, rest = x.shape[1], range(3, len(x.shape) + 1)
    parts = reshaped(p, x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
    return reshaped(p, permute(p, parts, (0, 2, 1, *rest)), x.shape)
