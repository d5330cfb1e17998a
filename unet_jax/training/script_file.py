"""Training files of PyTorch scripts as Orbax directories. `unet_torch/training/script_file.py` is the twin.

A directory is a checkpoint as `unet_jax.save` writes it, which `unet_jax.load` reads, with two more items: `training`,
the optimiser's slots by optax's names (`slots.mu.down1.conv1.kernel`), and `digests`, the sha256 of each, the step, and
what the script's file had besides.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.checkpoint import digest
from unet_core.errors import CheckpointError, first_line
from unet_core.training.script_file import Script, TrainingFile
from unet_core.training.state import MOMENTS, OptimizerState, TrainingState
from unet_jax import checkpoint as orbax
from unet_jax.canonical import translate
from unet_jax.training.state_folder import training_item
from unet_jax.training.states import moments_of


def read(path: Path) -> TrainingFile:
    """Read a directory that `write` made.

    Raises:
        CheckpointError: damaged, or without a training.
    """
    network = orbax.read(path)
    try:
        record: Any = json.loads((path / "digests" / "metadata").read_text())
        optimizer, text, step, counted = (record[name] for name in ("optimizer", "script", "step", "counted"))
        names = tuple(record["moments"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: holds a network, but no training; leave --to out") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its training is not that of a script's file ({first_line(error)}); of a run, convert the folder"
        ) from error
    if optimizer not in MOMENTS or not set(names) <= MOMENTS[optimizer].keys():
        raise CheckpointError(f"{path}: the record of its training is damaged")
    moments = moments_of(training_item(path, step), optimizer, network, str(path))
    state = OptimizerState(optimizer, counted, {name: moments.get(name, {}) for name in names})
    state.check(network, str(path))
    training = TrainingFile(TrainingState(step, network, state), Script.from_json(text, str(path)))
    training.script.check(training.state, str(path))
    return training


def write(path: Path, training: TrainingFile) -> None:
    """Write a new directory.

    Raises:
        CheckpointError: it cannot be written.
    """
    state = training.state
    slots = {
        f"slots.{MOMENTS[state.optimizer.optimizer][moment]}.{name}": value
        for moment, tensors in state.optimizer.moments.items()
        for name, value in translate(tensors, "jax", state.network.config, whole=False).items()
    }
    slots["slots.count"] = np.asarray(state.step, np.int64)  # Orbax writes no empty tree
    record = {
        "step": state.step,
        "sha256": {name: digest(value) for name, value in slots.items()},
        "optimizer": state.optimizer.optimizer,
        "counted": state.optimizer.step,
        "moments": list(state.optimizer.moments),
        "script": training.script.to_json(),
    }
    orbax.write(path, state.network, training=slots, digests=record)
