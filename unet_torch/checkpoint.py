"""Checkpoints of the PyTorch twin: `.pt`, `.pth` and `.safetensors`."""

import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_core import safetensors_file
from unet_core.checkpoint import RECORD_KEY, Checkpoint, open_sealed, seal
from unet_core.containers import Container, container_of, existing_container
from unet_core.errors import CheckpointError, first_line, some
from unet_core.files import atomic
from unet_core.hub import check_tensors
from unet_torch.hub import as_numpy, as_torch, fill, to_hub, unwrapped
from unet_torch.model import UNet

_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.int64}
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch/serialization.py, MAGIC_NUMBER, pickled


def load(path: str | Path) -> UNet:
    """The network of a `.pt`, `.pth` or `.safetensors` file, in eval mode, on the CPU, its dtypes kept.

    Raises:
        unet_core.CheckpointError: the file is missing, damaged or of another network; one line says which.
    """
    path = Path(path)
    container = existing_container(path)
    _refuse_orbax(container, path, "unet_jax.load reads it")
    checkpoint = (read if container is Container.TORCH else safetensors_file.read)(path)
    return from_checkpoint(checkpoint)


def save(model: nn.Module, path: str | Path, *, force: bool = False) -> None:
    """Write a `UNet`, bare or in a wrapper, to a new `.pt`, `.pth` or `.safetensors` file, whole or not at all.

    A `.pt` holds a plain `state_dict`; config and digests travel in its `_metadata`.

    Raises:
        unet_core.CheckpointError: the file exists (and not `force`), or cannot be written.
    """
    path = Path(path)
    container = container_of(path)
    _refuse_orbax(container, path, "unet_jax.save writes it")
    with atomic(path, force=force) as partial:
        (write if container is Container.TORCH else safetensors_file.write)(partial, to_checkpoint(model))


def to_checkpoint(model: nn.Module) -> Checkpoint:
    """What a checkpoint of `model` holds; shares its memory."""
    network = unwrapped(model)
    if not isinstance(network, UNet):
        raise CheckpointError(f"a unet_torch.UNet is needed, got {type(network).__name__}")
    tensors = to_hub(network)
    check_tensors(tensors, network.config, "the model")
    return Checkpoint(network.config, tensors)


def from_checkpoint(checkpoint: Checkpoint) -> UNet:
    """The network that a checkpoint holds, in eval mode."""
    with torch.device("meta"):
        model = UNet.from_config(checkpoint.config)
    fill(model, checkpoint.tensors)
    return model.eval()


def read(path: Path) -> Checkpoint:
    """Read and check a `.pt` or `.pth` file; never runs code from it.

    Raises:
        unet_core.CheckpointError: not such a file, damaged, or the tensors of another network.
    """
    _check_archive(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's reader meets in a damaged file
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            what = "holds Python objects beside tensors, which are never run; save model.state_dict() instead"
        else:
            what = f"not a sound PyTorch file: {first_line(error)}"
        raise CheckpointError(f"{path}: {what}") from error
    tensors = _state_dict(state, str(path))
    return open_sealed(tensors, _record(state), str(path))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to a new file at `path`: a `state_dict` that `load_state_dict(strict=True)` takes."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in checkpoint.tensors.items():
        state[key] = as_torch(value, copy=False)
    metadata: OrderedDict[str, dict[str, Any]] = OrderedDict({"": {"version": 1}})
    for key in state:
        layer, name = key.rpartition(".")[::2]
        # BatchNorm's version 2 says that num_batches_tracked is stored (torch/nn/modules/batchnorm.py).
        metadata[layer] = {"version": 2 if name == "num_batches_tracked" else 1}
    metadata[RECORD_KEY] = {"record": seal(checkpoint.config, checkpoint.tensors)}
    state._metadata = metadata  # type: ignore[attr-defined]  # where torch's own state_dict keeps its versions
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's writer hides the OSError, which it met before
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"{path.name}: not written: {first_line(reason)}") from error


def _check_archive(path: Path) -> None:
    """What `torch.load` does not check: that the bytes of the zip are those that were written."""
    with open(path, "rb") as file:
        if file.read(len(_LEGACY_MAGIC)) == _LEGACY_MAGIC:
            return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            odd = [info.filename for info in members if info.compress_type != zipfile.ZIP_STORED]
            twice = [name for name, times in Counter(info.filename for info in members).items() if times > 1]
            damaged = None if odd or twice else archive.testzip()
    except Exception as error:  # whatever zipfile meets in a damaged file
        raise CheckpointError(
            f"{path}: not a PyTorch file, or one that was cut short ({first_line(error)}); get the file again"
        ) from error
    if odd or twice:
        raise CheckpointError(
            f"{path}: not as torch writes it: members compressed or stored twice: {some(odd + twice)}"
        )
    if damaged is not None:
        raise CheckpointError(f"{path}: the file is damaged: its member {damaged} fails its checksum; get it again")


def _state_dict(state: Any, source: str) -> dict[str, np.ndarray]:
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{source}: holds {_kind(state)}, not a state_dict")
    others = [f"{key} ({_kind(value)})" for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{source}: not a plain state_dict: {some(others)} are no tensors; save model.state_dict() alone"
        )
    unread = [
        f"{key} ({value.dtype}, {value.layout}, {value.device})"
        for key, value in state.items()
        if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in _DTYPES
    ]
    if unread:
        raise CheckpointError(f"{source}: these are no dense tensors of real numbers: {some(unread)}")
    spread = [key for key, value in state.items() if value.numel() * value.itemsize > value.untyped_storage().nbytes()]
    if spread:
        raise CheckpointError(f"{source}: these tensors claim more numbers than the file holds: {some(spread)}")
    return {str(key): as_numpy(value) for key, value in state.items()}


def _record(state: Any) -> str | None:
    """The record that `write` left in the state_dict's metadata."""
    metadata = getattr(state, "_metadata", None)
    entry = metadata.get(RECORD_KEY) if isinstance(metadata, dict) else None
    record = entry.get("record") if isinstance(entry, dict) else None
    return record if isinstance(record, str) else None


def _refuse_orbax(container: Container, path: Path, instead: str) -> None:
    if container is Container.ORBAX:
        raise CheckpointError(f"{path}: PyTorch has no Orbax directory; {instead}, or convert it with `unet convert`")


def _kind(value: object) -> str:
    return "an empty dict" if value == {} else f"a {type(value).__name__}"
