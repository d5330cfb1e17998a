"""Bilinear interpolation along one axis: its weights, constants of the shapes."""

import numpy as np
from jaxtyping import Float, Int


def interpolation_weights(
    size: int, target: int, points: Int[np.ndarray, " p"], *, align_corners: bool = True
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Between which two of `size` points some of `target` points lie, and how near to the higher one.

    The source coordinate of each target is torch's (aten/src/ATen/native/UpSample.h): `i * (size - 1) / (target - 1)`
    where the corners align (0 where target is 1), else `(i + 0.5) * size / target - 0.5`, but not below 0.

    Args:
        points: indices of the targets, from 0 to target - 1.

    Returns:
        The lower and the higher neighbour of each point, and the weight, from 0 to 1, of the higher one. The two are
        the same point at the upper end.
    """
    index = points.astype(np.float64)
    if align_corners:
        source = index * (size - 1) / max(target - 1, 1)
    else:
        source = np.maximum((index + 0.5) * size / target - 0.5, 0.0)
    low = np.minimum(source.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), source - low


def interpolation_matrix(size: int, target: int, *, align_corners: bool = True) -> Float[np.ndarray, "target size"]:
    """The 1-D operator that resamples `size` points linearly to `target` points, in float64.

    Each row sums to 1 and has at most two neighbours that are not zero; see `interpolation_weights`.
    """
    rows = np.arange(target)
    low, high, weight = interpolation_weights(size, target, rows, align_corners=align_corners)
    matrix = np.zeros((target, size))
    np.add.at(matrix, (rows, low), 1.0 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix
