"""A torch module of any project, read as the network that it holds."""

from typing import TYPE_CHECKING

from conversion.frameworks import needed
from unet_core.checkpoint import Checkpoint, Origin, Reading
from unet_core.config import UNetConfig
from unet_core.contents import Contents
from unet_core.hub import check_tensors, in_forward_order
from unet_core.reading import NO_HINTS, Hints, read_contents
from unet_core.soundness import answered

if TYPE_CHECKING:
    from torch import nn


def read_module(module: "nn.Module", hints: Hints = NO_HINTS, name: str | None = None) -> Checkpoint:
    """The network of a module: a `unet_torch.UNet`, or one whose `state_dict` has the names or the shapes of a dialect.

    `reading.keys` tells which tensor is which; the tensors share the module's memory.

    Raises:
        CheckpointError: its tensors are those of no network of the family, or leave a question open.
    """
    hub = needed("unet_torch.hub")
    source = name or type(module).__name__
    tensors = hub.to_hub(module)
    config = getattr(module, "config", None)
    if isinstance(config, UNetConfig):
        check_tensors(tensors, config, source)
        origin = getattr(module, "origin", Origin())
        reading = Reading(keys={key: key for key in tensors})
        return Checkpoint(config, in_forward_order(tensors, config), origin, reading=reading)
    contents = Contents(
        source,
        groups={"": {key: value.shape for key, value in tensors.items()}},
        fetch=lambda _, keys: {key: tensors[key] for key in keys},
    )
    return answered(read_contents(contents, hints), source)
