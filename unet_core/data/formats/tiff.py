"""TIFF files as rasters: by tifffile where it needs no further codecs, otherwise by Pillow."""

import dataclasses
import logging
import math
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped

from unet_core.data.formats.decoded import MOST_PIXELS, Decoded, check_size, length, upright, upright_size
from unet_core.data.formats.png_jpeg import read_image
from unet_core.data.formats.stack import Stack
from unet_core.errors import DataError, MissingFrameworkError
from unet_core.installation import installing

try:
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile
    from tifffile import TiffFile, TiffPage, imwrite

    from unet_core.data.formats.tiff_pages import page_order
except ModuleNotFoundError as missing:
    raise MissingFrameworkError(f"TIFF files need Pillow and tifffile: {installing('train')}") from missing

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what matters of its remarks is raised here

_OWN = (1, 8, 32946, 34925)
"""Compressions that tifffile undoes with Python alone: none, Deflate under both numbers, LZMA."""

_LOSSY = {6: "JPEG", 7: "JPEG", 34892: "JPEG", 50001: "WebP"}
"""JPEG, old and new, and WebP."""

_INVERTED, _GREY, _RGB, _PALETTE = range(4)
_ALPHA = (1, 2)

_filters = threading.Lock()


def tiff_stack(file: BinaryIO) -> Stack:
    """The pages of a TIFF; see `Decoded`. What it stores as white-is-zero is turned to black-is-zero.

    Raises:
        DataError: pages of several sizes, too large, truncated, or stored in a way that is not read.
    """
    tiff = TiffFile(file)  # which is closed with the file
    first = tiff.pages.first
    if first.imagedepth > 1:
        raise DataError(f"has {first.imagedepth} layers; save each as a page")
    check_size(first.imagelength, first.imagewidth, first.samplesperpixel)
    size = length(file)
    height, width = upright_size(first.imagelength, first.imagewidth, _orientation(first))
    stored = len(tiff.pages)
    _check_chain(tiff, file, size)
    order = page_order(tiff, stored)
    channels = order.pages.shape[1]
    kind = (first.shape, first.dtype, first.photometric)

    def page(number: int) -> Decoded:
        if number >= stored:
            return _behind(first, file, number)
        one = tiff.pages[number]
        if not isinstance(one, TiffPage) or (one.shape, one.dtype, one.photometric) != kind:
            raise DataError(f"has pages of several kinds, as the first and the {number + 1}.; save each as a file")
        _check_whole(one, size)
        return _plain(one) if _is_plain(one) else _by_pillow(one, file, number)

    def plane(number: int) -> Decoded:
        pages = [page(int(one)) for one in order.pages[number]]
        if len(pages) == 1:
            return pages[0]
        return dataclasses.replace(pages[0], samples=np.concatenate([one.samples for one in pages], 2))

    samples, itemsize = len(_kept(first)) * channels, max(1, first.bitspersample // 8)
    if channels > 1 and first.photometric == _PALETTE:
        raise DataError("has several pages with palettes, which are no channels; save them as grey or RGB")
    told: dict[str, Any] = {"are": order.are, "grid": order.grid, "moments": order.moments}
    return Stack(len(order.pages), height, width, samples, plane, itemsize=itemsize, **told)


def write_tiff(path: Path, pages: Shaped[np.ndarray, "d h w *c"], spacing: tuple[float, float, float] | None) -> None:
    """Write slices, grey or RGB, as a stack of ImageJ's, with its spacing in millimetres."""
    told: dict[str, Any] = {"axes": "ZYXS" if pages.ndim == 4 else "ZYX", "mode": "grayscale"}
    if spacing is None:
        imwrite(path, pages, imagej=True, metadata=told)
        return
    between, down, along = spacing
    told |= {"spacing": between, "unit": "mm"}
    imwrite(path, pages, imagej=True, metadata=told, resolution=(1 / along, 1 / down), resolutionunit=1)


def _check_chain(tiff: TiffFile, file: BinaryIO, size: int) -> None:
    """The last page that was found is the last one: tifffile ends where the next one's header is missing."""
    way = tiff.tiff
    file.seek(tiff.pages[-1].offset)
    (count,) = struct.unpack(way.tagnoformat, file.read(way.tagnosize))
    file.seek(count * way.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(way.offsetformat, file.read(way.offsetsize))
    if following > size - way.tagnosize:
        raise DataError("is truncated: it holds fewer pages than were written; copy or save it anew")


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
    return _shown(page, page.asarray(squeeze=False, maxworkers=1)[:, 0])


def _shown(page: TiffPage, planes: Shaped[np.ndarray, "planes h w n"]) -> Decoded:
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


def _behind(first: TiffPage, file: BinaryIO, number: int) -> Decoded:
    """A page that has no header: ImageJ writes large stacks as one page with all others behind it."""
    if first.dtype is None or not (first.is_contiguous and _is_plain(first) and first.compression == 1):
        raise DataError("is truncated: it holds fewer pages than its metadata says; copy or save it anew")
    file.seek(first.dataoffsets[0] + number * first.nbytes)
    data = file.read(first.nbytes)
    if len(data) < first.nbytes:
        raise DataError("is truncated: its header promises more than it holds; copy or save it anew")
    dtype = first.dtype.newbyteorder(first.parent.byteorder)
    return _shown(first, np.frombuffer(data, dtype).reshape(first.shaped)[:, 0])


def _by_pillow(page: TiffPage, file: BinaryIO, number: int) -> Decoded:
    file.seek(0)
    image = TiffImageFile(file)
    image.seek(number)
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
