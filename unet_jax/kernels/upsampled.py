"""The convolution of an upsampled map, whose channels are mixed before the upsampling, on a quarter of the pixels."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from unet_jax.kernels.general import Form, by_platform
from unet_jax.kernels.packing import group, packed_kernel, unpacked

Taps = Float[Array | np.ndarray, "_ 2 3"]
"""How one axis is upsampled, as `unet_jax.operations.rewritten` gives it."""

_FEW = 128
"""Channels, at most, of a map so large that a TPU's time goes by its bytes."""


def convolve_upsampled(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c d"], rows: Taps, columns: Taps, strips: int = 1
) -> Float[Array, "n H W d"]:
    """The 3x3 convolution, zero beyond the border, of `x` upsampled, without the upsampled map.

    Upsampling acts on space alone and a kernel's tap on the channels alone, so the two commute: with U the upsampling
    along an axis and S_k the shift to tap k, which brings in zero from beyond the border,

        sum_ky sum_kx (S_ky U_rows) (S_kx U_columns) (x . kernel[ky, kx])

    The products with the nine taps run at the low resolution; then the columns of the three taps kx are upsampled,
    shifted and summed, and then the rows of the three taps ky. Equal to rounding, borders included.

    A CPU does the latter by sums of shifted maps, anything else by products with constant matrices: more operations,
    but a TPU would lay out the map anew for every shift (docs/performance.md).

    Args:
        x: the map below.
        kernel: of the convolution.
        rows, columns: how the axes are upsampled; constants (NumPy) let the terms that are zero be left out.
        strips: as in `by_products`.
    """
    products = partial(by_products, rows=rows, columns=columns, strips=strips)
    forms: dict[str, Form] = {"cpu": partial(by_shifts, rows=rows, columns=columns), "default": products}
    if group(2 * len(columns), kernel.shape[3]) > 1:
        forms["tpu"] = partial(products, packs=True)
    return by_platform(forms, x, kernel)


def by_shifts(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c d"], rows: Taps, columns: Taps
) -> Float[Array, "n H W d"]:
    """`convolve_upsampled` by sums of shifted maps."""
    n, height, width, channels = x.shape
    mixed = x.reshape(-1, channels) @ jnp.moveaxis(kernel, 2, 0).reshape(channels, -1)
    mixed = mixed.reshape(n, height, width, 3, 3, -1)
    across = _raised([mixed[..., tap, :] for tap in range(3)], columns, 2)
    return _raised([across[..., tap, :] for tap in range(3)], rows, 1)


def by_products(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "3 3 c d"],
    rows: Taps,
    columns: Taps,
    strips: int = 1,
    *,
    packs: bool = False,
) -> Float[Array, "n H W d"]:
    """`convolve_upsampled` by products with one matrix for each tap and axis.

    The matrices have the maps' dtype; in float32 and float64 they are not rounded any further. With few channels the
    columns are upsampled first, and then mixed by a convolution along the row with three times the channels: as many
    operations in all, and in place of nine small maps one (docs/performance.md).

    Args:
        x, kernel, rows, columns: as there.
        strips: equal parts of the rows, each on a device of its own. A product with all rows would sum up the whole map
            on every device; a strip needs its own rows and one of each neighbour's.
        packs: the columns are upsampled into packed ones (`unet_jax.kernels.packing`), for which they have to be few.
    """
    wide = _matrices(columns, x.shape[2], x.dtype)
    together = group(2 * len(columns), kernel.shape[3]) if packs else 1
    if kernel.shape[3] <= _FEW:
        kernel = packed_kernel(kernel, together)
        columns = wide[1].reshape(-1, together, x.shape[2])
        raised = jnp.einsum("pqw,nhwc->nhpqc", columns, x, precision=lax.Precision.HIGHEST)
        raised = raised.reshape(*raised.shape[:3], -1)
        along = kernel.transpose(1, 2, 0, 3).reshape(1, 3, kernel.shape[2], -1)
        across = lax.conv_general_dilated(raised, along, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        across = across.reshape(*across.shape[:3], 3, -1)
    else:
        mixed = jnp.einsum("nhwc,yxcd->nhwyxd", x, kernel)
        across = jnp.einsum("xWw,nhwyxd->nhWyd", wide, mixed, precision=lax.Precision.HIGHEST)
    if strips > 1 and len(rows) == x.shape[1] and len(rows) % strips == 0:
        raised = _raised_in_strips(across, rows, strips)
    else:
        high = _matrices(rows, x.shape[1], x.dtype)
        raised = jnp.einsum("yHh,nhWyd->nHWd", high, across, precision=lax.Precision.HIGHEST)
    return unpacked(_made_whole(raised), together)


@jax.custom_vjp
def _made_whole(y: Array) -> Array:
    """The map, whose gradient is made as a map of its own, in memory.

    A TPU's compiler would else make it as a part of the product that follows, in the layout of that, and copy into it
    both maps that the gradient of BatchNorm is made of.
    """
    return y


_made_whole.defvjp(lambda y: (y, None), lambda _, gradient: (lax.optimization_barrier(gradient),))


def _raised_in_strips(maps: Float[Array, "n h W 3 d"], taps: Taps, strips: int) -> Float[Array, "n H W d"]:
    """The sum of the maps of three taps, each with its rows upsampled and shifted, strip by strip.

    New rows 2p - 1 and 2p draw on the rows p - 1 and p alone, so that a strip needs a row beyond either end.
    """
    n, height, *rest = maps.shape
    size = height // strips
    parts, zero = maps.reshape(n, strips, size, *rest), jnp.zeros((), maps.dtype)
    ends = ((parts[:, :, -1:], (1, -1, 0)), (parts[:, :, :1], (-1, 1, 0)))  # of the strips before and after
    before, after = (lax.pad(end, zero, [(0, 0, 0), move, *[(0, 0, 0)] * (end.ndim - 2)]) for end, move in ends)
    padded = jnp.pad(taps, ((1, 1), (0, 0), (0, 0)))
    near = jnp.stack([padded[strip * size : (strip + 1) * size + 2] for strip in range(strips)])
    high = jax.vmap(lambda taps: _matrices(taps, size + 2, maps.dtype)[:, 2:-2])(near)
    parts = jnp.concatenate((before, parts, after), 2)
    raised = jnp.einsum("syHh,nshWyd->nsHWd", high, parts, precision=lax.Precision.HIGHEST)
    return raised.reshape(n, 2 * height, *raised.shape[3:])


def _matrices(taps: Taps, size: int, dtype: DTypeLike) -> Float[Array, "3 l size"]:
    """For each tap of the kernel, the matrix that upsamples `size` points and shifts the new ones."""
    length = len(taps)
    neighbours = np.stack([np.eye(length, size, offset) for offset in (-1, 0, 1)])
    whole = jnp.einsum("qek,kqp->qep", taps, neighbours, precision=lax.Precision.HIGHEST).reshape(2 * length, size)
    padded = jnp.pad(whole, ((1, 1), (0, 0)))
    return jnp.stack([padded[tap : tap + 2 * length] for tap in range(3)]).astype(dtype)


def _raised(maps: Sequence[Array], taps: Taps, axis: int) -> Array:
    """The sum of three maps of shape [..., size, ...], upsampled along an axis to twice the length of `taps`.

    The first is shifted down by one of the new points, the last up. With the even new point 2p and the odd one 2p + 1,
    p being a point below, every sum is one of a few shifted maps, each times a weight of its point.
    """
    length = len(taps)
    exact = jnp.promote_types(maps[0].dtype, jnp.float32)
    padded = (np.pad if isinstance(taps, np.ndarray) else jnp.pad)(taps, ((1, 1), (0, 0), (0, 0)))

    def point(tap: int, shift: int, phase: int) -> Array:
        """The upsampled map at 2 * (p + shift) + phase, for all p."""
        total = jnp.zeros((), exact)
        for neighbour in range(3 if phase else 2):  # an even point draws on nothing after it
            weights = padded[1 + shift : 1 + shift + length, phase, neighbour]
            if not isinstance(weights, np.ndarray) or weights.any():
                weights = jnp.asarray(weights, exact).reshape(-1, *(1,) * (maps[tap].ndim - 1 - axis))
                total += weights * _shifted(maps[tap], shift + neighbour - 1, length, axis).astype(exact)
        return total

    even = point(0, -1, 1) + point(1, 0, 0) + point(2, 0, 1)
    odd = point(0, 0, 0) + point(1, 0, 1) + point(2, 1, 0)
    both = jnp.stack((even, odd), axis + 1)
    return both.reshape(*even.shape[:axis], 2 * length, *even.shape[axis + 1 :]).astype(maps[0].dtype)


def _shifted(x: Array, first: int, length: int, axis: int) -> Array:
    """The points from `first` on; beyond the ends, where the weights are zero, the last one again.

    Slices that are joined, which XLA fuses into the sum, and the sum's gradient likewise; it would write a padded map.
    """
    size = x.shape[axis]
    before, after = min(max(-first, 0), length), min(max(first + length - size, 0), length)
    parts = [lax.slice_in_dim(x, 0, 1, axis=axis)] * before
    if before + after < length:
        parts.append(lax.slice_in_dim(x, first + before, first + length - after, axis=axis))
    parts += [lax.slice_in_dim(x, size - 1, size, axis=axis)] * after
    return lax.concatenate(parts, axis)
