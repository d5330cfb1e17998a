"""How exact each framework is in each precision, and what that does to masks."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from conversion.backends.backend import Framework
from conversion.proof.differences import norm_difference
from unet_compare.backends.backend import PRECISIONS, Precision, TrainableNetwork, check_alike, side
from unet_compare.crops import Crops
from unet_compare.findings import Ladder, Rung
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.progress import Progress, silent

Role = Literal["A", "B"]


@dataclass(frozen=True)
class LogitsByPrecision:
    """What both networks make of some pictures, in every precision."""

    crops: Crops
    frameworks: Mapping[Role, Framework]
    logits: Mapping[tuple[Role, Precision], Float[np.ndarray, "n h w k"]]
    absent: Mapping[str, str]
    """Precisions that a device lacks, and why."""


def predictions(
    a: TrainableNetwork, b: TrainableNetwork, crops: Crops, *, progress: Progress = silent
) -> LogitsByPrecision:
    """Predict the pictures by both networks in every precision, each precision with the settings of the proof.

    Args:
        a, b: the networks, each with its framework.
        crops: the pictures.
        progress: is told which precision is next.

    Raises:
        UNetError: the networks take or return other channels.
    """
    check_alike(a.config, b.config)
    logits: dict[tuple[Role, Precision], np.ndarray] = {}
    absent: dict[str, str] = {}
    sides: Mapping[Role, TrainableNetwork] = {"A": a, "B": b}
    for number, (precision, (role, network)) in enumerate(itertools.product(PRECISIONS, sides.items())):
        progress(f"{precision}, {role}", number / (len(PRECISIONS) * len(sides)))
        framework = side(network.framework)
        reason = framework.lacks_tf32() if precision == "tf32" else None
        if reason is not None:
            known = absent.get(precision)
            absent[precision] = f"{known}; {reason}" if known and reason not in known else reason
            continue
        checkpoint = Checkpoint(network.config, network.tensors)
        logits[role, precision] = np.stack(framework.predict(checkpoint, precision, crops.images))
    return LogitsByPrecision(crops, {"A": a.framework, "B": b.framework}, logits, absent)


def ladder(found: LogitsByPrecision) -> Ladder:
    """Every output beside A's in float64."""
    exact = found.logits["A", "float64"].astype(np.float64)
    rungs = (
        _rung(role, found.frameworks[role], precision, found.crops, logits.astype(np.float64), exact)
        for (role, precision), logits in found.logits.items()
    )
    pixels = sum(pair.labels.size for pair in found.crops.pairs)
    return Ladder(len(found.crops.pairs), pixels, tuple(rungs), found.absent)


def _rung(
    role: Role,
    framework: Framework,
    precision: Precision,
    crops: Crops,
    logits: Float[np.ndarray, "n h w k"],
    exact: Float[np.ndarray, "n h w k"],
) -> Rung:
    """The figures of these logits, beside A's in float64."""
    predicted, reference = crops.decided(logits), crops.decided(exact)
    found, best = crops.judged(predicted), crops.judged(reference)
    return Rung(
        role,
        framework,
        precision,
        error=norm_difference({"": logits}, {"": exact}),
        dice=found.mean_dice,
        iou=found.mean_iou,
        dice_change=found.mean_dice - best.mean_dice,
        iou_change=found.mean_iou - best.mean_iou,
        flipped=int((predicted != reference).sum()),
    )
