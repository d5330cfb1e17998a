"""Tensors of any kind of file, each read when it is asked for."""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.checkpoint import LONGEST_RECORD, RECORD_KEY, Checkpoint, seal
from unet_core.checkpoints.contents import MOST_TENSORS, Contents, check_names
from unet_core.checkpoints.pickled.tensors import WEIGHTS
from unet_core.errors import CheckpointError, MissingFrameworkError, first_line, shown, some


@dataclass(frozen=True)
class Lazy:
    """A tensor whose file is known, and its place in it."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    """None of one that NumPy has not."""
    load: Callable[[], np.ndarray]


def contents_from(
    source: Path,
    groups: Mapping[str, Mapping[str, Lazy]],
    *,
    beside: Mapping[str, Any] | None = None,
    inert: tuple[str, ...] = (),
    ordered: bool = False,
    times: int = 4,
    more: Iterable[Path] = (),
) -> Contents:
    """What a file holds, whatever its kind.

    Args:
        source: the file or folder.
        groups: its tensors, by the dict that they lie in.
        beside: what is no tensor.
        inert: as in `Contents`.
        ordered: as there.
        times: how many times the bytes that are stored the tensors may claim; those with several names count each time.
        more: further files that have the tensors' bytes.

    Raises:
        CheckpointError: it holds no tensors, or more than any checkpoint.
    """
    count = sum(map(len, groups.values()))
    if not 0 < count <= MOST_TENSORS:
        raise CheckpointError(f"{source}: holds {count} tensors; a network has some, and none more than {MOST_TENSORS}")
    for tensors in groups.values():
        check_names(tensors, str(source))
    found = [tensor for tensors in groups.values() for tensor in tensors.values() if tensor.dtype is not None]
    claimed = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in found if tensor.dtype is not None)
    on_disk = sum(file.stat().st_size for file in (source, *source.rglob("*"), *more) if file.is_file())
    if claimed > times * on_disk:
        raise CheckpointError(f"{source}: its tensors claim {claimed} bytes, {on_disk} are stored; damaged, or a trap")
    record = groups.get("", {}).get(RECORD_KEY)
    record = record if record is not None and record.dtype == np.uint8 and len(record.shape) == 1 else None
    if record is not None:
        groups = {**groups, "": {name: value for name, value in groups[""].items() if name != RECORD_KEY}}

    def fetch(group: str, keys: Any) -> dict[str, np.ndarray]:
        unread = [f"{key} ({groups[group][key].dtype})" for key in keys if groups[group][key].dtype not in WEIGHTS]
        if unread:
            raise CheckpointError(f"{source}: these are no dense tensors of real numbers: {some(unread)}")
        return {key: _read(groups[group][key], f"{source}: {shown(key)}") for key in keys}

    return Contents(
        str(source),
        groups={group: {key: value.shape for key, value in tensors.items()} for group, tensors in groups.items()},
        fetch=fetch,
        beside=beside or {},
        record=None if record is None else _text(record, str(source)),
        inert=inert,
        ordered=ordered,
    )


def record_array(checkpoint: Checkpoint, dialect: str) -> np.ndarray:
    """The record of a checkpoint as a tensor of bytes, for a kind of file that has nothing but tensors."""
    return np.frombuffer(seal(checkpoint, dialect).encode(), np.uint8)


def _text(record: Lazy, source: str) -> str:
    if record.shape[0] > LONGEST_RECORD:
        raise CheckpointError(f"{source}: its record of config and digests has {record.shape[0]} bytes; a trap")
    try:
        return _read(record, source).tobytes().decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{source}: the stored record of config and digests is damaged") from error


def _read(tensor: Lazy, source: str) -> np.ndarray:
    try:
        found = tensor.load()
    except (ValueError, OSError, KeyError, EOFError, TypeError) as error:
        raise CheckpointError(f"{source}: cannot be read: {first_line(error)}") from error
    if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
        raise CheckpointError(f"{source}: is {found.dtype} of {found.shape}, not {tensor.dtype} of {tensor.shape}")
    return found


def package(name: str, path: Path) -> Any:
    """The package of this name, which reads a kind of file.

    Raises:
        MissingFrameworkError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingFrameworkError(
            f"{path}: is read with {name}, which is not installed: pip install {name}", name=name
        ) from error


def inside(folder: Path, name: object, source: Path | None = None) -> Path:
    """The file of this name in a folder.

    Args:
        folder: where it should lie.
        name: as a file says it.
        source: that file, for the message; None: the folder.

    Raises:
        CheckpointError: it is the name of something outside, or of no regular file.
    """
    path = folder / name if isinstance(name, str) and name and "\0" not in name else None
    if path is None or path.parent != folder or name in (".", "..") or "\\" in str(name):
        raise CheckpointError(f"{source or folder}: names the file {shown(name)}, which does not lie beside it")
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing, or is no regular file; get the whole folder")
    return path
