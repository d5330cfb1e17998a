"""The table of operations: for each its inputs, the roles of its tensors, its attributes, and the shape of its answer.

A row is a function. Its positional parameters are the shapes of its inputs; keywords of the type `Role` are the shapes
of tensors by their role, and the other keywords are its attributes. It returns the shape of its answer. The tables of
`unet_torch.operations` and `unet_jax.operations` have functions of the same names and parameters, which compute it.

Everything has PyTorch's meaning: axes are counted as torch does, maps are NCHW or NCDHW, windows and strides are in the
order of the spatial axes.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from unet_core.graph.sizes import Dim, Shape, Size, smallest


class Role(tuple[int, ...]):
    """The shape of a tensor that an operation has under this role."""


Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
"""For each spatial axis, before and after."""
Dims = tuple[Dim, ...]
Amounts = tuple[tuple[Dim, Dim], ...]
"""For each axis, before and after; below zero, what is cut off."""
Number = int | float | Size
"""A constant, or a size taken as a number."""
Mode = Literal["nearest", "nearest-exact", "linear", "cubic"]
Padding = Literal["constant", "reflect", "replicate", "circular"]
Relation = Literal["<", "<=", ">", ">=", "==", "!="]
Dtype = Literal["float64", "float32", "bfloat16", "float16", "int64", "int32", "bool"]
DropoutKind = Literal["elements", "maps", "examples"]
"""What is dropped at once: single numbers, whole maps (channels), or all of an example."""

Row = Callable[..., Shape]


@dataclass(frozen=True)
class Operation:
    """One row of the table."""

    name: str
    inputs: tuple[int, int | None]
    """How many inputs at least and at most; None: any number."""
    roles: Mapping[str, bool]
    """The roles of its tensors, and whether each is needed."""
    attributes: Mapping[str, tuple[Any, Any]]
    """Kind and default of each attribute; `inspect.Parameter.empty` where there is none."""
    shape: Row
    stored: bool = True
    """Whether a file's graph may have it; others are made by rewriting, for one framework."""


OPERATIONS: dict[str, Operation] = {}
"""Every operation that a graph may have, by its name."""

F = TypeVar("F", bound=Row)


def made_by_rewriting(row: F) -> F:
    """Add the row of an operation that no network has before its graph is rewritten."""
    _operation(row)
    OPERATIONS[row.__name__] = dataclasses.replace(OPERATIONS[row.__name__], stored=False)
    return row


def _operation(row: F) -> F:
    parameters, hints = inspect.signature(row).parameters, get_type_hints(row)
    least: int = 0
    most: int | None = 0
    roles, attributes = {}, {}
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = None
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            least += parameter.default is parameter.empty
            most = None if most is None else most + 1
        elif Role in (hints[name], *get_args(hints[name])):
            roles[name] = parameter.default is parameter.empty
        else:
            attributes[name] = hints[name], parameter.default
    name = row.__name__
    OPERATIONS[name] = Operation(name, (least, most), roles, attributes, row)
    return row


def spatial(x: Shape) -> Shape:
    """The sizes of a map without batch and channels."""
    return x[2:]


def windows(
    size: Dim, window: int, stride: int, before: int, after: int, dilation: int = 1, *, ceil: bool = False
) -> Dim:
    """How many windows lie along an axis."""
    reach = dilation * (window - 1) + 1
    if not ceil:
        return (size + before + after - reach) // stride + 1
    count = (size + before + after - reach + stride - 1) // stride + 1
    # A window that would start behind the map is left out.
    return smallest(count, (size + before - 1) // stride + 1)


def _broadcast(*shapes: Shape) -> Shape:
    """The common shape.

    Of two sizes that are not the same expression the first counts: networks that add such maps take only inputs for
    which they are equal.
    """
    rank = max(map(len, shapes))
    grown = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*grown, strict=True))


def _reduced(x: Shape, axes: Ints, *, keep: bool) -> Shape:
    gone = {axis % len(x) for axis in axes}
    if keep:
        return tuple(1 if axis in gone else size for axis, size in enumerate(x))
    return tuple(size for axis, size in enumerate(x) if axis not in gone)


# Convolutions


@_operation
def convolution(
    x: Shape, *, weight: Role, bias: Role | None = None, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Shape:
    """Pads with zeros; the kernel is [out, in / groups, ...]."""
    sizes = zip(spatial(x), weight[2:], stride, padding, dilation, strict=True)
    return (x[0], weight[0], *(windows(size, window, step, *pad, far) for size, window, step, pad, far in sizes))


@_operation
def transposed_convolution(
    x: Shape,
    *,
    weight: Role,
    bias: Role | None = None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Shape:
    """The kernel is [in, out / groups, ...]."""
    sizes = zip(spatial(x), weight[2:], stride, padding, output_padding, dilation, strict=True)
    grown = (
        (size - 1) * step - 2 * pad + far * (window - 1) + more + 1 for size, window, step, pad, more, far in sizes
    )
    return (x[0], weight[1] * groups, *grown)


@_operation
def linear(x: Shape, *, weight: Role, bias: Role | None = None) -> Shape:
    """Along the last axis."""
    return (*x[:-1], weight[0])


# Normalisation


@_operation
def batch_norm(
    x: Shape,
    *,
    weight: Role | None = None,
    bias: Role | None = None,
    mean: Role | None = None,
    variance: Role | None = None,
    count: Role | None = None,
    epsilon: float,
    momentum: float | None,
    frozen: bool = False,
) -> Shape:
    """In training, or without running statistics, by those of the batch; `frozen`: always by the running ones.

    The momentum is the weight of the new batch; None: a cumulative average, by `count`.
    """
    return x


@_operation
def instance_norm(
    x: Shape,
    *,
    weight: Role | None = None,
    bias: Role | None = None,
    mean: Role | None = None,
    variance: Role | None = None,
    count: Role | None = None,
    epsilon: float,
    momentum: float | None = None,
) -> Shape:
    """Each map of each example by its own statistics; with running ones, by these in eval mode."""
    return x


@_operation
def group_norm(x: Shape, *, weight: Role | None = None, bias: Role | None = None, groups: int, epsilon: float) -> Shape:
    """Each group of channels of each example by its own statistics."""
    return x


@_operation
def layer_norm(x: Shape, *, weight: Role | None = None, bias: Role | None = None, axes: int, epsilon: float) -> Shape:
    """Over the last so many axes."""
    return x


# Pools and interpolation


@_operation
def max_pool(x: Shape, *, window: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Shape:
    """Pads with minus infinity."""
    sizes = zip(spatial(x), window, stride, padding, dilation, strict=True)
    return (*x[:2], *(windows(size, k, step, pad, pad, far, ceil=ceil) for size, k, step, pad, far in sizes))


@_operation
def average_pool(
    x: Shape,
    *,
    window: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Shape:
    """Divides by `divisor`, or by the window's size, of which `count_padding` says whether the padding counts."""
    sizes = zip(spatial(x), window, stride, padding, strict=True)
    return (*x[:2], *(windows(size, k, step, pad, pad, ceil=ceil) for size, k, step, pad in sizes))


@_operation
def adaptive_average_pool(x: Shape, *, size: Dims) -> Shape:
    """Means of `size` windows that cover the map as evenly as they can."""
    return (*x[:2], *size)


@_operation
def adaptive_max_pool(x: Shape, *, size: Dims) -> Shape:
    """Largest values of `size` windows that cover the map as evenly as they can."""
    return (*x[:2], *size)


@_operation
def interpolate(
    x: Shape,
    *,
    rows: Role | None = None,
    columns: Role | None = None,
    mode: Mode,
    size: Dims | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Shape:
    """To `size`, or by the factors of `scale`. The factors, where there are any, give the coordinates too.

    `rows` and `columns` are what the height and the width are made by, where the rest does not say it: of each new
    point the index of the old one, `[size]`; or the weights of all old ones, `[size, old]`; or `[old, factor, taps]`,
    where each old point makes `factor` new ones out of itself and its nearest neighbours, as many on either side, zero
    beyond the ends: `y[q * factor + e]` is the sum over k of `rows[q, e, k] * x[q + k - taps // 2]`.
    """
    if size is not None:
        return (*x[:2], *size)
    if scale is None:
        raise ValueError("neither a size nor a scale")
    return (*x[:2], *(_scaled(size, factor) for size, factor in zip(spatial(x), scale, strict=True)))


def _scaled(size: Dim, factor: float) -> Dim:
    numerator, denominator = factor.as_integer_ratio()
    if denominator > 2**20:  # 1/3 as a float is a little less: not what an integer expression can say
        raise ValueError(f"a scale of {factor}, which is no simple fraction")
    return (size * numerator) // denominator


@made_by_rewriting
def inside(x: Shape, *, rows: Role | None = None, columns: Role | None = None, value: float = 0.0) -> Shape:
    """`value` in all rows, and columns, but those from the first of these two numbers to before the second."""
    return x


@_operation
def pixel_shuffle(x: Shape, *, factor: int) -> Shape:
    """Channels to pixels."""
    return (x[0], x[1] // factor**2, *(size * factor for size in spatial(x)))


@_operation
def pixel_unshuffle(x: Shape, *, factor: int) -> Shape:
    """Pixels to channels."""
    return (x[0], x[1] * factor**2, *(size // factor for size in spatial(x)))


# Shapes


@_operation
def pad(x: Shape, *, amounts: Amounts, mode: Padding = "constant", value: float = 0.0) -> Shape:
    """By so many along each axis; cut off where below zero."""
    return tuple(size + before + after for size, (before, after) in zip(x, amounts, strict=True))


@_operation
def slice(x: Shape, *, axis: int, start: Dim, stop: Dim, step: int = 1) -> Shape:
    """From `start` to before `stop`, both from the beginning of the axis."""
    axis %= len(x)
    return (*x[:axis], (stop - start + step - 1) // step, *x[axis + 1 :])


@_operation
def select(x: Shape, *, axis: int, index: Dim) -> Shape:
    """One of an axis, which is gone then."""
    axis %= len(x)
    return (*x[:axis], *x[axis + 1 :])


@_operation
def take(x: Shape, *, axis: int, indices: Ints) -> Shape:
    """Those of these indices along an axis."""
    axis %= len(x)
    return (*x[:axis], len(indices), *x[axis + 1 :])


@_operation
def concatenate(x: Shape, *more: Shape, axis: int) -> Shape:
    """Side by side along an axis."""
    axis %= len(x)
    return (*x[:axis], sum((shape[axis] for shape in more), x[axis]), *x[axis + 1 :])


@_operation
def stack(x: Shape, *more: Shape, axis: int) -> Shape:
    """Along a new axis."""
    axis %= len(x) + 1
    return (*x[:axis], 1 + len(more), *x[axis:])


@_operation
def reshape(x: Shape, *, shape: Dims) -> Shape:
    """The same numbers in another shape."""
    return shape


@_operation
def permute(x: Shape, *, axes: Ints) -> Shape:
    """The axes in another order."""
    return tuple(x[axis] for axis in axes)


@_operation
def expand(x: Shape, *, shape: Dims) -> Shape:
    """Repeated along axes of one; new ones come first."""
    return shape


@_operation
def tile(x: Shape, *, times: Dims) -> Shape:
    """So many copies side by side along each of the last axes."""
    rank = max(len(x), len(times))
    sizes, counts = (1,) * (rank - len(x)) + x, (1,) * (rank - len(times)) + times
    return tuple(size * count for size, count in zip(sizes, counts, strict=True))


@_operation
def flip(x: Shape, *, axes: Ints) -> Shape:
    """Backward along these axes."""
    return x


@_operation
def roll(x: Shape, *, shifts: Dims, axes: Ints) -> Shape:
    """Moved along these axes; what leaves at one end comes in at the other."""
    return x


# Arithmetic: of two maps, or of one and a number on its left or right


def _arithmetic(name: str) -> None:
    def row(x: Shape, y: Shape | None = None, *, left: Number | None = None, right: Number | None = None) -> Shape:
        if sum(part is not None for part in (y, left, right)) != 1:
            raise ValueError("two operands are needed")
        return x if y is None else _broadcast(x, y)

    row.__name__ = name
    _operation(row)


for _name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum"):
    _arithmetic(_name)


@_operation
def compare(
    x: Shape, y: Shape | None = None, *, relation: Relation, left: Number | None = None, right: Number | None = None
) -> Shape:
    """Whether the relation holds."""
    return x if y is None else _broadcast(x, y)


@_operation
def where(condition: Shape, x: Shape, y: Shape) -> Shape:
    """`x` where the condition holds, else `y`."""
    return _broadcast(condition, x, y)


@_operation
def matmul(x: Shape, y: Shape) -> Shape:
    """Matrix products over the last two axes, broadcast over the others."""
    return (*_broadcast(x[:-2], y[:-2]), x[-2], y[-1])


@_operation
def einsum(x: Shape, *more: Shape, equation: str) -> Shape:
    """A sum of products, by the letters of the axes: `nhqd,nhkd->nhqk`."""
    inputs, arrow, answer = equation.replace(" ", "").partition("->")
    axes = inputs.split(",")
    if not arrow or len(axes) != 1 + len(more) or not inputs.replace(",", "").isalpha():
        raise ValueError(f"no equation of {1 + len(more)} arrays: {equation[:80]!r}")
    letters: dict[str, Dim] = {}
    for names, shape in zip(axes, (x, *more), strict=True):
        letters |= {name: size for name, size in zip(names, shape, strict=True) if letters.get(name, 1) == 1}
    return tuple(letters[name] for name in answer)


@_operation
def attention(
    query: Shape,
    key: Shape,
    value: Shape,
    mask: Shape | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    rate: float = 0.0,
) -> Shape:
    """softmax(query key^T * scale + mask) value; by default the scale is 1 / sqrt(width), `rate` drops weights."""
    return (*query[:-1], value[-1])


# Functions of each number


def _function(name: str) -> None:
    def row(x: Shape) -> Shape:
        return x

    row.__name__ = name
    _operation(row)


FUNCTIONS = (
    *("relu", "sigmoid", "tanh", "silu", "mish", "hardswish", "hardsigmoid", "log_sigmoid", "softsign"),
    *("exp", "log", "sqrt", "rsqrt", "absolute", "negative", "reciprocal", "floor", "sine", "cosine", "erf"),
)
for _name in FUNCTIONS:
    _function(_name)


@_operation
def leaky_relu(x: Shape, *, slope: float) -> Shape:
    """`slope` times the number where it is not above 0."""
    return x


@_operation
def prelu(x: Shape, *, weight: Role) -> Shape:
    """As leaky_relu, with a trained slope for each channel, or one for all."""
    return x


@_operation
def elu(x: Shape, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Shape:
    """Is scale * x above 0, else scale * alpha * (exp(input_scale * x) - 1)."""
    return x


@_operation
def gelu(x: Shape, *, approximate: bool = False) -> Shape:
    """Exact, or by tanh."""
    return x


@_operation
def softplus(x: Shape, *, beta: float = 1.0, threshold: float = 20.0) -> Shape:
    """log(1 + exp(beta x)) / beta; x itself where beta x is above the threshold."""
    return x


@_operation
def clamp(x: Shape, *, low: float | None = None, high: float | None = None) -> Shape:
    """Not below `low`, not above `high`."""
    return x


@_operation
def hardtanh(x: Shape, *, low: float, high: float) -> Shape:
    """As clamp, but that the gradient is 0 at `low` and `high` themselves; relu6 is the one from 0 to 6."""
    return x


@_operation
def softmax(x: Shape, *, axis: int) -> Shape:
    """Over one axis."""
    return x


@_operation
def log_softmax(x: Shape, *, axis: int) -> Shape:
    """Over one axis."""
    return x


@_operation
def cast(x: Shape, *, dtype: Dtype | None = None) -> Shape:
    """In another dtype; without one, in that of the network."""
    return x


# Reductions


def _reduction(name: str) -> None:
    def row(x: Shape, *, axes: Ints, keep: bool = False) -> Shape:
        return _reduced(x, axes, keep=keep)

    row.__name__ = name
    _operation(row)


for _name in ("mean", "sum", "amax", "amin"):
    _reduction(_name)


def _extremum(name: str) -> None:
    def row(x: Shape, *, axis: int, keep: bool = False) -> Shape:
        return _reduced(x, (axis,), keep=keep)

    row.__name__ = name
    _operation(row)


for _name in ("largest", "smallest"):  # of equal numbers the first takes the gradient; in amax and amin they share it
    _extremum(_name)


@_operation
def variance(x: Shape, *, axes: Ints, keep: bool = False, correction: float = 1.0) -> Shape:
    """The sum of squared deviations divided by their number less `correction`."""
    return _reduced(x, axes, keep=keep)


@_operation
def vector_norm(x: Shape, *, axes: Ints, keep: bool = False, order: float = 2.0) -> Shape:
    """The norm of this order."""
    return _reduced(x, axes, keep=keep)


# Without an input, and chance


@_operation
def constant(*, values: tuple[float, ...], shape: Ints, dtype: Dtype | None = None) -> Shape:
    """These numbers; without a dtype, in that of the network."""
    return shape


@_operation
def full(*, shape: Dims, value: Number, dtype: Dtype | None = None) -> Shape:
    """One number everywhere; without a dtype, in that of the network."""
    return shape


@_operation
def parameter(*, value: Role) -> Shape:
    """A tensor of the network by itself, such as a position embedding or a learned factor."""
    return tuple(value)


@_operation
def dropout(x: Shape, *, rate: float, kind: DropoutKind = "elements", always: bool = False) -> Shape:
    """In training (or `always`), zero with the probability `rate`, else divided by 1 - rate."""
    return x


@_operation
def chance(*, shape: Dims, probability: float | None = None) -> Shape:
    """Random numbers: 1 with this probability, else 0, the lowest draws being 0; without one, uniform from 0 to 1."""
    return shape
