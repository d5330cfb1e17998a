"""Random crops of a picture or volume and its mask, the same for both twins: one draw decides all."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from unet_core.data.augmentation import Augmentation
from unet_core.data.formats.stack import Spacing
from unet_core.data.pictures import as_float

Plane = tuple[int, int]
"""Two axes of a picture or volume."""
_ALIKE = 1.1
"""Spacings that differ by less are as good as one."""


class Crop(NamedTuple):
    """What one training example is."""

    image: Float[np.ndarray, "*s c"]
    """float32, the picture's range scaled to 0..1 before brightness, contrast and noise."""
    labels: UInt8[np.ndarray, "*s"]
    """The class of every pixel."""


def random_crop(
    image: Shaped[np.ndarray, "*s c"],
    labels: UInt8[np.ndarray, "*s"],
    *,
    size: tuple[int, ...],
    augmentation: Augmentation,
    rng: np.random.Generator,
    planes: Sequence[Plane] = ((0, 1),),
) -> Crop:
    """A part of this size from anywhere in the picture, or the volume, augmented.

    Where the picture is smaller, and where a turned crop reaches beyond it, it goes on as in a mirror. The image is
    interpolated linearly, the labels by the nearest neighbour.

    Args:
        image: as `unet_core.data.pictures.read_picture` gives it.
        labels: the class of every pixel.
        size: of the crop along each axis, in pixels.
        rng: decides everything; the same state gives the same crop.
        planes: in which it may be turned (`planes_of`).
    """
    how = augmentation
    start = tuple(int(rng.integers(max(have - most, 0) + 1)) for have, most in zip(labels.shape, size, strict=True))
    angle = np.deg2rad(rng.uniform(-how.rotation, how.rotation))
    zoom = np.exp(rng.uniform(-1, 1) * np.log1p(how.scale))
    plane = planes[int(rng.integers(len(planes)))] if len(planes) > 1 else next(iter(planes), None)
    begin = [_start(*axis) for axis in zip(start, labels.shape, size, strict=True)]
    if (angle and plane) or zoom != 1:
        pixels, classes = _turned(image, labels, begin, size, plane, angle, zoom)
    else:
        place = np.ix_(
            *(_mirrored(at + np.arange(most), have) for at, most, have in zip(begin, size, labels.shape, strict=True))
        )
        pixels, classes = as_float(image[place]), labels[place]
    turns = int(rng.integers(4)) if how.right_angles else 0
    if plane is not None:
        turns -= turns % 2 if size[plane[0]] != size[plane[1]] else 0  # a quarter would have another size
        pixels, classes = np.rot90(pixels, turns, plane), np.rot90(classes, turns, plane)
    if how.flips:
        for axis in np.flatnonzero(rng.integers(2, size=len(size))).tolist():
            pixels, classes = np.flip(pixels, axis), np.flip(classes, axis)
    return Crop(_relit(pixels, how, rng), np.ascontiguousarray(classes))


def planes_of(spacing: Spacing | None, dimensions: int) -> tuple[Plane, ...]:
    """In which planes a crop may be turned: those of a volume along whose axes voxels lie equally far apart.

    Args:
        spacing: of the voxels; None: nothing says it, and slices alone are turned.
        dimensions: 2 of a picture, 3 of a volume.
    """
    if dimensions == 2:
        return ((0, 1),)
    if spacing is None:
        return ((1, 2),)
    pairs = ((0, 1), (0, 2), (1, 2))
    return tuple((a, b) for a, b in pairs if max(spacing[a], spacing[b]) <= _ALIKE * min(spacing[a], spacing[b]))


def _start(at: int, length: int, size: int) -> int:
    """Where the crop begins: centred, and so before the picture, where that is smaller than the crop."""
    return at if length >= size else -((size - length) // 2)


def _mirrored(index: Int[np.ndarray, "*n"], length: int) -> Int[np.ndarray, "*n"]:
    """Indices beyond the edges, brought inside as in a mirror that stands on the last pixel."""
    period = max(2 * (length - 1), 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)


def _turned(
    image: np.ndarray,
    labels: np.ndarray,
    begin: Sequence[int],
    size: tuple[int, ...],
    plane: Plane | None,
    angle: float,
    zoom: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The crop about its centre, turned by `angle` in a plane and enlarged by `zoom` along every axis."""
    axes = range(len(size))

    def along(axis: int, factor: float) -> np.ndarray:
        """So much of the way from the centre, as an array of the crop's axes."""
        away = factor * (np.arange(size[axis]) - (size[axis] - 1) / 2)
        return away.reshape([-1 if at == axis else 1 for at in axes])

    exact = []
    for axis in axes:
        centre = begin[axis] + (size[axis] - 1) / 2
        if plane is None or axis not in plane:
            exact.append(centre + along(axis, 1 / zoom))
            continue
        first, second = plane
        if axis == first:
            exact.append(centre + along(first, np.cos(angle) / zoom) - along(second, np.sin(angle) / zoom))
        else:
            exact.append(centre + along(first, np.sin(angle) / zoom) + along(second, np.cos(angle) / zoom))
    low = [np.floor(places).astype(np.int64) for places in exact]
    weights = [(places - below).astype(np.float32)[..., None] for places, below in zip(exact, low, strict=True)]
    ends = [((below, 1 - part), (below + 1, part)) for below, part in zip(low, weights, strict=True)]
    pixels = np.zeros((*size, image.shape[-1]), np.float32)
    for corner in itertools.product(*ends):
        place = tuple(_mirrored(index, have) for (index, _), have in zip(corner, labels.shape, strict=True))
        pixels += as_float(image[place]) * functools.reduce(np.multiply, (weight for _, weight in corner))
    nearest = tuple(
        _mirrored(np.rint(places).astype(np.int64), have) for places, have in zip(exact, labels.shape, strict=True)
    )
    return pixels, labels[nearest]


def _relit(pixels: np.ndarray, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    pixels = np.array(pixels, np.float32, order="C")  # contiguous, and no view of the picture
    contrast, brightness, deviation = rng.uniform(
        (-how.contrast, -how.brightness, 0), (how.contrast, how.brightness, how.noise)
    )
    if how.contrast:
        mean = pixels.mean(dtype=np.float64).astype(np.float32)
        pixels = (pixels - mean) * np.float32(1 + contrast) + mean
    if how.brightness:
        pixels += np.float32(brightness)
    if how.noise:
        pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
    return pixels
