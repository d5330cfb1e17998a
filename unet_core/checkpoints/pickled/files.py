"""The files that `torch.save` and `pickle.dump` write: a zip, torch's format before 1.6, or a pickle alone."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.pickled.machine import Unpickled, unpickled
from unet_core.checkpoints.pickled.parts import Part
from unet_core.checkpoints.pickled.standins import Inert
from unet_core.checkpoints.pickled.tensors import DTYPES, STORAGES, Storage, TypedStorage
from unet_core.checkpoints.pickled.zip_archive import ZipArchive
from unet_core.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
"""The number in the first pickle of a file of torch before 1.6 (torch/serialization.py, MAGIC_NUMBER)."""

_LARGEST_PICKLE = 512_000_000
"""Bytes: where NumPy's arrays are in it, so are their numbers."""

_PICKLE = re.compile(rb"\x80[\x02-\x05]")


@dataclass(frozen=True)
class Held:
    """What a file holds; its tensors are read when they are asked for."""

    value: Any
    inert: tuple[str, ...]
    """The classes and functions that were left inert."""
    script: bool = False
    """Whether it is a TorchScript archive, whose program is not read."""


def held(path: Path | Part) -> Held:
    """What a file of torch's, or a pickle, holds; runs nothing from it.

    Raises:
        CheckpointError: it is none, was cut short or damaged, or is a trap.
    """
    part = path if isinstance(path, Part) else Part(path)
    with part.open() as file:
        if _PICKLE.match(file.read(2)):
            return _bare(part)
    return _zipped(part)


def _zipped(path: Part) -> Held:
    archive = ZipArchive(path)
    if archive.sizes["data.pkl"] > _LARGEST_PICKLE:
        raise CheckpointError(f"{path}: its pickle is longer than any checkpoint's ({_LARGEST_PICKLE} bytes)")
    if "byteorder" in archive.sizes and archive.read("byteorder").tobytes() != b"little":
        raise CheckpointError(f"{path}: not in little-endian byte order; save it again on a usual machine")
    storages = _Storages()
    found = unpickled(archive.read("data.pkl").tobytes(), str(path), persistent=storages)
    for key, storage in storages.found.items():
        name = f"data/{key}"
        size = archive.sizes.get(name)
        if size != storage.nbytes:
            what = "is missing" if size is None else f"has {size} bytes"
            raise CheckpointError(
                f"{path}: not a sound PyTorch file: its storage {name} should have {storage.nbytes} bytes and {what}"
            )
        storage.load = _loader(archive.read, name)
    script = "constants.pkl" in archive.sizes or any(name.startswith("code/") for name in archive.sizes)
    return Held(found.value, _said(found, script=script), script)


def _bare(path: Part) -> Held:
    """A pickle alone; or several and then the storages' bytes, as torch wrote them before 1.6."""
    with path.open() as file:
        data = file.read(_LARGEST_PICKLE)
    source = str(path)
    first = unpickled(data, source)
    if first.value != MAGIC:
        if first.end != path.size:
            raise CheckpointError(f"{path}: not a sound pickle: something follows it; get the file again")
        return Held(first.value, _said(first))
    storages = _Storages()
    end, found, system = first.end, first, first
    for number in range(4):  # protocol, system, the object, the keys of the storages that follow
        last, persistent = found, storages if number == 2 else None
        found = unpickled(data, source, start=end, persistent=persistent)
        end, system = found.end, found if number == 1 else system
    if isinstance(system.value, dict) and system.value.get("little_endian") is False:
        raise CheckpointError(f"{path}: not in little-endian byte order; save it again on a usual machine")
    keys = found.value
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages.found):
        raise CheckpointError(f"{path}: not a sound PyTorch file: it does not list the storages that it has")
    for key in keys:
        end = _placed(path, storages.found[str(key)], storages.itemsizes[str(key)], end)
    return Held(last.value, _said(last))


def _placed(path: Part, storage: Storage, itemsize: int, place: int) -> int:
    """Find a storage's bytes in a file of torch before 1.6; returns where they end."""
    with path.open() as file:
        file.seek(place)
        count = int.from_bytes(file.read(8), "little")
    begin = place + 8
    if count * itemsize != storage.nbytes or begin + storage.nbytes > path.size:
        raise CheckpointError(
            f"{path}: not a sound PyTorch file: a storage should have {storage.nbytes} bytes, which are not there; "
            "get the file again"
        )

    def load() -> np.ndarray:
        with path.open() as file:
            file.seek(begin)
            found = np.empty(storage.nbytes, np.uint8)
            if file.readinto(found.data) != storage.nbytes:  # type: ignore[attr-defined]
                raise CheckpointError(f"{path}: has changed while it was read")
        return found

    storage.load = load
    return begin + storage.nbytes


class _Storages:
    """Knows the storages to which a pickle of torch's refers; they are placed once all are known."""

    def __init__(self) -> None:
        self.found: dict[str, Storage] = {}
        self.itemsizes: dict[str, int] = {}
        """Of the numbers as which each is first referred to."""

    def __call__(self, identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]  # a class, with its source
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            return NotImplemented
        kind, key, _, count = identity[1:5]
        view = identity[5] if len(identity) == 6 else None
        dtype = STORAGES.get(kind.kind) if isinstance(kind, Inert) else None
        if dtype is None or type(count) is not int or count < 0 or not isinstance(key, str | int) or view is not None:
            raise ValueError("a storage of a kind that torch has not")
        nbytes = count * DTYPES[dtype].itemsize
        known = self.found.setdefault(str(key), Storage(nbytes))
        self.itemsizes.setdefault(str(key), DTYPES[dtype].itemsize)
        if known.nbytes != nbytes:
            raise ValueError("a storage of two sizes")
        return TypedStorage(known, DTYPES[dtype])


def _loader(read: Callable[[str], np.ndarray], name: str) -> Callable[[], np.ndarray]:
    return lambda: read(name)


def _said(found: Unpickled, *, script: bool = False) -> tuple[str, ...]:
    return tuple(name for name in found.inert if not (script and name.startswith("__torch__.")))
