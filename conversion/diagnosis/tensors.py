"""How the parameters and statistics of one layer differ."""

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from unet_core.graph.canonical import Tensors

_AXES: Mapping[tuple[int, ...], str] = {
    (0, 1, 3, 2): "height and width of the kernel are swapped",
    (1, 0, 2, 3): "input and output channels of the kernel are swapped",
    (1, 0, 3, 2): "the kernel's channels are swapped, and its height and width",
    (2, 3, 1, 0): "the kernel lies in HWIO order but was taken for OIHW",
    (3, 2, 0, 1): "the kernel lies in OIHW order but was taken for HWIO",
}


def parameter_cause(layer: str, a: Tensors, b: Tensors) -> str | None:
    """How the parameters and statistics of one layer differ; None where they do not."""
    names = [key for key in a if key.rpartition(".")[0] == layer and not np.array_equal(_wide(a[key]), _wide(b[key]))]
    if not names:
        return None
    bad = [key for key in names if not np.isfinite(_wide(b[key])).all() or not np.isfinite(_wide(a[key])).all()]
    if bad:
        return f"{', '.join(bad)} holds values that are not finite"
    kernel = f"{layer}.weight"
    if kernel in names and a[kernel].ndim == 4:
        return _kernel_cause(_wide(a[kernel]), _wide(b[kernel])) or _plain_difference(names, a, b)
    for one, other in permutations(names, 2):
        if a[one].shape == b[other].shape and np.array_equal(_wide(a[one]), _wide(b[other])):
            return f"{one} and {other} are swapped"
    return _plain_difference(names, a, b)


def _plain_difference(names: list[str], a: Tensors, b: Tensors) -> str:
    worst = max(np.abs(_wide(b[key]) - _wide(a[key])).max() for key in names)
    return f"the values of {', '.join(names)} differ, by up to {worst:.3g}"


def _kernel_cause(a: np.ndarray, b: np.ndarray) -> str | None:
    for axes in permutations(range(4)):
        # Reshaped, as a copy that forgot to transpose would be; the same as a transposition where the sizes agree.
        if axes != (0, 1, 2, 3) and np.array_equal(a.transpose(axes).reshape(a.shape), b):
            return _AXES.get(axes, f"the kernel's axes are permuted, by {axes} from OIHW")
    if np.array_equal(a[:, :, ::-1, ::-1], b):
        return "the kernel is turned by 180 degrees (a true convolution, not a cross-correlation)"
    if np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)):
        return "the kernel has the same values in another order"
    return None


def _wide(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float64)
