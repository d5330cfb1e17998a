"""The inputs of the proof: random ones and a real photograph, odd sizes among them, channels last."""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Float

from unet_core.checkpoints.checkpoint import digest
from unet_core.config import UNetConfig
from unet_core.errors import MissingFrameworkError, UNetError, sized
from unet_core.graph import Graph
from unet_core.graph.canonical import FLOATS, Description, Tensors
from unet_core.graph.sizes import Size, evaluate
from unet_core.installation import installing
from unet_core.paths import as_path
from unet_core.staging import at_hand

_LARGEST = 4096 * 4096
"""Pixels of an input; its activations in float64 would fill most memories."""
_WIDEST = 1024
"""Pixels a side; no network halves its maps more often than that."""
_OF_PIXELS = ("batch_norm", "instance_norm")


@dataclass(frozen=True)
class Sample:
    """One batch with the name that reports give it."""

    name: str
    x: Float[np.ndarray, "n *size c"]
    """float32, so that both precisions and both frameworks see the very same numbers."""


@dataclass(frozen=True)
class Input:
    """What a batch was, for the report."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    """As `unet_core.checkpoints.checkpoint.digest` makes it."""

    @classmethod
    def of(cls, name: str, x: np.ndarray) -> "Input":
        """What `x` is."""
        return cls(name, x.shape, digest(x))


def samples(
    config: Description,
    *,
    size: tuple[int, ...] | None = None,
    images: Sequence[str | Path] = (),
    seed: int = 0,
) -> tuple[Sample, ...]:
    """The batches on which two networks of this config are compared.

    Args:
        config: of the network.
        size: height and width in pixels; None: for the full network an odd 75x91 in a batch of 3 and 128x96 of a
            photograph, and for others as much above the size at which little is left of a map; of those that they take.
        images: files to use in place of the photograph that matplotlib ships; in two dimensions.
        seed: of the random batches.

    Raises:
        UNetError: a size that the network cannot train on, or an image that cannot be read.
        MissingFrameworkError: Pillow, or matplotlib with its photograph, is not installed.
    """
    if size is not None:
        check_size(config, *size)
    first, real = (size, size) if size is not None else usual_sizes(config)
    shape = (3, *first, config.in_channels)
    random = np.random.default_rng(seed).standard_normal(shape, np.float32)
    batches = [Sample(f"random {'x'.join(map(str, shape[:-1]))}", random)]
    if len(real) == 2:
        for path in images or [photograph_path()]:
            x = load_image(path, (real[0], real[1]), config.in_channels)
            if isinstance(config, Graph):  # what is pooled to one pixel is normalised over several pictures alone
                x = np.concatenate((x, x[:, :, ::-1]))
            batches.append(Sample(f"{as_path(path).stem[:12]} {real[0]}x{real[1]}", x))
    return tuple(batches)


def usual_sizes(config: Description) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of a random batch, odd ones where the network takes such, and of a photograph."""
    if isinstance(config, UNetConfig):
        least = config.minimum_size
        return (4 * least + 11, 5 * least + 11), (8 * least, 6 * least)
    if config.sizes.only:
        return config.sizes.only[0], config.sizes.only[-1]
    unit, step = _unit(config), config.sizes.multiple
    most = config.sizes.most or math.inf

    def near(length: float | int) -> int:
        return int(min(length, most) // step * step)

    more = 11 if step == 1 else 0
    if config.dimensions == 3:
        return (near(unit), near(unit + step + more), near(unit + more)), (near(unit),) * 3
    return (near(2 * unit + more), near(2.5 * unit + step - 1 + more)), (near(4 * unit), near(3 * unit))


def _unit(graph: Graph) -> int:
    """The smallest size a side at which every map that is normalised over its pixels has two a side at least."""
    program = graph.in_mode(training=True)
    step = graph.sizes.multiple
    side = graph.minimum_size
    while side + step <= (graph.sizes.most or _WIDEST):
        sizes = graph.sizes_of(3, (side,) * graph.dimensions)
        shapes = [program.shapes[node.name] for node in program.nodes if node.operation in _OF_PIXELS]
        lengths = (part for shape in shapes for part in shape[2:] if isinstance(part, Size))
        if all(evaluate(length, sizes) > 1 for length in lengths):
            break
        side += step
    return side


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
        if value.dtype not in FLOATS:
            moved[key] = value
        else:
            unit = max(2.0**-23, float(ml_dtypes.finfo(value.dtype).eps))
            wide = value.astype(np.float64)
            moved[key] = np.asarray(wide * (1 + unit * rng.integers(-1, 2, value.shape))).astype(value.dtype)
    return moved


def check_size(config: Description, *size: int) -> None:
    """A single image must leave BatchNorm a few values per channel at the bottom: of two it makes +1 and -1."""
    shown = sized(size)
    if math.prod(size) > _LARGEST:
        raise UNetError(f"size {shown}: too large for a proof; {_LARGEST} pixels are the most")
    if isinstance(config, Graph):
        if len(size) != config.dimensions or not config.sizes.take(size):
            raise UNetError(f"size {shown}: the network takes {config.sizes}, in {config.dimensions} dimensions")
        return
    least = config.minimum_size
    if len(size) != 2 or math.prod(length // least for length in size) < 4:
        raise UNetError(f"size {shown}: too small to train on; {2 * least}x{2 * least} will do")


def photograph_path() -> Path:
    """A real photograph that comes with matplotlib: Grace Hopper, 1984, in the public domain."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise MissingFrameworkError(f"the photograph needs matplotlib ({installing('all')}); or name an image")
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
        raise MissingFrameworkError(f"images need Pillow: {installing('all')}") from error
    try:
        with at_hand(as_path(path)) as local, Image.open(local) as file:
            image = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise UNetError(f"{path}: cannot be read as an image: {error}") from error
    fitted = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(fitted, np.float32).reshape(*size, -1) / np.float32(255)
    return np.ascontiguousarray(pixels[None, :, :, np.arange(channels) % pixels.shape[-1]])
