"""Metrics of a segmentation, from one confusion matrix summed over the whole data set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8


def confusion(
    labels: UInt8[np.ndarray, "*n"], predicted: UInt8[np.ndarray, "*n"], classes: int
) -> Int[np.ndarray, "k k"]:
    """How many pixels of each class (row) were taken for each class (column); matrices of several pictures add up.

    Pixels that have no class's number are ignored.
    """
    pairs = labels.astype(np.int64).ravel() * classes + predicted.ravel()
    return np.bincount(pairs[labels.ravel() < classes], minlength=classes * classes).reshape(classes, classes)


def decided(logits: Float[np.ndarray, "*n k"], output: str = "sigmoid") -> UInt8[np.ndarray, "*n"]:
    """The class of every pixel: the likeliest one; for one logit the foreground where it is above 0.

    Several logits that are sigmoids of their own (`output`) have a background besides: where none of them is above 0.
    """
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(np.uint8)
    best = logits.argmax(-1).astype(np.uint8)
    if output == "sigmoid":
        return np.where(logits.max(-1) > 0, best + 1, 0).astype(np.uint8)
    return best


@dataclass(frozen=True)
class Metrics:
    """Per class, the background first; None where a class is neither in the masks nor in the predictions.

    The precision also is None for a class that is never predicted, the recall for one that no mask has.
    """

    iou: tuple[float | None, ...]
    dice: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    accuracy: float
    """Pixels of the right class, of all."""
    pixels: tuple[int, ...]
    """How many pixels of each class the masks have."""

    @property
    def mean_iou(self) -> float:
        """The mean of `iou` over the classes that have one."""
        return _mean(self.iou)

    @property
    def mean_dice(self) -> float:
        """The mean of `dice` over the classes that have one."""
        return _mean(self.dice)


def metrics(matrix: Int[np.ndarray, "k k"]) -> Metrics:
    """All metrics of a confusion matrix with true classes in its rows.

    Raises:
        ValueError: it counts no pixel.
    """
    if not matrix.sum():
        raise ValueError("no pixel was counted")
    right, true, taken = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return Metrics(
        iou=_parts(right, true + taken - right),
        dice=_parts(2 * right, true + taken),
        precision=_parts(right, taken),
        recall=_parts(right, true),
        accuracy=float(right.sum() / matrix.sum()),
        pixels=tuple(map(int, true)),
    )


def _parts(some: Shaped[np.ndarray, " k"], of: Shaped[np.ndarray, " k"]) -> tuple[float | None, ...]:
    return tuple(float(a / b) if b else None for a, b in zip(some, of, strict=True))


def _mean(values: tuple[float | None, ...]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)
