"""What each operation of `unet_core.graph.operations` computes, in PyTorch: functions of the same names and parameters.

Inputs are tensors, roles tensors or None, sizes plain integers. Those whose answer depends on more take the `Run`.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_core.graph.operations import DropoutKind, Dtype, Ints, Mode, Padding, Pairs, Relation


@runtime_checkable
class Run(Protocol):
    """One pass through a network."""

    training: bool
    """Whether it runs in training mode."""
    dtype: torch.dtype
    """Of numbers that have none of their own."""

    def track(self, role: str, value: Tensor) -> None:
        """Take the new value of a tensor of the node, by its role."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw random numbers from 0 to 1, 1 left out."""


Number = int | float
Row = Callable[..., Any]

OPERATIONS: dict[str, Row] = {}
"""Every operation that a graph may have, by its name."""


def _operation(row: Row) -> Row:
    OPERATIONS[row.__name__.rstrip("_")] = row
    return row


def _named(name: str, row: Row) -> None:
    row.__name__ = name
    _operation(row)


@functools.cache
def needs_run(operation: str) -> bool:
    """Whether a row takes the `Run`."""
    return "run" in inspect.signature(OPERATIONS[operation]).parameters


def _of_rank(x: Tensor, *rows: Any) -> Any:
    """The one for maps of one, two or three dimensions."""
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"a map of {x.ndim - 2} dimensions")
    return rows[x.ndim - 3]


# Convolutions


@_operation
def convolution(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> Tensor:
    row = _of_rank(x, F.conv1d, F.conv2d, F.conv3d)
    if any(before != after for before, after in padding):
        x, padding = F.pad(x, _flat(padding)), ((0, 0),) * len(padding)
    return row(x, weight, bias, stride, [before for before, _ in padding], dilation, groups)


def _flat(amounts: Pairs) -> list[int]:
    """As torch takes them: of the last axis first."""
    return [amount for pair in reversed(amounts) for amount in pair]


@_operation
def transposed_convolution(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    row = _of_rank(x, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    return row(x, weight, bias, stride, padding, output_padding, groups, dilation)


@_operation
def linear(x: Tensor, *, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


# Normalisation


@_operation
def batch_norm(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    count: Tensor | None = None,
    epsilon: float,
    momentum: float | None,
    frozen: bool = False,
    run: Run,
) -> Tensor:
    tracks = run.training and not frozen and mean is not None and variance is not None
    of_batch = mean is None or (run.training and not frozen)
    if tracks and count is not None:
        count = count + 1
        run.track("count", count)
    if momentum is None:  # a cumulative average; without a counter torch keeps what it has
        momentum = 1 / float(count) if tracks and count is not None else 0.0
    return _tracked(
        run,
        mean,
        variance,
        lambda mean, variance: F.batch_norm(x, mean, variance, weight, bias, of_batch, momentum, epsilon),
        tracks=tracks,
    )


@_operation
def instance_norm(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    count: Tensor | None = None,
    epsilon: float,
    momentum: float | None = None,
    run: Run,
) -> Tensor:
    of_batch = run.training or mean is None
    return _tracked(  # torch does not count these batches
        run,
        mean,
        variance,
        lambda mean, variance: F.instance_norm(x, mean, variance, weight, bias, of_batch, momentum or 0.0, epsilon),
        tracks=run.training and mean is not None,
    )


def _tracked(
    run: Run,
    mean: Tensor | None,
    variance: Tensor | None,
    norm: Callable[[Tensor | None, Tensor | None], Tensor],
    *,
    tracks: bool,
) -> Tensor:
    """The answer of a norm, which changes its statistics in place: those given stay as they are."""
    if not tracks or mean is None or variance is None:
        return norm(mean, variance)
    mean, variance = mean.detach().clone(), variance.detach().clone()
    y = norm(mean, variance)
    run.track("mean", mean)
    run.track("variance", variance)
    return y


@_operation
def group_norm(
    x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, groups: int, epsilon: float
) -> Tensor:
    return F.group_norm(x, groups, weight, bias, epsilon)


@_operation
def layer_norm(
    x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, axes: int, epsilon: float
) -> Tensor:
    return F.layer_norm(x, x.shape[-axes:], weight, bias, epsilon)


# Pools and interpolation


@_operation
def max_pool(x: Tensor, *, window: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Tensor:
    return _of_rank(x, F.max_pool1d, F.max_pool2d, F.max_pool3d)(x, window, stride, padding, dilation, ceil)


@_operation
def average_pool(
    x: Tensor,
    *,
    window: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Tensor:
    row = _of_rank(x, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    more = {} if divisor is None else {"divisor_override": divisor}
    return row(x, window, stride, padding, ceil, count_padding, **more)


@_operation
def adaptive_average_pool(x: Tensor, *, size: Ints) -> Tensor:
    return _of_rank(x, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)(x, size)


@_operation
def adaptive_max_pool(x: Tensor, *, size: Ints) -> Tensor:
    return _of_rank(x, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)(x, size)


_ATEN = torch.ops.aten
_INTERPOLATIONS: Mapping[tuple[Mode, bool], tuple[Any, ...]] = {
    ("nearest", False): (_ATEN.upsample_nearest1d, _ATEN.upsample_nearest2d, _ATEN.upsample_nearest3d),
    ("nearest-exact", False): (
        _ATEN._upsample_nearest_exact1d,
        _ATEN._upsample_nearest_exact2d,
        _ATEN._upsample_nearest_exact3d,
    ),
    ("linear", False): (_ATEN.upsample_linear1d, _ATEN.upsample_bilinear2d, _ATEN.upsample_trilinear3d),
    ("linear", True): (None, _ATEN._upsample_bilinear2d_aa, None),
    ("cubic", False): (None, _ATEN.upsample_bicubic2d, None),
    ("cubic", True): (None, _ATEN._upsample_bicubic2d_aa, None),
}


@_operation
def interpolate(
    x: Tensor,
    *,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    mode: Mode,
    size: Ints | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Tensor:
    if rows is not None and columns is not None:
        return _resampled(_resampled(x, 2, rows), 3, columns)
    # `F.interpolate` takes a size or factors; the operators below it take factors for the coordinates beside a size.
    known = _INTERPOLATIONS.get((mode, antialias))
    row = None if known is None else _of_rank(x, *known)
    if row is None:
        raise ValueError(f"no interpolation {mode}{' with antialias' if antialias else ''} of {x.ndim - 2} dimensions")
    if size is None:
        if scale is None:
            raise ValueError("neither a size nor a scale")
        size = tuple(math.floor(length * factor) for length, factor in zip(x.shape[2:], scale, strict=True))
    corners = () if mode.startswith("nearest") else (align_corners,)
    return row(x, size, *corners, *(scale or (None,) * len(size)))


def _resampled(x: Tensor, axis: int, weights: Tensor) -> Tensor:
    """By one of the forms of the table."""
    if weights.ndim == 1:
        return x.index_select(axis, weights)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    if weights.ndim == 3:
        return stretched(exact, axis, weights.to(exact)).to(x.dtype)
    return torch.tensordot(exact, weights.to(exact), ([axis], [1])).movedim(-1, axis).to(x.dtype)


def stretched(x: Tensor, axis: int, taps: Tensor) -> Tensor:
    """Each point makes several new ones, out of itself and its neighbours."""
    size, _, count = taps.shape
    whole = x.movedim(1, -1).unsqueeze(axis)  # with the channels last, as convolutions answer on a CPU
    shares = taps.reshape(*taps.shape, *(1,) * (whole.ndim - axis - 1)).unbind(2)
    y = shares[count // 2] * whole
    for share, offset in zip(shares, range(-(count // 2), count // 2 + 1), strict=True):
        to, of, length = max(-offset, 0), max(offset, 0), size - abs(offset)
        if offset and length > 0:
            y.narrow(axis - 1, to, length).addcmul_(share[to : to + length], whole.narrow(axis - 1, of, length))
    return y.flatten(axis - 1, axis).movedim(-1, 1)


@_operation
def inside(x: Tensor, *, rows: Tensor | None = None, columns: Tensor | None = None, value: float = 0.0) -> Tensor:
    height, width = x.shape[2:]
    (top, bottom), (left, right) = (
        (0, length) if ends is None else ends.tolist() for ends, length in ((rows, height), (columns, width))
    )
    if top <= 0 and left <= 0 and bottom >= height and right >= width:
        return x
    y = x.clone()
    y[:, :, : max(top, 0)] = y[:, :, max(bottom, 0) :] = value
    y[..., : max(left, 0)] = y[..., max(right, 0) :] = value
    return y


@_operation
def pixel_shuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_shuffle(x, factor)


@_operation
def pixel_unshuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_unshuffle(x, factor)


# Shapes


@_operation
def pad(x: Tensor, *, amounts: Pairs, mode: Padding = "constant", value: float = 0.0) -> Tensor:
    if mode == "constant":
        return F.pad(x, _flat(amounts), value=value)
    if any(amount for pair in amounts[:2] for amount in pair):
        raise ValueError(f"padding {mode} is for the spatial axes")
    return F.pad(x, _flat(amounts[2:]), mode)


@_operation
def slice_(x: Tensor, *, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, stop, step),)]


@_operation
def select(x: Tensor, *, axis: int, index: int) -> Tensor:
    return x.select(axis, index)


@_operation
def take(x: Tensor, *, axis: int, indices: Ints) -> Tensor:
    return x.index_select(axis, torch.tensor(indices, device=x.device))


@_operation
def concatenate(x: Tensor, *more: Tensor, axis: int) -> Tensor:
    return torch.cat((x, *more), axis)


@_operation
def stack(x: Tensor, *more: Tensor, axis: int) -> Tensor:
    return torch.stack((x, *more), axis)


@_operation
def reshape(x: Tensor, *, shape: Ints) -> Tensor:
    return x.reshape(shape)


@_operation
def permute(x: Tensor, *, axes: Ints) -> Tensor:
    return x.permute(axes)


@_operation
def expand(x: Tensor, *, shape: Ints) -> Tensor:
    return x.expand(shape)


@_operation
def tile(x: Tensor, *, times: Ints) -> Tensor:
    return x.tile(times)


@_operation
def flip(x: Tensor, *, axes: Ints) -> Tensor:
    return x.flip(axes)


@_operation
def roll(x: Tensor, *, shifts: Ints, axes: Ints) -> Tensor:
    return x.roll(shifts, axes)


# Arithmetic


def _arithmetic(function: Any) -> Row:
    def row(x: Tensor, y: Tensor | None = None, *, left: Number | None = None, right: Number | None = None) -> Tensor:
        return function(*_operands(x, y, left, right))

    return row


def _operands(x: Tensor, y: Tensor | None, left: Number | None, right: Number | None) -> tuple[Any, Any]:
    """The two, one of which may be a number."""
    if y is not None:
        return x, y
    return (x, right) if left is None else (left, x)


def _of_tensors(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Tensor]:
    """For numbers too."""

    def either(x: Any, y: Any) -> Tensor:
        like = x if isinstance(x, Tensor) else y
        dtype = torch.result_type(x, y)
        return function(*(torch.as_tensor(part, dtype=dtype, device=like.device) for part in (x, y)))

    return either


for _name, _of_two in {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "power": torch.pow,
    "maximum": _of_tensors(torch.maximum),
    "minimum": _of_tensors(torch.minimum),
}.items():
    _named(_name, _arithmetic(_of_two))

_RELATIONS: Mapping[Relation, Callable[[Any, Any], Tensor]] = {
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "==": torch.eq,
    "!=": torch.ne,
}


@_operation
def compare(
    x: Tensor, y: Tensor | None = None, *, relation: Relation, left: Number | None = None, right: Number | None = None
) -> Tensor:
    return _of_tensors(_RELATIONS[relation])(*_operands(x, y, left, right))


@_operation
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


@_operation
def matmul(x: Tensor, y: Tensor) -> Tensor:
    return torch.matmul(x, y)


@_operation
def einsum(x: Tensor, *more: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, x, *more)


@_operation
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    rate: float = 0.0,
    run: Run,
) -> Tensor:
    if not rate:
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)
    # torch draws the dropped weights itself: here they are the answer for one value each
    of_each = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device)
    of_each = of_each.expand(*value.shape[:-2], *of_each.shape)
    weights = F.scaled_dot_product_attention(query, key, of_each, mask, is_causal=causal, scale=scale)
    return _dropped(weights, weights.shape, rate, run) @ value


# Functions of each number


def _function(function: Any) -> Row:
    def row(x: Tensor) -> Tensor:
        return function(x)

    return row


for _name, _of_one in {
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
}.items():
    _named(_name, _function(_of_one))


@_operation
def leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return F.leaky_relu(x, slope)


@_operation
def prelu(x: Tensor, *, weight: Tensor) -> Tensor:
    return F.prelu(x, weight)


@_operation
def elu(x: Tensor, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    return _ATEN.elu(x, alpha, scale, input_scale)


@_operation
def gelu(x: Tensor, *, approximate: bool = False) -> Tensor:
    return F.gelu(x, approximate="tanh" if approximate else "none")


@_operation
def softplus(x: Tensor, *, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return F.softplus(x, beta, threshold)


@_operation
def clamp(x: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    return torch.clamp(x, low, high)


@_operation
def hardtanh(x: Tensor, *, low: float, high: float) -> Tensor:
    return F.hardtanh(x, low, high)


@_operation
def softmax(x: Tensor, *, axis: int) -> Tensor:
    return F.softmax(x, axis)


@_operation
def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    return F.log_softmax(x, axis)


@_operation
def cast(x: Tensor, *, dtype: Dtype | None = None, run: Run) -> Tensor:
    return x.to(_dtype(dtype, run))


# Reductions


def _reduction(function: Any) -> Row:
    def row(x: Tensor, *, axes: Ints, keep: bool = False) -> Tensor:
        return function(x, axes, keepdim=keep)

    return row


for _name, _of_axes in {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax, "amin": torch.amin}.items():
    _named(_name, _reduction(_of_axes))


def _extremum(function: Any) -> Row:
    def row(x: Tensor, *, axis: int, keep: bool = False) -> Tensor:
        return function(x, axis, keepdim=keep).values

    return row


_named("largest", _extremum(torch.max))
_named("smallest", _extremum(torch.min))


@_operation
def variance(x: Tensor, *, axes: Ints, keep: bool = False, correction: float = 1.0) -> Tensor:
    return torch.var(x, axes, correction=correction, keepdim=keep)


@_operation
def vector_norm(x: Tensor, *, axes: Ints, keep: bool = False, order: float = 2.0) -> Tensor:
    return torch.linalg.vector_norm(x, order, axes, keepdim=keep)


# Without an input, and chance


@_operation
def constant(*, values: tuple[float, ...], shape: Ints, dtype: Dtype | None = None, run: Run) -> Tensor:
    return torch.tensor(values, dtype=_dtype(dtype, run)).reshape(shape)


@_operation
def full(*, shape: Ints, value: Number, dtype: Dtype | None = None, run: Run) -> Tensor:
    return torch.full(shape, value, dtype=_dtype(dtype, run))


def _dtype(name: Dtype | None, run: Run) -> torch.dtype:
    return run.dtype if name is None else getattr(torch, name)


@_operation
def parameter(*, value: Tensor) -> Tensor:
    return value


@_operation
def dropout(x: Tensor, *, rate: float, kind: DropoutKind = "elements", always: bool = False, run: Run) -> Tensor:
    if not rate or not (run.training or always):
        return x
    axes = {"elements": x.ndim, "maps": 2, "examples": 1}[kind]
    return _dropped(x, (*x.shape[:axes], *(1,) * (x.ndim - axes)), rate, run)


def _dropped(x: Tensor, shape: tuple[int, ...], rate: float, run: Run) -> Tensor:
    kept = (run.uniform(tuple(shape)) >= rate).to(x.dtype)
    return x * (kept / (1 - rate) if rate < 1 else kept)


@_operation
def chance(*, shape: Ints, probability: float | None = None, run: Run) -> Tensor:
    draws = run.uniform(shape)
    return draws if probability is None else (draws >= 1 - probability).to(draws.dtype)
