"""Pictures and masks from files of all formats that are read, with the values that the files hold."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8, UInt32

from unet_core.data.colours import nearest, packed
from unet_core.data.formats.decoded import Decoded, PictureFile
from unet_core.data.formats.files import decode, naming
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.labels import Classes
from unet_core.errors import DataError, counted, shown

OF_COLOURS = (
    "is a mask of colours; save the number of each pixel's class, as grey or with a palette, or name the colours "
    "(--colors)"
)
"""Of a mask where numbers are wanted."""

_DEPTHS = (np.uint8, np.uint16)
_LOSS = 48
"""What JPEG may have changed in the black and the white of a mask."""


class Pair(NamedTuple):
    """A picture and the class of each of its pixels."""

    image: Shaped[np.ndarray, "*s c"]
    """uint8, uint16, or float32 from 0 to 1."""
    labels: UInt8[np.ndarray, "*s"]
    """Numbers of classes, from 0."""


class UnknownRangeError(DataError):
    """The values of a picture are such that nothing tells which are black and white; with a window they are read."""

    def __init__(self, why: str, low: float, high: float) -> None:
        super().__init__(why)
        self.low, self.high = low, high


def read_picture(
    path: PictureFile, channels: int | None = None, how: Pictures = AS_STORED, at: int | None = None
) -> Shaped[np.ndarray, "*s c"]:
    """A picture, or a whole volume, as it is stored: uint8, uint16, or float32 from 0 to 1; upright, without alpha.

    Palettes and CMYK become RGB, a palette of greys becomes grey, fewer than 8 bits fill 0 to 255.

    Args:
        path: the file.
        channels: 1 makes grey of RGB (the luma of ITU-R 601), 3 repeats grey; None takes what the file has.
        how: which values are black and white, and what slices and pages are.
        at: which slice of a volume; None: the file is one picture, whose pages are channels, or one volume (`how`).

    Raises:
        DataError: the file is missing, damaged or too large, or its values or channels are not such.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with naming(path):
        return _with_channels(_picture(decode(path, how, at), how.window), channels)


def as_float(picture: Shaped[np.ndarray, "*s c"]) -> Float[np.ndarray, "*s c"]:
    """The same picture in float32 from 0 to 1: what white is depends on its bits, not on what it shows."""
    if picture.dtype.kind == "f":
        return picture.astype(np.float32, copy=False)
    return picture.astype(np.float32) / np.float32(np.iinfo(picture.dtype).max)


def read_mask(path: PictureFile, how: Pictures = AS_STORED, at: int | None = None) -> Integer[np.ndarray, "*s"]:
    """A mask's values as they are stored, uint8 or uint16, upright: of a palette the indices, of 1 bit 0 and 1.

    JPEG, and WebP with loss, change values, so these are read only as black and white: 0 and 255.

    Args:
        path: the file.
        how: what slices and pages are.
        at: which slice of a volume.

    Raises:
        DataError: the file is missing, damaged or too large, or its values are no numbers of classes.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with naming(path):
        return _numbers(decode(path, how, at, channels=False))


def read_colours(
    path: PictureFile, among: Sequence[int], how: Pictures = AS_STORED, at: int | None = None
) -> UInt32[np.ndarray, "*s"]:
    """A mask's colours as they are seen, as numbers 0xRRGGBB: of a palette its colours, of grey the greys.

    Args:
        path: the file.
        among: colours, the nearest of which is taken where the file's compression changes values.
        how, at: as in `read_mask`.

    Raises:
        DataError: the file is missing, damaged or too large, or not of 8 bits, grey or RGB.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with naming(path):
        raster = decode(path, how, at, channels=False)
        seen = _picture(raster)
        if seen.dtype != np.uint8 or seen.shape[-1] not in (1, 3):
            raise DataError("is no mask of colours, which has 8 bits, and is RGB")
        codes = packed(_with_channels(seen, 3))
        return nearest(codes, among) if raster.lossy else codes


class EitherMask(NamedTuple):
    """A mask, whichever kind it is of."""

    numbers: Integer[np.ndarray, "*s"] | None
    """As of `read_mask`; None where the pixels have colours."""
    colours: UInt32[np.ndarray, "*s"] | None
    """As of `read_colours`; None where the file is not RGB."""


def read_either(path: PictureFile, how: Pictures = AS_STORED, at: int | None = None) -> EitherMask:
    """A mask as numbers, as colours, or as both, where each of its pixels is grey; its arguments are `read_mask`'s.

    Raises:
        DataError: as `read_mask`, but for a mask of colours.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with naming(path):
        raster = decode(path, how, at, channels=False)
        if raster.lossy or raster.samples.dtype != np.uint8 or raster.samples.shape[-1] != 3:
            return EitherMask(_numbers(raster), None)
        return EitherMask(None if _has_colours(raster) else _numbers(raster), packed(raster.samples))


def read_pair(
    image: PictureFile,
    mask: PictureFile,
    *,
    channels: int,
    classes: Classes,
    size: tuple[int, ...],
    how: Pictures = AS_STORED,
    at: int | None = None,
) -> Pair:
    """A picture and its labels, read from their files.

    Raises:
        DataError: they are not what they were when the data was opened.
    """
    picture = read_picture(image, channels, how, at)
    values = read_colours(mask, classes.known, how, at) if classes.coloured else read_mask(mask, how, at)
    if picture.shape[:-1] != size or values.shape != size:
        raise DataError(f"{shown(image)}: it or its mask has another size than before; start anew")
    try:
        return Pair(picture, classes.labels(values))
    except DataError as error:
        raise DataError(f"{shown(mask)}: {error}") from error


def _picture(raster: Decoded, window: tuple[float, float] | None = None) -> np.ndarray:
    if raster.palette is not None:
        if int(raster.samples.max()) >= len(raster.palette):
            raise DataError("is damaged: it has pixels that are not in its palette")
        colours = raster.palette[raster.samples[..., 0]]
        grey = (colours == colours[..., :1]).all()
        values = np.ascontiguousarray(colours[..., :1]) if grey else colours
    else:
        values = raster.samples * np.uint8(255 // raster.white) if raster.white else raster.values
    values = _ranged(values, measured=raster.measured) if window is None else _within(values, *window)
    return _negative(values) if raster.inverted else values


def _ranged(values: np.ndarray, *, measured: bool) -> np.ndarray:
    """The same, where its type tells which values are black and white."""
    if values.dtype in _DEPTHS and not measured:
        return values
    _check_finite(values)
    low, high = float(values.min()), float(values.max())
    if measured:
        why = f"holds values from {low:g} to {high:g}, and nothing tells which are black and white"
        raise UnknownRangeError(f"{why}; give --window LOW HIGH", low, high)
    if values.dtype.kind != "f":
        if low < 0 or high > 65535:
            why = f"holds numbers from {low:.0f} to {high:.0f}, which do not fit 16 bits"
            raise UnknownRangeError(f"{why}; save it as uint16, or give --window LOW HIGH", low, high)
        return _unsigned(values)
    if low < 0 or high > 1:
        why = f"holds fractions from {low:g} to {high:g}"
        raise UnknownRangeError(f"{why}; scale them to 0..1, save 8 or 16 bits, or give --window LOW HIGH", low, high)
    return values.astype(np.float32, copy=False)


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The values from `low` to `high` as 0 to 1, those beyond it as 0 and 1."""
    if values.ndim > 3:  # slice by slice, which takes less memory
        return np.stack([_within(one, low, high) for one in values])
    _check_finite(values)
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0, 1).astype(np.float32)


def _check_finite(values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("holds values that are no numbers (NaN or infinite); put numbers in their place")


def _negative(values: np.ndarray) -> np.ndarray:
    return np.float32(1) - values if values.dtype.kind == "f" else ~values


def _has_colours(raster: Decoded) -> bool:
    first = raster.samples[..., 0]
    return any((raster.samples[..., n] != first).any() for n in range(1, raster.samples.shape[-1]))


def _numbers(raster: Decoded) -> np.ndarray:
    if raster.lossy:
        return _black_or_white(raster)
    if _has_colours(raster):
        raise DataError(OF_COLOURS)
    first = raster.values[..., 0]
    return np.ascontiguousarray(_unsigned(_whole(first) if first.dtype.kind == "f" else first))


def _unsigned(samples: np.ndarray) -> np.ndarray:
    """Integers of any type as uint8 or uint16, if they fit."""
    if samples.dtype in _DEPTHS:
        return samples
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise DataError(f"holds numbers from {low} to {high}, which do not fit 16 bits; save it as uint16")
    return samples.astype(np.uint8 if samples.dtype == np.int8 else np.uint16)


def _whole(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all() or (samples != np.rint(samples)).any():
        raise DataError("is a mask of fractions; save the number of each pixel's class")
    low, high = float(samples.min()), float(samples.max())
    if low < 0 or high > 65535:
        raise DataError(f"holds numbers from {low:g} to {high:g}, which do not fit 16 bits; save it as uint16")
    return samples.astype(np.uint16)


def _black_or_white(raster: Decoded) -> np.ndarray:
    samples = raster.samples
    white = samples >= 128
    loss = np.where(white, 255 - samples, samples)
    if loss.max() > _LOSS or (white != white[..., :1]).any():
        raise DataError(
            f"is a {raster.lossy}, which changes values, and not of black and white only; save masks as PNG, or name "
            "their colours (--colors)"
        )
    return white[..., 0].astype(np.uint8) * np.uint8(255)


def _with_channels(picture: np.ndarray, channels: int | None) -> np.ndarray:
    have = picture.shape[-1]
    if channels is None or channels == have:
        return picture
    if have == 1 and channels == 3:
        return np.repeat(picture, 3, axis=-1)
    if have == 3 and channels == 1:
        return _luma(picture)
    first = "; if these are the first axis of the array, give --pages channels" * (picture.shape[0] == channels)
    raise DataError(f"has {counted(have, 'channel')} where {counted(channels, 'is', 'are')} wanted{first}")


def _luma(picture: np.ndarray) -> np.ndarray:
    """Grey of RGB, rounded; where the three are equal, that value."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    if picture.dtype.kind == "f":
        grey = 0.299 * red.astype(np.float64) + 0.587 * green + 0.114 * blue
    else:
        wide = np.uint32
        grey = (wide(299) * red + wide(587) * green + wide(114) * blue + wide(500)) // wide(1000)
    return grey.astype(picture.dtype)[..., None]
