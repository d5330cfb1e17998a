"""The three kinds of checkpoint on disk, and how a path tells which one it is."""

import itertools
import os
import re
import stat
from enum import Enum
from pathlib import Path

from unet_core.errors import CheckpointError
from unet_core.hub.store import WEIGHTS
from unet_core.staging import locally


class Container(Enum):
    """A kind of checkpoint; the value is what a person calls it."""

    TORCH = "PyTorch file"
    SAFETENSORS = "safetensors file"
    ORBAX = "Orbax directory"
    SHARDS = "checkpoint in several files"
    DISTRIBUTED = "folder of torch.distributed.checkpoint"
    DEEPSPEED = "DeepSpeed folder"
    EXPORTED = "torch.export archive"
    ONNX = "ONNX file"
    MSGPACK = "Flax msgpack file"
    NPZ = "NumPy archive"


SUFFIXES = {".pt": Container.TORCH, ".pth": Container.TORCH, ".safetensors": Container.SAFETENSORS}

_WRITTEN = {**SUFFIXES, ".npz": Container.NPZ, ".dcp": Container.DISTRIBUTED}

_READ = {
    **SUFFIXES,
    ".pt2": Container.EXPORTED,
    ".onnx": Container.ONNX,
    ".npz": Container.NPZ,
    ".msgpack": Container.MSGPACK,
    ".bin": Container.TORCH,
    ".pkl": Container.TORCH,
}
"""Of files that are there to be read."""

_KERAS = (
    "a Keras file: in Keras, write its weights by numpy.savez('weights.npz', **{v.path: v.numpy() for v in "
    "model.weights}) and give that with --module, its network in PyTorch, and --names"
)
_TENSORFLOW = (
    "of TensorFlow: there, write its weights by numpy.savez('weights.npz', **{v.name: v.numpy() for v in "
    "model.variables}) and give that with --module, its network in PyTorch, and --names"
)
_ELSEWHERE = {
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _KERAS),
    **dict.fromkeys((".pb", ".tflite", ".index", ".data-00000-of-00001"), _TENSORFLOW),
}
"""Kinds that are known and not read, with the way to go."""

_HDF5 = b"\x89HDF\r\n\x1a\n"

_MOST_ENTRIES = 100_000
_NAMED = re.compile(r"(\.v?\d+|\.orbax)?", re.IGNORECASE)
"""What an Orbax directory's name may end in: nothing, a number or version, which is part of the name, or what it is."""
_KNOWN = (
    "known are .pt, .pth, .safetensors, .npz, .dcp and, without a suffix, with .orbax or a version as .v2, an Orbax "
    "directory"
)


def container_of(path: Path) -> Container:
    """The kind that the name of `path` asks for: by its suffix; none, .orbax or a version: an Orbax directory.

    Raises:
        CheckpointError: a suffix that no kind has.
    """
    suffix = path.suffix.lower()
    if suffix in _WRITTEN:
        return _WRITTEN[suffix]
    if _NAMED.fullmatch(suffix) is None and not path.is_dir():
        raise CheckpointError(f"{path}: unknown suffix {path.suffix}; {_KNOWN}")
    return Container.ORBAX


@locally
def existing_container(path: Path) -> Container:
    """As `container_of`, of something that is there to be read; a file of another suffix is told by how it begins.

    Raises:
        CheckpointError: nothing there, unreadable, empty, a special file, or of another kind than its name says.
    """
    status = _status(path)
    if stat.S_ISDIR(status.st_mode):
        foreign = _foreign_folder(path)
        if foreign is not None:
            _check_directory(path)
            return foreign
        container = container_of(path)
        if container is not Container.ORBAX:
            raise CheckpointError(f"{path}: is a directory, not a {container.value}")
        _check_directory(path)
        return container
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: is not a regular file")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path}: permission denied")
    if status.st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    if path.name.endswith(".index.json"):
        return Container.SHARDS
    suffix = path.suffix.lower()
    if suffix in _ELSEWHERE:
        raise CheckpointError(f"{path}: is {_ELSEWHERE[suffix]}")
    return _READ.get(suffix) or _container_by_content(path)


def _foreign_folder(path: Path) -> Container | None:
    """What a folder is by the files in it, where it is none of Orbax's."""
    if (path / ".metadata").is_file():
        return Container.DISTRIBUTED
    if (path / "mp_rank_00_model_states.pt").is_file() or (path / "latest").is_file():
        return Container.DEEPSPEED
    if any(path.glob("*.index.json")) or (path / WEIGHTS).is_file():
        return Container.SHARDS
    if (path / "saved_model.pb").exists() or ((path / "checkpoint").is_file() and any(path.glob("*.index"))):
        raise CheckpointError(f"{path}: is {_TENSORFLOW}")
    return None


def _status(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error


def _check_directory(path: Path) -> None:
    """Refuse a directory in which a reader would wait for ever, read without end, or meet what it may not read."""
    for number, entry in enumerate(itertools.chain((path,), path.rglob("*"))):
        if number > _MOST_ENTRIES:
            raise CheckpointError(f"{path}: holds more than {_MOST_ENTRIES} files; no checkpoint of a UNet does")
        mode = _status(entry).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise CheckpointError(f"{entry}: is not a regular file")
        if stat.S_ISDIR(mode) and entry.is_symlink() and entry != path:
            raise CheckpointError(f"{entry}: is a link to a directory, which is not followed")
        if not os.access(entry, os.R_OK):
            raise CheckpointError(f"{entry}: permission denied")


def _container_by_content(path: Path) -> Container:
    """What a file without a known suffix is, such as a Lightning `.ckpt` or a `.pth.tar`."""
    with open(path, "rb") as file:
        begin = file.read(16)
    if begin.startswith(_HDF5):
        raise CheckpointError(f"{path}: is {_KERAS}")
    if begin.startswith(b"PK\x03\x04") or re.match(rb"\x80[\x02-\x05]", begin):
        return Container.TORCH
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size:
        return Container.SAFETENSORS
    raise CheckpointError(f"{path}: neither its name nor its content tells what it is; {_KNOWN}")
