"""Volumes read whole, with the numbers that their slices have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped

from unet_core.data.formats.files import Extent, extent
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.formats.stack import Grid, Spacing
from unet_core.data.pictures import read_mask, read_picture
from unet_core.errors import counted


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
    voxels = read_picture(path, channels, how)
    return Volume(voxels if how.whole else voxels[None], found.grid)


def read_volume_mask(path: str | Path, how: Pictures = AS_STORED) -> Integer[np.ndarray, "d h w"]:
    """The numbers of all slices of a mask, as `unet_core.data.pictures.read_mask` reads one.

    Raises:
        DataError, MissingFrameworkError: as `read_volume`.
    """
    how, _ = _upright(path, how)
    numbers = read_mask(path, how)
    return numbers if how.whole else numbers[None]


def said_of_spacings(spacings: Sequence[Spacing | None]) -> str:
    """What a person who trains on volumes is to know of their voxels."""
    known = np.array([spacing for spacing in spacings if spacing is not None])
    count = counted(len(spacings), "volume")
    if not len(known):
        return f"{count}, and no file says how far apart voxels are"
    least, most = ("x".join(f"{length:.3g}" for length in ends) for ends in (known.min(0), known.max(0)))
    if (known.max(0) > 1.1 * known.min(0)).any():
        return f"{count}, whose voxels are from {least} to {most} mm: resample them to one spacing beforehand"
    return f"{count} of voxels of {least} mm" + f", of {len(known)} of them" * (len(known) < len(spacings))


def _upright(path: str | Path, how: Pictures) -> tuple[Pictures, Extent]:
    """How all slices are read, z by z, or the only one."""
    across = Pictures(how.window, None, how.pages)
    found = extent(path, across.of(3))
    return across.of(len(found.size)), found
