"""Masks that are no picture of their own: one file for each class, COCO's annotations, Label Studio's exports."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from unet_core.data.formats.files import Extent
from unet_core.data.formats.reading import Pictures

BACKGROUND = "background"
"""The first class: pixels that nobody annotated."""


@runtime_checkable
class Annotations(Protocol):
    """The classes of all pixels of a folder's pictures."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What the classes are called, the background's name first."""

    def extent(self, name: str, how: Pictures) -> Extent | None:
        """How large the mask of a picture is, and how many slices it has; None: it has its picture's."""

    def numbers(self, name: str, size: tuple[int, ...], how: Pictures, at: int | None) -> Integer[np.ndarray, "*s"]:
        """The class of each pixel, and 255 where it is none.

        Args:
            name: of the picture, as in the folder's list.
            size: its height and width; of a whole volume its depth before them.
            how: what slices are.
            at: which slice of it.

        Raises:
            DataError: they cannot be told.
        """
