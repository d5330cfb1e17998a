"""Training states of several hosts: each writes and reads its own parts of the arrays. PyTorch has nothing to match.

The directories are those of `unet_jax.training.state_folder`, which any one process reads whole. Of an array that is
split over the devices the sha256 of each part is stored, so that no host needs it whole, neither to write nor to check
it.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore
from jax import Array
from jax.sharding import Mesh, Sharding

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, digest, read_record, seal
from unet_core.device_errors import of_device
from unet_core.errors import CheckpointError, some
from unet_core.files import reserve
from unet_core.graph.canonical import Description
from unet_core.staging import locally
from unet_core.training.train_config import TrainConfig
from unet_jax import checkpoint as orbax
from unet_jax.arrays import open_arrays, reason
from unet_jax.canonical import nest, translate
from unet_jax.earlier import is_earlier
from unet_jax.network import name_of
from unet_jax.training.hosts import Hosts
from unet_jax.training.layout import in_torchs_layout, kernels_first
from unet_jax.training.mesh import of_state
from unet_jax.training.state_folder import SPARE, States, training_item
from unet_jax.training.step import abstract_model, abstract_state, new_state
from unet_jax.training.train_state import TrainState, named_network, named_rest, state_of

logger = logging.getLogger(__name__)
_BYTES = 32
"""Of a sha256."""


class SharedStates(States):
    """As `States`, on several hosts, which call every method together; the folder is one that all of them see.

    Args:
        folder: where they are.
        keep: how many.
        hosts: all of them.
    """

    def __init__(self, folder: Path, keep: int, hosts: Hosts) -> None:
        super().__init__(folder, keep)
        self._hosts = hosts

    def keep(self, step: int, state: TrainState, start: Checkpoint) -> None:
        """Begin to write a state, and go on; one that is being written is waited for first.

        Raises:
            RunError: the last one, or this one, cannot be written; the earlier ones are as they were.
        """
        self.settle()
        state = _laid_out(state, in_torchs_layout)
        network, training = named_network(state), named_rest(state)
        record = {}
        stored = functools.partial(_canonical, config=start.config)
        for name, value in self._digests(network, stored).items():
            record[name_of(name.split("."))] = value
        digests = self._digests(training, lambda _, part: part)
        try:
            if self._hosts.first:
                size = sum(value.nbytes for value in (*network.values(), *training.values()))
                reserve(self.folder / str(step), size * 5 // 4 + SPARE)
            self._write(step, nest(network), nest(training), seal(start, digests=record), digests)
        except (OSError, ValueError) as error:
            raise self._unwritten(step, error) from error

    def restored(self, start: Checkpoint, train_config: TrainConfig, mesh: Mesh) -> tuple[int, TrainState]:
        """As `States.restored`; a state that is damaged on one host is passed over by all, and the first logs it."""
        shapes = abstract_state(abstract_model(start, train_config), train_config)
        stored = jax.eval_shape(in_torchs_layout, shapes)
        steps, damaged = self.steps(), list[int]()
        for step in reversed(steps):
            path, problem, make = self.folder / str(step), "another host says why", None
            try:
                make = self._read(step, start, stored, train_config, mesh)
            except CheckpointError as error:
                problem = str(error)
            # What spans the hosts is computed after all have read: one that failed would be waited for without end.
            if self._hosts.all(make is not None) and make is not None:
                state = make()
                self._forget(damaged)
                return step, state
            if self._hosts.first:
                logger.warning("%s is damaged and passed over: %s", path, problem)
            damaged.append(step)
        self._none_is_sound(steps)
        return 0, new_state(start, train_config, mesh)

    def _read(
        self, step: int, start: Checkpoint, stored: TrainState, train_config: TrainConfig, mesh: Mesh
    ) -> Callable[[], TrainState]:
        """Read this host's parts of the state of a step; what is returned makes the state, on all hosts together."""
        path = self.folder / str(step)
        state = _placed(path, step, start, stored, of_state(mesh, stored))
        if state is not None:
            return functools.partial(_laid_out, state, kernels_first)
        # every host reads all of it
        return functools.partial(new_state, orbax.read(path), train_config, mesh, training_item(path, step))

    def _digests(self, arrays: Mapping[str, Array], stored: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, Any]:
        """As `unet_core.checkpoints.checkpoint.is_intact` takes them; every host computes those of the parts that it
        writes.

        Args:
            arrays: by name, on the devices.
            stored: a part as it is read later.
        """
        splits = {name: _split(value.sharding, value.shape) for name, value in arrays.items()}
        rows = [(name, number) for name, (_, count) in splits.items() for number in range(count)]
        table = dict.fromkeys(rows, bytes(_BYTES))
        for name, value in arrays.items():
            axis, count = splits[name]
            for shard in value.addressable_shards:
                if shard.replica_id == 0:
                    number = (shard.index[axis].start or 0) * count // value.shape[axis] if count > 1 else 0
                    table[name, number] = bytes.fromhex(digest(stored(name, np.asarray(shard.data))))
        mine = np.frombuffer(b"".join(table.values()), np.uint8).reshape(len(rows), _BYTES)
        whole = dict(zip(rows, self._hosts.gathered(mine).max(0), strict=True))
        found: dict[str, Any] = {}
        for name, (axis, count) in splits.items():
            parts = [whole[name, number].tobytes().hex() for number in range(count)]
            found[name] = parts[0] if count == 1 else {"axis": axis, "sha256": parts}
        return found


def _laid_out(state: TrainState, layout: Callable[[TrainState], TrainState]) -> TrainState:
    """The state on its devices with its kernels laid out otherwise, and split as such kernels are."""
    mesh = jax.tree.leaves(state.params)[0].sharding.mesh
    made: TrainState = jax.jit(layout, out_shardings=of_state(mesh, jax.eval_shape(layout, state)))(state)
    return made


def _split(sharding: Sharding, shape: tuple[int, ...]) -> tuple[int, int]:
    """The axis along which an array is split, and into how many parts."""
    for axis, (length, part) in enumerate(zip(shape, sharding.shard_shape(shape), strict=True)):
        if part != length:
            return axis, length // part
    return 0, 1


def _canonical(name: str, part: np.ndarray, config: Description) -> np.ndarray:
    (value,) = translate({name: part}, "torch", config, whole=False).values()
    found: np.ndarray = value
    return found


@locally
def _placed(path: Path, step: int, start: Checkpoint, shapes: TrainState, places: TrainState) -> TrainState | None:
    """The state of a step on the devices; of every array the parts that are on this host's, checked.

    None where an earlier version wrote it, in other layouts.

    Raises:
        CheckpointError: it is damaged, or of another network or training.
    """
    try:
        record = read_record(json.loads((path / "metadata" / "metadata").read_text())[RECORD_KEY], str(path))
        trained = json.loads((path / "digests" / "metadata").read_text())
        if record.config != start.config or trained["step"] != step:
            raise CheckpointError(f"{path}: is the state of another network, or of another step")
        network = _Item(path, "state", record.digests, start.config)
        if is_earlier(network.names):
            return None
        training = _Item(path, "training", trained["sha256"], None)
        tensors = network.placed(named_network(shapes), named_network(places))
        rest = training.placed(named_rest(shapes), named_rest(places))
    except CheckpointError:
        raise
    except Exception as error:  # whatever TensorStore meets in a damaged directory
        if of_device(error):
            raise
        raise CheckpointError(f"{path}: not a sound state: {reason(error)}") from error
    return state_of(shapes, tensors, rest)


class _Item:
    """The arrays of one item of a state, read in the parts that are needed.

    Args:
        path: of the state.
        item: its name.
        digests: what is stored of each array, or of its parts.
        config: of the network whose arrays these are, and whose digests are of its tensors in the canonical names and
            layouts; None: other arrays.
    """

    def __init__(self, path: Path, item: str, digests: Mapping[str, Any], config: Description | None) -> None:
        self.path, self._digests, self._config = path, digests, config
        self._arrays = open_arrays(path, item)

    @property
    def names(self) -> Iterable[str]:
        """Of its arrays."""
        return self._arrays

    def placed(self, shapes: Mapping[str, Any], places: Mapping[str, Sharding]) -> dict[str, Array]:
        """The arrays of these names, shapes and dtypes on these devices."""
        wrong = [name for name in {**shapes, **self._arrays} if not self._fits(name, shapes.get(name))]
        if wrong:
            raise CheckpointError(f"{self.path}: is the state of another training, or damaged: {some(wrong)}")
        return {
            name: jax.make_array_from_callback(shapes[name].shape, places[name], self._parts(name, array))
            for name, array in ((name, self._arrays[name]) for name in shapes)
        }

    def _fits(self, name: str, like: Any) -> bool:
        array = self._arrays.get(name)
        if array is None or like is None:
            return False
        return (tuple(array.shape), array.dtype.numpy_dtype) == (tuple(like.shape), np.dtype(like.dtype))

    def _parts(self, name: str, array: tensorstore.TensorStore) -> Callable[[tuple[slice, ...] | None], np.ndarray]:
        config = self._config
        stored = self._digests[name if config is None else name_of(name.split("."))]
        axis, digests = (stored["axis"], stored["sha256"]) if isinstance(stored, dict) else (0, [stored])
        length = array.shape[axis] // len(digests) if array.shape else 1
        known: dict[int, np.ndarray] = {}

        def part(number: int) -> np.ndarray:
            if number not in known:
                window = (slice(None),) * axis + (slice(number * length, (number + 1) * length),)
                value = np.asarray(array[window if array.shape else ()].read().result())
                if digest(value if config is None else _canonical(name, value, config)) != digests[number]:
                    raise CheckpointError(f"{self.path}: the sha256 of {name} is not the stored one")
                known[number] = value
            return known[number]

        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            if not index:
                return part(0)
            first, last, _ = index[axis].indices(array.shape[axis])
            begun = first // length
            whole = np.concatenate([part(number) for number in range(begun, -(-last // length))], axis)
            inner = slice(first - begun * length, last - begun * length)
            return whole[(*index[:axis], inner, *index[axis + 1 :])]

        return piece
