"""Folders of DeepSpeed, ZeRO stages 1 and 2: the weights in full precision from the parts of the processes.

After `zero_to_fp32.py`, which DeepSpeed puts into every such folder.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints import torch_file
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from, inside
from unet_core.checkpoints.pickled.files import held
from unet_core.checkpoints.pickled.modules import tensor_of
from unet_core.checkpoints.pickled.tensors import StoredTensor, sizes
from unet_core.errors import CheckpointError, first_line, some

MODEL = "mp_rank_00_model_states.pt"
LATEST = "latest"

_PART = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")


def folder_of(path: Path) -> Path | None:
    """The folder of a step: this one, or the latest in it; None where it is none of DeepSpeed's."""
    if (path / MODEL).is_file():
        return path
    latest = path / LATEST
    if latest.is_file() and latest.stat().st_size < 1000:
        name = latest.read_text(encoding="utf-8", errors="replace").strip()
        if re.fullmatch(r"[\w.-]+", name) and name not in (".", "..") and (path / name / MODEL).is_file():
            return path / name
    return None


def contents(path: Path) -> Contents:
    """What a folder holds.

    Raises:
        CheckpointError: it is damaged, of ZeRO stage 3, or a part is missing.
    """
    folder = folder_of(path)
    if folder is None:
        raise CheckpointError(f"{path}: its file latest names no folder of DeepSpeed's; name the folder of a step")
    model = held(inside(folder, MODEL)).value
    try:
        found = dict(_whole(folder, model))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{folder}: not as DeepSpeed writes it: {first_line(error)}") from error
    beside = {name: f"(in {MODEL})" for name in model if name not in ("module", "param_shapes", "buffer_names")}
    return contents_from(path, {"": found}, beside=beside, ordered=True)


def _whole(folder: Path, model: Mapping[str, Any]) -> Iterator[tuple[str, Lazy]]:
    """Every tensor, in the order of the module's own: parameters from their parts, the others as they are."""
    module = {name: tensor_of(value) for name, value in model["module"].items()}
    tensors = {name: value for name, value in module.items() if value is not None}
    shapes = model.get("param_shapes")
    files = {int(match[1]): file for file in sorted(folder.iterdir()) if (match := _PART.fullmatch(file.name))}
    if shapes is None or not files:  # no ZeRO: the module is whole
        yield from ((name, _alone(value, folder)) for name, value in tensors.items())
        return
    groups = shapes if isinstance(shapes, list) else [shapes]
    parts = [_Flat(folder, files, number, _size(group)) for number, group in enumerate(groups)]
    masters: dict[str, Lazy] = {}
    for flat, group in zip(parts, groups, strict=True):
        place = 0
        for name, shape in group.items():
            extent = sizes(shape, "a shape")
            masters[name] = Lazy(extent, flat.dtype, functools.partial(flat.read, place, extent))
            place += math.prod(extent)
    masters |= {name: masters[one] for name, one in (model.get("shared_params") or {}).items() if one in masters}
    yield from ((name, masters.get(name) or _alone(value, folder)) for name, value in tensors.items())
    yield from ((name, value) for name, value in masters.items() if name not in tensors)


def _size(group: Mapping[str, Any]) -> int:
    return sum(math.prod(sizes(shape, "a shape")) for shape in group.values())


def _alone(tensor: StoredTensor, folder: Path) -> Lazy:
    torch_file.check_dense([("a tensor", tensor)], str(folder / MODEL))
    return Lazy(tensor.shape, tensor.dtype, tensor.read)


class _Flat:
    """The parameters of one group, one after the other, in as many parts as there were processes."""

    def __init__(self, folder: Path, files: Mapping[int, Path], number: int, size: int) -> None:
        self.parts: list[StoredTensor] = []
        for rank in range(len(files)):
            if rank not in files:
                raise CheckpointError(f"{folder}: the part of process {rank} is missing; get the whole folder")
            states = held(inside(folder, files[rank].name)).value["optimizer_state_dict"]
            count, stage = states["partition_count"], states["zero_stage"]
            count = max(count) if isinstance(count, list) else count
            if stage > 2:
                raise CheckpointError(
                    f"{folder}: is of ZeRO stage 3, whose parts only DeepSpeed can put together: run the "
                    "zero_to_fp32.py that lies beside it, and convert what that writes"
                )
            if count != len(files):
                raise CheckpointError(
                    f"{folder}: has {len(files)} parts of {count}: {some(sorted(files))}; get them all"
                )
            part = tensor_of(states["single_partition_of_fp32_groups"][number])
            if part is None or part.odd or len(part.shape) != 1:
                raise ValueError(f"group {number} of process {rank} is no flat tensor")
            self.parts.append(part)
        self.dtype = self.parts[0].dtype
        if sum(part.size for part in self.parts) < size:
            raise ValueError(f"group {number} has fewer numbers than its parameters")

    def read(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        """A parameter, of which parts may lie with several processes."""
        wanted, pieces, begin = math.prod(shape), [], 0
        for part in self.parts:
            low, high = max(place, begin), min(place + wanted, begin + part.size)
            if low < high:
                pieces.append(part.read()[low - begin : high - begin])
            begin += part.size
        return np.concatenate(pieces).reshape(shape) if pieces else np.empty(shape, self.dtype)
