"""What both twins share: the config, the canonical form of tensors, the initialisation, the files. Imports no
framework.

Only what needs no NumPy is imported here, so that the command starts at once; the rest is in its modules.
"""

from unet_core.config import UNetConfig
from unet_core.errors import CheckpointError, ConfigError, MissingFrameworkError, UNetError

__all__ = ["CheckpointError", "ConfigError", "MissingFrameworkError", "UNetConfig", "UNetError"]
