"""The UNet in Flax NNX: the network, and its checkpoints. Imports no PyTorch."""

from unet_core import UNetConfig
from unet_jax.checkpoint import load, save
from unet_jax.model import DoubleConv, UNet

__all__ = ["DoubleConv", "UNet", "UNetConfig", "load", "save"]
