"""What lies in a data folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unet_core.data.annotations import Annotations


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
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Of the files by their paths within the data folder (`stamps.stamp`)."""
    annotations: Annotations | None = None
    """What tells the classes of pixels, where no mask's file does by itself; `masks` then says where it has that from.
    """

    @property
    def names(self) -> list[str]:
        """Of the pairs, 2 before 10."""
        return sorted(self.images.keys() & self.masks.keys(), key=natural)

    def short(self, path: Path) -> str:
        """The path within the data folder, if it lies there."""
        return within(self.path, path)

    def mask(self, name: str) -> str:
        """What the mask of a picture is called."""
        mask = self.short(self.masks[name])
        return f"{mask}: {name}" if mask.endswith(".json") else mask


def natural(name: str) -> tuple[list[str | int], str]:
    """A key by which names are sorted with 2 before 10."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


def within(folder: Path, path: Path) -> str:
    """The path of a file within a folder that it is below, by the names alone."""
    return str(path).removeprefix(f"{str(folder).rstrip('/')}/")
