"""How the masks of a data folder are read. Plain data: the command reads it before NumPy is imported."""

import re
from dataclasses import dataclass, field
from typing import Any

from unet_core.codec import OPTIONAL
from unet_core.errors import ConfigError

MOST_CLASSES = 256
"""A label is a byte."""


@dataclass(frozen=True)
class Masks:
    """What the files of a data folder do not tell of its masks.

    Raises:
        ConfigError: numbers that no mask can hold.
    """

    ignore: int | str | None = field(default=None, metadata=OPTIONAL)
    """Pixels of the masks that hold this number, e.g. 255, or this colour, e.g. #e0e0c0, count nowhere: in no loss,
    gradient, metric or class."""
    classes: int | None = field(default=None, metadata=OPTIONAL)
    """The masks hold the numbers of so many classes, from 0 up, whether each occurs or not. Left out: the numbers that
    occur are the classes."""
    colors: str | None = field(default=None, metadata=OPTIONAL)
    """A table of the classes' colours, in lines of name,r,g,b or name,#rrggbb: masks are read by their colours. Left
    out: where all masks are RGB and not grey, the colours that occur are the classes."""
    mask_suffix: str | None = field(default=None, metadata=OPTIONAL)
    """What stands behind a picture's name in its mask's, as _mask in 7_mask.png. Left out: the names are the same, or
    differ by a word that all masks, or all pictures, begin or end in."""
    annotations: str | None = field(default=None, metadata=OPTIONAL)
    """The file of annotations, COCO's or Label Studio's, that is read in place of masks. Left out: the only .json in
    the folder, or in annotations/ there, if there is no masks/."""
    skip_unlabelled: bool = field(default=False, metadata=OPTIONAL)
    """Leave pictures without a mask out, instead of refusing the folder."""

    def __post_init__(self) -> None:
        if isinstance(self.ignore, str):
            colour_code(self.ignore)
        elif self.ignore is not None and not 0 <= self.ignore <= 65535:
            raise ConfigError(f"ignore {self.ignore}: give a number that masks can hold, from 0 to 65535")
        if self.classes is not None and not 2 <= self.classes <= MOST_CLASSES:
            raise ConfigError(f"classes {self.classes}: give a number from 2 to {MOST_CLASSES}")
        if self.colors is not None and self.classes is not None:
            raise ConfigError("classes: the lines of --colors are the classes; leave that out")

    @property
    def values(self) -> tuple[int, ...] | None:
        """What the masks' pixels hold, by class, where they hold numbers; None where the files are to tell."""
        return None if self.classes is None else tuple(n for n in range(self.classes) if n != self.ignore)

    def ignored(self, *, coloured: bool) -> int | None:
        """What pixels hold that count nowhere; of masks of colours 0xRRGGBB.

        Raises:
            ConfigError: a number where the masks are of colours, or the other way round.
        """
        if self.ignore is None:
            return None
        if isinstance(self.ignore, str) != coloured:
            kind, wanted = ("colours", "#rrggbb") if coloured else ("numbers", "a number")
            raise ConfigError(f"ignore {self.ignore}: the masks are of {kind}; give {wanted}")
        return colour_code(self.ignore) if isinstance(self.ignore, str) else self.ignore

    def but(self, other: "Masks") -> "Masks":
        """The same, with what `other` says in place of it."""
        said: dict[str, Any] = {name: value for name, value in vars(other).items() if value != getattr(AS_FOUND, name)}
        return Masks(**{**vars(self), **said})


AS_FOUND = Masks()
"""The files tell everything."""


def colour_code(text: str) -> int:
    """A colour #rrggbb as the number 0xRRGGBB.

    Raises:
        ConfigError: it is none.
    """
    if re.fullmatch("#[0-9a-fA-F]{6}", text) is None:
        raise ConfigError(f"{text!r}: is no colour; give it as #rrggbb")
    return int(text[1:], 16)
