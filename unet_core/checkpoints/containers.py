"""The three kinds of checkpoint on disk, and how a path tells which one it is."""

import itertools
import os
import stat
from enum import Enum
from pathlib import Path

from unet_core.errors import CheckpointError
from unet_core.staging import locally


class Container(Enum):
    """A kind of checkpoint; the value is what a person calls it."""

    TORCH = "PyTorch file"
    SAFETENSORS = "safetensors file"
    ORBAX = "Orbax directory"


SUFFIXES = {".pt": Container.TORCH, ".pth": Container.TORCH, ".safetensors": Container.SAFETENSORS}

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of torch before 1.6 begins: torch/serialization.py, MAGIC_NUMBER, pickled."""

_MOST_ENTRIES = 100_000
_KNOWN = "known are .pt, .pth, .safetensors and, without a suffix, an Orbax directory"


def container_of(path: Path) -> Container:
    """The kind that the name of `path` asks for: by its suffix, none meaning an Orbax directory.

    Raises:
        CheckpointError: a suffix that no kind has.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix and not path.is_dir():
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
    return SUFFIXES.get(path.suffix.lower()) or _container_by_content(path)


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
    if begin.startswith((b"PK\x03\x04", LEGACY_MAGIC)):
        return Container.TORCH
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size:
        return Container.SAFETENSORS
    raise CheckpointError(f"{path}: neither its name nor its content tells what it is; {_KNOWN}")
