"""What both twins share: the config, the hub of tensors, the initialisation, the files. Imports no framework."""

from unet_core.checkpoint import Checkpoint, digest
from unet_core.config import UNetConfig
from unet_core.errors import CheckpointError, ConfigError, MissingFrameworkError, UNetError
from unet_core.hub import Tensors, TensorSpec, check_tensors, infer_config, tensor_specs
from unet_core.initial import initial_tensors
from unet_core.resize import interpolation_matrix

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "MissingFrameworkError",
    "TensorSpec",
    "Tensors",
    "UNetConfig",
    "UNetError",
    "check_tensors",
    "digest",
    "infer_config",
    "initial_tensors",
    "interpolation_matrix",
    "tensor_specs",
]
