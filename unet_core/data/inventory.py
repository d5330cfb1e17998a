"""What lies in a data folder, and what is wrong with it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet_core.data.labels import values_of
from unet_core.data.listing import lister
from unet_core.data.masks import AS_FOUND, MOST_CLASSES, Masks
from unet_core.data.names import masks_by_image
from unet_core.data.pictures import SUFFIXES, read_colours, read_either, read_picture
from unet_core.data.states import PairState
from unet_core.errors import DataError, reason, shown


@dataclass(frozen=True)
class Files:
    """The files of a data folder by the pictures' names below images/, without suffix."""

    path: Path
    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    skipped: tuple[str, ...]
    """What is no data: hidden files, other suffixes, folders that only images/ or only masks/ has."""
    problems: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()
    """Images without a mask."""
    matched: str | None = None
    """How the names of pictures and masks differ, by an example."""
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Of the files by their paths within the data folder (`listing.Item`)."""

    @property
    def names(self) -> list[str]:
        """Of the pairs, 2 before 10."""
        return sorted(self.images.keys() & self.masks.keys(), key=_natural)

    def short(self, path: Path) -> str:
        """The path within the data folder."""
        return within(self.path, path)


def listed(path: Path, how: Masks = AS_FOUND) -> Files:
    """The images and masks of a data folder and of the folders in it; none of them is opened.

    Args:
        path: the folder.
        how: which mask is a picture's, and what becomes of a picture without one.

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
    stamps: dict[str, str] = {}
    (images, *others), (masks, *other_masks) = (_by_name(path, kind, stamps) for kind in ("images", "masks"))
    skipped, problems = (found + more for found, more in zip(others, other_masks, strict=True))
    skipped += _one_sided(images, masks)
    try:
        mask_of = masks_by_image(images, masks, how.mask_suffix)
    except DataError as error:
        raise DataError(f"{shown(path)}: {error}") from error
    lone = sorted(images.keys() - mask_of.keys(), key=_natural)
    spare = sorted(masks.keys() - set(mask_of.values()), key=_natural)
    pairs = {image: masks[mask] for image, mask in mask_of.items()}
    other = next((name for name in mask_of if mask_of[name] != name), None)
    files = Files(path, images, pairs, tuple(skipped), (), stamps=stamps)
    unlabelled = tuple(files.short(images[name]) for name in lone)
    if not how.skip_unlabelled or not pairs:
        problems += [f"{image} has no mask" for image in unlabelled]
    problems += [f"{files.short(masks[name])} has no image" for name in spare]
    if not images and not masks:
        problems = [f"holds no images: none of the files in images/ ends in {', '.join(SUFFIXES)}"]
    matched = None if other is None else f"{files.short(images[other])} with {files.short(pairs[other])}"
    return replace(files, problems=tuple(problems), matched=matched, unlabelled=unlabelled)


def look_at(files: Files, name: str, colours: Sequence[int] | None = None) -> PairState:
    """Decode a pair and tell what it is.

    Args:
        files: of the data folder.
        name: of the pair.
        colours: those by which the mask is read; None: by numbers, if it has such.
    """
    problems, picture, labels, have = [], None, None, 0
    image, mask = files.images[name], files.masks[name]
    try:
        picture = read_picture(image)
        have = picture.shape[2]
    except DataError as error:
        problems.append(f"{files.short(image)}: {str(error).removeprefix(f'{shown(image)}: ')}")
    try:
        numbers, seen = read_either(mask) if colours is None else (read_colours(mask, colours), None)
        labels = seen if numbers is None else numbers
    except DataError as error:
        problems.append(f"{files.short(mask)}: {str(error).removeprefix(f'{shown(mask)}: ')}")
    if picture is None or labels is None:
        return PairState(tuple(problems), have)
    size, other = picture.shape[:2], labels.shape
    if size != other:
        problems.append(
            f"{files.short(image)} is {size[0]}x{size[1]}, but {files.short(mask)} is {other[0]}x{other[1]}"
        )
    values = None if numbers is None else values_of(numbers)
    held = None if seen is None else frozenset(sorted(values_of(seen))[: MOST_CLASSES + 1])  # of a photograph enough
    return PairState(tuple(problems), have, (size[0], size[1]), values, held)


def within(folder: Path, path: Path) -> str:
    """The path of a file within a folder that it is below, by the names alone."""
    return str(path).removeprefix(f"{str(folder).rstrip('/')}/")


def _by_name(path: Path, kind: str, stamps: dict[str, str]) -> tuple[dict[str, Path], list[str], list[str]]:
    """The files of a kind by name, what is skipped of it, and problems; `stamps` learns the files' stamps."""
    files: dict[str, Path] = {}
    skipped, problems, waiting = [], [], [""]
    items_in = lister(path / kind)
    while waiting:
        folder = waiting.pop()
        try:
            items = sorted(items_in(folder), key=lambda item: _natural(item.name))
        except OSError as error:
            raise DataError(f"{shown(path / kind / folder)}: cannot be listed: {reason(error)}") from error
        for item in items:
            stem, suffix = os.path.splitext(item.name)
            short, name = f"{kind}/{folder}{item.name}", f"{folder}{stem}"
            hidden, data = item.name.startswith("."), suffix.lower() in SUFFIXES
            if not hidden and not data and item.is_folder():
                waiting.append(f"{folder}{item.name}/")
            elif hidden or not data:
                skipped.append(short)
            elif name in files:
                problems.append(f"{within(path, files[name])} and {short} have one name")
            else:
                files[name] = path / short
                stamps[short] = item.stamp()
    return files, skipped, problems


def _one_sided(images: dict[str, Path], masks: dict[str, Path]) -> list[str]:
    """Take the folders out that one of the two alone has, unless nothing would be left; returns which."""
    taken = []
    both = {_folder(name) for name in images} & {_folder(name) for name in masks}
    for kind, files in (("images", images), ("masks", masks)) if both else ():
        lone = {folder for name in files if (folder := _folder(name)) and folder not in both}
        for name in [name for name in files if _folder(name) in lone]:
            del files[name]
        taken += [f"{kind}/{folder}" for folder in sorted(lone, key=_natural)]
    return taken


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name
