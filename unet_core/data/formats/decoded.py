"""What a picture's file holds, before it is made a picture or a mask."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped, UInt8

from unet_core.errors import DataError, counted

MOST_PIXELS = 178_956_970
"""Above this Pillow too takes a picture for a decompression bomb."""


@dataclass(frozen=True)
class Stored:
    """A picture's file that lies in another file."""

    place: str
    """Where, for messages."""
    content: bytes

    def __str__(self) -> str:
        return self.place


PictureFile = str | Path | Stored


@dataclass(frozen=True)
class Decoded:
    """The samples of one file, upright and without alpha."""

    samples: Shaped[np.ndarray, "*s n"]
    """[h, w, n], or [d, h, w, n], as stored, in the machine's byte order; n is 1 for a palette's indices."""
    white: int = 0
    """The sample that is white in a file of less than 8 bits: 1, 3 or 15; 0 in others."""
    palette: UInt8[np.ndarray, "k 3"] | None = None
    """The colours that the samples are indices of."""
    lossy: str = ""
    """Which compression, if any, has changed values, as JPEG does."""
    slope: float = 1.0
    """A sample stands for the value slope * sample + intercept."""
    intercept: float = 0.0
    measured: bool = False
    """The values are measured ones, such as Hounsfield units: nothing tells which are black and white."""
    inverted: bool = False
    """In a picture, the lowest value is white."""

    @property
    def values(self) -> Shaped[np.ndarray, "*s n"]:
        """What the samples stand for."""
        if (self.slope, self.intercept) == (1, 0):
            return self.samples
        return (self.samples * np.float64(self.slope) + np.float64(self.intercept)).astype(np.float32)


def check_size(height: int, width: int, samples: int = 1) -> None:
    """Refuse by its header what holds no pixel, or more than a memory should be filled with.

    Raises:
        DataError: it does; the file is not named.
    """
    if height < 1 or width < 1 or samples < 1:
        raise DataError(f"has no pixels: its size is {height}x{width}")
    if height * width > MOST_PIXELS or height * width * samples > 4 * MOST_PIXELS:
        raise DataError(f"{height}x{width} pixels of {counted(samples, 'sample')} are too many; cut it into tiles")


def length(file: BinaryIO) -> int:
    """The bytes of a file, which stays where it is."""
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end


def orientation(exif: bytes) -> int:
    """How an EXIF block says that the picture is turned: 1 to 8, and 1 where it does not say.

    Raises:
        DataError: the block is damaged; the file is not named.
    """
    block = exif.removeprefix(b"Exif\0\0")
    if not block:
        return 1
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            raise struct.error
        (begin,) = struct.unpack_from(f"{order}4xI", block)
        (count,) = struct.unpack_from(f"{order}H", block, begin)
        for entry in range(count):
            tag, value = struct.unpack_from(f"{order}H6xH", block, begin + 2 + 12 * entry)
            if tag == 274:
                return value if 1 <= value <= 8 else 1
    except struct.error as error:
        raise DataError("its EXIF block is damaged, so that its orientation is unknown; save it anew") from error
    return 1


def upright(array: np.ndarray, turned: int) -> np.ndarray:
    """An array [h, w, ...] as its EXIF orientation means it to be seen."""
    if turned >= 5:
        array = array.swapaxes(0, 1)
    if turned in (3, 4, 7, 8):
        array = array[::-1]
    if turned in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def upright_size(height: int, width: int, turned: int) -> tuple[int, int]:
    """Height and width of what `upright` returns."""
    return (width, height) if turned >= 5 else (height, width)
