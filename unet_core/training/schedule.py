"""The learning rate of every step: a function of the step and of the validations before it, so it has no state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unet_core.errors import ConfigError
from unet_core.training.settings import check_choice

ScheduleName = Literal["constant", "cosine", "step", "plateau"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes; the classes of `torch.optim.lr_scheduler` that agree are named.

    Raises:
        ConfigError: no such schedule, or a number that makes none.
    """

    schedule: ScheduleName = "constant"
    """constant; cosine (CosineAnnealingLR); step (StepLR); or plateau (ReduceLROnPlateau on the validation loss)."""
    warmup: int = 0
    """Steps in which the rate first rises, in equal parts, up to the full one (LinearLR)."""
    final: float = 0.0
    """cosine: the part of the rate that is left at the end."""
    drop_every: int = 1000
    """step: steps between two drops."""
    factor: float = 0.1
    """step and plateau: what a drop multiplies the rate by."""
    patience: int = 10
    """plateau: validations in a row without a better loss that are borne before a drop."""

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ScheduleName)
        for name in ("warmup", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give a whole number from 0 up")
        if self.drop_every < 1:
            raise ConfigError(f"drop_every {self.drop_every}: give a whole number from 1 up")
        for name in ("final", "factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: give a number from 0 to 1")

    def part(self, step: int, steps: int, losses: Sequence[float] = ()) -> float:
        """What the base rate is multiplied by in the update that follows `step` updates.

        Args:
            step: updates that have been made.
            steps: updates of the whole training.
            losses: of the validations so far, the first one first.
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        after = step - self.warmup
        if self.schedule == "cosine":
            way = min(after / max(steps - self.warmup, 1), 1.0)
            return self.final + (1 - self.final) * (1 + math.cos(math.pi * way)) / 2
        if self.schedule == "step":
            return self.factor ** (after // self.drop_every)
        if self.schedule == "plateau":
            return self.factor ** drops(losses, self.patience)
        return 1.0


def drops(losses: Sequence[float], patience: int, threshold: float = 1e-4) -> int:
    """How often ReduceLROnPlateau (torch/optim/lr_scheduler.py, mode "min") has dropped the rate.

    A loss is better than the best one where it is below it by more than `threshold` of it; the rate drops when more
    than `patience` losses in a row were not.
    """
    best, bad, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - threshold):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            bad, count = 0, count + 1
    return count
