"""Drawn cells with masks that are exactly known: data to train on that needs no download."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unet_core.data.cells import draw
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.labels import Classes
from unet_core.data.pictures import Pair
from unet_core.errors import DataError, MissingFrameworkError, reason, shown
from unet_core.installation import installing


@dataclass(frozen=True)
class Synthetic:
    """Pictures of cells, each drawn when it is asked for and always the same; used as a `Folder` is.

    Args:
        count: of pictures.
        size: height and width in pixels, 32 at least; the cells grow with it.
        seed: other pictures for each.
        channels: 1 for grey, 3 for RGB; others are mixtures too.
        chosen: the pictures' numbers; None: all of them.

    Raises:
        DataError: no such picture can be drawn.
    """

    count: int = 64
    size: int = 128
    seed: int = 0
    channels: int = 1
    chosen: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("size", 32), ("seed", 0), ("channels", 1)):
            if getattr(self, name) < least:
                raise DataError(f"synthetic data: {name} {getattr(self, name)}: must be {least} or more")

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the pictures, from 0 to `count` - 1."""
        return tuple(range(self.count)) if self.chosen is None else self.chosen

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers in three digits or more."""
        return tuple(f"{number:03d}" for number in self.numbers)

    @property
    def files(self) -> tuple[str, ...]:
        """Each as if it were one."""
        return self.names

    @property
    def pictures(self) -> Pictures:
        """Nothing is read."""
        return AS_STORED

    @property
    def spacings(self) -> tuple[None, ...]:
        """Pictures have none."""
        return (None,) * len(self)

    @property
    def values(self) -> tuple[int, ...]:
        """What stands for background and cell in a mask that is written."""
        return self.classes.values

    @property
    def classes(self) -> Classes:
        """Background and cell."""
        return Classes((0, 255))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each picture, in pixels."""
        return ((self.size, self.size),) * len(self)

    @property
    def aside(self) -> None:
        """Which are for validation is decided by who trains."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def __len__(self) -> int:
        return len(self.numbers)

    def pair(self, index: int) -> Pair:
        """A picture, uint8, and its labels: 1 in cells, 0 elsewhere. Depends on `seed` and its number only."""
        rng = np.random.default_rng((self.seed, self.numbers[index]))
        return Pair(*draw(rng, self.size, self.channels))

    def digest(self) -> str:
        """A sha256 of what decides the pictures."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def subset(self, indices: Sequence[int]) -> "Synthetic":
        """The pictures at these indices, in this order."""
        return replace(self, chosen=tuple(self.numbers[i] for i in indices))


def write_folder(data: Synthetic, path: str | Path) -> None:
    """Write the pictures as a data folder: `path`/images/000.png, `path`/masks/000.png, and so on.

    Raises:
        DataError: `path` exists and is not an empty folder, or cannot be written; or PNG has no such channels.
        MissingFrameworkError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingFrameworkError(f"pictures need Pillow: {installing('train')}") from error
    path = Path(path)
    if data.channels not in (1, 3):
        raise DataError(f"{shown(path)}: PNG files have 1 or 3 channels, not {data.channels}")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(f"{shown(path)}: exists already; give another name, or an empty folder")
        for part in ("images", "masks"):
            (path / part).mkdir(parents=True)
        for index, name in enumerate(data.names):
            image, labels = data.pair(index)
            picture = image[:, :, 0] if data.channels == 1 else image
            Image.fromarray(picture).save(path / "images" / f"{name}.png")
            Image.fromarray(np.array(data.values, np.uint8)[labels]).save(path / "masks" / f"{name}.png")
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be written: {reason(error)}") from error
