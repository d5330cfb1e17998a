"""How far arrays are from their reference, as one number."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from conversion.runners import Precision
from unet_core.hub import Tensors

UNITS: Mapping[Precision, float] = {"float64": 2.0**-53, "float32": 2.0**-24}
"""The unit roundoff."""


def largest_difference(found: np.ndarray, reference: np.ndarray, scale: float | None = None) -> float:
    """The largest absolute difference, relative to `scale`, or to the largest absolute value of `reference`."""
    wide = reference.astype(np.float64)
    difference = np.abs(found.astype(np.float64) - wide).max()
    scale = float(np.abs(wide).max()) if scale is None else scale
    return float(difference / scale) if scale else float(difference and np.inf)


def tensor_differences(found: Tensors, reference: Tensors) -> dict[str, float]:
    """`largest_difference` of every tensor.

    BatchNorm takes out what the bias of a convolution before it adds, so that this bias's gradient is rounding alone:
    it is measured against that of its kernel.
    """
    kernels = {key: re.sub(r"(\.conv\.[03])\.bias$", r"\1.weight", key) for key in reference}
    return {
        key: largest_difference(found[key], value, float(np.abs(reference[kernels[key]]).max()))
        for key, value in reference.items()
    }


def norm_difference(found: Tensors, reference: Tensors) -> float:
    """The Euclidean norm of the difference of all tensors in `found` together, relative to that of the reference."""
    scale = _norm(np.asarray(reference[key], np.float64) for key in found)
    difference = _norm(np.subtract(value, reference[key], dtype=np.float64) for key, value in found.items())
    return difference / scale if scale else float(difference and np.inf)


def distance(found: np.ndarray, reference: np.ndarray) -> float:
    """`norm_difference` of two arrays; infinite where they have not one shape."""
    return norm_difference({"": found}, {"": reference}) if found.shape == reference.shape else np.inf


def _norm(arrays: Iterable[np.ndarray]) -> float:
    """Of several arrays, one after the other, so that no two of their copies are kept."""
    return float(np.sqrt(sum(np.dot(one.ravel(), one.ravel()) for one in arrays)))
