"""What lies in a data folder and what its files show, as plain data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unet_core.data.annotations import Annotations
from unet_core.data.formats.reading import Pages


@dataclass(frozen=True)
class Files:
    """The files of a data folder by the pictures' names below images/, without suffix."""

    path: Path
    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    skipped: tuple[str, ...]
    """What is no data: hidden files, other suffixes, folders that only images/ or only masks/ has."""
    problems: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()
    """Images without a mask."""
    matched: str | None = None
    """How the names of pictures and masks differ, by an example."""
    annotations: Annotations | None = None
    """What tells the classes of pixels, where no mask's file does by itself; `masks` then says where it has that from.
    """

    @property
    def names(self) -> list[str]:
        """Of the pairs, 2 before 10."""
        return sorted(self.images.keys() & self.masks.keys(), key=natural)

    def short(self, path: Path) -> str:
        """The path within the data folder, if it lies there."""
        return path.relative_to(self.path).as_posix() if path.is_relative_to(self.path) else str(path)

    def mask(self, name: str) -> str:
        """What the mask of a picture is called."""
        mask = self.short(self.masks[name])
        return f"{mask}: {name}" if mask.endswith(".json") else mask


@dataclass(frozen=True)
class PairState:
    """What decoding one pair showed."""

    problems: tuple[str, ...] = ()
    channels: int = 0
    """Of the picture's file."""
    size: tuple[int, int] = (0, 0)
    """Height and width, in pixels."""
    values: frozenset[int] | None = frozenset()
    """Of the mask: its numbers, or, where it was read by them, its colours; None where it has colours alone."""
    colours: frozenset[int] | None = None
    """Of a mask in RGB, of which nobody said how it is to be read."""
    slices: tuple[frozenset[int], ...] | None = None
    """Of a volume, what each slice of the mask holds, of the kind that all together hold: `values`, or `colours`."""
    pages: Pages | None = None
    """What the picture's pages are, where its mask told that and nothing else does."""
    brightest: int = 0
    """The largest number in a picture of 16 bits."""
    unknown: tuple[float, float] | None = None
    """The least and the largest value, where nothing tells which are black and white."""


def natural(name: str) -> tuple[list[str | int], str]:
    """A key by which names are sorted with 2 before 10."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name
