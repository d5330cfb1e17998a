"""Pictures and masks from files of all formats that are read, with the values that the files hold."""

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8, UInt32

from unet_core.data.colours import nearest, packed
from unet_core.data.decoded import Decoded, PictureFile, Stored
from unet_core.errors import DataError, MissingFrameworkError, first_line, reason, shown
from unet_core.paths import URLPath, as_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".npy", ".npz")
"""Of the files that are read, in lower case; what a file is, its content tells."""

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

    image: Shaped[np.ndarray, "h w c"]
    """uint8, uint16, or float32 from 0 to 1."""
    labels: UInt8[np.ndarray, "h w"]
    """Numbers of classes, from 0."""


def read_picture(path: PictureFile, channels: int | None = None) -> Shaped[np.ndarray, "h w c"]:
    """A picture as it is stored: uint8, uint16, or float32 from 0 to 1; upright, without alpha.

    Palettes and CMYK become RGB, a palette of greys becomes grey, fewer than 8 bits fill 0 to 255.

    Args:
        channels: 1 makes grey of RGB (the luma of ITU-R 601), 3 repeats grey; None takes what the file has.

    Raises:
        DataError: the file is missing, damaged or too large, or its values or channels are not such.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with _naming(path):
        return _with_channels(_picture(_raster(path)), channels)


def as_float(picture: Shaped[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """The same picture in float32 from 0 to 1: what white is depends on its bits, not on what it shows."""
    if picture.dtype.kind == "f":
        return picture.astype(np.float32, copy=False)
    return picture.astype(np.float32) / np.float32(np.iinfo(picture.dtype).max)


def read_mask(path: PictureFile) -> Integer[np.ndarray, "h w"]:
    """A mask's values as they are stored, uint8 or uint16, upright: of a palette the indices, of 1 bit 0 and 1.

    JPEG, and WebP with loss, change values, so these are read only as black and white: 0 and 255.

    Raises:
        DataError: the file is missing, damaged or too large, or its values are no numbers of classes.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with _naming(path):
        return _numbers(_raster(path))


def read_colours(path: PictureFile, among: Sequence[int]) -> UInt32[np.ndarray, "h w"]:
    """A mask's colours as they are seen, as numbers 0xRRGGBB: of a palette its colours, of grey the greys.

    Args:
        path: the file.
        among: colours, the nearest of which is taken where the file's compression changes values.

    Raises:
        DataError: the file is missing, damaged or too large, or not of 8 bits, grey or RGB.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with _naming(path):
        raster = _raster(path)
        seen = _picture(raster)
        if seen.dtype != np.uint8 or seen.shape[2] not in (1, 3):
            raise DataError("is no mask of colours, which has 8 bits, and is RGB")
        codes = packed(_with_channels(seen, 3))
        return nearest(codes, among) if raster.lossy else codes


class EitherMask(NamedTuple):
    """A mask, whichever kind it is of."""

    numbers: Integer[np.ndarray, "h w"] | None
    """As of `read_mask`; None where the pixels have colours."""
    colours: UInt32[np.ndarray, "h w"] | None
    """As of `read_colours`; None where the file is not RGB."""


def read_either(path: PictureFile) -> EitherMask:
    """A mask as numbers, as colours, or as both, where each of its pixels is grey.

    Raises:
        DataError: as `read_mask`, but for a mask of colours.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with _naming(path):
        raster = _raster(path)
        if raster.lossy or raster.samples.dtype != np.uint8 or raster.samples.shape[2] != 3:
            return EitherMask(_numbers(raster), None)
        return EitherMask(None if _has_colours(raster) else _numbers(raster), packed(raster.samples))


def picture_size(path: PictureFile) -> tuple[int, int]:
    """Height and width in pixels as the file's header tells, upright; the pixels are not decoded.

    Raises:
        DataError: the file is missing or no picture, or too large.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    with _naming(path), _opened(path) as file:
        return _format(file)[1](file)


@contextmanager
def _naming(path: PictureFile) -> Iterator[None]:
    """Whatever a decoder says of a damaged file becomes one line that begins with the file's name."""
    try:
        yield
    except MissingFrameworkError:
        raise
    except DataError as error:
        raise DataError(f"{shown(path)}: {error}") from error
    except MemoryError as error:
        raise DataError(f"{shown(path)}: does not fit into memory; cut it into tiles") from error
    except OSError as error:
        why = reason(error) if error.strerror else first_line(error)
        raise DataError(f"{shown(path)}: cannot be read: {why}") from error
    except Exception as error:  # decoders meet damage with errors of all kinds: struct.error, KeyError, SyntaxError
        why = first_line(error) if str(error)[4:] else f"{type(error).__name__} {error}"
        raise DataError(f"{shown(path)}: is damaged, or of a kind that is not read ({why}); save it anew") from error


@contextmanager
def _opened(path: PictureFile) -> Iterator[BinaryIO]:
    if isinstance(path, Stored):
        yield io.BytesIO(path.content)
        return
    path = as_path(path)
    if isinstance(path, URLPath):
        content = path.read_bytes()
        if not content:
            raise DataError("is empty")
        yield io.BytesIO(content)
        return
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
        raise DataError(f"is {'a directory' if stat.S_ISDIR(status.st_mode) else 'a special file'}, no picture")
    if not status.st_size:
        raise DataError("is empty")
    with open(path, "rb") as file:
        yield file


def _raster(path: PictureFile) -> Decoded:
    with _opened(path) as file:
        return _format(file)[0](file)


def _format(file: BinaryIO) -> tuple[Callable[[BinaryIO], Decoded], Callable[[BinaryIO], tuple[int, int]]]:
    """What reads a file of this kind, and what reads its size."""
    head = file.read(16)
    file.seek(0)
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        from unet_core.data.tiff import read_tiff, tiff_size

        return read_tiff, tiff_size
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        from unet_core.data import numpy_files

        if head.startswith(b"PK"):
            return numpy_files.read_npz, numpy_files.npz_size
        return numpy_files.read_npy, numpy_files.npy_size
    from unet_core.data import gif_bmp_webp, png_jpeg

    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return png_jpeg.read_png, png_jpeg.png_size
    if head.startswith(b"\xff\xd8\xff"):
        return png_jpeg.read_jpeg, png_jpeg.jpeg_size
    if head.startswith((b"GIF87a", b"GIF89a")):
        return gif_bmp_webp.read_gif, gif_bmp_webp.gif_size
    if head.startswith(b"BM"):
        return gif_bmp_webp.read_bmp, gif_bmp_webp.bmp_size
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return gif_bmp_webp.read_webp, gif_bmp_webp.webp_size
    raise DataError("is no PNG, JPEG, TIFF, GIF, BMP, WebP or NumPy array, whatever its name says")


def _picture(raster: Decoded) -> np.ndarray:
    if raster.palette is not None:
        if int(raster.samples.max()) >= len(raster.palette):
            raise DataError("is damaged: it has pixels that are not in its palette")
        colours = raster.palette[raster.samples[:, :, 0]]
        grey = (colours == colours[:, :, :1]).all()
        return np.ascontiguousarray(colours[:, :, :1]) if grey else colours
    if raster.white:
        return raster.samples * np.uint8(255 // raster.white)
    if raster.samples.dtype.kind == "f":
        low, high = raster.samples.min(), raster.samples.max()
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise DataError(f"holds fractions from {low:g} to {high:g}; scale them to 0..1, or save 8 or 16 bits")
        return raster.samples.astype(np.float32, copy=False)
    return _unsigned(raster.samples)


def _has_colours(raster: Decoded) -> bool:
    first = raster.samples[:, :, 0]
    return any((raster.samples[:, :, n] != first).any() for n in range(1, raster.samples.shape[2]))


def _numbers(raster: Decoded) -> np.ndarray:
    if raster.lossy:
        return _black_or_white(raster)
    if _has_colours(raster):
        raise DataError(OF_COLOURS)
    first = raster.samples[:, :, 0]
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
    return samples.astype(np.int64)


def _black_or_white(raster: Decoded) -> np.ndarray:
    samples = raster.samples
    white = samples >= 128
    loss = np.where(white, 255 - samples, samples)
    if loss.max() > _LOSS or (white != white[:, :, :1]).any():
        raise DataError(
            f"is a {raster.lossy}, which changes values, and not of black and white only; save masks as PNG, or name "
            "their colours (--colors)"
        )
    return white[:, :, 0].astype(np.uint8) * np.uint8(255)


def _with_channels(picture: np.ndarray, channels: int | None) -> np.ndarray:
    have = picture.shape[2]
    if channels is None or channels == have:
        return picture
    if have == 1 and channels == 3:
        return np.repeat(picture, 3, axis=2)
    if have == 3 and channels == 1:
        return _luma(picture)
    raise DataError(f"has {have} channels where {channels} are wanted")


def _luma(picture: np.ndarray) -> np.ndarray:
    """Grey of RGB, rounded; where the three are equal, that value."""
    red, green, blue = np.moveaxis(picture, 2, 0)
    if picture.dtype.kind == "f":
        grey = 0.299 * red.astype(np.float64) + 0.587 * green + 0.114 * blue
    else:
        wide = np.uint32
        grey = (wide(299) * red + wide(587) * green + wide(114) * blue + wide(500)) // wide(1000)
    return grey.astype(picture.dtype)[:, :, None]
