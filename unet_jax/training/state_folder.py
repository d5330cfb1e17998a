"""The folder in which a run of the Flax NNX twin keeps its latest states: Orbax directories.

A directory is a checkpoint as `unet_jax.save` writes it, which `unet_jax.load` reads, with two more items: `training`
(the optimiser's slots and the weights' moving average) and `digests` (the sha256 of each of those).
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, digest, is_intact, seal
from unet_core.device_errors import of_device
from unet_core.errors import CheckpointError, RunError, first_line, some
from unet_core.files import reserve
from unet_core.objects import listed
from unet_core.paths import URLPath
from unet_core.staging import COMMITTED, locally
from unet_core.training.train_config import TrainConfig
from unet_jax import checkpoint as orbax
from unet_jax.arrays import read_arrays, reason
from unet_jax.canonical import nest, translate
from unet_jax.earlier import as_today, is_earlier
from unet_jax.training.optimizer_state import placeless
from unet_jax.training.step import Arrays, host_arrays, host_network, new_state
from unet_jax.training.train_state import TrainState

logger = logging.getLogger(__name__)

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
            str(self.folder),
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
            self.settle()
        self._close()

    def steps(self) -> list[int]:
        """Of the states that are there, the earliest first."""
        if isinstance(self.folder, URLPath):  # what Orbax lists may be what it has seen before
            names = [name.split("/") for name in listed(str(self.folder))]
            return sorted(int(step) for step, *rest in names if rest == [COMMITTED] and step.isdecimal())
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
        self.settle()
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

    def restored(self, start: Checkpoint, train_config: TrainConfig, mesh: Mesh) -> tuple[int, TrainState]:
        """The newest sound state on the devices, and its step; where there is none, that before the first update.

        Args:
            start: the network before the first update.
            train_config: how its run trains.
            mesh: the devices, whatever they were before.

        Raises:
            RunError: there are states, and none is sound.
        """
        found: list[TrainState] = []
        step = self.newest(lambda network, saved: found.append(new_state(network, train_config, mesh, saved)))
        return step, found[-1] if found else new_state(start, train_config, mesh)

    def newest(self, take: Callable[[Checkpoint, Arrays], None]) -> int:
        """Give the newest sound state to `take`; returns its step, 0 where there is none.

        Args:
            take: raises CheckpointError where the state is not of this training.

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
                logger.warning("%s is damaged and passed over: %s", path, error)
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

    def settle(self) -> None:
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
        if not isinstance(self.folder, URLPath):
            for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
        why = reason(error) if error else "Orbax does not say why"
        return RunError(f"{self.folder / str(step)}: not saved: {why}. Earlier states are sound")

    def _close(self) -> None:
        self._manager.close()


@locally
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
        if of_device(error):
            raise
        raise CheckpointError(f"{path}: not a sound state: {first_line(error)}") from error
    changed = [name for name, value in arrays.items() if not is_intact(value, digests.get(name))]
    if changed or len(digests) != len(arrays):
        raise CheckpointError(f"{path}: the sha256 of {some(changed) or 'an array that is gone'} is not the stored one")
    arrays = {placeless(name): value for name, value in arrays.items()}
    return as_today(arrays) if is_earlier(arrays) else arrays
