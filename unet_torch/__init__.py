"""The UNet in PyTorch, networks that were read from code, and their checkpoints. Imports no JAX."""

from unet_core import UNetConfig
from unet_torch.checkpoint import load, save
from unet_torch.model import DoubleConv, UNet
from unet_torch.network import Network
from unet_torch.reading.read import read

__all__ = ["DoubleConv", "Network", "UNet", "UNetConfig", "load", "read", "save"]
