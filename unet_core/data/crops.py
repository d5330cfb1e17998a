"""Random crops of a picture and its mask, the same for both twins: one draw decides all."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from unet_core.data.augmentation import Augmentation
from unet_core.data.pictures import as_float


class Crop(NamedTuple):
    """What one training example is."""

    image: Float[np.ndarray, "s s c"]
    """float32, the picture's range scaled to 0..1 before brightness, contrast and noise."""
    labels: UInt8[np.ndarray, "s s"]
    """The class of every pixel."""


def random_crop(
    image: Shaped[np.ndarray, "h w c"],
    labels: UInt8[np.ndarray, "h w"],
    *,
    size: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Crop:
    """A square of `size` x `size` pixels from anywhere in the picture, augmented.

    Where the picture is smaller, and where a turned square reaches beyond it, it goes on as in a mirror. The image is
    interpolated linearly, the labels by the nearest neighbour.

    Args:
        image: as `unet_core.data.pictures.read_picture` gives it.
        labels: the class of every pixel.
        size: height and width of the crop, in pixels.
        rng: decides everything; the same state gives the same crop.
    """
    how = augmentation
    top, left = (int(rng.integers(max(length - size, 0) + 1)) for length in labels.shape)
    angle = np.deg2rad(rng.uniform(-how.rotation, how.rotation))
    zoom = np.exp(rng.uniform(-1, 1) * np.log1p(how.scale))
    if angle or zoom != 1:
        pixels, classes = _turned(image, labels, (top, left), size, angle, zoom)
    else:
        rows, columns = (
            _mirrored(_start(at, length, size) + np.arange(size), length)
            for at, length in zip((top, left), labels.shape, strict=True)
        )
        place = np.ix_(rows, columns)
        pixels, classes = as_float(image[place]), labels[place]
    turns = int(rng.integers(4)) if how.right_angles else 0
    pixels, classes = np.rot90(pixels, turns), np.rot90(classes, turns)
    if how.flips:
        for axis in np.flatnonzero(rng.integers(2, size=2)).tolist():
            pixels, classes = np.flip(pixels, axis), np.flip(classes, axis)
    return Crop(_relit(pixels, how, rng), np.ascontiguousarray(classes))


def _start(at: int, length: int, size: int) -> int:
    """Where the crop begins: centred, and so before the picture, where that is smaller than the crop."""
    return at if length >= size else -((size - length) // 2)


def _mirrored(index: Int[np.ndarray, "*n"], length: int) -> Int[np.ndarray, "*n"]:
    """Indices beyond the edges, brought inside as in a mirror that stands on the last pixel."""
    period = max(2 * (length - 1), 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)


def _turned(
    image: np.ndarray, labels: np.ndarray, start: tuple[int, int], size: int, angle: float, zoom: float
) -> tuple[np.ndarray, np.ndarray]:
    """The square about the crop's centre, turned by `angle` and enlarged by `zoom`."""
    height, width = labels.shape
    from_centre = np.arange(size) - (size - 1) / 2
    down, right = np.cos(angle) / zoom * from_centre, np.sin(angle) / zoom * from_centre
    rows = _start(start[0], height, size) + (size - 1) / 2 + down[:, None] - right[None, :]
    columns = _start(start[1], width, size) + (size - 1) / 2 + right[:, None] + down[None, :]
    above, before = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    row_weight, column_weight = (
        (exact - low).astype(np.float32)[..., None] for exact, low in ((rows, above), (columns, before))
    )
    pixels = np.zeros((size, size, image.shape[2]), np.float32)
    for row, weight_r in ((above, 1 - row_weight), (above + 1, row_weight)):
        for column, weight_c in ((before, 1 - column_weight), (before + 1, column_weight)):
            pixels += as_float(image[_mirrored(row, height), _mirrored(column, width)]) * (weight_r * weight_c)
    nearest = _mirrored(np.rint(rows).astype(np.int64), height), _mirrored(np.rint(columns).astype(np.int64), width)
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
