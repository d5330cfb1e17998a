"""Convolutions, linear layers, attention and normalisation."""

from collections.abc import Sequence

from unet_core.graph.operations import Pairs
from unet_torch.reading.aten.rows import Number, of_rank, row
from unet_torch.reading.program import Array, Constant, Held, Map, Program, UnreadableError


def held(p: Program, value: Array | None, what: str) -> Held | None:
    """A tensor of the state_dict.

    Raises:
        UnreadableError: it is computed.
    """
    if value is None or isinstance(value, Held):
        return value
    if isinstance(value, Constant):
        raise UnreadableError(f"{p.place}: {what} is not in the state_dict; register it as a buffer")
    raise UnreadableError(
        f"{p.place}: {what} is computed, as by weight_norm or spectral_norm; make it a plain one first, by "
        "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.remove_weight_norm"
    )


@row("conv1d", "conv2d", "conv3d", "convolution")
def convolution(
    p: Program,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
) -> Map:
    """Of any rank; `padding` may be `same` or `valid`."""
    if transposed:
        assert not isinstance(padding, str)
        return transposed_convolution(p, x, weight, bias, stride, padding, output_padding, groups, dilation)
    kernel = held(p, weight, "the kernel")
    assert kernel is not None
    rank = _spatial(p, x, kernel)
    stride, dilation = of_rank(stride, rank), of_rank(dilation, rank)
    return p.add(
        "convolution",
        x,
        tensors={"weight": kernel, "bias": held(p, bias, "the bias")},
        stride=stride,
        padding=_pairs(padding, kernel.shape[2:], dilation),
        dilation=dilation,
        groups=groups,
    )


def _spatial(p: Program, x: Array, kernel: Held) -> int:
    if len(x.shape) != len(kernel.shape):
        raise UnreadableError(f"{p.place}: a convolution of a map without a batch")
    return len(kernel.shape) - 2


def _pairs(padding: Sequence[int] | str, window: Sequence[int], dilation: Sequence[int]) -> Pairs:
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding == "same":
        totals = [far * (size - 1) for size, far in zip(window, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(pad), int(pad)) for pad in of_rank(padding, len(window)))


@row("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    p: Program,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> Map:
    """Of any rank."""
    kernel = held(p, weight, "the kernel")
    assert kernel is not None
    rank = _spatial(p, x, kernel)
    return p.add(
        "transposed_convolution",
        x,
        tensors={"weight": kernel, "bias": held(p, bias, "the bias")},
        stride=of_rank(stride, rank),
        padding=of_rank(padding, rank),
        output_padding=of_rank(output_padding, rank),
        dilation=of_rank(dilation, rank),
        groups=groups,
    )


@row("linear")
def linear(p: Program, x: Array, weight: Array, bias: Array | None = None) -> Map:
    """With a matrix that is computed, such as a part of a larger one, it is a product."""
    if isinstance(weight, Held) and (bias is None or isinstance(bias, Held)):
        return p.add("linear", x, tensors={"weight": weight, "bias": bias})
    answer = p.add("matmul", x, p.add("permute", weight, axes=(1, 0)))
    return answer if bias is None else p.add("add", answer, bias)


@row("matmul", "mm", "bmm")
def matmul(p: Program, x: Array, y: Array | None = None, mat2: Array | None = None) -> Map:
    """Of matrices, and batches of them."""
    y = y if mat2 is None else mat2
    assert y is not None
    if min(len(x.shape), len(y.shape)) < 2:
        raise UnreadableError(f"{p.place}: a product with a vector")
    return p.add("matmul", x, y)


@row("addmm", "baddbmm")
def addmm(
    p: Program,
    x: Array,
    mat1: Array | None = None,
    mat2: Array | None = None,
    batch1: Array | None = None,
    batch2: Array | None = None,
    beta: Number = 1,
    alpha: Number = 1,
) -> Map:
    """A product, and what is added to it."""
    one, other = (batch1, batch2) if mat1 is None else (mat1, mat2)
    assert one is not None
    assert other is not None
    product = matmul(p, one, other)
    if alpha != 1:
        product = p.add("multiply", product, right=alpha)
    return p.add("add", product, x if beta == 1 else p.add("multiply", x, right=beta))


@row("einsum")
def einsum(p: Program, equation: str, xs: Sequence[Array]) -> Map:
    """With the axes of the output as letters, which code may leave out."""
    equation = equation.replace(" ", "")
    if "->" not in equation:
        letters = sorted(letter for letter in set(equation) - {","} if equation.count(letter) == 1)
        equation = f"{equation}->{''.join(letters)}"
    return p.add("einsum", *xs, equation=equation)


@row("scaled_dot_product_attention")
def attention(
    p: Program,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: Number = 0.0,
    is_causal: bool = False,
    scale: Number | None = None,
) -> Map:
    """With as many heads for keys as for queries."""
    inputs = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    return p.add("attention", *inputs, scale=scale, causal=is_causal, rate=dropout_p)


@row("batch_norm")
def batch_norm(
    p: Program,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    training: bool = False,
    momentum: Number = 0.0,
    eps: Number = 0.0,
) -> Map:
    """By the running statistics or by the batch's, as the module says in this mode."""
    mean, variance = held(p, running_mean, "the running mean"), held(p, running_var, "the running variance")
    if training and not p.training:
        mean = variance = None  # by the batch's also in eval mode
    return p.add(
        "batch_norm",
        x,
        tensors={
            "weight": held(p, weight, "the weight"),
            "bias": held(p, bias, "the bias"),
            "mean": mean,
            "variance": variance,
            "count": None if mean is None else p.counters.get(mean.name),
        },
        epsilon=eps,
        momentum=None if mean is not None and mean.name in p.cumulative else momentum,
        frozen=not training and (p.training or (mean is not None and mean.name in p.frozen)),
    )


@row("instance_norm")
def instance_norm(
    p: Program,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    use_input_stats: bool = True,
    momentum: Number = 0.0,
    eps: Number = 0.0,
) -> Map:
    """By each example's statistics; where a module in eval mode stands in a training network, by the running ones."""
    mean, variance = held(p, running_mean, "the running mean"), held(p, running_var, "the running variance")
    if p.training and not use_input_stats:
        return batch_norm(p, x, weight, bias, mean, variance, False, momentum, eps)
    if not p.training and use_input_stats:
        mean = variance = None
    tensors = {"weight": held(p, weight, "the weight"), "bias": held(p, bias, "the bias")}
    tensors |= {"mean": mean, "variance": variance}
    return p.add("instance_norm", x, tensors=tensors, epsilon=eps, momentum=None if mean is None else momentum)


@row("group_norm")
def group_norm(
    p: Program,
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: Number = 1e-5,
) -> Map:
    """By groups of channels."""
    tensors = {"weight": held(p, weight, "the weight"), "bias": held(p, bias, "the bias")}
    return p.add("group_norm", x, tensors=tensors, groups=num_groups, epsilon=eps)


@row("layer_norm")
def layer_norm(
    p: Program,
    x: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: Number = 1e-5,
) -> Map:
    """Over the last axes."""
    tensors = {"weight": held(p, weight, "the weight"), "bias": held(p, bias, "the bias")}
    return p.add("layer_norm", x, tensors=tensors, axes=len(normalized_shape), epsilon=eps)


@row("prelu")
def prelu(p: Program, x: Array, weight: Array) -> Map:
    """With one slope, or one for each channel."""
    return p.add("prelu", x, tensors={"weight": held(p, weight, "the slope")})
