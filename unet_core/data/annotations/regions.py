"""Regions that somebody outlined or painted in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from unet_core.data.annotations.shapes import brush, polygon, runs
from unet_core.data.formats.files import Extent
from unet_core.data.formats.reading import Pictures
from unet_core.errors import DataError


@dataclass(frozen=True)
class Region:
    """Pixels of one class, in one of several forms."""

    label: int
    """The number of the class, or 255: whatever the pixels are, they count nowhere."""
    title: str
    """Which one it is in its file."""
    polygons: Sequence[Sequence[float]] = ()
    """The corners of parts, x and y of each."""
    counts: Sequence[int] | str | None = None
    """COCO's run lengths."""
    brush: Sequence[int] | None = None
    """Label Studio's."""

    def mask(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """The pixels.

        Raises:
            DataError: the form is damaged.
        """
        try:
            if self.counts is not None:
                return runs(self.counts, height, width)
            if self.brush is not None:
                return brush(self.brush, height, width)
            found = np.zeros((height, width), bool)
            for corners in self.polygons:
                found |= polygon(corners, height, width)
            return found
        except DataError as error:
            raise DataError(f"{self.title}: {error}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.title}: is damaged: its outline has parts that are no numbers") from error


@dataclass(frozen=True)
class Regions:
    """The regions of all pictures of a folder."""

    classes: tuple[str, ...]
    drawn: Mapping[str, Sequence[Region]]
    """By picture, from the bottom up."""
    sizes: Mapping[str, tuple[int, int]]
    """Height and width of the pictures, as far as the file says them."""

    def extent(self, name: str, how: Pictures) -> Extent | None:  # noqa: ARG002
        """As the picture's."""
        return None

    def numbers(
        self,
        name: str,
        size: tuple[int, ...],
        how: Pictures,  # noqa: ARG002
        at: int | None,  # noqa: ARG002
    ) -> UInt8[np.ndarray, "h w"]:
        """The class of each pixel: of regions that overlap, that of the later one."""
        if len(size) != 2:
            raise DataError("outlines regions of pictures; the mask of a volume is a volume")
        said = self.sizes.get(name, (size[0], size[1]))
        if said != size:
            raise DataError(f"says that {name} is {said[0]}x{said[1]}, but the picture is {size[0]}x{size[1]}")
        labels = np.zeros(size, np.uint8)
        for region in self.drawn[name]:
            labels[region.mask(*said)] = region.label
        return labels


@dataclass
class Annotated:
    """What a file of annotations says, before it is held against the pictures."""

    classes: tuple[str, ...]
    drawn: dict[Path, list[Region]] = field(default_factory=dict)
    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
