"""How the files of pictures are read. Plain data: the command reads it before NumPy is imported."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from unet_core.codec import OPTIONAL
from unet_core.errors import ConfigError

Axis = Literal["z", "y", "x"]
Pages = Literal["slices", "channels"]


@dataclass(frozen=True)
class Pictures:
    """What the files of pictures do not tell of what they hold.

    Raises:
        ConfigError: a window without a width.
    """

    whole: ClassVar[bool] = False
    """Whether a file is one volume, and no picture, or several."""

    window: tuple[float, float] | None = field(default=None, metadata=OPTIONAL)
    """The values that are black and white, such as Hounsfield units: these become 0 and 1, and what is beyond them is
    clipped. Left out: 8 and 16 bits have theirs, and fractions are from 0 to 1; other values are refused."""
    slice_axis: Axis | None = field(default=None, metadata=OPTIONAL)
    """Across which axis of a volume its slices lie; left out: z, as they follow each other in the file."""
    pages: Pages | None = field(default=None, metadata=OPTIONAL)
    """What the pages of a TIFF, or the first axis of a .npy, are. Left out: what its metadata (ImageJ, OME) says; in a
    data folder, slices where the mask has as many, else channels; of a .npy, channels where the two axes behind it are
    the mask's, else the last axis is channels."""

    def __post_init__(self) -> None:
        if self.window is not None and not (self.window[0] < self.window[1] and all(map(math.isfinite, self.window))):
            raise ConfigError(f"window {self.window[0]:g} {self.window[1]:g}: give two numbers, the lower one first")
        if self.window is not None:  # as files have it
            object.__setattr__(self, "window", tuple(map(float, self.window)))

    @property
    def axis(self) -> Axis:
        """Across which axis slices lie."""
        return self.slice_axis or "z"

    def but(self, other: "Pictures") -> "Pictures":
        """The same, with what `other` says in place of it."""
        said: dict[str, Any] = {name: value for name, value in vars(other).items() if value is not None}
        return type(self)(**{**vars(self), **said})

    def of(self, dimensions: int) -> "Pictures":
        """How the same files are read for a network of so many dimensions.

        Raises:
            ConfigError: slices are asked for, where it takes whole volumes.
        """
        if dimensions == 3 and self.slice_axis is not None:
            raise ConfigError(f"slice_axis {self.slice_axis}: a 3-D network takes volumes whole; leave it out")
        return (Volumes if dimensions == 3 else Pictures)(**vars(self))


@dataclass(frozen=True)
class Volumes(Pictures):
    """The same of files each of which is read whole; pages are slices, unless something says that they are channels."""

    whole = True


AS_STORED = Pictures()
"""The files tell everything."""
