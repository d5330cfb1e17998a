"""What decoding pairs of pictures and masks showed, one by one and in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Int32

from unet_core.data.formats.reading import AS_STORED, Pages, Pictures
from unet_core.data.formats.stack import Spacing


class Way(NamedTuple):
    """How the files of pairs are read."""

    colours: tuple[int, ...] | None = None
    """Those by which masks are read; None: by numbers, if they have such."""
    pictures: Pictures = AS_STORED


NUMBERS = Way()
"""As the files tell."""


@dataclass(frozen=True)
class PairState:
    """What decoding one pair showed."""

    problems: tuple[str, ...] = ()
    channels: int = 0
    """Of the picture's file."""
    size: tuple[int, ...] = (0, 0)
    """Height and width, in pixels; of a whole volume its depth before them."""
    values: frozenset[int] | None = frozenset()
    """Of the mask: its numbers, or, where it was read by them, its colours; None where it has colours alone."""
    colours: frozenset[int] | None = None
    """Of a mask in RGB, of which nobody said how it is to be read."""
    slices: tuple[frozenset[int], ...] | None = None
    """Of a volume, what each slice of the mask holds, of the kind that all together hold: `values`, or `colours`."""
    pages: Pages | None = None
    """What the picture's pages are, where its mask told that and nothing else does."""
    brightest: int = 0
    """The largest number in a picture of 16 bits."""
    spacing: Spacing | None = None
    """Of a whole volume, where its file or its mask's says it."""
    unknown: tuple[float, float] | None = None
    """The least and the largest value, where nothing tells which are black and white."""

    @property
    def is_sound(self) -> bool:
        """Whether the pair can be trained on."""
        return not self.problems and self.unknown is None


_PAGES = (None, *get_args(Pages))

_Values = frozenset[int] | None


def state_columns(states: Sequence[PairState]) -> dict[str, np.ndarray]:
    """What decoding pairs showed, none of which has a problem; a set of values that many masks hold is there once."""
    number: dict[_Values, int] = {None: -1}
    places: dict[tuple[_Values, ...] | None, int] = {None: -1}

    def of(values: _Values) -> int:
        return number.setdefault(values, len(number) - 1)

    rows = [
        (
            state.channels,
            *state.size[-2:],
            of(state.values),
            of(state.colours),
            _PAGES.index(state.pages),
            state.brightest,
            places.setdefault(state.slices, len(places) - 1),
        )
        for state in states
    ]
    volumes = [[of(values) for values in slices] for slices in places if slices is not None]
    sets = [sorted(one) for one in number if one is not None]
    whole = [[*state.size[:-2], *(state.spacing or (0, 0, 0))] for state in states if len(state.size) == 3]
    return {
        "states": np.array(rows, np.int32).reshape(-1, _WIDTH),
        "sets": np.array([value for one in sets for value in one], np.uint32),
        "ends": np.cumsum([len(one) for one in sets], dtype=np.int64),
        "slices": np.array([values for one in volumes for values in one], np.int64),
        "slice_ends": np.cumsum([len(one) for one in volumes], dtype=np.int64),
        "whole": np.array([place for place, state in enumerate(states) if len(state.size) == 3], np.int64),
        "depths": np.array(whole, np.float64).reshape(-1, 4),
    }


_WIDTH = 8
"""Numbers of a state."""


def states_of(columns: Mapping[str, np.ndarray]) -> list[PairState]:
    """The inverse of `state_columns`; equal states are one object.

    Raises:
        ValueError: these are no such columns.
        IndexError: nor are these.
    """
    rows: Int32[np.ndarray, "n 8"] = columns["states"]
    if rows.ndim != 2 or rows.shape[1] != _WIDTH or (rows.size and int(rows.min()) < -1):
        raise ValueError("no states of pairs")
    sets: list[_Values] = [frozenset(part) for part in _parts(columns["sets"], columns["ends"])]
    sets.append(None)  # -1 is the last one
    volumes = [tuple(map(sets.__getitem__, part)) for part in _parts(columns["slices"], columns["slice_ends"])]
    held = [*volumes, None]
    known: dict[tuple[int, ...], PairState] = {}
    found = []
    for row in map(tuple, rows.tolist()):
        state = known.get(row)
        if state is None:
            channels, height, width, values, colours, pages, brightest, slices = row
            size = height, width
            state = PairState((), channels, size, sets[values], sets[colours], held[slices], _PAGES[pages], brightest)
            known[row] = state
        found.append(state)
    if "whole" in columns:  # which what was packed by an earlier release has not
        for place, (depth, *spacing) in zip(columns["whole"].tolist(), columns["depths"].tolist(), strict=True):
            one = found[place]
            apart = (spacing[0], spacing[1], spacing[2]) if all(spacing) else None
            found[place] = replace(one, size=(int(depth), *one.size), spacing=apart)
    return found


def _parts(values: np.ndarray, ends: np.ndarray) -> list[list[int]]:
    """The parts of a column that end there."""
    if not (np.diff(ends, prepend=0, append=values.size) >= 0).all() or int(ends.max(initial=0)) != values.size:
        raise ValueError("no states of pairs")
    return [part.tolist() for part in np.split(values, ends)[:-1]]
