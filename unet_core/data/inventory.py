"""What lies in a data folder, and what is wrong with it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unet_core.data.labels import values_of
from unet_core.data.pictures import SUFFIXES, read_mask, read_picture
from unet_core.errors import DataError, reason, shown


@dataclass(frozen=True)
class Files:
    """The files of a data folder by their names without suffix."""

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    skipped: tuple[str, ...]
    """What is no data: hidden files, other suffixes, folders."""
    problems: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Of the pairs, 2 before 10."""
        return sorted(self.images.keys() & self.masks.keys(), key=_natural)


@dataclass(frozen=True)
class PairState:
    """What decoding one pair showed."""

    problems: tuple[str, ...] = ()
    channels: int = 0
    """Of the picture's file."""
    size: tuple[int, int] = (0, 0)
    """Height and width, in pixels."""
    values: frozenset[int] = frozenset()
    """Of the mask."""


def listed(path: Path) -> Files:
    """The images and masks of a data folder; none of them is opened.

    Raises:
        DataError: there is no such folder, or it cannot be listed.
    """
    if not path.is_dir():
        raise DataError(f"{shown(path)}: no such folder; give one that holds images/ and masks/")
    missing = [f"{name}/" for name in ("images", "masks") if not (path / name).is_dir()]
    if missing:
        raise DataError(
            f"{shown(path)}: has no {' and no '.join(missing)}; pictures belong in images/, masks in masks/"
        )
    images, other, double = _by_stem(path / "images")
    masks, other_masks, double_masks = _by_stem(path / "masks")
    problems = [*double, *double_masks]
    problems += [f"{_short(images[name])} has no mask" for name in sorted(images.keys() - masks.keys(), key=_natural)]
    problems += [f"{_short(masks[name])} has no image" for name in sorted(masks.keys() - images.keys(), key=_natural)]
    if not images and not masks:
        problems = [f"holds no images: none of the files in images/ ends in {', '.join(SUFFIXES)}"]
    return Files(images, masks, (*other, *other_masks), tuple(problems))


def look_at(image: Path, mask: Path, channels: int | None) -> PairState:
    """Decode a pair and tell what it is.

    Args:
        channels: that the picture must be able to have.
    """
    problems, picture, labels = [], None, None
    try:
        picture = read_picture(image)
        have = picture.shape[2]
        if channels not in (None, have) and {channels, have} != {1, 3}:
            problems.append(f"{_short(image)} has {have} channels where {channels} are wanted")
    except DataError as error:
        problems.append(f"{_short(image)}: {str(error).removeprefix(f'{shown(image)}: ')}")
    try:
        labels = read_mask(mask)
    except DataError as error:
        problems.append(f"{_short(mask)}: {str(error).removeprefix(f'{shown(mask)}: ')}")
    if picture is None or labels is None:
        return PairState(tuple(problems))
    size, other = picture.shape[:2], labels.shape
    if size != other:
        problems.append(f"{_short(image)} is {size[0]}x{size[1]}, but {_short(mask)} is {other[0]}x{other[1]}")
    return PairState(tuple(problems), picture.shape[2], (size[0], size[1]), values_of(labels))


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[str], list[str]]:
    """The files by name without suffix, what is skipped, and the problems of two files of one name."""
    files: dict[str, Path] = {}
    skipped, problems = [], []
    try:
        entries = sorted(os.listdir(folder), key=_natural)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be listed: {reason(error)}") from error
    for name in entries:
        path = folder / name
        if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            skipped.append(_short(path))
        elif path.stem in files:
            problems.append(f"{_short(files[path.stem])} and {_short(path)} have one name")
        else:
            files[path.stem] = path
    return files, skipped, problems


def _short(path: Path) -> str:
    """The path within the data folder."""
    return f"{path.parent.name}/{path.name}"


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name
