"""The inputs of the proof: random ones and a real photograph, odd sizes among them, NHWC."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Float

from unet_core.checkpoint import digest
from unet_core.config import UNetConfig
from unet_core.errors import MissingFrameworkError, UNetError
from unet_core.hub import COUNTER, Tensors

_LARGEST = 4096 * 4096
"""Pixels of an input; its activations in float64 would fill most memories."""


@dataclass(frozen=True)
class Sample:
    """One batch with the name that reports give it."""

    name: str
    x: Float[np.ndarray, "n h w c"]
    """float32, so that both precisions and both frameworks see the very same numbers."""


@dataclass(frozen=True)
class Input:
    """What a batch was, for the report."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    """As `unet_core.checkpoint.digest` makes it."""

    @classmethod
    def of(cls, name: str, x: np.ndarray) -> "Input":
        """What `x` is."""
        return cls(name, x.shape, digest(x))


def samples(
    config: UNetConfig,
    *,
    size: tuple[int, int] | None = None,
    images: Sequence[str | Path] = (),
    seed: int = 0,
    odd_sizes: bool = True,
) -> tuple[Sample, ...]:
    """The batches on which two networks of this config are compared.

    Args:
        size: height and width in pixels; None: for the full network an odd 75x91 in a batch of 3 and 128x96 of a
            photograph, and for others as much above their `minimum_size`.
        images: files to use in place of the photograph that matplotlib ships.
        seed: of the random batches.
        odd_sizes: False for networks that take multiples of their `minimum_size` only, such as mateuszbuda's.

    Raises:
        UNetError: a size that the network cannot train on, or an image that cannot be read.
        MissingFrameworkError: Pillow, or matplotlib with its photograph, is not installed.
    """
    if size is not None:
        check_size(config, *size)
    least = config.minimum_size
    more = 11 if odd_sizes else 0
    shape = (3, *(size or (4 * least + more, 5 * least + more)), config.in_channels)
    real = size or (8 * least, 6 * least)
    random = np.random.default_rng(seed).standard_normal(shape, np.float32)
    batches = [Sample(f"random {shape[0]}x{shape[1]}x{shape[2]}", random)]
    for path in images or [photograph_path()]:
        x = load_image(path, real, config.in_channels)
        batches.append(Sample(f"{Path(path).stem[:12]} {real[0]}x{real[1]}", x))
    return tuple(batches)


def repeated(sample: Sample, count: int, *, seed: int) -> Iterator[Sample]:
    """Further random batches of the same size, mean and deviation as `sample`."""
    rng = np.random.default_rng((seed, 1))
    for number in range(count):
        noise = rng.standard_normal(sample.x.shape, np.float32)
        yield Sample(f"{sample.name} again, {number + 1}", sample.x.mean() + sample.x.std() * noise)


def neighbour(tensors: Tensors, seed: int) -> dict[str, np.ndarray]:
    """The same tensors, each weight one unit in the last place (of float32 at least) up, down, or where it was."""
    rng = np.random.default_rng((seed, 2))
    moved = {}
    for key, value in tensors.items():
        if value.dtype == COUNTER:
            moved[key] = value
        else:
            unit = max(2.0**-23, float(ml_dtypes.finfo(value.dtype).eps))
            wide = value.astype(np.float64)
            moved[key] = (wide * (1 + unit * rng.integers(-1, 2, value.shape))).astype(value.dtype)
    return moved


def check_size(config: UNetConfig, height: int, width: int) -> None:
    """A single image must leave BatchNorm a few values per channel at the bottom: of two it makes +1 and -1."""
    least = config.minimum_size
    if (height // least) * (width // least) < 4:
        raise UNetError(f"size {height}x{width}: too small to train on; {2 * least}x{2 * least} will do")
    if height * width > _LARGEST:
        raise UNetError(f"size {height}x{width}: too large for a proof; {_LARGEST} pixels are the most")


def photograph_path() -> Path:
    """A real photograph that comes with matplotlib: Grace Hopper, 1984, in the public domain."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise MissingFrameworkError(
            "the photograph needs matplotlib (pip install -e '.[all]' -c constraints.txt); or name an image"
        )
    return Path(spec.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"


def load_image(path: str | Path, size: tuple[int, int], channels: int) -> Float[np.ndarray, "1 h w c"]:
    """An 8-bit image cropped at the centre and scaled to `size`, as float32 from 0 to 1.

    Grey for 1 channel, otherwise RGB, its channels repeated in turn up to the number that is asked for.

    Raises:
        UNetError: the file is missing or no image.
        MissingFrameworkError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise MissingFrameworkError("images need Pillow: pip install -e '.[all]' -c constraints.txt") from error
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise UNetError(f"{path}: cannot be read as an image: {error}") from error
    fitted = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(fitted, np.float32).reshape(*size, -1) / np.float32(255)
    return np.ascontiguousarray(pixels[None, :, :, np.arange(channels) % pixels.shape[-1]])
