"""Switches that were tried, and what each leaves of a difference."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import ml_dtypes
import numpy as np

from conversion.backends.backend import Precision
from conversion.proof.differences import distance

_EXPLAINED = 1e-4
"""A switch explains a difference of which it leaves no more than this part (or no more than rounding does)."""

Rounding = Callable[[np.ndarray], np.ndarray]


class Suspect(NamedTuple):
    """The output of a node, were it otherwise."""

    said: str
    answer: np.ndarray


@dataclass(frozen=True)
class Trial:
    """A suspect that was tried."""

    switch: str
    """What was switched, as a person would say it."""
    remaining: float
    """How far B is from the switched node: the norm of the difference, relative to that of the output."""
    vanishes: bool
    """Whether that is nothing: the switch explains the difference."""


def tried(
    suspects: Callable[[np.ndarray], Iterable[Suspect]],
    plain: np.ndarray | None,
    ours: np.ndarray,
    theirs: np.ndarray,
    precision: Precision,
    budget: float,
) -> tuple[Trial, ...]:
    """What each suspect leaves of the difference, the best first; it vanishes where that is no more than rounding does.

    Args:
        suspects: of the answer that they are to explain: some are fitted to it.
        plain: what A should answer by its graph, where that is known. One that A does not give, but B does, is A's own
            fault: then A's answer is what is to be explained.
        ours, theirs: what A and B answer.
        precision: of B's answer.
        budget: the difference that rounding makes: the norm, relative to that of the answer.
    """
    target, side = theirs, ""
    apart = distance(theirs, ours)
    enough = max(budget, _EXPLAINED * apart) if np.isfinite(apart) else budget
    if plain is not None and precision == "float64" and distance(theirs, plain) <= enough < distance(ours, plain):
        target, side = ours, "in A, "
    left: dict[str, float] = {}
    for said, answer in suspects(target):
        if plain is None or not np.array_equal(answer, plain):
            left.setdefault(side + said, distance(target, answer))
    found = (Trial(said, remaining, bool(remaining <= enough)) for said, remaining in left.items())
    return tuple(sorted(found, key=lambda trial: np.nan_to_num(trial.remaining, nan=np.inf)))


def cause_of(found: tuple[Trial, ...]) -> str | None:
    """The switch that makes the difference vanish; None where none does."""
    return found[0].switch if found and found[0].vanishes else None


def scaled(plain: np.ndarray, target: np.ndarray) -> float:
    """By what factor the one comes nearest to the other."""
    size = np.vdot(plain, plain)
    return float(np.vdot(plain, target) / size) if size else 1.0


def _tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to nearest, ties to even, in the 10 bits of TF32's mantissa."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000).astype(np.uint32).view(np.float32).astype(np.float64)


def _bfloat16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


ROUNDED: Mapping[str, Rounding] = {"TF32": _tf32, "bfloat16": _bfloat16}
"""What matrix units do to the operands of a product."""
PRODUCTS = ("convolution", "transposed_convolution", "linear", "matmul")
"""Operations whose operands they round."""


def precision_cause(error: float) -> str | None:
    """Why a node errs in float32 while the networks agree in float64, by the size of its error."""
    if 1e-5 < error < 1e-1:
        return "its products are rounded to TF32 or bfloat16"
    return None
