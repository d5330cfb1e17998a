"""The UNet in PyTorch: the network, and its checkpoints. Imports no JAX."""

from unet_core import UNetConfig
from unet_torch.checkpoint import load, save
from unet_torch.model import DoubleConv, UNet

__all__ = ["DoubleConv", "UNet", "UNetConfig", "load", "save"]
