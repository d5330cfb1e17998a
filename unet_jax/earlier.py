"""What 0.7 and earlier versions wrote: the arrays of a UNet under names, and kernels in layouts, of JAX's own."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

_LAYERS = {"conv1": "conv.0", "norm1": "conv.1", "conv2": "conv.3", "norm2": "conv.4", "up": "up", "out": "out"}
_FIELDS = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_NAME = re.compile(r"(.*\b(?:down\d+|bottom|up\d+)\.(?=conv[12]|norm[12]|up)|.*\b(?=out\.))(\w+)\.(\w+)")
_HWIO_TO_OIHW = (3, 2, 0, 1)
"""The same permutation takes a transposed convolution's kernel from HWOI to IOHW."""


def is_earlier(names: Iterable[str]) -> bool:
    """Whether the arrays of a network, or of a state of its training, have such names."""
    return any(name.endswith("bottom.conv1.kernel") for name in names)


def as_today(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under today's names; kernels as views in torch's layout."""
    found = {}
    for name, value in arrays.items():
        if match := _NAME.fullmatch(name):
            before, layer, field = match.groups()
            name = f"{before}{_LAYERS.get(layer, layer)}.{_FIELDS.get(field, field)}"
            value = value.transpose(_HWIO_TO_OIHW) if field == "kernel" else value
        found[name] = value
    return found
