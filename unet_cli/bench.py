"""`unet bench`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unet_compare.speed.plan import Plan


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True, kw_only=True)
class Bench(Plan):
    """Measure the speed of a network in both frameworks side by side, on whatever device there is.

    Every candidate (a framework in one configuration) runs in a process of its own, and the candidates take turns, so
    that what else the machine does meets them all. A figure is the median over the rounds of the ratio to the fastest
    configuration of torch. python -m unet_compare.speed is the same where this command is not installed.

    Exit code 1 where no candidate ran.

    Example: unet bench --checkpoint theirs_jax --module their/unet.py:UNet --training --rounds 3
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None

    relief: ClassVar[str] = "give smaller --inference and --training"

    def run(self) -> int:
        """Measure, and print the tables."""
        from unet_compare.speed.bench import bench

        return bench(self)
