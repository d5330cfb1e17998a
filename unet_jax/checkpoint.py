"""Checkpoints of the Flax NNX twin: Orbax directories and `.safetensors`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.typing import DTypeLike

from unet_core.checkpoints import readers, safetensors_file
from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, read_record, seal
from unet_core.checkpoints.containers import Container, container_of, existing_container
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign import npz_file
from unet_core.checkpoints.reading import NO_HINTS, Hints, read_contents
from unet_core.checkpoints.soundness import trusted
from unet_core.device_errors import of_device
from unet_core.errors import CheckpointError, some
from unet_core.files import atomic, reserve
from unet_core.graph import Graph
from unet_core.graph.canonical import COUNTER, Description, check_tensors, contiguous, in_forward_order, infer_config
from unet_core.paths import as_path, as_source
from unet_core.staging import at_hand, locally
from unet_jax.arrays import read_arrays, reason
from unet_jax.canonical import fill, nest, refuse_narrowing, to_canonical, translate
from unet_jax.earlier import as_today, is_earlier
from unet_jax.execution import How
from unet_jax.model import UNet
from unet_jax.network import Network

_MARK = "_CHECKPOINT_METADATA"


def load(
    path: str | Path,
    *,
    hints: Hints = NO_HINTS,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike | None = None,
) -> Network:
    """The network of an Orbax directory or a `.safetensors` or `.pt` file, in eval mode, on JAX's default device.

    Args:
        path: a directory as `save` writes it; or a file of this project, or of another one whose UNet is of the family
            (`unet_core.checkpoints.dialects`).
        hints: what the file does not tell.
        dtype: as in `UNet` and `Network`.
        param_dtype: casts the parameters to this dtype; None keeps each tensor's own.

    Raises:
        unet_core.CheckpointError: the checkpoint is missing, damaged or of another network; one line says which.

    Examples:
        >>> import unet_jax
        >>> unet_jax.save(unet_jax.UNet(rngs=0, features=(4, 8)), "model_jax")
        >>> unet_jax.load("model_jax").config.features
        (4, 8)
    """
    with at_hand(as_source(path)) as local:
        container = existing_container(local)
        checkpoint = read(local, hints) if container is Container.ORBAX else readers.read(local, container, hints)
    return from_checkpoint(checkpoint, dtype=dtype, param_dtype=param_dtype)


def save(model: Network, path: str | Path, *, force: bool = False) -> None:
    """Write `model` to a new Orbax directory or `.safetensors` file, whole or not at all.

    The directory's item `state` is the nested dict of `nnx.to_pure_dict`, which plain Orbax restores; its item
    `metadata` holds config and digests.

    Raises:
        unet_core.CheckpointError: the target exists (and not `force`), or cannot be written.

    Examples:
        >>> import unet_jax
        >>> unet_jax.save(unet_jax.UNet(rngs=0, features=(4, 8)), "model.safetensors")
        >>> unet_jax.load("model.safetensors").config.features
        (4, 8)
    """
    path = as_path(path)
    container = container_of(path)
    writers: dict[Container, Callable[[Path, Checkpoint], None]] = {
        Container.ORBAX: write,
        Container.SAFETENSORS: safetensors_file.write,
        Container.NPZ: npz_file.write,
    }
    if container not in writers:
        raise CheckpointError(
            f"{path}: is a {container.value}; PyTorch writes it, or convert what is saved with `unet convert`"
        )
    with atomic(path, force=force, replaces=is_orbax) as partial:
        writers[container](partial, to_checkpoint(model))


def to_checkpoint(model: Network) -> Checkpoint:
    """What a checkpoint of `model` holds, on the host."""
    if model.execution.prepared:
        raise CheckpointError("a folded network only predicts: save the one that it was made of")
    tensors = to_canonical(model)
    check_tensors(tensors, model.config, "the model")
    tensors = in_forward_order(tensors, model.config)
    return Checkpoint(model.config, tensors, model.origin, evidence=model.evidence)


def from_checkpoint(
    checkpoint: Checkpoint, *, dtype: DTypeLike | None = None, param_dtype: DTypeLike | None = None
) -> Network:
    """The network that a checkpoint holds, in eval mode."""
    if param_dtype is not None:
        refuse_narrowing(jnp.dtype(param_dtype))
    model = abstract(checkpoint, dtype=dtype, param_dtype=param_dtype or jnp.float32)
    fill(model, checkpoint.tensors, keep_dtypes=param_dtype is None)
    model.eval()
    return model


def abstract(checkpoint: Checkpoint, *, param_dtype: DTypeLike = jnp.float32, **how: Unpack[How]) -> Network:
    """The network that a checkpoint describes, in training mode, with shapes in place of arrays.

    Args:
        checkpoint: gives config or graph, origin and evidence.
        param_dtype: as in `Network`.
        how: as there.
    """
    config = checkpoint.config

    def create() -> Network:
        if isinstance(config, Graph):
            return Network(config, param_dtype=param_dtype, **how)
        return UNet.from_config(config, rngs=None, param_dtype=param_dtype, **how)

    model: Network = nnx.eval_shape(create)
    for name, variable in model.variables():  # a buffer may be of integers
        dtype = checkpoint.tensors[name].dtype if name in checkpoint.tensors else variable.dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            variable.set_value(jax.ShapeDtypeStruct(variable.shape, np.int32 if dtype == COUNTER else dtype))
    model.origin, model.evidence = checkpoint.origin, checkpoint.evidence
    return model


def is_orbax(path: Path) -> bool:
    """Whether a directory is an Orbax checkpoint with the items that `write` makes."""
    return (path / _MARK).is_file() and (path / "state").is_dir()


@locally
def read(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read and check an Orbax directory.

    Raises:
        CheckpointError: not such a directory, damaged, the tensors of another network, or not sound.
    """
    return trusted(examine(path, hints), str(path))


def examine(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """As `read`, but whatever its values are."""
    if not is_orbax(path):
        raise CheckpointError(f"{path}: is a directory, but no Orbax checkpoint of a UNet ({_missing(path)})")
    try:
        json.loads((path / _MARK).read_text())
        found = read_arrays(path)
        with _checkpointer() as checkpointer:
            restored = checkpointer.restore(path.resolve(), args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
            record = restored["metadata"]
    except CheckpointError:
        raise
    except Exception as error:  # whatever Orbax and TensorStore meet in a damaged directory
        if of_device(error):
            raise
        raise CheckpointError(f"{path}: not a sound Orbax checkpoint: {reason(error)}") from error
    text = record.get(RECORD_KEY) if isinstance(record, dict) else None
    text = text if isinstance(text, str) else None
    found = as_today(found) if is_earlier(found) else found
    try:
        if text is None:
            config: Description = infer_config({key: value.shape for key, value in found.items()}, str(path))
        else:
            config = read_record(text, str(path)).config
        tensors = translate(found, "torch", config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    del found
    for key in tensors:  # one after the other, so that no second copy of them all is ever held
        tensors[key] = contiguous(tensors[key])
    contents = Contents(
        str(path),
        groups={"": {key: value.shape for key, value in tensors.items()}},
        fetch=lambda _, keys: {key: tensors[key] for key in keys},
        beside={"training": "(an optimiser's state)"} if (path / "training").is_dir() else {},
        record=text,
    )
    return read_contents(contents, hints)


def write(
    path: Path,
    checkpoint: Checkpoint,
    *,
    training: Mapping[str, np.ndarray] | None = None,
    digests: Mapping[str, Any] | None = None,
) -> None:
    """Write `checkpoint` to a new Orbax directory at `path`.

    Args:
        path: where.
        checkpoint: what.
        training: arrays of the training, by dotted names, for an item of that name.
        digests: what to store with them, for an item of that name.
    """
    record = seal(checkpoint)
    arrays = (*checkpoint.tensors.values(), *(training or {}).values())
    reserve(path, sum(value.nbytes for value in arrays) * 5 // 4)
    more: dict[str, Any] = {}
    if training is not None:
        more = {"training": ocp.args.PyTreeSave(nest(training)), "digests": ocp.args.JsonSave(dict(digests or {}))}
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(
                path.resolve(),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(nest(translate(checkpoint.tensors, "jax", checkpoint.config))),
                    metadata=ocp.args.JsonSave({RECORD_KEY: record}),
                    **more,
                ),
            )
    except ValueError as error:  # TensorStore's own errors, a full disk among them
        raise CheckpointError(f"{path.name}: not written: {reason(error)}") from error


def _checkpointer() -> ocp.Checkpointer:
    # Orbax copies host arrays lest they change while it writes in the background; here the caller waits for it.
    handlers = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    arrays = {name: ocp.PyTreeCheckpointHandler(type_handler_registry=handlers) for name in ("state", "training")}
    records = {name: ocp.JsonCheckpointHandler() for name in ("metadata", "digests")}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**arrays, **records))


def _missing(path: Path) -> str:
    """Why a directory is none that `write` makes, and what to do."""
    steps = sorted((child.name for child in path.iterdir() if child.name.isdecimal()), key=int)
    sound = [step for step in steps if is_orbax(path / step)]
    if steps:
        named = some(str(path / step) for step in sound) or "none of them is sound"
        return f"it holds the steps {some(steps)}; name one of them: {named}"
    if "orbax-checkpoint-tmp" in path.name:
        return "an unfinished one, left by a job that was interrupted; name a finished one"
    return f"no {_MARK} and state in it"
