"""A mask for each class of each picture: masks/7/cell.png, masks/7/nucleus.png."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from unet_core.data.annotations import BACKGROUND
from unet_core.data.formats.files import Extent, extent
from unet_core.data.formats.reading import Pictures
from unet_core.data.labels import values_of
from unet_core.data.pictures import read_mask
from unet_core.errors import DataError, counted, sized


@dataclass(frozen=True)
class ClassMasks:
    """Where the masks are, by picture and class."""

    files: Mapping[str, Mapping[str, Path]]
    classes: tuple[str, ...]

    def extent(self, name: str, how: Pictures) -> Extent:
        """Of all masks of a picture, which have one."""
        found = {file: extent(file, how) for file in self.files[name].values()}
        first = next(iter(found))
        for file, one in found.items():
            if (one.size, one.pages) != (found[first].size, found[first].pages):
                raise DataError(f"{file.name} has another size than {first.name}")
            if one.grid.departs(found[first].grid):
                raise DataError(f"{file.name} lies elsewhere in space than {first.name}")
        return found[first]

    def numbers(self, name: str, size: tuple[int, ...], how: Pictures, at: int | None) -> UInt8[np.ndarray, "*s"]:
        """The class of each pixel; where no mask has one, the background."""
        labels = np.zeros(size, np.uint8)
        above: dict[int, str] = {}
        for kind, file in self.files[name].items():
            if kind == BACKGROUND:
                continue
            mask = read_mask(file, how, at)
            if mask.shape != size:
                raise DataError(f"{file.name} is {sized(mask.shape)}, its picture {sized(size)}")
            if len(values_of(mask) - {0}) > 1:
                raise DataError(f"{file.name} holds several values; the mask of one class holds 0 and another one")
            marked, number = mask > 0, self.classes.index(kind)
            common = labels[marked]
            if common.any():
                other = above[int(common[common > 0][0])]
                count = counted(int((common > 0).sum()), "pixel")
                raise DataError(f"{file.name} and {other} have {count} in common; a pixel is of one class")
            labels[marked], above[number] = number, file.name
        return labels


def class_masks(images: Mapping[str, Path], masks: Mapping[str, Path]) -> ClassMasks | None:
    """The masks of classes, where each file lies in a folder that bears the name of a picture; else None."""
    files: dict[str, dict[str, Path]] = {}
    for name, file in masks.items():
        folder, _, kind = name.rpartition("/")
        if folder not in images:
            return None
        files.setdefault(folder, {})[kind] = file
    if not files or masks.keys() & images.keys():
        return None
    kinds = {kind for of_picture in files.values() for kind in of_picture} - {BACKGROUND}
    return ClassMasks(files, (BACKGROUND, *sorted(kinds)))
