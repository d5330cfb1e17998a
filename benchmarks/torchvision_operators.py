"""Lets torchvision be imported where its compiled part does not fit the torch that is installed.

Some builds of the two do not go together: then torchvision's import fails for want of operators that no segmentation
network uses. Their schemas alone let it pass. A user whose torchvision works needs none of this.
"""

import functools

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def register_torchvision() -> torch.library.Library | None:
    """Make `import torchvision` work; a second call does nothing."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "FRAGMENT")  # kept by the cache: its schemas go when it goes
        for name in ("nms", "qnms"):
            library.define(name + _BOXES)
        return library
    except ImportError:
        pass
    return None
