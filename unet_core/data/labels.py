"""The classes of masks: which number or colour stands for which, and which one counts nowhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8

from unet_core.data.colours import hexadecimal
from unet_core.data.masks import MOST_CLASSES
from unet_core.errors import DataError, some

IGNORED = 255
"""The label of a pixel that counts nowhere, which is no class's number then."""

_MOST_FOUND = 64
"""More numbers than that are those of a photograph or of numbered objects, if nobody says otherwise."""
_STRETCH = 2**20


@dataclass(frozen=True)
class Classes:
    """What stands for which class in masks.

    Raises:
        DataError: values that do not.
    """

    values: tuple[int, ...]
    """What stands for each class; numbers are ascending, colours are 0xRRGGBB."""
    ignore: int | None = None
    """What stands for no class."""
    coloured: bool = False
    """The values are colours."""
    names: tuple[str, ...] = ()
    """What the classes are called, where somebody said."""

    def __post_init__(self) -> None:
        values, most = self.values, MOST_CLASSES - (self.ignore is not None)
        ascending = self.coloured or (list(values) == sorted(set(values)) and values[-1:] < (65536,))
        if not (0 < len(set(values)) == len(values) <= most and min(values) >= 0 and ascending):
            raise DataError(f"values {values}: must be up to {most} numbers from 0 to 65535, ascending")
        if self.names and len(self.names) != len(values):
            raise DataError(f"{len(self.names)} names of {len(values)} classes")
        if self.ignore in values:
            ignore = in_words([self.ignore], coloured=self.coloured)
            raise DataError(f"--ignore {ignore}: stands for a class here, of {self}")

    @classmethod
    def of_nobody(cls, channels: int, output: str) -> "Classes":
        """Those of a network of which nobody says what its classes are: two are black and white.

        Args:
            channels: of its logits.
            output: what makes probabilities of them; with a sigmoid the background has none.
        """
        count = 2 if channels == 1 else channels + (output == "sigmoid")
        return cls((0, 255) if count == 2 else tuple(range(count)))

    def __str__(self) -> str:
        return in_words(self.values, coloured=self.coloured)

    @property
    def known(self) -> tuple[int, ...]:
        """What pixels may hold."""
        return self.values if self.ignore is None else (*self.values, self.ignore)

    def labels(self, mask: Integer[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]:
        """The class of every pixel of a mask, and `IGNORED` where it has none.

        Raises:
            DataError: a value that stands for nothing; the file is not named.
        """
        known, numbers = np.asarray(self.known, np.uint32), np.full(len(self.known), IGNORED, np.uint8)
        numbers[: len(self.values)] = np.arange(len(self.values))
        if self.coloured:
            order = np.argsort(known)
            places = order[np.minimum(np.searchsorted(known, mask, sorter=order), len(known) - 1)]
            found, labels = known[places] == mask, numbers[places]
        else:
            table, there = np.zeros(65536, np.uint8), np.zeros(65536, bool)
            table[known], there[known] = numbers, True
            found, labels = there[mask], table[mask]
        if not found.all():
            strange = some([in_words([one], coloured=self.coloured) for one in sorted(values_of(mask) - {*self.known})])
            raise DataError(f"holds {strange}, which is no class here")
        return labels

    def strange(self, held: Mapping[str, frozenset[int]]) -> list[str]:
        """Which masks, of the values that each file holds, have others than these, one problem for each."""
        known = {*self.known}
        odd = {name: sorted(one - known) for name, one in held.items() if not one <= known}
        return [
            f"{name} holds {some([in_words([one], coloured=self.coloured) for one in found], most=4)} where masks of "
            f"{self} are wanted"
            + (f"; where nobody labelled these pixels, give --ignore {found[0]}" if found == [IGNORED] else "")
            for name, found in odd.items()
        ]


def values_of(mask: np.ndarray) -> frozenset[int]:
    """The values that a mask holds."""
    if mask.dtype.itemsize > 2:
        return frozenset(np.unique(mask).tolist())
    held = np.zeros(np.iinfo(mask.dtype).max + 1, bool)
    flat = mask.ravel()
    for begin in range(0, flat.size, _STRETCH):  # indexing copies its indices, eight bytes each
        held[flat[begin : begin + _STRETCH]] = True
    return frozenset(map(int, np.flatnonzero(held)))


def in_words(values: Sequence[int], *, coloured: bool = False) -> str:
    """Values in a line, many that follow each other as 0..20."""
    if not coloured and len(values) > 8 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return "/".join(hexadecimal(value) if coloured else str(value) for value in values)


def value_problem(held: Mapping[str, frozenset[int]], *, coloured: bool = False) -> str | None:
    """Why the values of these masks, by file, are no classes; None where they are."""
    every = frozenset().union(*held.values())
    if len(every) > (MOST_CLASSES if coloured else _MOST_FOUND):
        most = max(held, key=lambda name: len(held[name]))
        if coloured:
            return f"the masks, as {most}, hold more than {MOST_CLASSES} colours; name those of classes (--colors)"
        return (
            f"the masks hold {len(every)} different values, {most} alone {len(held[most])}: no numbers of at most "
            f"{_MOST_FOUND} classes; save one value for each class, or say how many there are (--classes)"
        )
    if len(every) == 1:
        only = in_words([*every], coloured=coloured)
        return f"every mask holds {only} and nothing else; there is nothing to learn"
    return None if coloured else _problem_of_numbers(held, every)


def _problem_of_numbers(held: Mapping[str, frozenset[int]], every: frozenset[int]) -> str | None:
    ones = [name for name, one in held.items() if 1 in one]
    whites = [name for name, one in held.items() if 255 in one]
    if every - {0} == {1, 255} and not set(ones) & set(whites):
        return f"some masks are of 0 and 1, as {ones[0]}, others of 0 and 255, as {whites[0]}; save all in one way"
    numbers = every - {255}
    if whites and 0 < max(numbers) < _MOST_FOUND:  # no levels of grey, whose white is 255
        return (
            f"{whites[0]} holds 255, beside masks of {in_words(sorted(numbers))}: give --ignore 255 where nobody"
            " labelled these pixels, or --classes 256 where it is a class"
        )
    return None
