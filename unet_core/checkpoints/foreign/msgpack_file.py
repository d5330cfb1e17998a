"""Files of `flax.serialization`: nested dicts of arrays in msgpack."""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from, package
from unet_core.checkpoints.pickled.tensors import DTYPES, sizes
from unet_core.errors import CheckpointError, first_line, shown

_ARRAY, _NUMBER = 1, 3
"""The kinds of flax/serialization.py, `_MsgpackExtType`."""

_CHUNKED = "__msgpack_chunked_array__"
_LARGEST = 8_000_000_000
_DEEPEST = 20


def contents(path: Path) -> Contents:
    """What the file holds, under names joined by dots.

    Raises:
        CheckpointError: it is no such file, or is damaged.
        MissingFrameworkError: msgpack is not installed.
    """
    msgpack = package("msgpack", path)
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path}: is larger than what is read into memory ({_LARGEST} bytes)")
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=functools.partial(_unpacked, msgpack.unpackb), raw=False)
        found = list(_leaves(tree, (), 0))
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise CheckpointError(f"{path}: not as flax.serialization writes it: {first_line(error)}") from error
    arrays = {name: value for name, value in found if isinstance(value, np.ndarray)}
    beside = {name: shown(value) for name, value in found if not isinstance(value, np.ndarray)}
    groups: dict[str, dict[str, Lazy]] = {"": {}}
    for name, value in arrays.items():
        groups[""][name] = Lazy(value.shape, value.dtype, lambda value=value: value)  # type: ignore[misc]
    return contents_from(path, groups, beside=beside)


def _unpacked(unpack: Callable[..., Any], kind: int, data: bytes) -> Any:
    if kind not in (_ARRAY, _NUMBER):
        return None
    shape, name, content = unpack(data, raw=True)
    dtype = DTYPES.get(name.decode())
    if dtype is None:
        raise ValueError(f"an array of {shown(name)}")
    extent = sizes(shape, "a shape")
    if math.prod(extent) * dtype.itemsize != len(content):
        raise ValueError("an array that claims other numbers than it has")
    return np.frombuffer(content, dtype).reshape(extent)


def _leaves(tree: Any, place: tuple[str, ...], depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise ValueError("its dicts are deeper in one another than any network's")
    if isinstance(tree, dict) and tree.get(_CHUNKED):
        parts = [tree["chunks"][str(number)] for number in range(len(tree["chunks"]))]
        shape = tuple(tree["shape"][str(axis)] for axis in range(len(tree["shape"])))
        yield ".".join(place), np.concatenate(parts).reshape(sizes(shape, "a shape"))
    elif isinstance(tree, dict):
        for name, part in tree.items():
            yield from _leaves(part, (*place, str(name)), depth + 1)
    else:
        yield ".".join(place), tree
