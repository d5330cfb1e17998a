"""Convolutions, linear layers and norms in ONNX."""

from typing import Any

import numpy as np

from conversion.exports.onnx_model.rows import Row, To, named
from conversion.exports.onnx_model.writer import WHOLE, Writer
from unet_core.graph.operations import Ints, Pairs


def convolution(
    w: Writer,
    to: To,
    x: str,
    *,
    weight: str,
    bias: str | None = None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> str:
    pads = [before for before, _ in padding] + [after for _, after in padding]
    more: dict[str, Any] = {"strides": stride, "pads": pads, "dilations": dilation, "group": groups}
    return w.add("Conv", x, weight, *_given(bias), kernel_shape=w.shapes[weight][2:], **more, **to)


def transposed_convolution(
    w: Writer,
    to: To,
    x: str,
    *,
    weight: str,
    bias: str | None = None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> str:
    more: dict[str, Any] = {"strides": stride, "pads": (*padding, *padding), "dilations": dilation, "group": groups}
    return w.add("ConvTranspose", x, weight, *_given(bias), output_padding=output_padding, **more, **to)


def linear(w: Writer, to: To, x: str, *, weight: str, bias: str | None = None) -> str:
    turned = w.add("Transpose", weight, shape=w.shapes[weight][::-1], perm=(1, 0))
    if bias is None:
        return w.add("MatMul", x, turned, **to)
    return w.add("Add", w.add("MatMul", x, turned, shape=to["shape"]), bias, **to)


def batch_norm(
    w: Writer,
    to: To,
    x: str,
    *,
    weight: str | None = None,
    bias: str | None = None,
    mean: str | None = None,
    variance: str | None = None,
    count: str | None = None,
    epsilon: float,
    momentum: float | None,
    frozen: bool = False,
) -> str:
    scale, shift = _affine(w, w.shapes[x][1], weight, bias)
    if mean is not None and variance is not None:
        return w.add("BatchNormalization", x, scale, shift, mean, variance, epsilon=epsilon, **to)
    axes = tuple(axis for axis in range(len(w.shapes[x])) if axis != 1)  # by the batch's, when it predicts as well
    y = _standardised(w, x, axes, epsilon)
    return w.add("Add", w.like("Mul", y, _along(w, scale, x)), _along(w, shift, x), **to)


def _standardised(w: Writer, x: str, axes: Ints, epsilon: float) -> str:
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(w.shapes[x]))
    along = w.constant(axes, WHOLE)
    residual = w.like("Sub", x, w.add("ReduceMean", x, along, shape=kept))
    variance = w.add("ReduceMean", w.like("Mul", residual, residual), along, shape=kept)
    return w.like("Div", residual, w.like("Sqrt", w.like("Add", variance, w.constant(epsilon, w.dtypes[x]))))


def instance_norm(
    w: Writer,
    to: To,
    x: str,
    *,
    weight: str | None = None,
    bias: str | None = None,
    mean: str | None = None,
    variance: str | None = None,
    count: str | None = None,
    epsilon: float,
    momentum: float | None = None,
) -> str:
    scale, shift = _affine(w, w.shapes[x][1], weight, bias)
    if mean is not None and variance is not None:
        return w.add("BatchNormalization", x, scale, shift, mean, variance, epsilon=epsilon, **to)
    return w.add("InstanceNormalization", x, scale, shift, epsilon=epsilon, **to)


def group_norm(
    w: Writer, to: To, x: str, *, weight: str | None = None, bias: str | None = None, groups: int, epsilon: float
) -> str:
    shape = w.shapes[x]
    rows = w.add("Reshape", x, w.constant((0, groups, -1), WHOLE), shape=(shape[0], groups, 0))
    y = w.like("InstanceNormalization", rows, *_affine(w, groups, None, None), epsilon=epsilon)
    y = w.add("Reshape", y, w.sizes(shape), shape=shape)
    scale, shift = _affine(w, shape[1], weight, bias)
    return w.add("Add", w.like("Mul", y, _along(w, scale, x)), _along(w, shift, x), **to)


def layer_norm(
    w: Writer, to: To, x: str, *, weight: str | None = None, bias: str | None = None, axes: int, epsilon: float
) -> str:
    last = w.shapes[x][-axes:]
    scale = weight or w.constant(np.ones([int(str(size)) for size in last]), w.dtypes[x])
    return w.add("LayerNormalization", x, scale, *_given(bias), axis=-axes, epsilon=epsilon, **to)


def _affine(w: Writer, channels: object, weight: str | None, bias: str | None) -> tuple[str, str]:
    """Scale and shift of every channel, where it has none of its own 1 and 0."""
    count = int(str(channels))
    return weight or w.constant(np.ones(count)), bias or w.constant(np.zeros(count))


def _along(w: Writer, numbers: str, x: str) -> str:
    """A number for each channel, to be broadcast over a map."""
    (count,) = w.shapes[numbers]
    shape = (count, *(1,) * (len(w.shapes[x]) - 2))
    return w.add("Reshape", numbers, w.constant(shape, WHOLE), shape=shape)


def _given(bias: str | None) -> tuple[str, ...]:
    return () if bias is None else (bias,)


ROWS: dict[str, Row] = named(
    convolution, transposed_convolution, linear, batch_norm, instance_norm, group_norm, layer_norm
)
