"""Where pictures and masks come from: a folder, or the built-in data."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

from unet_core.data.folder import open_folder
from unet_core.data.labels import Classes
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.synthetic import Synthetic
from unet_core.paths import as_path
from unet_core.progress import Progress, silent

SYNTHETIC = "synthetic"
"""The name of the built-in data, where a folder is asked for."""


@runtime_checkable
class Dataset(Protocol):
    """Pictures with masks, each read when it is asked for: `folder.Folder`, `synthetic.Synthetic`."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the pictures are called."""

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
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every picture, in pixels."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person who trains on it is to know, in lines: such as what is left out."""

    def __len__(self) -> int: ...

    def pair(self, index: int) -> tuple[Shaped[np.ndarray, "h w c"], UInt8[np.ndarray, "h w"]]:
        """One picture and the class of each of its pixels; a number beyond the classes counts nowhere."""

    def digest(self) -> str:
        """A sha256 of all of it: other data has another one."""

    def subset(self, indices: Sequence[int]) -> Self:
        """Some of them, in this order."""


def open_dataset(
    data: str,
    *,
    channels: int | None = None,
    values: tuple[int, ...] | None = None,
    coloured: bool = False,
    masks: Masks = AS_FOUND,
    progress: Progress = silent,
) -> Dataset:
    """A data folder, every file of it checked; or the built-in data.

    Args:
        data: the folder with `images/` and `masks/`; or "synthetic", where no folder has that name.
        channels: that the pictures are to have; None: what they have.
        values: what the masks' pixels may hold; None: what `masks` says.
        coloured: `values` are colours, 0xRRGGBB.
        masks: how the masks of a folder are read.
        progress: is told how far the check is.

    Raises:
        DataError: the folder cannot be trained on; one line lists what is wrong.
    """
    if data == SYNTHETIC and not as_path(data).exists():
        return Synthetic(channels=channels or 1)
    return open_folder(data, channels=channels, values=values, coloured=coloured, masks=masks, progress=progress)
