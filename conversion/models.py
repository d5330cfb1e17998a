"""Live models across the frameworks."""

import dataclasses
from typing import TYPE_CHECKING

from conversion.frameworks import needed
from conversion.modules import read_module
from unet_core.config import UNetConfig
from unet_core.errors import UNetError
from unet_core.hub import check_tensors
from unet_core.reading import NO_HINTS, SEMANTICS, Hints

if TYPE_CHECKING:
    from torch import nn

    import unet_jax
    import unet_torch


def to_jax(torch_model: "nn.Module", *, config: UNetConfig | None = None, hints: Hints = NO_HINTS) -> "unet_jax.UNet":
    """The same network in JAX, in the same mode (training or eval), dtypes kept, sharing no memory.

    Args:
        torch_model: `unet_torch.UNet`, or any module whose `state_dict` has the names or the shapes of a dialect
            (`unet_core.dialects`).
        config: of a foreign module, where it is another than its names and shapes tell.
        hints: of a foreign module, what these do not tell.

    Raises:
        CheckpointError: the module's tensors are not those of a network of the family (all are listed), they leave a
            question open, or they are float64 while JAX has x64 disabled.
        MissingFrameworkError: JAX is not installed.
    """
    if not hasattr(torch_model, "state_dict"):
        raise UNetError(
            f"a torch module is needed, got {type(torch_model).__name__}; load a state_dict into its module"
        )
    inner = needed("unet_torch.hub").unwrapped(torch_model)
    if config is not None:
        hints = dataclasses.replace(hints, **{name: getattr(config, name) for name in SEMANTICS})
    checkpoint = read_module(inner, hints)
    if config is not None:
        check_tensors(checkpoint.tensors, config, type(inner).__name__)
        checkpoint = dataclasses.replace(checkpoint, config=config)
    model: unet_jax.UNet = needed("unet_jax.checkpoint").from_checkpoint(checkpoint)
    if torch_model.training:
        model.train()
    return model


def to_torch(jax_model: "unet_jax.UNet") -> "unet_torch.UNet":
    """The same network in PyTorch, on the CPU, in the same mode (training or eval), dtypes kept, sharing no memory.

    Raises:
        CheckpointError: the model's variables are not those of this network.
        MissingFrameworkError: PyTorch is not installed.
    """
    checkpoint = needed("unet_jax.checkpoint").to_checkpoint(jax_model)
    model: unet_torch.UNet = needed("unet_torch.checkpoint").from_checkpoint(checkpoint)
    return model.train(jax_model.training)
