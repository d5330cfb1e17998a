"""When arms part in training: the first step after which they are farther apart than rounding takes them."""

import numpy as np
from jaxtyping import Float

from unet_compare.study.collected import Collected, Curve
from unet_compare.study.findings import Parting
from unet_compare.trajectories.verdict import FACTOR

LEAST = 2.0**-20
"""Of a loss; what is less is rounding in any case: a few units in float32's last place."""


def partings(first: Collected, rounding: Collected, other: Collected) -> tuple[Parting, ...]:
    """In training and in validation.

    Args:
        first: the arm to which distances are.
        rounding: the arm that differs from it by rounding alone.
        other: the one that is judged.
    """
    seeds = [seed for seed in first.seeds if seed in rounding.seeds and seed in other.seeds]
    if not seeds:
        return ()
    found = []
    for what in ("training loss", "validation loss"):
        curves = [
            one.losses if what == "training loss" else one.validations["loss"] for one in (first, rounding, other)
        ]
        if len({len(curve.steps) for curve in curves}) != 1:
            continue
        base, moved, judged = (
            _of_seeds(one, curve, seeds) for one, curve in zip((first, rounding, other), curves, strict=True)
        )
        band = np.maximum.accumulate(np.abs(moved - base).max(0))
        limit = FACTOR * np.maximum(band, LEAST * np.abs(base).mean(0))
        apart = np.median(np.abs(judged - base), axis=0)
        outside = np.flatnonzero(apart > limit)
        steps = curves[0].steps
        left = int(steps[outside[0]]) if len(outside) else None
        found.append(Parting(what, steps, apart, limit, left))
    return tuple(found)


def _of_seeds(arm: Collected, curve: Curve, seeds: list[int]) -> Float[np.ndarray, "r n"]:
    folds = len(arm.results) // len(arm.seeds)
    rows = [arm.seeds.index(seed) * folds + fold for seed in seeds for fold in range(folds)]
    return np.asarray(curve.values[rows])
