"""What a training makes small: the definition that both twins follow, and its value in NumPy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from unet_core.training.settings import Loss

SMOOTHING = 1.0
"""Added to both sides of the soft Dice's fraction, so that a class that is nowhere costs nothing."""


class Sums(NamedTuple):
    """What a loss is made of; sums of several pictures add up to those of all together."""

    entropy: float
    weight: float
    shared: Float[np.ndarray, " k"]
    both: Float[np.ndarray, " k"]

    def plus(self, other: "Sums") -> "Sums":
        """The sums of both."""
        return Sums(
            self.entropy + other.entropy,
            self.weight + other.weight,
            self.shared + other.shared,
            self.both + other.both,
        )

    def flat(self) -> Float[np.ndarray, " n"]:
        """All in one array; arrays of several pictures add up, too."""
        return np.array([self.entropy, self.weight, *self.shared, *self.both])

    @classmethod
    def of(cls, flat: Float[np.ndarray, " n"]) -> "Sums":
        """What `flat` gave."""
        shared, both = np.split(flat[2:], 2)
        return cls(float(flat[0]), float(flat[1]), shared, both)


def sums(loss: Loss, logits: Float[np.ndarray, "*n k"], labels: UInt8[np.ndarray, "*n"]) -> Sums:
    """The sums over these pixels, in float64.

    Args:
        loss: which.
        logits: channels last; one channel for two classes.
        labels: the class of every pixel; those that are ignored are no part of these.
    """
    z = logits.astype(np.float64).reshape(-1, logits.shape[-1])
    single = z.shape[-1] == 1
    if single:
        z = np.concatenate((np.zeros_like(z), z), axis=-1)
    classes = z.shape[-1]
    y = labels.reshape(-1)
    logs = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    weights = np.asarray(loss.class_weights or np.ones(classes))[y]
    chosen = logs[np.arange(len(y)), y]
    p = np.exp(logs)
    shared = np.bincount(y, weights=p[np.arange(len(y)), y], minlength=classes)
    both = p.sum(0) + np.bincount(y, minlength=classes)
    counted = slice(1, None) if single else slice(None)
    return Sums(-float((weights * chosen).sum()), float(weights.sum()), shared[counted], both[counted])


def value(loss: Loss, total: Sums) -> float:
    """The loss of all pixels that were summed; 0 of none."""
    parts = {
        "cross-entropy": total.entropy / total.weight if total.weight else 0.0,
        "dice": 1 - float(((2 * total.shared + SMOOTHING) / (total.both + SMOOTHING)).mean()),
    }
    return sum(parts[name] for name in loss.parts)
