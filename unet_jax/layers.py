"""The pieces of the network in Flax NNX, NHWC. `unet_torch/layers.py` is the twin."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from unet_core.config import Output, UNetConfig
from unet_core.resize import interpolation_matrix
from unet_jax.convolution import convolve
from unet_jax.normalisation import Normalised, normalise
from unet_jax.upsampled import Taps, convolve_upsampled
from unet_jax.winograd import by_rows, is_exact, saves, summed_taps


class Convolution(nnx.Module):
    """A `size` x `size` convolution that keeps height and width; the kernel is HWIO and starts at zero.

    Args:
        dtype: computes in this dtype; None: in the common one of input and kernel.
        param_dtype: keeps the parameters in this one.
    """

    apply: Callable[..., Array] = staticmethod(convolve)
    """The function of input and kernel, or what `prepare` has made of the kernel."""
    kernel: Any
    """A parameter; once prepared, several."""
    of_skip: "Convolution | None" = None
    """The half for the skip connection, once `split` has taken it out of the kernel."""
    strips = 1
    """Parts of a map's rows that lie on devices of their own."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        bias: bool,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.kernel = nnx.Param(jnp.zeros((size, size, in_channels, out_channels), param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), param_dtype)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        kernels = jax.tree.leaves(self.kernel)
        dtype = self.dtype or jnp.result_type(x, *kernels)
        return self._biased(self.apply(x.astype(dtype), *(kernel.astype(dtype) for kernel in kernels)))

    def joined(
        self,
        x: Float[Array, "n h w c"],
        skip: Float[Array, "n H W d"],
        taps: tuple[Taps, Taps] | None,
        *,
        skip_first: bool,
    ) -> Float[Array, "n H W e"]:
        """The convolution of `x` and the skip connection side by side, in two parts: no concatenation is made.

        Args:
            x: the map from below.
            skip: the skip connection.
            taps: how the rows and columns of `x` are upsampled to the size of `skip`, which is then not done either
                (see `convolve_upsampled`); None: `x` has that size.
            skip_first: whether the kernel's first channels are those of the skip connection.
        """
        kernels = jax.tree.leaves(self.kernel)
        dtype = self.dtype or jnp.result_type(x, skip, *kernels)
        x, skip, kernels = x.astype(dtype), skip.astype(dtype), [kernel.astype(dtype) for kernel in kernels]
        if self.of_skip is None:
            kernels[0], of_skip = _halves(kernels[0], skip.shape[-1], skip_first=skip_first)
            y = self.apply(skip, of_skip)
        else:
            y = self.of_skip(skip)
        if taps is None:
            return self._biased(y + self.apply(x, *kernels))
        upsampled = convolve_upsampled(x, kernels[0], *taps, self.strips)
        return self._biased(y + upsampled[:, : y.shape[1], : y.shape[2]])

    def fold(self, scale: Float[Array, " d"], shift: Float[Array, " d"]) -> None:
        """Multiply the answers by `scale` and add `shift`, from now on; in the parameters."""
        kernel = self.kernel[...]
        bias = jnp.zeros_like(scale) if self.bias is None else self.bias[...].astype(scale.dtype)
        self.kernel.set_value((kernel.astype(scale.dtype) * scale).astype(kernel.dtype))
        self.bias = nnx.data(nnx.Param((bias * scale + shift).astype(kernel.dtype)))

    def split(self, channels: int, *, skip_first: bool) -> "Convolution":
        """Keep the kernel's half for a skip connection of so many channels apart, from now on, for `joined`."""
        of_x, of_skip = _halves(self.kernel[...], channels, skip_first=skip_first)
        size, _, before, after = of_skip.shape
        half = Convolution(before, after, size, bias=False, dtype=self.dtype)
        self.kernel, half.kernel = nnx.Param(of_x), nnx.Param(of_skip)
        self.of_skip = nnx.data(half)
        return half

    def prepare(self) -> None:
        """Sum the taps as `unet_jax.winograd` does, from now on, where that is faster on a CPU; not in bfloat16."""
        kernel = self.kernel[...]
        if kernel.shape[0] == 3 and is_exact(self.dtype or kernel.dtype) and saves(*kernel.shape[2:]):
            self.apply = by_rows
            self.kernel = nnx.List([nnx.Param(taps) for taps in summed_taps(kernel)])

    def _biased(self, y: Array) -> Array:
        if self.bias is None:
            return y
        exact = jnp.promote_types(y.dtype, jnp.float32)
        return (y.astype(exact) + self.bias[...].astype(exact)).astype(y.dtype)


def _halves(kernel: Array, channels: int, *, skip_first: bool) -> tuple[Array, Array]:
    """The kernel for the map from below, and that for a skip connection of so many channels."""
    if skip_first:
        return kernel[:, :, channels:], kernel[:, :, :channels]
    return kernel[:, :, :-channels], kernel[:, :, -channels:]


class TransposedConvolution(nnx.Module):
    """A 2x2 transposed convolution of stride 2, which doubles height and width; the kernel is HWOI and starts at zero.

    No two of its windows overlap, so it is one product per pixel. `dtype` and `param_dtype` as in `Convolution`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.kernel = nnx.Param(jnp.zeros((2, 2, out_channels, in_channels), param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), param_dtype))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w d"]:
        kernel = self.kernel[...]
        dtype = self.dtype or jnp.result_type(x, kernel)
        n, height, width, _ = x.shape
        y = jnp.einsum("nhwc,abdc->nhawbd", x.astype(dtype), kernel.astype(dtype))
        return y.reshape(n, 2 * height, 2 * width, -1) + self.bias[...].astype(dtype)


class BatchNorm(nnx.Module):
    """Normalises with the biased variance, tracks the unbiased one (torch/nn/modules/batchnorm.py).

    Statistics and normalisation are float32 at least, whatever `dtype` the network computes in. Under `jit` with the
    batch sharded over devices, the statistics are those of the whole batch. `use_running_average` is what
    `model.train()` and `model.eval()` set.
    """

    apply = staticmethod(normalise)
    """The function of input, scale, bias, running mean and epsilon that takes the batch's statistics."""
    parts = 1
    """Equal parts of a batch, each normalised by its own statistics; the running ones are of the first."""

    def __init__(
        self,
        channels: int,
        *,
        config: UNetConfig,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        statistics_dtype = jnp.promote_types(param_dtype, jnp.float32)
        self.scale = nnx.Param(jnp.ones((channels,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((channels,), statistics_dtype))
        self.var = nnx.BatchStat(jnp.ones((channels,), statistics_dtype))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.epsilon = config.norm_epsilon
        self.momentum = config.norm_momentum
        self.dtype = dtype
        self.use_running_average = False

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        dtype = self.dtype or jnp.result_type(x, self.scale[...])
        exact = jnp.promote_types(dtype, jnp.float32)
        scale, bias, mean = (part[...].astype(exact) for part in (self.scale, self.bias, self.mean))
        if self.use_running_average:
            scale = scale / jnp.sqrt(self.var[...].astype(exact) + self.epsilon)
            return ((x.astype(exact) - mean) * scale + bias).astype(dtype)
        count = x.size // x.shape[-1] // self.parts
        if count == 1:
            raise ValueError(f"expected more than 1 value per channel when training, got input of shape {x.shape}")
        y, mean, variance = self._normalised(x, scale, bias, mean)
        self._track(mean, variance, count)
        return y.astype(dtype)

    def predicting(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Scale and shift of each channel that eval mode comes down to; float32 at least."""
        mean, variance = self.mean[...], self.var[...]
        scale = self.scale[...].astype(variance.dtype) / jnp.sqrt(variance + self.epsilon)
        return scale, self.bias[...].astype(variance.dtype) - mean * scale

    def _normalised(self, x: Array, scale: Array, bias: Array, guess: Array) -> Normalised:
        if self.parts == 1:
            return self.apply(x, scale, bias, guess, self.epsilon)
        parts = x.reshape(self.parts, -1, *x.shape[1:])
        each = jax.vmap(lambda part: self.apply(part, scale, bias, guess, self.epsilon))
        y, mean, variance = each(parts)
        return Normalised(y.reshape(x.shape), mean[0], variance[0])

    def _track(self, mean: Float[Array, " c"], variance: Float[Array, " c"], count: int) -> None:
        unbiased = variance * (count / (count - 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            old = running[...]
            running.set_value(((1 - self.momentum) * old + self.momentum * batch).astype(old.dtype))
        self.num_batches_tracked.set_value(self.num_batches_tracked[...] + 1)


def max_pool_plain(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """The largest of each 2x2 window, as XLA has it, gradient included; an odd last row or column is left out."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@jax.custom_vjp
def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """The same as `max_pool_plain`, but that a CPU finds the gradient's place by comparing instead of searching again.

    Has no forward-mode derivative.
    """
    return max_pool_plain(x)


def _max_pool_forward(x: Array) -> tuple[Array, Array]:
    return max_pool_plain(x), x


def _max_pool_backward(x: Array, gradient: Array) -> tuple[Array]:
    of_x: Array = lax.platform_dependent(x, gradient, cpu=_to_the_largest, default=_to_the_largest_plain)
    return (of_x,)


def _to_the_largest_plain(x: Array, gradient: Array) -> Array:
    return jax.vjp(max_pool_plain, x)[1](gradient)[0]


def _to_the_largest(x: Array, gradient: Array) -> Array:
    """The gradient of each window at the first of its largest elements.

    By comparing the elements with one another: XLA may compute them anew here, rounded otherwise, and then none need be
    equal to the maximum of before.
    """
    n, height, width, channels = gradient.shape
    whole = x[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, channels)
    elements = [whole[:, :, row, :, column] for row in range(2) for column in range(2)]
    free = jnp.ones(gradient.shape, bool)  # no element of the window was the largest yet
    places = []
    for number, element in enumerate(elements):
        largest = free
        for later in elements[number + 1 :]:
            largest &= element >= later
        places.append(jnp.where(largest, gradient, 0))
        free &= ~largest
    of_x = jnp.stack([jnp.stack(places[:2], 3), jnp.stack(places[2:], 3)], 2)
    of_x = of_x.reshape(n, 2 * height, 2 * width, channels)
    return jnp.pad(of_x, ((0, 0), (0, x.shape[1] - 2 * height), (0, x.shape[2] - 2 * width), (0, 0)))


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def upsample(x: Float[Array, "n h w c"], height: int, width: int, *, align_corners: bool) -> Float[Array, "n H W c"]:
    """Bilinear interpolation to `height` x `width` pixels, as two products with constant matrices.

    No gather, and no scatter in the gradient: both are slow on a TPU. float32 at least, at the highest precision, so
    that the weights are not rounded.
    """
    exact = jnp.promote_types(x.dtype, jnp.float32)
    rows = interpolation_matrix(x.shape[1], height, align_corners=align_corners).astype(exact)
    columns = interpolation_matrix(x.shape[2], width, align_corners=align_corners).astype(exact)
    y = jnp.einsum("Hh,nhwc->nHwc", rows, x.astype(exact), precision=lax.Precision.HIGHEST)
    y = jnp.einsum("Ww,nHwc->nHWc", columns, y, precision=lax.Precision.HIGHEST)
    return y.astype(x.dtype)


def fit(x: Float[Array, "n h w c"], height: int, width: int, config: UNetConfig) -> Float[Array, "n H W c"]:
    """Bring an upsampled map to the size of the skip connection, as `config.fit` says."""
    rows, columns = height - x.shape[1], width - x.shape[2]
    if (rows, columns) == (0, 0):
        return x
    if config.fit == "resize":
        return upsample(x, height, width, align_corners=config.align_corners)
    return jnp.pad(x, ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)))


def activated(y: Float[Array, "n h w c"], norm: Callable[[Array], Array] | None) -> Float[Array, "n h w c"]:
    """BatchNorm, where it is not folded into the convolution, and ReLU."""
    return relu(y if norm is None else norm(y))


relu = jax.nn.relu  # gradient 0 at 0, as torch has; jnp.maximum(x, 0) has 0.5

OUTPUTS: Mapping[Output, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "softmax": lambda logits: jax.nn.softmax(logits, axis=-1),
    "logits": lambda logits: logits,
}
"""What calling the network makes of its logits, by `config.output`."""
