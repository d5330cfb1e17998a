"""How good a network is on pictures with masks, band by band, so that large pictures need little memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from unet_core.data.dataset import Dataset
from unet_core.prediction.metrics import Metrics, confusion, decided, metrics
from unet_core.prediction.overlay import panel
from unet_core.prediction.scores import PictureScore, picture_score
from unet_core.progress import Progress, silent
from unet_core.training.losses import Sums, sums, value
from unet_core.training.settings import Loss

Bands = Callable[[np.ndarray], Iterable[tuple[int, np.ndarray]]]
"""Takes a picture; gives, from the top, the first row of each band and its logits; of a volume the first slice."""

_SAMPLE = 512
"""Rows and columns of a sample, at most; of a volume it is the slice in the middle."""


@dataclass(frozen=True)
class Share:
    """The part of an evaluation that is one process's, of several that make it together."""

    index: int = 0
    """Of this process, from 0 up."""
    count: int = 1
    """Of all."""
    gathered: Callable[[Shaped[np.ndarray, "..."]], Shaped[np.ndarray, "processes ..."]] = lambda part: part[None]
    """The arrays of all processes, in every bit, along a new first axis; they have one shape, and all call it."""

    def of(self, size: int) -> range:
        """Which of so many pictures are this process's: neighbours; the first process always has some."""
        first, last = (-(-size * index // self.count) for index in (self.index, self.index + 1))
        return range(first, last)

    def joined(self, rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "all m"]:
        """The rows of all processes, one after the other; one without any has any number of columns."""
        shapes = self.gathered(np.array(rows.shape))
        padded = np.zeros(shapes.max(0))
        padded[: rows.shape[0], : rows.shape[1]] = rows
        parts = zip(self.gathered(padded), shapes[:, 0], strict=True)
        return np.concatenate([part[:length] for part, length in parts])


ALONE = Share()
"""Of the only process."""


@dataclass(frozen=True)
class Evaluation:
    """What the network does on some data."""

    loss: float
    metrics: Metrics
    confusion: Int[np.ndarray, "k k"]
    """Pixels of each class (row) that were taken for each class (column)."""
    samples: dict[str, UInt8[np.ndarray, "h w 3"]]
    """By name, the first pictures beside their masks and what the network makes of them; those of this process."""
    pictures: tuple[PictureScore, ...] = ()
    """Where they were asked for, the scores of each picture that has a pixel which counts; those of this process."""

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
    source: Dataset,
    *,
    loss: Loss,
    output: str = "sigmoid",
    samples: int = 0,
    scores: bool = False,
    share: Share = ALONE,
    progress: Progress = silent,
) -> Evaluation:
    """Loss and metrics over all pictures: every pixel counts the same, whichever picture it is in, or not at all.

    The numbers are the same in every bit, however many processes share the pictures.

    Args:
        bands: the network.
        source: pictures and masks.
        loss: which.
        output: the `UNetConfig.output` of the network.
        samples: of how many pictures to keep one.
        scores: score each picture by itself as well, which takes the memory of its logits.
        share: the processes that make it together; all get its numbers.
        progress: is told how many of this process's pictures are done.
    """
    classes = len(source.values)
    rows: list[np.ndarray] = []
    kept: dict[str, np.ndarray] = {}
    scored: list[PictureScore] = []
    mine = share.of(len(source))
    for done, index in enumerate(mine, 1):
        picture, labels = source.pair(index)
        matrix = np.zeros((classes, classes), np.int64)
        total: Sums | None = None
        seen, whole_logits = np.zeros_like(labels), []
        for start, logits in bands(picture):
            true = labels[start : start + len(logits)]
            predicted, counted = decided(logits, output), true < classes
            part = sums(loss, logits[counted], true[counted])
            total = part if total is None else total.plus(part)
            matrix += confusion(true, np.minimum(predicted, classes - 1), classes)
            seen[start : start + len(logits)] = predicted
            if scores:
                whole_logits.append(logits)
        assert total is not None  # no picture is empty
        if index < samples:
            middle = (len(labels) // 2,) if labels.ndim == 3 else ()
            shape = (*middle, slice(_SAMPLE), slice(_SAMPLE))
            known = labels[shape] < classes
            kept[source.names[index]] = panel(picture[shape], labels[shape] * known, seen[shape] * known)
        if scores and matrix.any():
            of = (np.concatenate(whole_logits), seen, labels, output)
            scored.append(picture_score(source.names[index], value(loss, total), metrics(matrix), *of))
        rows.append(np.concatenate((total.flat(), matrix.ravel())))
        progress(f"{done} of {len(mine)} pictures", done / len(mine))
    whole = share.joined(np.array(rows) if rows else np.zeros((0, 0))).sum(0)
    sums_of_all, pixels = np.split(whole, [-(classes**2)])
    matrix = pixels.astype(np.int64).reshape(classes, classes)  # float64 counts to 2**53
    return Evaluation(value(loss, Sums.of(sums_of_all)), metrics(matrix), matrix, kept, tuple(scored))
