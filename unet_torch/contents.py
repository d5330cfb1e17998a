"""A `.pt` file and what it holds, before anything in it is judged. JAX has nothing to match: it has no pickles."""

import itertools
import math
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from unet_core.checkpoints.checkpoint import RECORD_KEY
from unet_core.checkpoints.contents import MOST_TENSORS, Contents, check_names
from unet_core.errors import CheckpointError, first_line, shown, some
from unet_torch.archive import check_archive
from unet_torch.canonical import as_numpy

_DEEPEST_DICT = 8
"""Dicts in dicts in which a network is looked for; Lightning has two."""

_MOST_KEPT = 10_000
"""Values and letters beside the weights that are kept for the way back; milesial's `mask_values` has a few."""

_DTYPES = {
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16),
    *(torch.int32, torch.int64, torch.uint8, torch.bool),
}


class _Nothing:
    """Stands for a number or an array of NumPy in a pickle, whose real constructors may ask for any memory."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_NUMPY = tuple(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct"))
_NUMPY += ("numpy dtype", "numpy ndarray", "_codecs encode")


def opened(path: Path, *, skip_numpy: bool = False) -> dict[Any, Any]:
    """What a `.pt` or `.pth` file holds; never runs code from it.

    Args:
        path: the file.
        skip_numpy: let NumPy's numbers and arrays stand in it, such as a log of losses; nothing of them is kept.

    Raises:
        unet_core.CheckpointError: not such a file, damaged, or no dict.
    """
    names = _NUMPY if skip_numpy else ()
    check_archive(path, names)
    try:
        with warnings.catch_warnings(), safe_globals([(_Nothing, name.replace(" ", ".")) for name in names]):
            warnings.simplefilter("ignore")  # of a file's own making, such as its old format
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's reader meets in a damaged file
        raise CheckpointError(f"{path}: not a sound PyTorch file: {first_line(error)}") from error
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: holds {_kind(state)}, not a state_dict")
    return state


def write_pickle(path: Path, state: dict[Any, Any]) -> None:
    """Write a dict to a new file at `path`, which `opened` reads.

    Raises:
        unet_core.CheckpointError: it cannot be written.
    """
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's writer hides the OSError, which it met before
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"{path.name}: not written: {first_line(reason)}") from error


def contents_of(state: dict[Any, Any], source: str) -> Contents:
    """Every tensor of a loaded file, by the dict that it lies in, and what is no tensor.

    Raises:
        unet_core.CheckpointError: a file that no script saves: a trap, or more tensors than any.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    extras: dict[str, dict[str, Any]] = {}
    beside: dict[str, str] = {}
    seen: set[int] = set()
    paths: set[str] = set()
    waiting: deque[tuple[str, int, dict[Any, Any]]] = deque([("", 0, state)])
    while waiting:
        group, level, entries = waiting.popleft()
        if id(entries) in seen or level > _DEEPEST_DICT:
            continue
        seen.add(id(entries))
        if set(getattr(entries, "__dict__", ())) - {"_metadata"}:
            name = shown(group) or "of tensors"
            raise CheckpointError(f"{source}: its dict {name} hides its methods behind attributes; a trap")
        if group in paths:
            raise CheckpointError(f"{source}: has two dicts under the one key {shown(group) or 'of no letters'}")
        paths.add(group)
        check_names((name for name in entries if isinstance(name, str)), source)
        kept: dict[str, Any] = {}
        for number, (name, value) in enumerate(entries.items()):
            odd = name if isinstance(name, int | float | None) else f"{type(name).__name__}, entry {number}"
            key = name if isinstance(name, str) else f"[{odd}]"
            path = f"{group}.{key}" if group else key
            if isinstance(value, Tensor):
                groups.setdefault(group, {})[key] = value
            elif isinstance(value, dict):
                waiting.append((path, level + 1, value))
                beside[path] = f"({_kind(value)})"
            else:
                beside[path] = shown(value) if isinstance(value, bool | int | float | str) else f"({_kind(value)})"
                if isinstance(name, str):
                    kept[key] = value
        if group in groups and _is_small([*kept.values()]):
            extras[group] = {key: value for key, value in kept.items() if _is_plain(value)}
    count = sum(map(len, groups.values()))
    if count > MOST_TENSORS:
        raise CheckpointError(f"{source}: holds {count} tensors; no checkpoint of a UNet has more than {MOST_TENSORS}")
    return Contents(
        source,
        groups={group: {key: tuple(value.shape) for key, value in found.items()} for group, found in groups.items()},
        fetch=lambda group, keys: _fetch({key: groups[group][key] for key in keys}, source),
        beside=beside,
        extras=extras,
        record=_record(state),
    )


def check_dense(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors whose numbers are not all in the file.

    Raises:
        unet_core.CheckpointError: there are some that are sparse, of a dtype that no checkpoint has, or larger than
            their memory.
    """
    unread = [
        f"{key} ({value.dtype}, {value.layout}, {value.device})"
        for key, value in tensors.items()
        if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in _DTYPES
    ]
    if unread:
        raise CheckpointError(f"{source}: these are no dense tensors of real numbers: {some(unread)}")
    spread = [
        key for key, value in tensors.items() if value.numel() * value.itemsize > value.untyped_storage().nbytes()
    ]
    if spread:
        raise CheckpointError(f"{source}: these tensors claim more numbers than the file holds: {some(spread)}")


def _fetch(tensors: Mapping[str, Tensor], source: str) -> dict[str, np.ndarray]:
    """The tensors' values; refuses all that do not have memory of their own."""
    check_dense(tensors, source)
    shared = [*(key for key, value in tensors.items() if _overlaps_itself(value)), *_overlapping(tensors)]
    if shared:
        raise CheckpointError(f"{source}: these tensors share memory, within or with one another: {some(shared)}")
    return {key: as_numpy(value) for key, value in tensors.items()}


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements may be one number in memory."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _overlapping(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that lie over another one in the same memory."""
    spans = []
    for key, value in tensors.items():
        reach = sum(stride * (size - 1) for stride, size in zip(value.stride(), value.shape, strict=True))
        if value.numel():
            spans.append((value.data_ptr(), value.data_ptr() + (reach + 1) * value.itemsize, key))
    spans.sort()
    return [f"{one[2]} and {other[2]}" for one, other in itertools.pairwise(spans) if other[0] < one[1]]


def _record(state: Any) -> str | None:
    """The record that `write` left in the state_dict's metadata."""
    metadata = getattr(state, "_metadata", None)
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


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a dict" if value else "an empty dict"
    return f"a {type(value).__name__}"
