"""What a `.pt` file holds as torch's own objects, for those who need more of it than its tensors by name."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from unet_core.checkpoints.pickled.files import held
from unet_core.checkpoints.pickled.modules import tensor_of
from unet_core.checkpoints.pickled.standins import Dict
from unet_core.checkpoints.pickled.tensors import StoredTensor
from unet_core.checkpoints.torch_file import check_dense, described, values_of
from unet_core.errors import CheckpointError, first_line
from unet_torch.canonical import as_torch


def opened(path: Path) -> dict[Any, Any]:
    """What a `.pt` or `.pth` file holds; never runs code from it, and leaves stand-ins where it has objects.

    Raises:
        unet_core.CheckpointError: not such a file, damaged, or no dict.
    """
    found = held(path).value
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path}: holds {described(found)}, not a state_dict")
    tensors: dict[int, tuple[str, StoredTensor]] = {}
    waiting: list[Any] = [found]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        for name, part in item.items() if isinstance(item, dict) else enumerate(item):
            tensor = tensor_of(part)
            if tensor is not None:
                tensors[id(part)] = str(name), tensor
            elif isinstance(part, dict | list | tuple):
                waiting.append(part)
    check_dense(tensors.values(), str(path))
    stored = {str(place): tensor for place, (_, tensor) in tensors.items()}
    made: dict[int, Any] = {int(place): as_torch(value, copy=False) for place, value in values_of(stored, str(path))}
    return _with(made, found)


def _with(made: dict[int, Any], value: Any) -> Any:
    """The same plain value, tensors in it; what is one object in the file is one here."""
    if id(value) not in made and isinstance(value, dict | list | tuple):
        if isinstance(value, dict):
            kind = OrderedDict if isinstance(value, Dict) and value.kind == "OrderedDict" else dict
            made[id(value)] = kind((key, _with(made, part)) for key, part in value.items())
        else:
            made[id(value)] = (list if isinstance(value, list) else tuple)(_with(made, part) for part in value)
    return made.get(id(value), value)


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
