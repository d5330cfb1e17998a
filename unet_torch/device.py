"""The device that PyTorch computes on."""

import os
import warnings

import torch

from unet_core.device_errors import of_device
from unet_core.errors import RunError

_TOO_OLD = "driver on your system is too old"


def chosen_device() -> torch.device:
    """The first CUDA device where there is one, otherwise the CPU.

    Raises:
        RunError: there is one, but its driver is too old for this PyTorch, which by itself would only warn; whoever
            wants the CPU says so by an empty CUDA_VISIBLE_DEVICES.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    for warning in caught:
        text = str(warning.message)
        if _TOO_OLD in text and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            raise RunError(of_device(RuntimeError(text)) or text)
        if _TOO_OLD not in text:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return torch.device("cuda" if found else "cpu")
