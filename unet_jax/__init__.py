"""The UNet in Flax NNX, networks that were read from code, and their checkpoints. Imports no PyTorch."""

from unet_core import UNetConfig
from unet_jax.checkpoint import load, save
from unet_jax.model import UNet
from unet_jax.network import Network, frozen

__all__ = ["Network", "UNet", "UNetConfig", "frozen", "load", "save"]
