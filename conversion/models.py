"""Live models across the frameworks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from conversion.backends.frameworks import importing
from conversion.modules import read_module
from unet_core.errors import UNetError

if TYPE_CHECKING:
    from torch import nn

    import unet_jax
    import unet_torch


def to_jax(
    torch_model: "nn.Module", *, sizes: Sequence[tuple[int, ...]] = (), out: int | str | None = None
) -> "unet_jax.UNet | unet_jax.Network":
    """The same network in JAX, in the same mode (training or eval), dtypes kept, sharing no memory.

    The module is read from its code, and run in both frameworks. A network of this project's family comes back as a
    `unet_jax.UNet`, any other as a `unet_jax.Network`.

    Args:
        torch_model: any torch module that takes a picture and returns a map.
        sizes: heights and widths (depths) to read it at, where its code cannot be followed for sizes in general.
        out: which of several outputs is the network's, by index or key; None: the first.

    Raises:
        UNetError: its code cannot be read; or its tensors are float64 while JAX has x64 disabled.
        MissingFrameworkError: JAX is not installed.

    Examples:
        >>> import conversion, jax.numpy as jnp, unet_torch
        >>> in_jax = conversion.to_jax(unet_torch.UNet(features=(4, 8)).eval())
        >>> in_jax(jnp.zeros((1, 16, 16, 3))).shape  # NHWC
        (1, 16, 16, 1)
    """
    if not hasattr(torch_model, "state_dict"):
        raise UNetError(
            f"a torch module is needed, got {type(torch_model).__name__}; load a state_dict into its module"
        )
    with importing():
        from unet_torch.canonical import unwrapped
    checkpoint = read_module(unwrapped(torch_model), sizes=sizes, out=out)
    with importing():
        from unet_jax.checkpoint import from_checkpoint
    model = from_checkpoint(checkpoint)
    if torch_model.training:
        model.train()
    return model


def to_torch(jax_model: "unet_jax.UNet | unet_jax.Network") -> "unet_torch.UNet | unet_torch.Network":
    """The same network in PyTorch, on the CPU, in the same mode (training or eval), dtypes kept, sharing no memory.

    Raises:
        CheckpointError: the model's variables are not those of this network.
        MissingFrameworkError: PyTorch is not installed.

    Examples:
        >>> import conversion, torch, unet_jax
        >>> in_torch = conversion.to_torch(unet_jax.UNet(rngs=0, features=(4, 8)))
        >>> in_torch(torch.zeros(1, 3, 16, 16)).shape  # NCHW
        torch.Size([1, 1, 16, 16])
    """
    with importing():
        from unet_jax.checkpoint import to_checkpoint
        from unet_torch.checkpoint import from_checkpoint
    return from_checkpoint(to_checkpoint(jax_model)).train(jax_model.training)
