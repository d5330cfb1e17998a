"""Pools and interpolation."""

from collections.abc import Sequence

from unet_core.graph.sizes import Dim
from unet_torch.reading.aten.rows import of_rank, row
from unet_torch.reading.program import Array, Map, Program, UnreadableError


@row("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    p: Program,
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Map:
    """The largest of each window."""
    rank = _spatial(p, x)
    return p.add(
        "max_pool",
        x,
        window=of_rank(kernel_size, rank),
        stride=of_rank(stride or kernel_size, rank),
        padding=of_rank(padding, rank),
        dilation=of_rank(dilation, rank),
        ceil=ceil_mode,
    )


@row("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(
    p: Program,
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Map, None]:
    """The largest of each window; where they are is not known."""
    return max_pool(p, x, kernel_size, stride, padding, dilation, ceil_mode), None


@row("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pool(
    p: Program,
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Map:
    """The mean of each window."""
    rank = _spatial(p, x)
    return p.add(
        "average_pool",
        x,
        window=of_rank(kernel_size, rank),
        stride=of_rank(stride or kernel_size, rank),
        padding=of_rank(padding, rank),
        ceil=ceil_mode,
        count_padding=count_include_pad,
        divisor=divisor_override,
    )


def _spatial(p: Program, x: Array) -> int:
    if len(x.shape) < 3:
        raise UnreadableError(f"{p.place}: a pool of {len(x.shape)} axes")
    return len(x.shape) - 2


@row("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_average_pool(p: Program, x: Array, output_size: Sequence[Dim]) -> Map:
    """To a size."""
    return p.add("adaptive_average_pool", x, size=of_rank(output_size, _spatial(p, x)))


@row("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(p: Program, x: Array, output_size: Sequence[Dim]) -> tuple[Map, None]:
    """To a size; where the largest are is not known."""
    return p.add("adaptive_max_pool", x, size=of_rank(output_size, _spatial(p, x))), None


def _interpolation(mode: str, *names: str, antialias: bool = False) -> None:
    @row(*names)
    def interpolate(
        p: Program,
        x: Array,
        output_size: Sequence[Dim] | None = None,
        align_corners: bool = False,
        scale_factors: Sequence[float] | None = None,
    ) -> Map:
        sizes = {"size": output_size} if scale_factors is None else {"scale": tuple(map(float, scale_factors))}
        return p.add("interpolate", x, mode=mode, align_corners=align_corners, antialias=antialias, **sizes)


_interpolation("nearest", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
_interpolation("nearest-exact", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
_interpolation("linear", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
_interpolation("cubic", "upsample_bicubic2d")
_interpolation("linear", "_upsample_bilinear2d_aa", antialias=True)
_interpolation("cubic", "_upsample_bicubic2d_aa", antialias=True)


@row("pixel_shuffle")
def pixel_shuffle(p: Program, x: Array, upscale_factor: int) -> Map:
    """Channels to pixels."""
    return p.add("pixel_shuffle", x, factor=upscale_factor)


@row("pixel_unshuffle")
def pixel_unshuffle(p: Program, x: Array, downscale_factor: int) -> Map:
    """Pixels to channels."""
    return p.add("pixel_unshuffle", x, factor=downscale_factor)
