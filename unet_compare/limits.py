"""How much `unet compare` looks at: plain data, which the command reads before NumPy is imported."""

from dataclasses import dataclass
from typing import Literal

from unet_core.errors import ConfigError
from unet_core.training.settings import check_choice

Perturbation = Literal["ulp", "order"]
LEAST_BAND = 3
"""Runs; of fewer, the largest distance tells too little."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is looked at; pictures, steps and rounds may be 0, which leaves that part out.

    Raises:
        ConfigError: a number that makes no comparison.
    """

    pictures: int = 3
    """Pictures that both predict, in every precision."""
    steps: int = 8
    """Updates of the trainings that run side by side."""
    band: int = LEAST_BAND
    """Trainings like A's that show how far apart rounding takes two of them; 3 or more."""
    perturbation: Perturbation = "ulp"
    """What these differ in: ulp, each weight one unit in the last place up or down; or order, that of the batches."""
    rounds: int = 2
    """Rounds of the measurement of time and memory."""
    seed: int = 0
    """Of all that is random."""

    def __post_init__(self) -> None:
        for name, least in (("pictures", 0), ("steps", 0), ("band", LEAST_BAND), ("rounds", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} {getattr(self, name)}: give a whole number from {least} up")
        check_choice("perturbation", self.perturbation, Perturbation)
