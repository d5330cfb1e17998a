"""Reading and writing `.safetensors` under the hub's names, so that plain torch code can load the file as it is."""

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy, which safetensors then knows)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unet_core.checkpoint import RECORD_KEY, Checkpoint, open_sealed, seal
from unet_core.errors import CheckpointError


def read(path: Path) -> Checkpoint:
    """Read and check a `.safetensors` file.

    Raises:
        CheckpointError: not such a file, damaged, or the tensors of another network.
    """
    try:
        # Not mapped into memory: each tensor would count twice, as the file's page and as the copy.
        with safe_open(path, framework="numpy", backend="pread") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a sound safetensors file: {error}") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: holds a dtype that NumPy cannot read: {error}") from error
    return open_sealed(tensors, metadata.get(RECORD_KEY), str(path))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to a new file at `path`."""
    tensors = checkpoint.tensors
    # safetensors takes the bytes as they lie, whatever the strides: only C order is written right.
    contiguous = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt", RECORD_KEY: seal(checkpoint.config, tensors)})
    except SafetensorError as error:  # its writer hides the OSError
        raise CheckpointError(f"{path.name}: not written: {error}") from error
