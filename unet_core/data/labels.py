"""The classes of masks: which number stands for which, and which one counts nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8

from unet_core.data.masks import MOST_CLASSES
from unet_core.errors import DataError, some

IGNORED = 255
"""The label of a pixel that counts nowhere, which is no class's number then."""

_MOST_FOUND = 64
"""More values than that are those of a photograph or of numbered objects, if nobody says otherwise."""
_STRETCH = 2**20


@dataclass(frozen=True)
class Classes:
    """What stands for which class in masks.

    Raises:
        DataError: values that do not.
    """

    values: tuple[int, ...]
    """What stands for each class, ascending."""
    ignore: int | None = None
    """What stands for no class."""

    def __post_init__(self) -> None:
        values, most = self.values, MOST_CLASSES - (self.ignore is not None)
        within = 0 < len(values) <= most and values[0] >= 0 and values[-1] <= 65535
        if not within or list(values) != sorted(set(values)):
            raise DataError(f"values {values}: must be up to {most} numbers from 0 to 65535, ascending")
        if self.ignore in values:
            raise DataError(f"--ignore {self.ignore}: stands for a class here, of {in_words(values)}")

    def labels(self, mask: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """The class of every pixel of a mask, and `IGNORED` where it has none.

        Raises:
            DataError: a value that stands for nothing; the file is not named.
        """
        number, known = np.full(65536, IGNORED, np.uint8), np.zeros(65536, bool)
        number[list(self.values)] = np.arange(len(self.values))
        known[[*self.values, *self._ignored]] = True
        if not known[mask].all():
            strange = sorted(values_of(mask) - {*self.values, *self._ignored})
            raise DataError(f"holds {some(strange)}, which is no class here")
        return number[mask]

    @property
    def _ignored(self) -> tuple[int, ...]:
        return () if self.ignore is None else (self.ignore,)


def values_of(mask: np.ndarray) -> frozenset[int]:
    """The values that a mask holds."""
    held = np.zeros(np.iinfo(mask.dtype).max + 1, bool)
    flat = mask.ravel()
    for begin in range(0, flat.size, _STRETCH):  # indexing copies its indices, eight bytes each
        held[flat[begin : begin + _STRETCH]] = True
    return frozenset(map(int, np.flatnonzero(held)))


def in_words(values: tuple[int, ...]) -> str:
    """Values in a line, many that follow each other as 0..20."""
    if len(values) > 8 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return "/".join(map(str, values))


def strange_values(held: Mapping[str, frozenset[int]], values: tuple[int, ...]) -> list[str]:
    """Which masks, of the values that each file holds, have others than these, one problem for each."""
    strange = {name: sorted(one - set(values)) for name, one in held.items()}
    return [
        f"{name} holds {some(odd, most=4)} where masks of {in_words(values)} are wanted"
        + (f"; where nobody labelled these pixels, give --ignore {odd[0]}" if odd == [IGNORED] else "")
        for name, odd in strange.items()
        if odd
    ]


def value_problem(held: Mapping[str, frozenset[int]]) -> str | None:
    """Why the values of these masks, by file, are no numbers of classes; None where they are."""
    every = frozenset().union(*held.values())
    if len(every) > _MOST_FOUND:
        most = max(held, key=lambda name: len(held[name]))
        return (
            f"the masks hold {len(every)} different values, {most} alone {len(held[most])}: no numbers of at most "
            f"{_MOST_FOUND} classes; save one value for each class, or say how many there are (--classes)"
        )
    ones = [name for name, one in held.items() if 1 in one]
    whites = [name for name, one in held.items() if 255 in one]
    if every - {0} == {1, 255} and not set(ones) & set(whites):
        return f"some masks are of 0 and 1, as {ones[0]}, others of 0 and 255, as {whites[0]}; save all in one way"
    if len(every) == 1:
        return f"every mask holds {min(every)} and nothing else; there is nothing to learn"
    numbers = every - {255}
    if whites and 0 < max(numbers) < _MOST_FOUND:  # no levels of grey, whose white is 255
        return (
            f"{whites[0]} holds 255, beside masks of {in_words(tuple(sorted(numbers)))}: give --ignore 255 where nobody"
            " labelled these pixels, or --classes 256 where it is a class"
        )
    return None
