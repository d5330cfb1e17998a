"""The sizes that a network takes, found by trying: where its code and the graph that was read from it agree."""

import math
from collections.abc import Callable, Iterator

from unet_core.graph import Sizes

Size = tuple[int, ...]
Holds = Callable[[Size], bool]
"""Whether code and graph agree at a size."""

_STEPS = (1, 2, 4, 3, 8, 5, 7, 16)
"""By how many multiples sizes are tried beside one that holds: each of the last bits is met alone."""
_USUAL = ((24, 40, 16), (37, 29, 19))
"""Larger ones than may be met beside the smallest, rounded up to multiples."""
_PIXELS = 2**14
"""Of the sizes that are tried; more where the smallest one that holds has more."""


def sizes_taken(holds: Holds, traced: Size, most: int | None = None) -> Sizes | None:
    """The sizes at which a graph that was traced at one size is the network.

    Args:
        holds: whether it is at a size.
        traced: where it was traced.
        most: the largest size that its code takes.

    Returns:
        The multiples of the smallest number of which all that were tried hold; None where there is no such number.
    """
    if not holds(traced):
        return None
    for base in _bases(traced):
        if not holds(base):
            continue
        for multiple in _multiples(traced):
            if all(size % multiple == 0 for size in base) and all(map(holds, _around(base, multiple, most))):
                least = _least(holds, base, multiple)
                if least is not None:
                    return Sizes(multiple, least, most)
    return None


def _bases(traced: Size) -> list[Size]:
    """Sizes to begin at: the smallest first, where trying is cheap."""
    powers = [(2**power,) * len(traced) for power in range(max(traced).bit_length())]
    return sorted({*powers, traced}, key=math.prod)


def _multiples(traced: Size) -> list[int]:
    """Numbers of which a network may want multiples: powers of two, and what divides the size that it was traced at."""
    divisors = {number for number in range(1, min(traced) + 1) if all(size % number == 0 for size in traced)}
    return sorted(divisors | {1, 2, 4, 8, 16, 32, 64})


def _around(base: Size, multiple: int, most: int | None) -> Iterator[Size]:
    """Sizes beside one: longer along one axis, and along all of them, by several residues."""
    rank, pixels = len(base), max(_PIXELS, 3 * math.prod(base))
    moves = [tuple(int(axis == other) for other in range(rank)) for axis in range(rank)]
    moves += [
        tuple(_STEPS[(number + place) % len(_STEPS)] for place in (0, 1, 3)[:rank]) for number in range(len(_STEPS))
    ]
    sizes = [tuple(length + multiple * step for length, step in zip(base, move, strict=True)) for move in moves]
    for size in (*sizes, *(_rounded(size[:rank], multiple) for size in _USUAL)):
        if min(size) < min(base):
            continue
        if math.prod(size) <= pixels and (most is None or max(size) <= most):
            yield size


def _rounded(size: Size, multiple: int) -> Size:
    return tuple(-(-length // multiple) * multiple for length in size)


def _least(holds: Holds, base: Size, multiple: int) -> int | None:
    """The smallest size of all axes at which it holds, and at those above as well."""
    rank, pixels = len(base), max(_PIXELS, 3 * math.prod(base))
    failing, holding = 0, max(base)
    if not holds((holding,) * rank):
        return None
    while holding - failing > multiple:
        middle = failing + max(1, (holding - failing) // multiple // 2) * multiple
        if holds((middle,) * rank):
            holding = middle
        else:
            failing = middle
    for size in range(holding + 4 * multiple, holding, -multiple):  # there code may do something else once more
        square, oblong = (size,) * rank, (holding, *(size,) * (rank - 1))
        if math.prod(square) <= pixels and not (holds(square) and holds(oblong)):
            return size + multiple
    return holding
