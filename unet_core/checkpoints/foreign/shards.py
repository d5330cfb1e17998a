"""Weights in several files with an index, as Hugging Face writes them: `model.safetensors.index.json` and the like."""

from pathlib import Path
from typing import Any

from unet_core.checkpoints import safetensors_file, torch_file
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import inside
from unet_core.codec import parsed
from unet_core.errors import CheckpointError, first_line, shown, some

INDEX = ".index.json"

_LARGEST_INDEX = 20_000_000
_MOST_FILES = 1000


def contents(path: Path) -> Contents:
    """What the files hold together.

    Args:
        path: the index, or the folder with it.

    Raises:
        CheckpointError: the index is none, a file is missing or damaged, or they do not hold what it says.
    """
    index = index_of(path) if path.is_dir() else path
    places = _places(index)
    parts: dict[str, Contents] = {}
    for name in dict.fromkeys(places.values()):
        file = inside(index.parent, name)
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
    return Contents(str(path), {"": shapes}, fetch, inert=tuple(sorted(inert)), ordered=ordered)


def index_of(folder: Path) -> Path:
    """The one index in a folder.

    Raises:
        CheckpointError: it has several.
    """
    found = sorted(folder.glob(f"*{INDEX}"))
    if len(found) != 1:
        raise CheckpointError(f"{folder}: has several indexes; name one of them: {some(map(str, found))}")
    return found[0]


def _places(index: Path) -> dict[str, str]:
    """The file of every tensor."""
    if index.stat().st_size > _LARGEST_INDEX:
        raise CheckpointError(f"{index}: is larger than any index ({_LARGEST_INDEX} bytes)")
    try:
        places = parsed(index.read_text(encoding="utf-8"))["weight_map"]
        sound = isinstance(places, dict) and places and all(isinstance(name, str) for name in places.values())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{index}: is no index of a checkpoint in several files: {first_line(error)}") from error
    if not sound or len(set(places.values())) > _MOST_FILES:
        raise CheckpointError(f"{index}: is no index of a checkpoint in several files: its weight_map is none")
    return dict(places)
