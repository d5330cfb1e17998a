"""Bilinear interpolation as two small matrices, constants of the shapes."""

import numpy as np
from jaxtyping import Float


def interpolation_matrix(size: int, target: int, *, align_corners: bool = True) -> Float[np.ndarray, "target size"]:
    """The 1-D operator that resamples `size` points linearly to `target` points, in float64.

    The source coordinate of each target is torch's (aten/src/ATen/native/UpSample.h): `i * (size - 1) / (target - 1)`
    where the corners align (0 where target is 1), else `(i + 0.5) * size / target - 0.5`, but not below 0. Each row
    sums to 1 and has at most two neighbours that are not zero.
    """
    index = np.arange(target, dtype=np.float64)
    if align_corners:
        source = index * (size - 1) / max(target - 1, 1)
    else:
        source = np.maximum((index + 0.5) * size / target - 0.5, 0.0)
    low = np.minimum(source.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    weight = source - low
    matrix = np.zeros((target, size))
    rows = np.arange(target)
    np.add.at(matrix, (rows, low), 1.0 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix
