"""Training states of the Flax NNX twin, to and from the canonical form. `unet_torch/training/states.py` is the twin."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import CheckpointError, some
from unet_core.graph.canonical import contiguous
from unet_core.training.settings import OptimizerName
from unet_core.training.state import MOMENTS, OptimizerState, TrainingState, parameter_shapes
from unet_core.training.train_config import TrainConfig
from unet_jax import checkpoint as orbax
from unet_jax.canonical import nest, translate
from unet_jax.training import optimizer_state
from unet_jax.training.layout import in_torchs_layout
from unet_jax.training.state_folder import States, training_item
from unet_jax.training.step import Arrays, abstract_model, abstract_state
from unet_jax.training.train_state import named_rest, subtree


def steps_in(folder: Path) -> list[int]:
    """Of the states in a run's folder of them, the earliest first; nothing is changed."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def path_of(folder: Path, step: int) -> Path:
    """Where the state of a step is."""
    return folder / str(step)


def read(folder: Path, step: int, start: Checkpoint, train_config: TrainConfig) -> TrainingState:
    """A state of a run, in canonical form.

    Args:
        folder: of the run's states.
        step: which.
        start: the network that the run started from.
        train_config: how it trains.

    Raises:
        CheckpointError: it is damaged, or of another network or optimiser.
    """
    path = path_of(folder, step)
    network = orbax.read(path)
    if network.config != start.config:
        raise CheckpointError(f"{path}: is the state of another network")
    return canonical_form(network, training_item(path, step), step, train_config, str(path))


def canonical_form(
    network: Checkpoint, arrays: Arrays, step: int, train_config: TrainConfig, source: str
) -> TrainingState:
    """A network and what `unet_jax.training.step.host_arrays` gave beside it, in canonical form; shares their memory
    where it can.

    Args:
        network: the network.
        arrays: the rest of its state.
        step: updates made.
        train_config: how its run trains.
        source: for messages.

    Raises:
        CheckpointError: it is of another optimiser.
    """
    optimizer = OptimizerState(
        train_config.optimizer.optimizer, step, moments_of(arrays, train_config.optimizer.optimizer, network, source)
    )
    optimizer.check(network, source)
    count = int(arrays.get("slots.count", step))
    if count != step:
        raise CheckpointError(f"{source}: its optimiser has made {count} updates, its run {step}")
    average = {name.split(".", 2)[2]: value for name, value in arrays.items() if name.startswith("average.")}
    if bool(average) != (train_config.ema is not None):
        raise CheckpointError(f"{source}: is the state of another training; only one of the two has an average")
    tensors = None
    if average:
        tensors = _contiguous(translate(average, "torch", network.config), network.tensors)
    return TrainingState(step, network, optimizer, tensors)


def moments_of(
    arrays: Arrays, optimizer: OptimizerName, network: Checkpoint, source: str
) -> dict[str, dict[str, np.ndarray]]:
    """The moments among the arrays of a state, as `OptimizerState` has them.

    Raises:
        CheckpointError: they are those of another optimiser.
    """
    slots: dict[str, Arrays] = {}
    for name, value in arrays.items():
        kind, _, rest = name.partition(".")
        field, _, leaf = rest.partition(".")
        if kind == "slots" and leaf:
            slots.setdefault(field, {})[leaf] = value
    names = {theirs: ours for ours, theirs in MOMENTS[optimizer].items()}
    if slots.keys() - names.keys():
        raise CheckpointError(f"{source}: holds the optimiser of another training")
    config = network.config
    order = parameter_shapes(config)
    return {
        names[field]: _contiguous(translate(found, "torch", config, whole=False), order)
        for field, found in slots.items()
    }


def saved_form(state: TrainingState, train_config: TrainConfig) -> Arrays:
    """What a state in canonical form has besides the network, as `unet_jax.training.step.new_state` takes it.

    Args:
        state: the state.
        train_config: how its run trains.

    Raises:
        CheckpointError: some parameters have moments, and others have none.
    """
    with jax.enable_x64(True):  # else the shapes of float64 arrays would be those of float32 ones
        config = state.network.config
        fresh = abstract_state(abstract_model(state.network, train_config), train_config)
        fresh = jax.eval_shape(in_torchs_layout, fresh)
        slots, missing = optimizer_state.fill(fresh.slots, state.optimizer, config)
        if missing:
            raise CheckpointError(f"the state of a run has no moments of {some(missing)}")
        average = None
        if state.average is not None:
            tree = nest(translate(state.average, "jax", config))
            average = subtree(tree, fresh.params), subtree(tree, fresh.stats)
        filled = fresh._replace(slots=jax.tree.map(_array, slots), average=average)
    return {name: np.array(value) for name, value in named_rest(filled).items()}


def write(folder: Path, state: TrainingState, train_config: TrainConfig, rate: float) -> None:  # noqa: ARG001
    """Write a state in canonical form as the only one of a run; the arguments are those of the twin's.

    Raises:
        RunError: it cannot be written.
    """
    with States(folder, 1) as states:
        states.save(state.step, state.network, saved_form(state, train_config))


def _array(leaf: Any) -> np.ndarray:
    """Zeros, as optax starts with, where no update was made yet."""
    return np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf


def _contiguous(tensors: Mapping[str, np.ndarray], order: Iterable[str]) -> Arrays:
    return {key: contiguous(tensors[key]) for key in order if key in tensors}
