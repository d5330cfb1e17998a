"""Weights in several files with an index, as Hugging Face writes them: `model.safetensors.index.json` and the like."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints import safetensors_file, torch_file
from unet_core.checkpoints.checkpoint import LONGEST_RECORD, RECORD_KEY, Checkpoint, exported, seal
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.foreign.lazily import inside
from unet_core.codec import parsed
from unet_core.errors import CheckpointError, first_line, shown, some
from unet_core.hub.store import WEIGHTS

INDEX = ".index.json"

USUAL_SIZE = 5_000_000_000
"""Bytes in a file."""

_LARGEST_INDEX = 2 * LONGEST_RECORD
_MOST_FILES = 1000


def contents(path: Path) -> Contents:
    """What the files hold together.

    Args:
        path: the index, or the folder with it; or one whose only file of weights is `model.safetensors`.

    Raises:
        CheckpointError: the index is none, a file is missing or damaged, or they do not hold what it says.
    """
    if path.is_dir() and not is_folder(path):
        return safetensors_file.contents(path / WEIGHTS)
    index = index_of(path) if path.is_dir() else path
    places, record = _places(index)
    parts: dict[str, Contents] = {}
    for name in dict.fromkeys(places.values()):
        file = inside(index.parent, name, index)
        read = safetensors_file.contents if file.suffix == ".safetensors" else torch_file.contents
        parts[name] = read(file)
    shapes: dict[str, tuple[int, ...]] = {}
    for key, name in places.items():
        group = parts[name].groups.get("", {})
        if key not in group:
            raise CheckpointError(f"{index}: says that {shown(key)} is in {shown(name)}, which does not have it")
        shapes[key] = group[key]
    extra = [key for part in parts.values() for key in part.groups.get("", {}) if key not in places]
    if extra:
        raise CheckpointError(f"{index}: does not tell of these tensors, which its files have: {some(extra)}")

    def fetch(_: str, keys: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, part in parts.items():
            found |= part.fetch("", [key for key in keys if places[key] == name])
        return {key: found[key] for key in keys}

    inert = {name for part in parts.values() for name in part.inert}
    ordered = all(part.ordered for part in parts.values())
    return Contents(str(path), {"": shapes}, fetch, record=record, inert=tuple(sorted(inert)), ordered=ordered)


def write(path: Path, checkpoint: Checkpoint, *, dialect: str = OWN.name, size: int = USUAL_SIZE) -> None:
    """Write a new folder of .safetensors files and their index, which has the record.

    Args:
        path: the folder.
        checkpoint: what.
        dialect: whose names the tensors get.
        size: the most bytes of tensors in a file; a larger tensor has one for itself.

    Raises:
        CheckpointError: the dialect cannot hold this network, or it cannot be written.
    """
    tensors, _ = exported(checkpoint, dialect)
    parts: list[dict[str, np.ndarray]] = [{}]
    for name, value in tensors.items():
        if parts[-1] and sum(one.nbytes for one in parts[-1].values()) + value.nbytes > size:
            parts.append({})
        parts[-1][name] = value
    path.mkdir()
    places: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        safetensors_file.write_tensors(path / file, part, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    metadata = {"total_size": sum(value.nbytes for value in tensors.values()), RECORD_KEY: seal(checkpoint, dialect)}
    index = {"metadata": metadata, "weight_map": places}
    (path / f"model.safetensors{INDEX}").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def whole_of(path: Path) -> Path:
    """The folder that an index is of; any other path as it is.

    Raises:
        CheckpointError: the folder has another index as well, by which it would be read.
    """
    if not path.name.endswith(INDEX) or not path.is_file():
        return path
    if index_of(path.parent) != path:
        raise CheckpointError(
            f"{path}: has another index beside it; put the files of one of them into a folder of its own"
        )
    return path.parent


def is_folder(path: Path) -> bool:
    """Whether a folder holds a checkpoint in several files."""
    return any(path.glob(f"*{INDEX}"))


def index_of(folder: Path) -> Path:
    """The index in a folder; of .safetensors files, where it has another one, too.

    Raises:
        CheckpointError: it has several.
    """
    found = sorted(folder.glob(f"*{INDEX}"))
    found = [one for one in found if one.name.endswith(f".safetensors{INDEX}")] or found
    if len(found) != 1:
        raise CheckpointError(f"{folder}: has several indexes; name one of them: {some(map(str, found))}")
    return found[0]


def _places(index: Path) -> tuple[dict[str, str], str | None]:
    """The file of every tensor, and the record that `write` left."""
    if index.stat().st_size > _LARGEST_INDEX:
        raise CheckpointError(f"{index}: is larger than any index ({_LARGEST_INDEX} bytes)")
    try:
        found = parsed(index.read_text(encoding="utf-8"))
        places, metadata = found["weight_map"], found.get("metadata")
        sound = isinstance(places, dict) and places and all(isinstance(name, str) for name in places.values())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{index}: is no index of a checkpoint in several files: {first_line(error)}") from error
    if not sound or len(set(places.values())) > _MOST_FILES:
        raise CheckpointError(f"{index}: is no index of a checkpoint in several files: its weight_map is none")
    record = metadata.get(RECORD_KEY) if isinstance(metadata, dict) else None
    return dict(places), record if isinstance(record, str) else None
