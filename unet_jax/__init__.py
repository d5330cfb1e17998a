"""The UNet in Flax NNX, networks that were read from code, and their checkpoints. Imports no PyTorch."""

from unet_core import UNetConfig
from unet_jax.checkpoint import load, save
from unet_jax.model import DoubleConv, UNet
from unet_jax.network import Network

__all__ = ["DoubleConv", "Network", "UNet", "UNetConfig", "load", "save"]
