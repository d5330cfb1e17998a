"""How good a network is on pictures with masks, band by band, so that large pictures need little memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from unet_core.losses import Sums, sums, value
from unet_core.metrics import Metrics, confusion, decided, metrics
from unet_core.overlay import panel
from unet_core.progress import Progress, silent
from unet_core.settings import Loss
from unet_core.source import Source

Bands = Callable[[np.ndarray], Iterable[tuple[int, np.ndarray]]]
"""Takes a picture; gives, from the top, the first row of each band and its logits."""

_SAMPLE = 512
"""Rows and columns of a sample, at most."""


@dataclass(frozen=True)
class Evaluation:
    """What the network does on some data."""

    loss: float
    metrics: Metrics
    confusion: Int[np.ndarray, "k k"]
    """Pixels of each class (row) that were taken for each class (column)."""
    samples: dict[str, UInt8[np.ndarray, "h w 3"]]
    """By name, the first pictures beside their masks and what the network makes of them."""

    def __str__(self) -> str:
        found = self.metrics
        classes = " ".join("-" if iou is None else f"{iou:.3f}" for iou in found.iou)
        return (
            f"validation loss {self.loss:.4f}, mean IoU {found.mean_iou:.3f} ({classes}), accuracy {found.accuracy:.3f}"
        )

    def scalars(self) -> dict[str, float]:
        """The numbers that are worth a curve."""
        found = self.metrics
        return {"loss": self.loss, "mean IoU": found.mean_iou, "mean Dice": found.mean_dice, "accuracy": found.accuracy}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = self.metrics
        return {
            "loss": self.loss,
            "mean_iou": found.mean_iou,
            "mean_dice": found.mean_dice,
            "accuracy": found.accuracy,
            **{name: list(getattr(found, name)) for name in ("iou", "dice", "precision", "recall", "pixels")},
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    bands: Bands,
    source: Source,
    *,
    loss: Loss,
    output: str = "sigmoid",
    samples: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Loss and metrics over all pictures: every pixel counts the same, whichever picture it is in.

    Args:
        bands: the network.
        source: pictures and masks.
        loss: which.
        output: the `UNetConfig.output` of the network.
        samples: of how many pictures to keep one.
        progress: is told how many pictures are done.
    """
    classes = len(source.values)
    matrix = np.zeros((classes, classes), np.int64)
    total: Sums | None = None
    kept: dict[str, np.ndarray] = {}
    for index in range(len(source)):
        picture, labels = source.pair(index)
        top: list[np.ndarray] = []
        for start, logits in bands(picture):
            rows = labels[start : start + len(logits)]
            predicted = decided(logits, output)
            part = sums(loss, logits, rows)
            total = part if total is None else total.plus(part)
            matrix += confusion(rows, np.minimum(predicted, classes - 1), classes)
            if index < samples and start < _SAMPLE:
                top.append(predicted[:, :_SAMPLE])
        if index < samples:
            seen = np.concatenate(top)[:_SAMPLE]
            shape = (slice(seen.shape[0]), slice(seen.shape[1]))
            kept[source.names[index]] = panel(picture[shape], labels[shape], seen)
        progress(f"{index + 1} of {len(source)} pictures", (index + 1) / len(source))
    assert total is not None  # no source is empty
    return Evaluation(value(loss, total), metrics(matrix), matrix, kept)
