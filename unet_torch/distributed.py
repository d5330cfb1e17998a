"""Folders of `torch.distributed.checkpoint`, written by one process; `unet_core.checkpoints.foreign` reads them."""

import warnings
from pathlib import Path

from torch.distributed.checkpoint.state_dict_saver import save

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, exported
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.foreign.lazily import record_array
from unet_core.errors import CheckpointError, first_line
from unet_torch.canonical import as_torch


def write(path: Path, checkpoint: Checkpoint, *, dialect: str = OWN.name) -> None:
    """Write a new folder: a flat `state_dict`, and the record as a tensor of bytes.

    Raises:
        unet_core.CheckpointError: the dialect cannot hold this network, or it cannot be written.
    """
    tensors, _ = exported(checkpoint, dialect)
    state = {name: as_torch(value, copy=False) for name, value in tensors.items()}
    state[RECORD_KEY] = as_torch(record_array(checkpoint, dialect))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of there being no process group
            save(state, checkpoint_id=str(path), no_dist=True)
    except Exception as error:  # whatever torch's writer meets, such as a full disk
        raise CheckpointError(f"{path.name}: not written: {first_line(error)}") from error
