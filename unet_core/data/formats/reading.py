"""How the files of pictures are read. Plain data: the command reads it before NumPy is imported."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

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

    window: tuple[float, float] | None = field(default=None, metadata=OPTIONAL)
    """The values that are black and white, such as Hounsfield units: these become 0 and 1, and what is beyond them is
    clipped. Left out: 8 and 16 bits have theirs, and fractions are from 0 to 1; other values are refused."""
    slice_axis: Axis | None = field(default=None, metadata=OPTIONAL)
    """Across which axis of a volume its slices lie; left out: z, as they follow each other in the file."""
    pages: Pages | None = field(default=None, metadata=OPTIONAL)
    """What the pages of a TIFF, or the first axis of a .npy, are. Left out: what its metadata (ImageJ, OME) says; in a
    data folder, slices where the mask has as many, else channels."""

    def __post_init__(self) -> None:
        if self.window is not None and not (self.window[0] < self.window[1] and all(map(math.isfinite, self.window))):
            raise ConfigError(f"window {self.window[0]:g} {self.window[1]:g}: give two numbers, the lower one first")

    @property
    def axis(self) -> Axis:
        """Across which axis slices lie."""
        return self.slice_axis or "z"

    def but(self, other: "Pictures") -> "Pictures":
        """The same, with what `other` says in place of it."""
        said: dict[str, Any] = {name: value for name, value in vars(other).items() if value is not None}
        return Pictures(**{**vars(self), **said})


AS_STORED = Pictures()
"""The files tell everything."""
