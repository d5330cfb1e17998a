"""Maps of another size, from points of the old one."""

from unet_core.graph.operations.table import Dims, Mode, Role, made_by_rewriting, operation, spatial
from unet_core.graph.sizes import Dim, Shape


@operation
def interpolate(
    x: Shape,
    *,
    slices: Role | None = None,
    rows: Role | None = None,
    columns: Role | None = None,
    mode: Mode,
    size: Dims | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Shape:
    """To `size`, or by the factors of `scale`. The factors, where there are any, give the coordinates too.

    `slices`, `rows` and `columns` are what depth, height and width are made by, where the rest does not say it: of each
    new point the index of the old one, `[size]`; or the weights of all old ones, `[size, old]`; or `[old, factor,
    taps]`, where each old point makes `factor` new ones out of itself and its nearest neighbours, as many on either
    side, zero beyond the ends: `y[q * factor + e]` is the sum over k of `rows[q, e, k] * x[q + k - taps // 2]`.
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
def inside(
    x: Shape,
    *,
    slices: Role | None = None,
    rows: Role | None = None,
    columns: Role | None = None,
    value: float = 0.0,
) -> Shape:
    """`value` in all slices, rows and columns but those from the first of these two numbers to before the second."""
    return x


@operation
def pixel_shuffle(x: Shape, *, factor: int) -> Shape:
    """Channels to pixels."""
    return (x[0], x[1] // factor**2, *(size * factor for size in spatial(x)))


@operation
def pixel_unshuffle(x: Shape, *, factor: int) -> Shape:
    """Pixels to channels."""
    return (x[0], x[1] * factor**2, *(size // factor for size in spatial(x)))
