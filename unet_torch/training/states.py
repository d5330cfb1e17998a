"""Training states of the PyTorch twin: `.pt` files as plain scripts write them. `unet_jax/training/states.py` is the
twin.

A file is a dict of `model` (the `state_dict`), `optimizer` (`optimizer.state_dict()`), `average` (the weights' moving
average, or None) and `step`.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.device_errors import of_device
from unet_core.errors import CheckpointError, RunError, first_line
from unet_core.files import atomic, reserve
from unet_core.graph.canonical import check_tensors, contiguous, in_forward_order, under_all_names, under_one_name
from unet_core.training.state import MOMENTS, TrainingState, updated_shapes
from unet_core.training.train_config import TrainConfig
from unet_torch.canonical import as_numpy, as_torch
from unet_torch.contents import opened
from unet_torch.training import optimizer_state
from unet_torch.training.optimizers import optimizer_of

logger = logging.getLogger(__name__)


class States:
    """The latest states of a run, each written whole or not at all.

    Args:
        folder: where they are.
        keep: how many; older ones are removed once a newer one is written.
        rank: of this process; the first one, 0, logs.
    """

    def __init__(self, folder: Path, keep: int, rank: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.keep, self._rank = folder, keep, rank

    def __enter__(self) -> "States":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def steps(self) -> list[int]:
        """Of the states that are there, the earliest first."""
        return steps_in(self.folder)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a state; one of the same step is replaced.

        Raises:
            RunError: it cannot be written; the earlier ones are as they were.
        """
        try:
            with atomic(path_of(self.folder, step), force=True) as partial:
                reserve(partial, _size(state))
                torch.save(state, partial)
        except (CheckpointError, RuntimeError) as error:  # torch's writer has errors of its own for a full disk
            path = path_of(self.folder, step)
            raise RunError(f"{path}: not saved: {first_line(error)}. Earlier states are sound") from error
        for old in self.steps()[: -self.keep]:
            path_of(self.folder, old).unlink()

    def newest(self, take: Callable[[dict[str, Any]], None]) -> int:
        """Give the newest sound state to `take`; returns its step, 0 where there is none.

        Args:
            take: raises CheckpointError, or what torch raises, where the state is not of this training.

        Raises:
            RunError: there are states, and none is sound.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = path_of(self.folder, step)
            try:
                take(_saved(path, step))
            except Exception as error:  # whatever torch meets in a damaged file
                if of_device(error):
                    raise
                if self._rank == 0:
                    logger.warning("%s is damaged and passed over: %s", path, first_line(error))
            else:
                return step
        if steps:
            raise RunError(f"{self.folder}: no state of {len(steps)} is sound; train into a new folder")
        return 0


def steps_in(folder: Path) -> list[int]:
    """Of the states in a run's folder of them, the earliest first; nothing is changed."""
    return sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdecimal())


def path_of(folder: Path, step: int) -> Path:
    """Where the state of a step is."""
    return folder / f"{step:06}.pt"


def read(folder: Path, step: int, start: Checkpoint, train_config: TrainConfig) -> TrainingState:
    """A state of a run, in canonical form.

    Args:
        folder: of the run's states.
        step: which.
        start: the network that the run started from, for its config.
        train_config: how it trains.

    Raises:
        CheckpointError: it is damaged, or of another network or optimiser.
    """
    path = path_of(folder, step)
    try:
        saved = _saved(path, step)
    except CheckpointError:
        raise
    except Exception as error:  # whatever torch meets in a damaged file
        if of_device(error):
            raise
        raise CheckpointError(f"{path}: not a sound state: {first_line(error)}") from error
    return canonical_form(saved, start, train_config, str(path))


def canonical_form(saved: dict[str, Any], start: Checkpoint, train_config: TrainConfig, source: str) -> TrainingState:
    """What `TrainState.state_dict` gave, in canonical form; shares its memory where it can.

    Args:
        saved: that.
        start: the network that its run started from, for its config.
        train_config: how its run trains.
        source: for messages.

    Raises:
        CheckpointError: it is of another network or optimiser.
    """
    names = ("model", "average") if train_config.ema is not None else ("model",)
    networks: list[dict[str, np.ndarray]] = []
    for name in names:
        if not isinstance(saved.get(name), Mapping):
            raise CheckpointError(f"{source}: is the state of another training: it has no {name}")
        tensors = {key: contiguous(as_numpy(value)) for key, value in saved[name].items()}
        tensors = under_one_name(tensors, start.config, source)
        check_tensors(tensors, start.config, source)
        networks.append(in_forward_order(tensors, start.config))
    shapes = updated_shapes(start.config)
    found = optimizer_state.read(saved.get("optimizer"), {key: key for key in shapes}, shapes, source)
    if found.left or MOMENTS[found.state.optimizer] != MOMENTS[train_config.optimizer.optimizer]:
        raise CheckpointError(f"{source}: holds the optimiser of another training")
    if found.state.step not in (None, saved["step"]):
        raise CheckpointError(f"{source}: its optimiser has made {found.state.step} updates, its run {saved['step']}")
    optimizer = dataclasses.replace(found.state, optimizer=train_config.optimizer.optimizer, step=saved["step"])
    network = Checkpoint(start.config, networks[0], start.origin, evidence=start.evidence)
    optimizer.check(network, source)
    return TrainingState(saved["step"], network, optimizer, networks[1] if train_config.ema is not None else None)


def saved_form(state: TrainingState, train_config: TrainConfig, rate: float) -> dict[str, Any]:
    """A state in canonical form as `TrainState.load_state_dict` takes it, in memory of its own.

    Args:
        state: the state.
        train_config: how its run trains.
        rate: the learning rate of its last update.
    """
    config = state.network.config
    shapes = updated_shapes(config)
    like = [nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes.values()]
    groups = optimizer_of(train_config.optimizer, like).state_dict()["param_groups"]
    groups = [{**group, "lr": rate} for group in groups]
    model, average = (
        None if tensors is None else {key: as_torch(value) for key, value in under_all_names(tensors, config).items()}
        for tensors in (state.network.tensors, state.average)
    )
    return {
        "model": model,
        "optimizer": optimizer_state.write(optimizer_state.Saved(state.optimizer, tuple(shapes), tuple(groups))),
        "average": average,
        "step": state.step,
    }


def write(folder: Path, state: TrainingState, train_config: TrainConfig, rate: float) -> None:
    """Write a state in canonical form as the only one of a run; the arguments are those of `saved_form`.

    Raises:
        RunError: it cannot be written.
    """
    with States(folder, 1) as states:
        states.save(state.step, saved_form(state, train_config, rate))


def _saved(path: Path, step: int) -> dict[str, Any]:
    """What was saved, as it is."""
    state = opened(path)
    if state["step"] != step:
        raise CheckpointError(f"{path}: is the state of step {state['step']}")
    return state


def _size(state: Any) -> int:
    """Bytes that a state takes on the disk, and some more."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size() + 1000
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return 10_000 + sum(map(_size, parts))
