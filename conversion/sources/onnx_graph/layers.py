"""Convolutions, linear layers and norms of ONNX."""

import dataclasses
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
)
from unet_core.graph.sizes import largest


def padded(w: Writer, at: Attributes, x: Map, window: tuple[int, ...], stride: Any, dilation: Any) -> tuple[Map, Any]:
    """The map, and for each spatial axis what it is padded by before and after; by a node where that varies."""
    automatic, pads = at("auto_pad", "NOTSET"), at.ints("pads")
    axes = len(window)
    if automatic == "NOTSET":
        pads = pads or (0,) * (2 * axes)
        return x, tuple(zip(pads[:axes], pads[axes:], strict=True))
    if automatic == "VALID":
        return x, ((0, 0),) * axes
    amounts: list[Any] = [(0, 0), (0, 0)]
    for size, reach, step, far in zip(x.shape[2:], window, stride, dilation, strict=True):
        total = largest(((size + step - 1) // step - 1) * step + far * (reach - 1) + 1 - size, 0)
        less = total // 2
        amounts.append((less, total - less) if automatic == "SAME_UPPER" else (total - less, less))
    if all(isinstance(part, int) for pair in amounts for part in pair):
        return x, tuple(amounts[2:])
    return w.add("pad", x, amounts=tuple(amounts)), ((0, 0),) * axes


def symmetric(padding: Any) -> tuple[int, ...]:
    """What it is padded by on either side.

    Raises:
        UnreadableError: the sides differ.
    """
    if any(before != after for before, after in padding):
        raise UnreadableError(f"with pads of {padding}")
    return tuple(before for before, _ in padding)


@row("Conv")
def convolution(w: Writer, at: Attributes, x: Value, weight: Value, bias: Value | None = None) -> Map:
    """The kernel is [out, in / groups, ...]."""
    window, kernel = tuple(constant(weight).shape[2:]), at.ints("kernel_shape")
    if kernel not in (None, window):
        raise UnreadableError(f"with kernel_shape={kernel} and a kernel of {window}")
    stride, dilation = (at.ints(name, (1,) * len(window)) for name in ("strides", "dilations"))
    x, padding = padded(w, at, w.map(x), window, stride, dilation)
    roles = {"weight": w.tensor(weight), "bias": w.tensor(bias)}
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": at("group", 1)}
    return w.add("convolution", x, tensors=roles, **how)


@row("ConvTranspose")
def transposed(w: Writer, at: Attributes, x: Value, weight: Value, bias: Value | None = None) -> Map:
    """The kernel is [in, out / groups, ...]."""
    window = tuple(constant(weight).shape[2:])
    at.only(auto_pad="NOTSET", kernel_shape=list(window))
    ones, zeros = (1,) * len(window), (0,) * len(window)
    pads = at.ints("pads", zeros * 2) or ()
    how = {
        "stride": at.ints("strides", ones),
        "padding": symmetric(tuple(zip(pads[: len(window)], pads[len(window) :], strict=True))),
        "output_padding": at.ints("output_padding", zeros),
        "dilation": at.ints("dilations", ones),
        "groups": at("group", 1),
    }
    return w.add("transposed_convolution", x, tensors={"weight": w.tensor(weight), "bias": w.tensor(bias)}, **how)


@row("Gemm")
def gemm(w: Writer, at: Attributes, x: Value, weight: Value, bias: Value | None = None) -> Map:
    """A linear layer."""
    at.only(alpha=1.0, beta=1.0, transA=0)
    name = w.tensor(constant(weight), turned=not at("transB", 0))
    if bias is not None and constant(bias).array.ndim != 1:
        bias = dataclasses.replace(constant(bias), array=constant(bias).array.reshape(-1))
    return w.add("linear", x, tensors={"weight": name, "bias": w.tensor(bias)})


@row("MatMul")
def matmul(w: Writer, at: Attributes, x: Value, y: Value) -> Map:
    """A linear layer, where the second is a matrix of the file; else a product of maps."""
    if isinstance(y, Constant) and rank(y) == 2 and isinstance(x, Map):
        return w.add("linear", x, tensors={"weight": w.tensor(y, turned=True)})
    if min(rank(x), rank(y)) < 2:
        raise UnreadableError("of a vector")
    return w.add("matmul", x, y)


@row("Einsum")
def einsum(w: Writer, at: Attributes, *xs: Value) -> Map:
    """A sum of products."""
    return w.add("einsum", *xs, equation=at("equation"))


@row("BatchNormalization")
def batch_norm(w: Writer, at: Attributes, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Map:
    """As the file says it, by the running statistics; so it stays when it is trained."""
    at.only(training_mode=0, spatial=1)
    momentum = at("momentum", 0.9)
    roles = {"weight": w.tensor(scale), "bias": w.tensor(bias)}
    roles |= {"mean": w.tensor(mean, "statistic"), "variance": w.tensor(variance, "statistic")}
    return w.add("batch_norm", x, tensors=roles, epsilon=at("epsilon", 1e-5), momentum=float(1 - momentum), frozen=True)


@row("InstanceNormalization")
def instance_norm(w: Writer, at: Attributes, x: Value, scale: Value, bias: Value) -> Map:
    """Each map of each example by its own statistics; of groups that were made maps, without a factor of their own."""
    x, epsilon = w.map(x), at("epsilon", 1e-5)
    if rank(x) == 3:  # not known for maps of one axis: as torch exports GroupNorm
        x, whole = w.add("reshape", x, shape=(*x.shape, 1)), x.shape
        made = w.add("group_norm", x, tensors=_affine(w, scale, bias), groups=whole[1], epsilon=epsilon)
        return w.add("reshape", made, shape=whole)
    return w.add("instance_norm", x, tensors=_affine(w, scale, bias), epsilon=epsilon)


def _affine(w: Writer, scale: Value, bias: Value | None) -> dict[str, str | None]:
    """Factor and summand, but for those of 1 and 0 that exporters make up."""
    arrays = [constant(scale).array, *([] if bias is None else [constant(bias).array])]
    if all(bool((array == one).all()) for array, one in zip(arrays, (1, 0), strict=False)):
        return {}
    return {"weight": w.tensor(scale), "bias": w.tensor(bias)}


@row("LayerNormalization")
def layer_norm(w: Writer, at: Attributes, x: Value, scale: Value, bias: Value | None = None) -> Map:
    """Over the last axes."""
    at.only(stash_type=1)
    axes = rank(x) - at("axis", -1) % rank(x)
    return w.add(
        "layer_norm",
        x,
        tensors={"weight": w.tensor(scale), "bias": w.tensor(bias)},
        axes=axes,
        epsilon=at("epsilon", 1e-5),
    )


@row("GroupNormalization")
def group_norm(w: Writer, at: Attributes, x: Value, scale: Value, bias: Value) -> Map:
    """With a factor for each channel; in the first version of it, for each group."""
    at.only(stash_type=1)
    groups, channels = at("num_groups"), x.shape[1]
    values = [constant(scale), constant(bias)]
    if at.opset < 21 and groups != channels:
        if not isinstance(channels, int) or any(value.shape != (groups,) for value in values):
            raise UnreadableError(f"of {groups} groups with a factor of {values[0].shape}")
        values = [
            dataclasses.replace(value, array=np.repeat(value.array, channels // groups), name=f"{value.name}.repeated")
            for value in values
        ]
    return w.add("group_norm", x, tensors=_affine(w, *values), groups=groups, epsilon=at("epsilon", 1e-5))


@row("PRelu")
def prelu(w: Writer, at: Attributes, x: Value, slope: Value) -> Map:
    """A slope for each channel, or one for all."""
    value = constant(slope)
    if value.array.size not in (1, x.shape[1]) or math.prod(value.shape) != max(value.shape, default=1):
        raise UnreadableError(f"with slopes of {value.shape}")
    flat = Constant(value.array.reshape(-1), value.name)
    return w.add("prelu", x, tensors={"weight": w.tensor(flat)})
