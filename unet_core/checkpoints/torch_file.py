"""Reading `.pt`, `.pth` and other files that are pickles, without torch, and without running anything in them."""

import itertools
import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint
from unet_core.checkpoints.contents import MOST_TENSORS, Contents, check_names
from unet_core.checkpoints.pickled.files import Held, held
from unet_core.checkpoints.pickled.modules import class_of, is_module, state_dict_of, tensor_of
from unet_core.checkpoints.pickled.standins import Dict, Inert, measure
from unet_core.checkpoints.pickled.tensors import DTYPES, WEIGHTS, Storage, StoredTensor
from unet_core.checkpoints.reading import NO_HINTS, Hints, read_contents
from unet_core.checkpoints.soundness import trusted
from unet_core.errors import CheckpointError, first_line, shown, some

_DEEPEST_DICT = 8
"""Dicts in dicts in which a network is looked for; Lightning has two."""

_MOST_KEPT = 10_000
"""Values and letters beside the weights that are kept for the way back; milesial's `mask_values` has a few."""

_MOST_ENTRIES = 1_000_000


def read(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read and check a file of torch's; never runs code from it.

    Raises:
        CheckpointError: not such a file, damaged, no network of the family, or not sound.
    """
    return trusted(examine(path, hints), str(path))


def examine(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """As `read`, but whatever its values are, and with what nothing in the file tells left open."""
    return read_contents(contents(path), hints)


def contents(path: Path) -> Contents:
    """What the file holds, before anything in it is judged; never runs code from it.

    Raises:
        CheckpointError: not such a file, damaged, or one that no script saves: a trap, or more tensors than any.
    """
    found = held(path)
    try:
        walk = _Walk(found, str(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: not a sound PyTorch file: {first_line(error)}") from error
    groups = walk.groups
    if (not groups and not isinstance(found.value, dict)) or found.value == {}:
        raise CheckpointError(f"{path}: holds {described(found.value)}, not a state_dict")
    return Contents(
        str(path),
        groups={group: {key: value.shape for key, value in tensors.items()} for group, tensors in groups.items()},
        fetch=lambda group, keys: _fetch({key: groups[group][key] for key in keys}, str(path)),
        beside=walk.beside,
        extras=walk.extras,
        record=_record(found.value),
        inert=found.inert,
        code=walk.code,
    )


class _Walk:
    """Every tensor of a file, by the dict that it lies in, and what is no tensor."""

    def __init__(self, found: Held, source: str) -> None:
        self.source = source
        self.groups: dict[str, dict[str, StoredTensor]] = {}
        self.extras: dict[str, dict[str, Any]] = {}
        self.beside: dict[str, str] = {}
        self.code: dict[str, str] = {}
        self._seen: set[int] = set()
        self._left = _MOST_ENTRIES
        self._waiting: deque[tuple[str, int, Any]] = deque([("", 0, found.value)])
        paths: set[str] = set()
        while self._waiting:
            group, level, value = self._waiting.popleft()
            if id(value) in self._seen or level > _DEEPEST_DICT:
                continue
            self._seen.add(id(value))
            if group in paths:
                raise CheckpointError(f"{source}: has two dicts under the one key {shown(group) or 'of no letters'}")
            paths.add(group)
            if is_module(value):
                self.code[group] = class_of(value)
                self._take(group, state_dict_of(value), level)
            else:
                self._take(group, _entries(value), level)
        count = sum(map(len, self.groups.values()))
        if count > MOST_TENSORS:
            raise CheckpointError(
                f"{source}: holds {count} tensors; no checkpoint of a UNet has more than {MOST_TENSORS}"
            )

    def _take(self, group: str, entries: Mapping[Any, Any], level: int) -> None:
        self._left -= len(entries)
        if self._left < 0:
            raise ValueError("it has more entries than any checkpoint")
        check_names((name for name in entries if isinstance(name, str)), self.source)
        kept: dict[str, Any] = {}
        for number, (name, value) in enumerate(entries.items()):
            odd = name if isinstance(name, int | float | None) else f"{type(name).__name__}, entry {number}"
            key = name if isinstance(name, str) else f"[{odd}]"
            path = f"{group}.{key}" if group else key
            tensor = tensor_of(value)
            if tensor is not None:
                self.groups.setdefault(group, {})[key] = tensor
            elif isinstance(value, dict | Inert):
                self._waiting.append((path, level + 1, value))
                self.beside[path] = f"({_kind(value)})"
            else:
                self.beside[path] = shown(value) if isinstance(value, bool | int | float | str) else f"({_kind(value)})"
                if isinstance(name, str):
                    kept[key] = value
        if group in self.groups and _is_small([*kept.values()]):
            self.extras[group] = {key: value for key, value in kept.items() if _is_plain(value)}


def _entries(value: Any) -> Mapping[Any, Any]:
    """What lies in a dict, or in what stands for an object: under its keys, or else its attributes.

    Raises:
        ValueError: attributes that are nested deeper, or hold more, than any checkpoint's.
    """
    if isinstance(value, dict):
        return value
    if not isinstance(value, Inert):
        return {}
    found = value.items or value.attributes
    measure(found)
    return found


def check_dense(
    tensors: Iterable[tuple[str, StoredTensor]], source: str, dtypes: Collection[np.dtype] = tuple(DTYPES.values())
) -> None:
    """Refuse tensors whose numbers are not all in the file.

    Args:
        tensors: with their names.
        source: for messages.
        dtypes: that they may have.

    Raises:
        CheckpointError: there are some that are sparse, of another dtype, or larger than their storage.
    """
    found = list(tensors)
    unread = [f"{key} ({value.odd or value.dtype})" for key, value in found if value.odd or value.dtype not in dtypes]
    if unread:
        raise CheckpointError(f"{source}: these are no dense tensors of real numbers: {some(unread)}")
    spread = [key for key, value in found if value.spread]
    if spread:
        raise CheckpointError(f"{source}: these tensors claim more numbers than the file holds: {some(spread)}")


def _fetch(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, np.ndarray]:
    """The tensors' values; refuses all that do not have memory of their own."""
    check_dense(tensors.items(), source, WEIGHTS)
    shared = [*(key for key, value in tensors.items() if value.overlaps_itself), *_overlapping(tensors)]
    if shared:
        raise CheckpointError(f"{source}: these tensors share memory, within or with one another: {some(shared)}")
    return dict(values_of(tensors, source))


def values_of(tensors: Mapping[str, StoredTensor], source: str) -> Iterator[tuple[str, np.ndarray]]:
    """Dense tensors with their values; those of one storage share its memory, and each storage is read once.

    Raises:
        CheckpointError: a storage is damaged.
    """
    uses = Counter(value.storage for value in tensors.values())
    memory: dict[Storage | None, np.ndarray] = {}
    try:
        for key, value in tensors.items():
            assert value.storage is not None
            if value.storage not in memory:
                memory[value.storage] = value.storage.read()
            uses[value.storage] -= 1
            yield key, value.within(memory[value.storage])
            if not uses[value.storage]:
                del memory[value.storage]
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{source}: not a sound PyTorch file: {first_line(error)}") from error


def _overlapping(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Tensors that lie over another one in the same storage."""
    spans = sorted((id(value.storage), *value.span, key) for key, value in tensors.items() if value.size)
    return [
        f"{one[3]} and {other[3]}"
        for one, other in itertools.pairwise(spans)
        if one[0] == other[0] and other[1] < one[2]
    ]


def _record(value: Any) -> str | None:
    """The record that `unet_torch` left in the state_dict's metadata."""
    attributes = value.state if isinstance(value, Dict) else None
    metadata = attributes.get("_metadata") if isinstance(attributes, dict) else None
    entry = metadata.get(RECORD_KEY) if isinstance(metadata, dict) else None
    record = entry.get("record") if isinstance(entry, dict) else None
    return record if isinstance(record, str) else None


def _is_small(values: list[Any]) -> bool:
    """Whether values are few and short enough to be kept in a record, each shared part counted every time."""
    left, waiting = _MOST_KEPT, list(values)
    while waiting and left >= 0:
        value = waiting.pop()
        left -= 1 + (len(value) if isinstance(value, str | list) else 0)
        if isinstance(value, list) and left >= 0:
            waiting += value
    return left >= 0


def _is_plain(value: object) -> bool:
    """Whether JSON gives a value back as it is: numbers, strings, and lists of them."""
    if isinstance(value, list):
        return all(_is_plain(part) for part in value)
    if isinstance(value, str):
        return not any("\ud800" <= sign <= "\udfff" for sign in value)
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


def described(value: object) -> str:
    """What a file holds that holds no network, for a message."""
    return f"{shown(value.name)}, which is never run" if isinstance(value, Inert) else _kind(value)


def _kind(value: object) -> str:
    if isinstance(value, Inert):
        return f"a {shown(value.kind)}"
    if isinstance(value, Dict):
        return f"a {value.kind}"
    if isinstance(value, dict):
        return "a dict" if value else "an empty dict"
    return "a tensor" if isinstance(value, StoredTensor) else f"a {type(value).__name__}"
