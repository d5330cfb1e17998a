"""Folders of `torch.distributed.checkpoint`, as FSDP and others write them, put together without a process group."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from, inside
from unet_core.checkpoints.pickled.files import held
from unet_core.checkpoints.pickled.parts import Part
from unet_core.checkpoints.pickled.standins import Inert
from unet_core.checkpoints.pickled.tensors import DTYPES, StoredTensor, sizes
from unet_core.errors import CheckpointError, first_line, shown

METADATA = ".metadata"

_Places = dict[tuple[str, tuple[int, ...] | None], Inert]


def is_folder(path: Path) -> bool:
    """Whether a folder is one of torch.distributed.checkpoint."""
    return (path / METADATA).is_file()


def contents(path: Path) -> Contents:
    """What a folder holds: every tensor whole, of however many processes it is.

    Raises:
        CheckpointError: it is none, is damaged, or does not hold every part of a tensor.
    """
    found = held(path / METADATA)
    try:
        described, places, names = _metadata(found.value)
        groups: dict[str, dict[str, Lazy]] = {}
        beside: dict[str, str] = {}
        for name, entry in described.items():
            *where, key = names.get(name, (name,))
            group = ".".join(map(str, where))
            if entry.kind == "TensorStorageMetadata":
                groups.setdefault(group, {})[str(key)] = _tensor(path, name, entry.attributes, places)
            else:
                beside[".".join((*map(str, where), str(key)))] = "(an object, which is not read)"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path / METADATA}: not as torch.distributed.checkpoint writes it: {first_line(error)}"
        ) from error
    return contents_from(path, groups, beside=beside)


def _metadata(value: Any) -> tuple[dict[str, Inert], _Places, dict[str, tuple[Any, ...]]]:
    """What every name is, in which file each of its parts lies, and the keys that a name was made of."""
    if not isinstance(value, Inert) or value.name != "torch.distributed.checkpoint.metadata.Metadata":
        raise ValueError(f"it is no Metadata, but {shown(value)}")
    parts = value.attributes
    places: _Places = {}
    for index, info in parts["storage_data"].items():
        at = index.attributes
        offset = at.get("offset")
        places[at["fqn"], None if offset is None else sizes(offset, "an offset")] = info
    names = parts.get("planner_data")
    names = names if isinstance(names, dict) else {}
    return parts["state_dict_metadata"], places, {name: keys for name, keys in names.items() if isinstance(keys, tuple)}


def _tensor(folder: Path, name: str, about: dict[str, Any], places: _Places) -> Lazy:
    state = about["properties"].state
    kind = (state[0] if isinstance(state, tuple) else about["properties"].attributes["dtype"]).name
    dtype, shape = DTYPES.get(kind.removeprefix("torch.")), sizes(about["size"], "a shape")
    chunks = []
    for chunk in about["chunks"]:
        offset, extent = (sizes(chunk.attributes[part], part) for part in ("offsets", "sizes"))
        if len(offset) != len(shape) or len(extent) != len(shape):
            raise ValueError(f"a part of {shown(name)} has other axes")
        if any(begin + size > whole for begin, size, whole in zip(offset, extent, shape, strict=True)):
            raise ValueError(f"a part of {shown(name)} lies outside it")
        info = places.get((name, offset)) or places.get((name, None))
        if info is None:
            raise ValueError(f"a part of {shown(name)} is nowhere")
        chunks.append((offset, extent, _place(folder, info.attributes)))
    if sum(math.prod(extent) for _, extent, _ in chunks) != math.prod(shape):
        raise ValueError(f"{shown(name)} is not there whole")

    def load() -> np.ndarray:
        whole, filled = np.empty(shape, dtype), np.zeros(shape, bool)
        for offset, extent, part in chunks:
            value = held(part).value
            if not isinstance(value, StoredTensor) or value.odd or (value.shape, value.dtype) != (extent, dtype):
                raise ValueError(f"{part} has something else in its place")
            place = tuple(slice(begin, begin + size) for begin, size in zip(offset, extent, strict=True))
            whole[place], filled[place] = value.read(), True
        if not filled.all():
            raise ValueError("two of its parts lie over each other")
        return whole

    return Lazy(shape, dtype, load)


def _place(folder: Path, info: dict[str, Any]) -> Part:
    file = inside(folder, info["relative_path"])
    begin, length = sizes((info["offset"], info["length"]), "a place")
    if begin + length > file.stat().st_size:
        raise CheckpointError(f"{file}: was cut short; get the whole folder")
    if info.get("transform_descriptors"):
        raise CheckpointError(f"{file}: was compressed or changed when it was written; write it without extensions")
    return Part(file, begin, length)
