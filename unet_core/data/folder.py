"""A folder of pictures and their masks, all checked before a training starts."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unet_core.data.inventory import MOST_CLASSES, Files, PairState, listed, look_at, value_problem, values_of
from unet_core.data.pictures import Pair, read_mask, read_picture
from unet_core.errors import DataError, shown, some
from unet_core.files import sha256_of
from unet_core.progress import Progress, silent

_NONE = 255
"""The class of a value that is none."""


@dataclass(frozen=True)
class Folder:
    """The pairs of a data folder: their files, which are read anew each time, and what was found in them."""

    path: Path
    names: tuple[str, ...]
    """The files' names without suffix, 2 before 10."""
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    channels: int
    """Of every picture that `pair` returns: 1 for grey, 3 for RGB, or those of a TIFF."""
    values: tuple[int, ...]
    """What stands for each class in the masks, ascending."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each picture, in pixels."""
    skipped: tuple[str, ...]
    """What else lies among the images and masks: hidden files, other suffixes, folders."""

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> Pair:
        """A picture and its labels, read from their files.

        Raises:
            DataError: a file has changed since the folder was opened.
        """
        image = read_picture(self.images[index], self.channels)
        mask = read_mask(self.masks[index])
        if image.shape[:2] != self.sizes[index] or mask.shape != self.sizes[index]:
            raise DataError(f"{shown(self.images[index])}: it or its mask has another size than before; start anew")
        table = np.full(65536, _NONE, np.uint8)
        table[list(self.values)] = np.arange(len(self.values))
        labels = table[mask]
        if (labels == _NONE).any():
            strange = sorted(values_of(mask) - set(self.values))
            raise DataError(f"{shown(self.masks[index])}: holds {some(strange)}, which is no class here")
        return Pair(image, labels)

    def digest(self) -> str:
        """A sha256 of all names and files."""
        whole = hashlib.sha256()
        files = [*self.images, *self.masks]
        with ThreadPoolExecutor() as pool:
            for file, found in zip(files, pool.map(sha256_of, files), strict=True):
                whole.update(f"{file.parent.name}/{file.name} {found}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    def subset(self, indices: Sequence[int]) -> "Folder":
        """The pairs at these indices, in this order, with the channels and values of the whole."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            images=tuple(self.images[i] for i in indices),
            masks=tuple(self.masks[i] for i in indices),
            sizes=tuple(self.sizes[i] for i in indices),
        )


def open_folder(
    path: str | Path,
    *,
    channels: int | None = None,
    values: tuple[int, ...] | None = None,
    progress: Progress = silent,
) -> Folder:
    """The pairs `path`/images/NAME and `path`/masks/NAME, once every file of them has been decoded.

    Args:
        channels: of every picture; 1 makes grey of RGB, 3 repeats grey; None: 1 if all are grey, 3 if any is RGB.
        values: what stands for each class in the masks, ascending; None: the values that are found.
        progress: is told how many pairs are checked.

    Raises:
        DataError: all that is wrong with the folder, in one line.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    path = Path(path)
    if values is not None and not _ascending(values):
        raise DataError(f"values {values}: must be up to {MOST_CLASSES} numbers from 0 to 65535, ascending")
    files = listed(path)
    found = _looked_at(files, channels, progress)
    problems = [*files.problems, *(problem for finding in found.values() for problem in finding.problems)]
    if not problems:  # of half the files these would tell too much or too little
        problems = [*_channel_problems(found, channels), *_value_problems(files, found, values)]
    if problems:
        total = f"{len(problems)} problems: " if len(problems) > 1 else ""
        raise DataError(f"{shown(path)}: {total}{some(problems)}")
    held = values or tuple(sorted(frozenset().union(*(finding.values for finding in found.values()))))
    return Folder(
        path=path,
        names=tuple(found),
        images=tuple(files.images[name] for name in found),
        masks=tuple(files.masks[name] for name in found),
        channels=channels or max(finding.channels for finding in found.values()),
        values=held,
        sizes=tuple(finding.size for finding in found.values()),
        skipped=files.skipped,
    )


def _ascending(values: tuple[int, ...]) -> bool:
    return (
        0 < len(values) <= MOST_CLASSES
        and list(values) == sorted(set(values))
        and values[0] >= 0
        and values[-1] <= 65535
    )


def _looked_at(files: Files, channels: int | None, progress: Progress) -> dict[str, PairState]:
    """What each pair shows, several decoded at a time."""
    names, found = files.names, {}
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        looks = [pool.submit(look_at, files.images[name], files.masks[name], channels) for name in names]
        for name, look in zip(names, looks, strict=True):
            found[name] = look.result()
            progress(f"{len(found)} of {len(names)} pairs checked", len(found) / len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _channel_problems(found: dict[str, PairState], channels: int | None) -> list[str]:
    one_of = {finding.channels: name for name, finding in found.items()}
    if channels is not None or len(one_of) == 1 or set(one_of) == {1, 3}:
        return []
    counts = ", ".join(f"{name} has {count}" for count, name in sorted(one_of.items()))
    return [f"the pictures have different numbers of channels: {counts}; save all in one way"]


def _value_problems(files: Files, found: dict[str, PairState], values: tuple[int, ...] | None) -> list[str]:
    held = {f"masks/{files.masks[name].name}": finding.values for name, finding in found.items()}
    if values is None:
        problem = value_problem(held)
        return [problem] if problem else []
    wanted = "/".join(map(str, values))
    strange = {name: sorted(one - set(values)) for name, one in held.items()}
    return [
        f"{name} holds {some(odd, most=4)} where masks of {wanted} are wanted" for name, odd in strange.items() if odd
    ]
