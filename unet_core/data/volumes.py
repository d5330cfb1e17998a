"""Volumes read whole, with the numbers that their slices have."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped

from unet_core.data.formats.files import Extent, extent
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.formats.stack import MOST_BYTES, Grid
from unet_core.data.pictures import read_mask, read_picture
from unet_core.errors import DataError, shown


@dataclass(frozen=True)
class Volume:
    """A volume's voxels, and where they lie."""

    voxels: Shaped[np.ndarray, "d h w c"]
    """uint8, uint16, or float32 from 0 to 1, as those of a picture."""
    grid: Grid


def read_volume(path: str | Path, channels: int | None = None, how: Pictures = AS_STORED) -> Volume:
    """All slices of a file, z by z, whatever axis `how` names; a picture is one slice.

    Args:
        path: the file.
        channels: as in `unet_core.data.pictures.read_picture`.
        how: which values are black and white.

    Raises:
        DataError: the file is missing, damaged or too large, or its values or channels are not such.
        MissingFrameworkError: what reads it is not installed.
    """
    how, found = _upright(path, how)
    slices = [read_picture(path, channels, how, at) for at in _numbers(path, found)]
    if len({one.dtype for one in slices}) > 1:  # a slice of 32 bits that would fit 16
        raise DataError(f"{shown(path)}: its slices are of several kinds; save it anew as one array")
    return Volume(np.stack(slices), found.grid)


def read_volume_mask(path: str | Path, how: Pictures = AS_STORED) -> Integer[np.ndarray, "d h w"]:
    """The numbers of all slices of a mask, as `unet_core.data.pictures.read_mask` reads one.

    Raises:
        DataError, MissingFrameworkError: as `read_volume`.
    """
    how, found = _upright(path, how)
    return np.stack([read_mask(path, how, at) for at in _numbers(path, found)])


def _upright(path: str | Path, how: Pictures) -> tuple[Pictures, Extent]:
    across = Pictures(how.window, "z", how.pages)
    return across, extent(path, across)


def _numbers(path: str | Path, found: Extent) -> list[int | None]:
    """Of the slices; that of a picture is None."""
    if found.pages == 1 or found.are == "channels":
        return [None]
    height, width = found.size
    if found.pages * height * width > MOST_BYTES:
        raise DataError(f"{shown(path)}: {found.pages}x{height}x{width} voxels are too many to be read at once")
    return list(range(found.pages))
