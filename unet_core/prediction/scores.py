"""How good a network is on one picture: beside overlap, how far its boundaries are off and its probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from unet_core.errors import MissingFrameworkError
from unet_core.installation import installing
from unet_core.prediction.metrics import Metrics

BINS = 15
"""Of the confidence."""


@dataclass(frozen=True)
class PictureScore:
    """What a network does on one picture."""

    name: str
    loss: float
    mean_iou: float
    mean_dice: float
    calibration: float
    """The expected calibration error (Guo et al., arXiv:1706.04599), in 15 bins: how far the confidence in the class
    that is chosen is from the part of the pixels in which it is right."""
    boundary: float
    """The mean distance, in pixels, of the points of either boundary from the other one, over the classes but the
    background; the picture's diagonal where only one has the class, and 0 where none has any."""


def picture_score(
    name: str,
    loss: float,
    found: Metrics,
    logits: Float[np.ndarray, "*s k"],
    predicted: UInt8[np.ndarray, "*s"],
    labels: UInt8[np.ndarray, "*s"],
    output: str,
) -> PictureScore:
    """The scores of a picture.

    Args:
        name: of the picture.
        loss: of its pixels.
        found: the metrics of its confusion matrix.
        logits: of its pixels.
        predicted: the class that each was taken for.
        labels: and that each has; those beyond the classes are ignored.
        output: the `UNetConfig.output` of the network.
    """
    counted = labels < len(found.iou)
    sure = confidence(logits, output)[counted]
    error = calibration_error(sure, (predicted == labels)[counted])
    one, other = (np.where(counted, of, 0) for of in (predicted, labels))
    classes = np.union1d(one, other)
    far = [boundary_distance(one == kind, other == kind) for kind in classes if kind]
    return PictureScore(name, loss, found.mean_iou, found.mean_dice, error, float(np.mean(far)) if far else 0.0)


def confidence(logits: Float[np.ndarray, "*s k"], output: str) -> Float[np.ndarray, "*s"]:
    """The probability of the class that `decided` chooses."""
    z = logits.astype(np.float64)
    if z.shape[-1] == 1 or output == "sigmoid":
        best = z.max(-1)
        return np.asarray(np.exp(-np.logaddexp(0, -np.abs(best))))
    return np.asarray(np.exp(z.max(-1) - np.logaddexp.reduce(z, axis=-1)))


def calibration_error(sure: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
    """The mean over pixels of how far the confidence of their bin is from its accuracy."""
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    apart = np.bincount(places, weights=sure - right, minlength=BINS)
    return float(np.abs(apart).sum() / len(sure))


def boundary_distance(one: Bool[np.ndarray, "*s"], other: Bool[np.ndarray, "*s"]) -> float:
    """The mean distance of the points of either mask's boundary from the other's; the edge of the picture is none.

    Raises:
        MissingFrameworkError: scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ModuleNotFoundError as error:
        advice = installing("study")
        raise MissingFrameworkError(f"distances of boundaries need scipy: {advice}") from error
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (one, other)]
    if not all(edge.any() for edge in edges):
        return 0.0 if np.array_equal(one, other) else float(np.linalg.norm(one.shape))
    ways: list[Any] = [ndimage.distance_transform_edt(~there)[here] for here, there in (edges, edges[::-1])]
    return float(np.concatenate(ways).mean())
