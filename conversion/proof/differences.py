"""How far arrays are from their reference, as one number."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from conversion.backends.backend import Precision
from unet_core.graph.canonical import Tensors

UNITS: Mapping[Precision, float] = {"float64": 2.0**-53, "float32": 2.0**-24}
"""The unit roundoff."""

_IDLE = 1e-9
"""A gradient so much smaller than that of the layer's weight is zero but for rounding."""


def largest_difference(found: np.ndarray, reference: np.ndarray, scale: float | None = None) -> float:
    """The largest absolute difference, relative to `scale`, or to the largest absolute value of `reference`."""
    wide = reference.astype(np.float64)
    difference = np.abs(found.astype(np.float64) - wide).max(initial=0.0)
    scale = float(np.abs(wide).max(initial=0.0)) if scale is None else scale
    return float(difference / scale) if scale else float(difference and np.inf)


def measures(gradients: Tensors) -> dict[str, str]:
    """The tensor against which each parameter is measured, given the gradients of the reference: itself; or its weight.

    A normalisation takes out what the bias before it adds, so that this bias's gradient is rounding alone.
    """
    sizes = {key: float(np.abs(value).max(initial=0.0)) for key, value in gradients.items()}
    found = {}
    for key, size in sizes.items():
        weight = f"{key.rpartition('.')[0]}.weight"
        found[key] = weight if size <= _IDLE * sizes.get(weight, 0.0) else key
    return found


def tensor_differences(
    found: Tensors, reference: Tensors, measured: Mapping[str, str] = MappingProxyType({})
) -> dict[str, float]:
    """`largest_difference` of every tensor, relative to the largest value of the tensor that it is measured against."""

    def scale(key: str) -> float:
        of = reference.get(measured.get(key, key), reference[key])
        return float(np.abs(of.astype(np.float64)).max(initial=0.0))

    return {key: largest_difference(found[key], value, scale(key)) for key, value in reference.items()}


def norm_difference(found: Tensors, reference: Tensors) -> float:
    """The Euclidean norm of the difference of all tensors in `found` together, relative to that of the reference.

    Infinite where some have not one shape.
    """
    if any(value.shape != reference[key].shape for key, value in found.items()):
        return np.inf
    scale = _norm(np.asarray(reference[key], np.float64) for key in found)
    difference = _norm(np.subtract(value, reference[key], dtype=np.float64) for key, value in found.items())
    return difference / scale if scale else float(difference and np.inf)


def distance(found: np.ndarray, reference: np.ndarray) -> float:
    """`norm_difference` of two arrays."""
    return norm_difference({"": found}, {"": reference})


def _norm(arrays: Iterable[np.ndarray]) -> float:
    """Of several arrays, one after the other, so that no two of their copies are kept."""
    return float(np.sqrt(sum(np.dot(one.ravel(), one.ravel()) for one in arrays)))
