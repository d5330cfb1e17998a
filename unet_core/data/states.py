"""What decoding pairs of pictures and masks showed, one by one and in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32


@dataclass(frozen=True)
class PairState:
    """What decoding one pair showed."""

    problems: tuple[str, ...] = ()
    channels: int = 0
    """Of the picture's file; 0 where that is not read."""
    size: tuple[int, int] = (0, 0)
    """Height and width, in pixels."""
    values: frozenset[int] | None = frozenset()
    """Of the mask: its numbers, or, where it was read by them, its colours; None where it has colours alone."""
    colours: frozenset[int] | None = None
    """Of a mask in RGB, of which nobody said how it is to be read."""


def state_columns(states: Sequence[PairState]) -> dict[str, np.ndarray]:
    """What decoding pairs showed, none of which has a problem; a set of values that many masks hold is there once."""
    number: dict[frozenset[int] | None, int] = {None: -1}
    rows = [
        (
            state.channels,
            *state.size,
            number.setdefault(state.values, len(number) - 1),
            number.setdefault(state.colours, len(number) - 1),
        )
        for state in states
    ]
    sets = [sorted(one) for one in number if one is not None]
    return {
        "states": np.array(rows, np.int32).reshape(-1, 5),
        "sets": np.array([value for one in sets for value in one], np.uint32),
        "ends": np.cumsum([len(one) for one in sets], dtype=np.int64),
    }


def states_of(columns: Mapping[str, np.ndarray]) -> list[PairState]:
    """The inverse of `state_columns`; equal states are one object.

    Raises:
        ValueError: these are no such columns.
    """
    rows: Int32[np.ndarray, "n 5"] = columns["states"]
    values, ends = columns["sets"], columns["ends"]
    fits = rows.ndim == 2 and rows.shape[1] == 5 and (np.diff(ends, prepend=0, append=values.size) >= 0).all()
    if not fits or int(ends.max(initial=0)) != values.size or (rows.size and int(rows[:, 3:].min()) < -1):
        raise ValueError("no states of pairs")
    sets = [frozenset(part.tolist()) for part in np.split(values, ends)[:-1]]
    by_number: list[frozenset[int] | None] = [*sets, None]  # -1 is the last one
    known: dict[tuple[int, ...], PairState] = {}
    found = []
    for row in map(tuple, rows.tolist()):
        state = known.get(row)
        if state is None:
            channels, height, width, values, colours = row
            state = PairState((), channels, (height, width), by_number[values], by_number[colours])
            known[row] = state
        found.append(state)
    return found
