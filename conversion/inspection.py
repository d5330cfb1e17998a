"""What a checkpoint is, and what looks wrong with it."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conversion.containers import read
from unet_core.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.containers import existing_container
from unet_core.hub import Tensors, tensor_specs


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found in a checkpoint that can be read."""

    path: str
    container: str
    config: UNetConfig
    config_stored: bool
    """False where the config was read off the tensors' shapes."""
    digests: bool
    """Whether every tensor's sha256 is stored (they have then been checked)."""
    tensors: int
    parameters: int
    """Numbers that an optimiser updates."""
    bytes: int
    """Of the tensors, without the container."""
    dtypes: dict[str, int]
    """How many floating-point tensors have each dtype."""
    batches_tracked: int
    """The largest `num_batches_tracked`: training steps that BatchNorm saw."""
    problems: tuple[str, ...]
    """What looks wrong with the values."""

    def to_json(self) -> str:
        """Everything, for machines."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def inspect(path: str | Path) -> Inspection:
    """Say what the checkpoint at `path` is; never runs code from it.

    Raises:
        CheckpointError: it cannot be read or trusted; one line says why.
        MissingFrameworkError: its kind needs a framework that is not installed.
    """
    path = Path(path)
    container = existing_container(path).value
    checkpoint: Checkpoint = read(path)
    tensors, config = checkpoint.tensors, checkpoint.config
    specs = tensor_specs(config)
    counters = [int(value) for key, value in tensors.items() if key.endswith("num_batches_tracked")]
    return Inspection(
        path=str(path),
        container=container,
        config=config,
        config_stored=checkpoint.config_stored,
        digests=checkpoint.digests_stored,
        tensors=len(tensors),
        parameters=sum(value.size for key, value in tensors.items() if specs[key].trained),
        bytes=sum(value.nbytes for value in tensors.values()),
        dtypes=dict(Counter(value.dtype.name for value in tensors.values() if value.dtype.kind != "i")),
        batches_tracked=max(counters),
        problems=tuple(_problems(tensors)),
    )


def _problems(tensors: Tensors) -> list[str]:
    problems = []
    for key, value in tensors.items():
        wide = value.astype(np.float64)
        bad = int(wide.size - np.isfinite(wide).sum())
        if bad:
            problems.append(f"{key}: {bad} of {wide.size} values are NaN or infinite")
        elif key.endswith("running_var") and (wide < 0).any():
            problems.append(f"{key}: {int((wide < 0).sum())} of {wide.size} variances are negative")
    means = [value for key, value in tensors.items() if key.endswith("running_mean")]
    variances = [value for key, value in tensors.items() if key.endswith("running_var")]
    if all((value == 0).all() for value in means) and all((value == 1).all() for value in variances):
        problems.append("BatchNorm was never trained: every running mean is 0 and every running variance 1")
    return problems
