"""Pictures with masks, wherever they come from."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

from unet_core.data.formats.reading import Pictures
from unet_core.data.formats.stack import Spacing
from unet_core.data.labels import Classes


@runtime_checkable
class Dataset(Protocol):
    """Pictures with masks, each read when it is asked for: `folder.Folder`, `shards.Packed`, `synthetic.Synthetic`."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the pictures are called."""

    @property
    def files(self) -> tuple[str, ...]:
        """What their files are called: slices of one volume have one file."""

    @property
    def pictures(self) -> Pictures:
        """How the files of pictures are read."""

    @property
    def channels(self) -> int:
        """Channels of every picture."""

    @property
    def values(self) -> tuple[int, ...]:
        """What the masks' pixels hold, by class."""

    @property
    def classes(self) -> Classes:
        """The same, and whether these are colours, what is ignored, and what the classes are called."""

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Height and width of every picture, in pixels; depth before them, where the pictures are volumes."""

    @property
    def spacings(self) -> tuple[Spacing | None, ...]:
        """Of the voxels of every volume; None of pictures."""

    @property
    def aside(self) -> tuple[int, ...] | None:
        """Which of them were put aside for validation; None: that is for who trains to decide."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person who trains on it is to know, in lines: such as what is left out."""

    def __len__(self) -> int: ...

    def pair(self, index: int) -> tuple[Shaped[np.ndarray, "*s c"], UInt8[np.ndarray, "*s"]]:
        """One picture and the class of each of its pixels; a number beyond the classes counts nowhere."""

    def digest(self) -> str:
        """A sha256 of all of it: other data has another one."""

    def subset(self, indices: Sequence[int]) -> Self:
        """Some of them, in this order."""
