"""Live models across the frameworks."""

from typing import TYPE_CHECKING

from conversion.frameworks import needed
from unet_core.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.hub import check_tensors, infer_config

if TYPE_CHECKING:
    from torch import nn

    import unet_jax
    import unet_torch


def to_jax(torch_model: "nn.Module", *, config: UNetConfig | None = None) -> "unet_jax.UNet":
    """The same network in JAX, in the same mode (training or eval), dtypes kept, sharing no memory.

    Args:
        torch_model: `unet_torch.UNet`, or any module whose `state_dict` has its keys.
        config: of a foreign module, where it is not the default but for what the shapes tell.

    Raises:
        CheckpointError: the module's tensors are not those of this network (all are listed), or they are float64 while
            JAX has x64 disabled.
        MissingFrameworkError: JAX is not installed.
    """
    hub = needed("unet_torch.hub")
    inner = hub.unwrapped(torch_model)
    tensors, source = hub.to_hub(inner), type(inner).__name__
    config = config or getattr(inner, "config", None)
    if not isinstance(config, UNetConfig):
        config = infer_config({key: value.shape for key, value in tensors.items()}, source)
    check_tensors(tensors, config, source)
    model: unet_jax.UNet = needed("unet_jax.checkpoint").from_checkpoint(Checkpoint(config, tensors))
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
