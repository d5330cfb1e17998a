"""TIFF files as rasters: by tifffile where it needs no further codecs, otherwise by Pillow."""

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from unet_core.data.decoded import MOST_PIXELS, Decoded, check_size, upright, upright_size
from unet_core.data.png_jpeg import read_image
from unet_core.errors import DataError, MissingFrameworkError

try:
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile
    from tifffile import TiffFile, TiffPage
except ModuleNotFoundError as missing:
    raise MissingFrameworkError(
        "TIFF files need Pillow and tifffile: pip install -e '.[train]' -c constraints.txt"
    ) from missing

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what matters of its remarks is raised here

_OWN = (1, 8, 32946, 34925)
"""Compressions that tifffile undoes with Python alone: none, Deflate under both numbers, LZMA."""

_LOSSY = {6: "JPEG", 7: "JPEG", 34892: "JPEG", 50001: "WebP"}
"""JPEG, old and new, and WebP."""

_INVERTED, _GREY, _RGB, _PALETTE = range(4)
_ALPHA = (1, 2)

_filters = threading.Lock()


def tiff_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels, after the orientation that its tags tell."""
    with TiffFile(file) as tiff:
        page = _page(tiff)
        return upright_size(page.imagelength, page.imagewidth, _orientation(page))


def read_tiff(file: BinaryIO) -> Decoded:
    """A TIFF of one page; see `Decoded`. What it stores as white-is-zero is turned to black-is-zero.

    Raises:
        DataError: several pages, too large, truncated, or stored in a way that is not read.
    """
    with TiffFile(file) as tiff:
        page = _page(tiff)
        pages = max(len(tiff.pages), int((tiff.imagej_metadata or {}).get("images", 1)))
        if pages > 1:
            raise DataError(f"has {pages} pages; save each as a file")
        _check_whole(page, tiff.filehandle.size)
        if _is_plain(page):
            return _plain(page)
        return _by_pillow(page, file)


def _page(tiff: TiffFile) -> TiffPage:
    page = tiff.pages.first
    if page.imagedepth > 1:
        raise DataError(f"has {page.imagedepth} layers; save each as a file")
    check_size(page.imagelength, page.imagewidth, page.samplesperpixel)
    return page


def _check_whole(page: TiffPage, size: int) -> None:
    """Everything that the tags point to lies in the file: tifffile fills what is missing with zeros."""
    offsets, counts = page.dataoffsets, page.databytecounts
    few = not page.is_contiguous and min(len(offsets), len(counts)) < math.prod(page.chunked)
    ends = [
        begin + count if begin > 0 and count > 0 else math.inf for begin, count in zip(offsets, counts, strict=False)
    ]
    short = page.compression == 1 and page.bitspersample in (8, 16, 32, 64) and sum(counts) < page.nbytes
    if few or short or not ends or max(ends) > size:
        raise DataError("is truncated: its header promises more than it holds; copy or save it anew")


def _orientation(page: TiffPage) -> int:
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None and 1 <= int(tag.value) <= 8 else 1


def _is_plain(page: TiffPage) -> bool:
    return (
        page.compression in _OWN
        and page.predictor in (1, 2)
        and page.bitspersample in (8, 16, 32, 64)
        and page.photometric in (_INVERTED, _GREY, _RGB, _PALETTE)
    )


def _kept(page: TiffPage) -> list[int]:
    """The samples of a pixel that are no alpha."""
    extra = page.extrasamples
    first = page.samplesperpixel - len(extra)
    return [n for n in range(page.samplesperpixel) if n < first or extra[n - first] not in _ALPHA]


def _plain(page: TiffPage) -> Decoded:
    planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [planes, h, w, samples]
    stored = np.moveaxis(planes, 0, 2).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    kept = _kept(page)
    samples = stored if len(kept) == stored.shape[2] else stored[:, :, kept]
    samples = _black_is_zero(page, samples.astype(samples.dtype.newbyteorder("="), copy=False))
    palette = None
    if page.photometric == _PALETTE:
        if page.colormap is None:
            raise DataError("is a palette TIFF without its palette; save it as grey or RGB")
        palette = (page.colormap.T >> 8).astype(np.uint8)
        samples = samples[:, :, :1]
    return Decoded(upright(samples, _orientation(page)), palette=palette)


def _black_is_zero(page: TiffPage, samples: np.ndarray) -> np.ndarray:
    if page.photometric == _INVERTED and 262 in page.tags and samples.dtype in (np.uint8, np.uint16):
        return ~samples
    return samples


def _by_pillow(page: TiffPage, file: BinaryIO) -> Decoded:
    file.seek(0)
    image = TiffImageFile(file)
    with _unwarned(image):
        raster = read_image(image, file)
    colour = page.photometric not in (_INVERTED, _GREY, _RGB, _PALETTE)
    if raster.samples.shape[2] != (3 if colour else len(_kept(page))):
        raise DataError(f"{page.samplesperpixel} samples a pixel are read only without compression or with Deflate")
    samples = raster.samples
    if samples.dtype == np.uint16:  # those of other types Pillow turns
        samples = _black_is_zero(page, samples)
    return Decoded(samples, raster.white, raster.palette, lossy=_LOSSY.get(page.compression, ""))


@contextmanager
def _unwarned(image: TiffImageFile) -> Iterator[None]:
    """Pillow warns of pictures half as large as those it refuses, and Python's filters belong to all threads."""
    if image.width * image.height <= (Image.MAX_IMAGE_PIXELS or MOST_PIXELS):
        yield
        return
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
