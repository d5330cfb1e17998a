"""Pools, interpolation, and channels that become pixels, in ONNX."""

from collections.abc import Callable
from typing import Any

from conversion.exports.onnx_model.rows import Row, To, named, spatial
from conversion.exports.onnx_model.writer import WHOLE, UnwritableError, Writer
from unet_core.graph.operations import Dims, Ints, Mode
from unet_core.graph.sizes import Dim


def max_pool(
    w: Writer, to: To, x: str, *, window: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False
) -> str:
    more: dict[str, Any] = {
        "strides": stride,
        "pads": (*padding, *padding),
        "dilations": dilation,
        "ceil_mode": int(ceil),
    }
    return w.add("MaxPool", x, kernel_shape=window, **more, **to)


def average_pool(
    w: Writer,
    to: To,
    x: str,
    *,
    window: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> str:
    if divisor is not None:
        raise UnwritableError("with a divisor of its own")
    counts: dict[str, Any] = {"ceil_mode": int(ceil), "count_include_pad": int(count_padding)}
    return w.add("AveragePool", x, kernel_shape=window, strides=stride, pads=(*padding, *padding), **counts, **to)


def _adaptive(reduction: str) -> Callable[..., str]:
    def row(w: Writer, to: To, x: str, *, size: Dims) -> str:
        for axis, count in zip(spatial(w.shapes[x]), size, strict=True):
            if count == w.shapes[x][axis]:
                continue
            if not isinstance(count, int):
                raise UnwritableError("to a size that the picture decides")
            length = w.shapes[x][axis]
            ends = [(place * length // count, -((-(place + 1) * length) // count)) for place in range(count)]
            parts = [_reduced(w, reduction, x, axis, *end) for end in ends]
            shape = tuple(count if at == axis else one for at, one in enumerate(w.shapes[x]))
            x = w.add("Concat", *parts, shape=shape, axis=axis) if count > 1 else parts[0]
        return w.add("Identity", x, **to)

    return row


def _reduced(w: Writer, reduction: str, x: str, axis: int, first: Dim, stop: Dim) -> str:
    """One number for the points of an axis from `first` to before `stop`."""
    shape = tuple(1 if at == axis else size for at, size in enumerate(w.shapes[x]))
    if (first, stop) != (0, w.shapes[x][axis]):
        x = w.add("Slice", x, w.size(first), w.size(stop), w.constant([axis], WHOLE), shape=shape)
    return w.add(reduction, x, w.constant([axis], WHOLE), shape=shape, keepdims=1)


def interpolate(
    w: Writer,
    to: To,
    x: str,
    *,
    mode: Mode,
    size: Dims | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> str:
    if antialias:  # onnxruntime weighs the points otherwise than torch
        raise UnwritableError("with antialias")
    if size is not None and scale is not None:
        raise UnwritableError("to a size, with other factors")
    ways: dict[Mode, dict[str, Any]] = {
        "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        "nearest-exact": {
            "mode": "nearest",
            "coordinate_transformation_mode": "half_pixel",
            "nearest_mode": "round_prefer_ceil",
        },
        "linear": {"mode": "linear"},
        "cubic": {"mode": "cubic", "cubic_coeff_a": -0.75},
    }
    how: dict[str, Any] = {
        "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
        **ways[mode],
    }
    if scale is not None:
        return w.add("Resize", x, "", w.constant((1, 1, *scale)), **how, **to)
    assert size is not None
    whole = w.sizes((*w.shapes[x][:2], *size))
    return w.add("Resize", x, "", "", whole, **how, **to)


def pixel_shuffle(w: Writer, to: To, x: str, *, factor: int) -> str:
    return w.add("DepthToSpace", x, blocksize=factor, mode="CRD", **to)


def pixel_unshuffle(w: Writer, to: To, x: str, *, factor: int) -> str:
    n, channels, height, width = w.shapes[x]
    apart = (n, channels, height // factor, factor, width // factor, factor)
    y = w.add("Reshape", x, w.sizes(apart), shape=apart)
    order = (0, 1, 3, 5, 2, 4)
    y = w.add("Transpose", y, shape=tuple(apart[axis] for axis in order), perm=order)
    return w.add("Reshape", y, w.sizes(to["shape"]), **to)


ROWS: dict[str, Row] = named(max_pool, average_pool, interpolate, pixel_shuffle, pixel_unshuffle) | {
    "adaptive_average_pool": _adaptive("ReduceMean"),
    "adaptive_max_pool": _adaptive("ReduceMax"),
}
