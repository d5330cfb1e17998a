"""What the pages of a TIFF are, as far as ImageJ's or OME's metadata says: slices, moments or channels."""

import math
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer
from tifffile import TiffFile

from unet_core.data.formats.reading import Pages
from unet_core.data.formats.stack import NOWHERE, Grid
from unet_core.errors import DataError

_MILLIMETRES = {"um": 0.001, "\u00b5m": 0.001, "micron": 0.001, "microns": 0.001, "nm": 1e-6, "mm": 1.0, "cm": 10.0}
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")


@dataclass(frozen=True)
class PageOrder:
    """Which pages make a slice, in the order of slices and channels."""

    pages: Integer[np.ndarray, "slices channels"]
    are: Pages | None = None
    """What they are; None where nothing says it."""
    grid: Grid = NOWHERE
    moments: int = 1
    """Each of which has as many of the slices."""


def page_order(tiff: TiffFile, stored: int) -> PageOrder:
    """The order of the pages of a file that has so many headers of pages.

    Raises:
        DataError: its metadata counts other pages.
    """
    if tiff.is_imagej:
        return _of_imagej(tiff, stored)
    pixels = _PIXELS.search(tiff.pages.first.description or "") if tiff.is_ome else None
    if pixels is not None and stored > 1:
        return _of_ome(pixels.group(), stored, tiff.pages.first.samplesperpixel)
    return PageOrder(np.arange(stored)[:, None])


def _of_imagej(tiff: TiffFile, stored: int) -> PageOrder:
    said, first = tiff.imagej_metadata or {}, tiff.pages.first
    sizes = {axis: int(said.get(name, 1)) for axis, name in (("T", "frames"), ("Z", "slices"), ("C", "channels"))}
    count = max(stored, int(said.get("images", 1)))
    if count > stored and count * first.nbytes > tiff.filehandle.size:
        raise DataError("is truncated: it holds fewer pages than its metadata says; copy or save it anew")
    if first.samplesperpixel > 1 and math.prod(sizes.values()) != count:
        sizes["C"] = 1  # of RGB, whose channels are not pages
    if math.prod(sizes.values()) != count:
        return PageOrder(np.arange(count)[:, None])
    unit, lengths = _MILLIMETRES.get(str(said.get("unit", ""))), [first.tags.get(282), first.tags.get(283)]
    spacing = None
    if unit is not None and all(tag is not None and tag.value[0] for tag in lengths) and "spacing" in said:
        x, y = (tag.value[1] / tag.value[0] for tag in lengths if tag is not None)
        spacing = (float(said["spacing"]) * unit, y * unit, x * unit)
    return _ordered(sizes, "TZC", Grid(spacing))


def _of_ome(pixels: str, stored: int, samples: int) -> PageOrder:
    said = dict(re.findall(r'(\w+)="([^"]*)"', pixels))
    order = said.get("DimensionOrder", "")[2:]
    sizes = {axis: int(said.get(f"Size{axis}", 1)) for axis in "TZC"}
    sizes["C"] = max(1, sizes["C"] // samples)  # the channels of RGB are not pages
    if sorted(order) != sorted("TZC") or math.prod(sizes.values()) != stored:
        raise DataError(f"has {stored} pages, but its OME metadata counts others; save it anew, as one file")
    lengths = []
    for axis in "ZYX":
        unit = _MILLIMETRES.get(said.get(f"PhysicalSize{axis}Unit", "\u00b5m"))
        lengths.append(float(said.get(f"PhysicalSize{axis}", 0)) * (unit or 0))
    return _ordered(sizes, order[::-1], Grid((lengths[0], lengths[1], lengths[2]) if all(lengths) else None))


def _ordered(sizes: dict[str, int], slowest_first: str, grid: Grid) -> PageOrder:
    shape = [sizes[axis] for axis in slowest_first]
    numbers = np.arange(math.prod(shape)).reshape(shape).transpose([slowest_first.index(axis) for axis in "TZC"])
    pages = numbers.reshape(-1, sizes["C"])
    if len(pages) > 1:
        return PageOrder(pages, "slices", grid, sizes["T"])
    return PageOrder(pages.T, "channels", grid)
