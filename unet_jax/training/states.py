"""Training states of the Flax NNX twin: Orbax directories. `unet_torch/training/states.py` is the twin.

A directory is a checkpoint as `unet_jax.save` writes it, which `unet_jax.load` reads, with two more items: `training`
(the optimiser's slots and the weights' moving average) and `digests` (the sha256 of each of those).
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, digest, is_intact, seal
from unet_core.errors import CheckpointError, RunError, first_line, some
from unet_core.files import reserve
from unet_core.graph.canonical import contiguous
from unet_core.training.settings import OptimizerName
from unet_core.training.state import MOMENTS, OptimizerState, TrainingState, parameter_shapes
from unet_core.training.train_config import TrainConfig
from unet_jax import checkpoint as orbax
from unet_jax.arrays import read_arrays, reason
from unet_jax.canonical import nest, translate
from unet_jax.earlier import as_today, is_earlier
from unet_jax.training import optimizer_state
from unet_jax.training.optimizer_state import placeless
from unet_jax.training.step import (
    TrainState,
    abstract_model,
    abstract_state,
    host_arrays,
    host_network,
    new_state,
    subtree,
)

Arrays = dict[str, np.ndarray]

SPARE = 4_000_000
"""Bytes that Orbax needs beside the arrays: a part that does not fit is reported by its threads, each in its way."""


class States:
    """The latest states of a run, under Orbax's `CheckpointManager`.

    Args:
        folder: where they are.
        keep: how many; older ones are removed once a newer one is written.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder.resolve()  # a relative one would fail later, in the background
        numpy_handler = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
        registry = ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, numpy_handler), (jax.Array, ocp.type_handlers.ArrayHandler())
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
                "training": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
                "metadata": ocp.JsonCheckpointHandler(),
                "digests": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )
        self._last: int | None = None

    def __enter__(self) -> "States":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Wait for what is being written.

        Raises:
            RunError: it could not be written.
        """
        if error is None:
            self._settle()
        self._close()

    def steps(self) -> list[int]:
        """Of the states that are there, the earliest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step: int, model: Checkpoint, training: Arrays) -> None:
        """Begin to write a state, and go on; one that is being written is waited for first.

        Args:
            step: updates made.
            model: the network; its arrays must not change any more.
            training: what else is needed to go on, by dotted names; its arrays must not change any more either.

        Raises:
            RunError: the last one, or this one, cannot be written; the earlier ones are as they were.
        """
        self._settle()
        size = sum(value.nbytes for value in (*model.tensors.values(), *training.values()))
        try:
            reserve(self.folder / str(step), size * 5 // 4 + SPARE)
            with ThreadPoolExecutor() as pool:
                digests = dict(zip(training, pool.map(digest, training.values()), strict=True))
            network = nest(translate(model.tensors, "jax", model.config))
            self._write(step, network, nest(training), seal(model), digests)
        except (OSError, ValueError) as error:
            raise self._unwritten(step, error) from error

    def keep(self, step: int, state: TrainState, start: Checkpoint) -> None:
        """As `save`, of a state on the devices, which may change as soon as this returns.

        Args:
            step: updates made.
            state: what they made.
            start: gives config and origin.
        """
        self.save(step, host_network(state.params, state.stats, start), host_arrays(state))

    def restored(
        self, start: Checkpoint, recipe: TrainConfig, mesh: Mesh, tell: Callable[[str], None]
    ) -> tuple[int, TrainState]:
        """The newest sound state on the devices, and its step; where there is none, that before the first update.

        Args:
            start: the network before the first update.
            recipe: how its run trains.
            mesh: the devices, whatever they were before.
            tell: is told of every state that is damaged and passed over.

        Raises:
            RunError: there are states, and none is sound.
        """
        found: list[TrainState] = []
        step = self.newest(lambda network, saved: found.append(new_state(network, recipe, mesh, saved)), tell)
        return step, found[-1] if found else new_state(start, recipe, mesh)

    def newest(self, take: Callable[[Checkpoint, Arrays], None], tell: Callable[[str], None]) -> int:
        """Give the newest sound state to `take`; returns its step, 0 where there is none.

        Args:
            take: raises CheckpointError where the state is not of this training.
            tell: is told of every state that is damaged and passed over.

        Raises:
            RunError: there are states, and none is sound.
        """
        steps = self.steps()
        damaged: list[int] = []
        for step in reversed(steps):
            path = self.folder / str(step)
            try:
                take(orbax.read(path), training_item(path, step))
            except CheckpointError as error:
                tell(f"{path} is damaged and passed over: {error}")
                damaged.append(step)
            else:
                self._forget(damaged)
                return step
        self._none_is_sound(steps)
        return 0

    def _forget(self, damaged: list[int]) -> None:
        for step in damaged:  # Orbax writes no step that is there, sound or not
            self._manager.delete(step)

    def _none_is_sound(self, steps: list[int]) -> None:
        if steps:
            raise RunError(f"{self.folder}: no state of {len(steps)} is sound; train into a new folder")

    def _write(
        self, step: int, network: dict[str, Any], training: dict[str, Any], record: str, digests: Mapping[str, Any]
    ) -> None:
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(network),
                training=ocp.args.PyTreeSave(training),
                metadata=ocp.args.JsonSave({RECORD_KEY: record}),
                digests=ocp.args.JsonSave({"step": step, "sha256": dict(digests)}),
            ),
            force=True,
        )
        self._last = step

    def _settle(self) -> None:
        """Wait for what is being written; Orbax itself says that all is well once it has reported an error."""
        if self._last is None:
            return
        step, self._last = self._last, None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError) as error:
            raise self._unwritten(step, error) from error
        if step not in self.steps():
            raise self._unwritten(step, None)

    def _unwritten(self, step: int, error: Exception | None) -> RunError:
        self._last = None
        for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left, ignore_errors=True)
        why = reason(error) if error else "Orbax does not say why"
        return RunError(f"{self.folder / str(step)}: not saved: {why}. Earlier states are sound")

    def _close(self) -> None:
        self._manager.close()


def steps_in(folder: Path) -> list[int]:
    """Of the states in a run's folder of them, the earliest first; nothing is changed."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def path_of(folder: Path, step: int) -> Path:
    """Where the state of a step is."""
    return folder / str(step)


def read(folder: Path, step: int, start: Checkpoint, recipe: TrainConfig) -> TrainingState:
    """A state of a run, in canonical form.

    Args:
        folder: of the run's states.
        step: which.
        start: the network that the run started from.
        recipe: how it trains.

    Raises:
        CheckpointError: it is damaged, or of another network or optimiser.
    """
    path = path_of(folder, step)
    network = orbax.read(path)
    if network.config != start.config:
        raise CheckpointError(f"{path}: is the state of another network")
    return canonical_form(network, training_item(path, step), step, recipe, str(path))


def canonical_form(network: Checkpoint, arrays: Arrays, step: int, recipe: TrainConfig, source: str) -> TrainingState:
    """A network and what `unet_jax.training.step.host_arrays` gave beside it, in canonical form; shares their memory
    where
    it can.

    Args:
        network: the network.
        arrays: the rest of its state.
        step: updates made.
        recipe: how its run trains.
        source: for messages.

    Raises:
        CheckpointError: it is of another optimiser.
    """
    optimizer = OptimizerState(
        recipe.optimizer.optimizer, step, moments_of(arrays, recipe.optimizer.optimizer, network, source)
    )
    optimizer.check(network, source)
    count = int(arrays.get("slots.count", step))
    if count != step:
        raise CheckpointError(f"{source}: its optimiser has made {count} updates, its run {step}")
    average = {name.split(".", 2)[2]: value for name, value in arrays.items() if name.startswith("average.")}
    if bool(average) != (recipe.ema is not None):
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


def saved_form(state: TrainingState, recipe: TrainConfig) -> Arrays:
    """What a state in canonical form has besides the network, as `unet_jax.training.step.new_state` takes it.

    Args:
        state: the state.
        recipe: how its run trains.

    Raises:
        CheckpointError: some parameters have moments, and others have none.
    """
    with jax.enable_x64(True):  # else the shapes of float64 arrays would be those of float32 ones
        config = state.network.config
        fresh = abstract_state(abstract_model(state.network, recipe), recipe)
        slots, missing = optimizer_state.fill(fresh.slots, state.optimizer, config)
        if missing:
            raise CheckpointError(f"the state of a run has no moments of {some(missing)}")
        average = None
        if state.average is not None:
            tree = nest(translate(state.average, "jax", config))
            average = subtree(tree, fresh.params), subtree(tree, fresh.stats)
        filled = fresh._replace(slots=jax.tree.map(_array, slots), average=average)
    return host_arrays(filled)


def write(folder: Path, state: TrainingState, recipe: TrainConfig, rate: float) -> None:  # noqa: ARG001
    """Write a state in canonical form as the only one of a run; the arguments are those of the twin's.

    Raises:
        RunError: it cannot be written.
    """
    with States(folder, 1) as states:
        states.save(state.step, state.network, saved_form(state, recipe))


def _array(leaf: Any) -> np.ndarray:
    """Zeros, as optax starts with, where no update was made yet."""
    return np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf


def _contiguous(tensors: Mapping[str, np.ndarray], order: Iterable[str]) -> Arrays:
    return {key: contiguous(tensors[key]) for key in order if key in tensors}


def training_item(path: Path, step: int) -> Arrays:
    """The item `training` of a state of this step, held against its digests.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        record = json.loads((path / "digests" / "metadata").read_text())
        digests = record["sha256"]
        if record["step"] != step:
            raise CheckpointError(f"{path}: is the state of step {record['step']}")
        arrays = read_arrays(path, "training")
    except CheckpointError:
        raise
    except Exception as error:  # whatever TensorStore meets in a damaged directory
        raise CheckpointError(f"{path}: not a sound state: {first_line(error)}") from error
    changed = [name for name, value in arrays.items() if not is_intact(value, digests.get(name))]
    if changed or len(digests) != len(arrays):
        raise CheckpointError(f"{path}: the sha256 of {some(changed) or 'an array that is gone'} is not the stored one")
    arrays = {placeless(name): value for name, value in arrays.items()}
    return as_today(arrays) if is_earlier(arrays) else arrays
