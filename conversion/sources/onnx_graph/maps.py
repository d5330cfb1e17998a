"""Pools, maps of another size, and padding of ONNX."""

from typing import Any

import numpy as np

from conversion.sources.onnx_graph.layers import padded, symmetric
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
from unet_core.graph.sizes import Dim

_HALF = ("half_pixel", "pytorch_half_pixel")
_PADDINGS = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pool(w: Writer, at: Attributes, x: Value) -> tuple[Map, dict[str, Any], tuple[int, ...]]:
    window = at.ints("kernel_shape") or ()
    stride, dilation = (at.ints(name, (1,) * len(window)) for name in ("strides", "dilations"))
    x, padding = padded(w, at, w.map(x), window, stride, dilation)
    how = {"window": window, "stride": stride, "padding": symmetric(padding), "ceil": bool(at("ceil_mode", 0))}
    return x, how, dilation or ()


@row("MaxPool")
def max_pool(w: Writer, at: Attributes, x: Value) -> Map:
    """The largest of each window."""
    at.only(storage_order=0)
    before = len(w.nodes)
    x, how, dilation = _pool(w, at, x)
    if len(w.nodes) > before:
        raise UnreadableError("with auto_pad")  # by zeros, and not by less than all
    return w.add("max_pool", x, dilation=dilation, **how)


@row("AveragePool")
def average_pool(w: Writer, at: Attributes, x: Value) -> Map:
    """The mean of each window."""
    before, counts = len(w.nodes), bool(at("count_include_pad", 0))
    x, how, dilation = _pool(w, at, x)
    if set(dilation) != {1} or (len(w.nodes) > before and not counts):
        raise UnreadableError(f"with dilations={list(dilation)} or auto_pad")
    return w.add("average_pool", x, count_padding=counts, **how)


@row("GlobalAveragePool", "GlobalMaxPool")
def global_pool(w: Writer, at: Attributes, x: Value) -> Map:
    """One number for a map."""
    name = "mean" if at.operation == "GlobalAveragePool" else "amax"
    return w.add(name, x, axes=tuple(range(2, rank(x))), keep=True)


@row("Upsample")
def upsample(w: Writer, at: Attributes, x: Value, scales: Value | None = None) -> Map:
    """As Resize had it first."""
    given = Constant(np.array(at("scales"))) if scales is None else scales
    return _resized(w, w.map(x), at("mode", "nearest"), "asymmetric", "floor", given, None)


@row("Resize")
def resize(w: Writer, at: Attributes, x: Value, *more: Value | None) -> Map:
    """To a size, or by factors; before version 11 factors alone."""
    if at.opset < 11:
        return upsample(w, at, x, *more)
    _, scales, sizes = (*more, None, None, None)[:3]
    at.only(exclude_outside=0, antialias=0, keep_aspect_ratio_policy="stretch")
    at("extrapolation_value")  # for the coordinates of one mode, which has no row
    mode, corners = at("mode", "nearest"), at("coordinate_transformation_mode", "half_pixel")
    nearest, cubic = at("nearest_mode", "round_prefer_floor"), at("cubic_coeff_a", -0.75)
    if mode == "cubic" and cubic != -0.75:
        raise UnreadableError(f"with cubic_coeff_a={cubic}")
    axes = [axis % rank(x) for axis in at.axes() or range(rank(x))]
    scales = None if scales is None or constant(scales).array.size == 0 else _spread(x, constant(scales), axes, 1.0)
    sizes = None if sizes is None else _spread(x, constant(sizes), axes, None)
    return _resized(w, w.map(x), mode, corners, nearest, scales, sizes)


def _spread(x: Value, given: Constant, axes: list[int], left: Any) -> Constant:
    """What is given for some axes, for all; for the others `left`, or their sizes."""
    row = list(x.shape) if left is None else [left] * rank(x)
    for axis, value in zip(axes, given.array.reshape(-1), strict=True):
        row[axis] = value
    return Constant(np.array(row, given.array.dtype if left is not None else object))


def _resized(
    w: Writer, x: Map, mode: str, corners: str, nearest: str, scales: Value | None, sizes: Value | None
) -> Map:
    factors = None if scales is None else tuple(map(float, constant(scales).array))
    integral = factors is not None and all(factor.is_integer() for factor in factors)
    ways: dict[str, tuple[str, bool]] = {}
    if mode == "nearest" and (
        (corners, nearest) == ("asymmetric", "floor") or (integral and corners in _HALF and nearest.startswith("round"))
    ):
        ways[mode] = ("nearest", False)
    elif mode == "nearest" and corners in _HALF and nearest == "round_prefer_ceil":
        ways[mode] = ("nearest-exact", False)
    elif mode in ("linear", "cubic") and (corners in _HALF or corners == "align_corners"):
        ways[mode] = (mode, corners == "align_corners")
    if mode not in ways:
        raise UnreadableError(f"with mode={mode}, coordinate_transformation_mode={corners}, nearest_mode={nearest}")
    name, aligned = ways[mode]
    to: dict[str, Any] = {}
    if factors is not None:
        if factors[:2] != (1.0, 1.0):
            raise UnreadableError(f"of batch or channels, by {factors}")
        to["scale"] = factors[2:]
    else:
        to["size"] = constant(sizes).sizes[2:]
    return w.add("interpolate", x, mode=name, align_corners=aligned, **to)


@row("Pad")
def pad(w: Writer, at: Attributes, x: Value, pads: Value | None = None, *more: Value | None) -> Map:
    """By so many along each axis, all befores first."""
    amounts: tuple[Dim, ...] = tuple(at.ints("pads") or ()) if pads is None else constant(pads).sizes
    value, axes = (*more, None, None)[:2]
    number = at("value", 0.0) if value is None else constant(value).number
    places = list(range(rank(x))) if axes is None else [axis % rank(x) for axis in whole(axes)]
    pairs: list[tuple[Dim, Dim]] = [(0, 0)] * rank(x)
    for axis, *pair in zip(places, amounts[: len(places)], amounts[len(places) :], strict=True):
        pairs[axis] = (pair[0], pair[1])
    mode = at("mode", "constant")
    if mode not in _PADDINGS:
        raise UnreadableError(f"with mode={mode}")
    if not any(part != 0 for pair in pairs for part in pair):
        return w.map(x)
    return w.add("pad", x, amounts=tuple(pairs), mode=_PADDINGS[mode], value=float(number))


@row("DepthToSpace")
def depth_to_space(w: Writer, at: Attributes, x: Value) -> Map:
    """Channels to pixels."""
    factor, mode = at("blocksize"), at("mode", "DCR")
    if mode == "CRD":
        return w.add("pixel_shuffle", x, factor=factor)
    n, channels, height, width = x.shape
    depth = channels // factor**2
    y = w.add("reshape", x, shape=(n, factor, factor, depth, height, width))
    y = w.add("permute", y, axes=(0, 3, 4, 1, 5, 2))
    return w.add("reshape", y, shape=(n, depth, height * factor, width * factor))


@row("SpaceToDepth")
def space_to_depth(w: Writer, at: Attributes, x: Value) -> Map:
    """Pixels to channels."""
    n, channels, height, width = x.shape
    factor = at("blocksize")
    y = w.add("reshape", x, shape=(n, channels, height // factor, factor, width // factor, factor))
    y = w.add("permute", y, axes=(0, 3, 5, 1, 2, 4))
    return w.add("reshape", y, shape=(n, channels * factor**2, height // factor, width // factor))
