"""The settings of a training that both twins follow. Plain data: the command reads them before NumPy is imported."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from unet_core.errors import ConfigError

LossName = Literal["cross-entropy", "dice", "cross-entropy+dice"]
OptimizerName = Literal["adam", "adamw", "sgd", "rmsprop"]


def check_choice(field: str, value: object, choices: Any) -> None:
    """Raise ConfigError where the value is none of a Literal's, which only the command checks by itself."""
    if value not in get_args(choices):
        raise ConfigError(f"{field}: one of {', '.join(get_args(choices))} is needed, got {value!r}")


@dataclass(frozen=True)
class Loss:
    """Which loss, on logits.

    - cross-entropy: for one logit per pixel torch's `binary_cross_entropy_with_logits`, otherwise its `cross_entropy`;
      the mean over pixels, which is weighted where there are class weights (then divided by the sum of the weights).
    - dice: 1 minus the soft Dice coefficient, (2 sum(p y) + 1) / (sum(p) + sum(y) + 1) with the sums over the whole
      batch, of the foreground for one logit, otherwise the mean over all classes (Milletari et al., arXiv:1606.04797,
      with plain sums below).
    - cross-entropy+dice: their sum.

    Means and sums are over the pixels that are not ignored (`unet_core.data.masks.Masks.ignore`); of a batch that has
    none, the loss and its gradient are 0.

    Raises:
        ConfigError: no such loss, or weights that are not positive numbers.
    """

    loss: LossName = "cross-entropy"
    """What to make small."""
    class_weights: tuple[float, ...] | None = None
    """In the cross-entropy, the weight of every class, the background's first."""

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LossName)
        weights = self.class_weights
        if weights is not None and not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ConfigError(f"class_weights {weights}: give a positive number for every class")

    def check(self, classes: int) -> None:
        """Raise ConfigError where the weights are not one for each class, or would weigh nothing."""
        if self.class_weights is not None and self.loss == "dice":
            raise ConfigError("class_weights: weigh the cross-entropy; --loss dice alone has none")
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ConfigError(f"class_weights {self.class_weights}: the masks have {classes} classes; give {classes}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The losses that are summed."""
        return tuple(self.loss.split("+"))


@dataclass(frozen=True)
class Optimizer:
    """The settings of `torch.optim.Adam`, `AdamW`, `SGD` or `RMSprop`.

    Raises:
        ConfigError: no such optimiser, or a number that torch refuses, too.
    """

    optimizer: OptimizerName = "adam"
    """Which one."""
    rate: float = 1e-3
    """The learning rate before the schedule."""
    weight_decay: float | None = None
    """Left out: torch's default, which is 0.01 for adamw and 0 for the others."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adam and adamw: how much of the mean gradient and of the mean square stays."""
    momentum: float = 0.0
    """sgd and rmsprop: how much of the last update stays."""
    nesterov: bool = False
    """sgd: look ahead along the momentum."""
    alpha: float = 0.99
    """rmsprop: how much of the mean square stays."""
    epsilon: float = 1e-8
    """Added to the root of the mean square."""
    clip: float | None = None
    """The largest norm of all gradients together (torch.nn.utils.clip_grad_norm_)."""

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OptimizerName)
        for name in ("rate", "weight_decay", "epsilon"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} {value}: give a number from 0 up")
        for name, values in (("betas", self.betas), ("momentum", (self.momentum,)), ("alpha", (self.alpha,))):
            if not all(0 <= value < 1 for value in values):
                raise ConfigError(f"{name} {getattr(self, name)}: give numbers from 0 up and below 1")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            raise ConfigError("nesterov: is for sgd with a momentum; give --momentum 0.9 as well")
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ConfigError(f"momentum {self.momentum}: is for sgd and rmsprop; {self.optimizer} has betas")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip {self.clip}: give a number above 0")

    @property
    def decay(self) -> float:
        """The weight decay."""
        if self.weight_decay is None:
            return 0.01 if self.optimizer == "adamw" else 0.0
        return self.weight_decay
