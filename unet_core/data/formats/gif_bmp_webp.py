"""GIF, BMP and WebP files as rasters, by Pillow."""

import struct
from typing import BinaryIO

import numpy as np

from unet_core.data.formats.decoded import Decoded, orientation, upright_size
from unet_core.data.formats.png_jpeg import opened, read_image, turned
from unet_core.errors import DataError, MissingFrameworkError
from unet_core.installation import installing

try:
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.GifImagePlugin import GifImageFile
    from PIL.WebPImagePlugin import WebPImageFile
except ModuleNotFoundError as missing:
    raise MissingFrameworkError(f"pictures need Pillow: {installing('train')}") from missing


def gif_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels."""
    image = opened(file, GifImageFile)
    return image.height, image.width


def bmp_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels."""
    image = opened(file, BmpImageFile)
    return image.height, image.width


def webp_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels, after EXIF orientation."""
    image = opened(file, WebPImageFile)
    return upright_size(image.height, image.width, orientation(image.info.get("exif", b"")))


def read_gif(file: BinaryIO) -> Decoded:
    """The first frame of a GIF; see `Decoded`. A palette of greys is grey: GIF has no other way to store that."""
    raster = read_image(opened(file, GifImageFile), file)
    if raster.palette is None or (raster.palette != raster.palette[:, :1]).any():
        return raster
    if int(raster.samples.max()) >= len(raster.palette):
        raise DataError("is damaged: it has pixels that are not in its palette")
    return Decoded(np.ascontiguousarray(raster.palette[raster.samples[:, :, 0], :1]))


def read_bmp(file: BinaryIO) -> Decoded:
    """A BMP; see `Decoded`."""
    return read_image(opened(file, BmpImageFile), file)


def read_webp(file: BinaryIO) -> Decoded:
    """A WebP, with loss or without; see `Decoded`.

    Raises:
        DataError: an animation, or too large; Pillow's own errors besides.
    """
    image = opened(file, WebPImageFile)
    if image.n_frames > 1:
        raise DataError(f"is an animation of {image.n_frames} pictures; save each as a file")
    raster = read_image(image, file)
    lossy = "WebP with loss" if b"VP8 " in _chunks(file) else ""
    return turned(Decoded(raster.samples, lossy=lossy), orientation(image.info.get("exif", b"")))


def _chunks(file: BinaryIO) -> set[bytes]:
    """The kinds of the parts of a WebP."""
    found = set()
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        found.add(kind)
        file.seek(length + length % 2, 1)
    return found
