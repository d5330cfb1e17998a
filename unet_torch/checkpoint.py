"""Checkpoints of the PyTorch twin: `.pt`, `.pth` and `.safetensors`."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet_core.checkpoints import readers, safetensors_file
from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, exported, seal
from unet_core.checkpoints.containers import Container, container_of, existing_container
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.foreign import npz_file
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.checkpoints.torch_file import contents, examine, read
from unet_core.errors import CheckpointError
from unet_core.files import atomic
from unet_core.graph import Graph
from unet_core.graph.canonical import check_tensors, under_one_name
from unet_core.paths import as_path, as_source
from unet_core.staging import at_hand
from unet_torch.canonical import as_torch, fill, to_canonical, unwrapped
from unet_torch.contents import write_pickle
from unet_torch.model import UNet
from unet_torch.network import Network

__all__ = ["contents", "examine", "from_checkpoint", "load", "read", "save", "to_checkpoint", "write"]


def load(path: str | Path, *, hints: Hints = NO_HINTS) -> UNet | Network:
    """The network of a `.pt`, `.pth` or `.safetensors` file, in eval mode, on the CPU, its dtypes kept.

    Args:
        path: a file of this project, or of another one whose UNet is of the family (`unet_core.checkpoints.dialects`).
        hints: what the file does not tell.

    Raises:
        unet_core.CheckpointError: the file is missing, damaged or of another network; one line says which.

    Examples:
        >>> import unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> unet_torch.load("model.pt").config.features
        (4, 8)
    """
    with at_hand(as_source(path)) as local:
        container = existing_container(local)
        _refuse_orbax(container, local, "unet_jax.load reads it")
        checkpoint = readers.read(local, container, hints)
    return from_checkpoint(checkpoint)


def save(model: nn.Module, path: str | Path, *, force: bool = False) -> None:
    """Write a `UNet` or `Network`, bare or in a wrapper, to a new `.pt`, `.pth` or `.safetensors` file.

    It is written whole or not at all. A `.pt` holds a plain `state_dict`; config and digests travel in its `_metadata`.

    Raises:
        unet_core.CheckpointError: the file exists (and not `force`), or cannot be written.

    Examples:
        >>> import unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.safetensors")
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.safetensors")
        Traceback (most recent call last):
        unet_core.errors.CheckpointError: model.safetensors: exists...
    """
    path = as_path(path)
    container = container_of(path)
    _refuse_orbax(container, path, "unet_jax.save writes it")
    writers: dict[Container, Callable[[Path, Checkpoint], None]] = {
        Container.TORCH: write,
        Container.SAFETENSORS: safetensors_file.write,
        Container.NPZ: npz_file.write,
    }
    if container not in writers:
        raise CheckpointError(f"{path}: is a {container.value}; save a .pt and convert it with `unet convert`")
    with atomic(path, force=force) as partial:
        writers[container](partial, to_checkpoint(model))


def to_checkpoint(model: nn.Module) -> Checkpoint:
    """What a checkpoint of `model` holds; shares its memory."""
    network = unwrapped(model)
    if not isinstance(network, UNet | Network):
        raise CheckpointError(f"a unet_torch.UNet or Network is needed, got {type(network).__name__}")
    tensors = under_one_name(to_canonical(network), network.config, "the model")
    check_tensors(tensors, network.config, "the model")
    return Checkpoint(network.config, tensors, network.origin, evidence=network.evidence)


def from_checkpoint(checkpoint: Checkpoint) -> UNet | Network:
    """The network that a checkpoint holds, in eval mode."""
    config = checkpoint.config
    with torch.device("meta"):
        model = Network(config) if isinstance(config, Graph) else UNet.from_config(config)
    model.origin, model.evidence = checkpoint.origin, checkpoint.evidence
    fill(model, checkpoint.tensors)
    return model.eval()


def write(path: Path, checkpoint: Checkpoint, *, dialect: str = OWN.name) -> None:
    """Write `checkpoint` to a new file at `path`: a `state_dict` that `load_state_dict(strict=True)` takes.

    Args:
        dialect: whose names the tensors get; one of `unet_core.checkpoints.dialects.NAMES`.

    Raises:
        unet_core.CheckpointError: the dialect cannot hold this network, or the file cannot be written.
    """
    tensors, extras = exported(checkpoint, dialect)
    state: OrderedDict[str, Any] = OrderedDict()
    for key, value in tensors.items():
        state[key] = as_torch(value, copy=False)
    metadata: OrderedDict[str, dict[str, Any]] = OrderedDict({"": {"version": 1}})
    for key in state:
        layer, name = key.rpartition(".")[::2]
        # BatchNorm's version 2 says that num_batches_tracked is stored (torch/nn/modules/batchnorm.py).
        metadata[layer] = {"version": 2 if name == "num_batches_tracked" else 1}
    metadata[RECORD_KEY] = {"record": seal(checkpoint, dialect)}
    state.update(extras)
    state._metadata = metadata  # type: ignore[attr-defined]  # where torch's own state_dict keeps its versions
    write_pickle(path, state)


def _refuse_orbax(container: Container, path: Path, instead: str) -> None:
    if container is Container.ORBAX:
        raise CheckpointError(f"{path}: PyTorch has no Orbax directory; {instead}, or convert it with `unet convert`")
