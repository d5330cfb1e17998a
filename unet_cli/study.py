"""`unet study`."""

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from unet_cli.messages import say
from unet_cli.options import ON_CPU, option
from unet_core.errors import UNetError
from unet_core.training.train_config import TrainConfig

if TYPE_CHECKING:
    from unet_compare.study.plan import Study as Plan


@dataclass(frozen=True, kw_only=True)
class Study:
    """Say whether frameworks, ports or recipes train the same: many runs in pairs, and statistics of them.

    What is missing of the runs is made, and nothing twice; several processes and hosts may work in one folder DIR at
    once. FILE is a study in TOML (docs/study.md); without one, the options say it all. An arm is jax or torch, with
    whatever else it has after colons, such as jax:bfloat16, torch:cpu, jax:plain:norm_parts=2; or a control with a
    planted fault, such as control:half_pixel. All are compared with the first one.

    Exit code 1 where an arm is not found to be equivalent, or a planted fault is not found.

    Example: unet study --arms torch jax jax:bfloat16 --seeds 8 --steps 200 --features 8 16 32 --out study
    """

    relief: ClassVar[str] = f"give a smaller --batch or --crop, or {ON_CPU}"

    file: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="FILE")]] = None
    """The study."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder for runs and report, here or in a bucket; a study that is there is gone on with."""
    data: Annotated[str | None, option("DIR")] = None
    """A folder with images/ and masks/, matching by name; left out: the built-in pictures of cells."""
    arms: Annotated[tuple[str, ...] | None, option("ARM ...")] = None
    seeds: Annotated[int | None, option("N")] = None
    """From how many seeds every arm is trained."""
    metric: Annotated[str | None, option("NAME")] = None
    """What the answer is about: mean_iou (also without this), mean_dice, loss, calibration or boundary."""
    margin: Annotated[float | None, option("NUMBER")] = None
    """How far apart two arms may be in it and count as the same; left out: the standard deviation between the seeds of
    the first arm."""
    runs: Annotated[int | None, option("N")] = None
    """Leave after so many runs, of which this process has made each; 0: report on what is there."""
    where: bool = True
    """Say, by unet compare's account layer by layer, where the network of an arm departs: a minute or two for each."""
    recipe: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Make the runs that are missing, and the report; 1 where the answer is not that all is the same."""
        from unet_cli.tables import print_study, progress_bar
        from unet_compare.study.collected import collect
        from unet_compare.study.judging import judged
        from unet_compare.study.page.report import write_report
        from unet_compare.study.runs import REPORT, carry_out, prepare
        from unet_compare.study.where import account

        if self.runs is not None and self.runs < 0:
            raise UNetError(f"--runs {self.runs}: give a whole number from 0 up")
        plan = self._plan()
        with progress_bar() as progress:
            prepare(plan, self.out, most=self.runs, progress=progress)
            tally = carry_out(plan, self.out, most=self.runs, progress=progress)
            whole = not tally.missing
            where = account(plan, self.out, progress=progress) if self.where and whole else {}
            progress("judging", 1.0)
            arms = collect(plan, self.out)
            found = judged(plan, arms, where)
            page = write_report(self.out / REPORT, found, arms, self.typed)
        print_study(found, page)
        if tally.failed:
            raise UNetError("; ".join(tally.failed.values()))
        if not whole:
            say(f"{found.finished} of {plan.runs} runs are finished: go on with the same command")
            return 0
        return 0 if found.as_hoped else 1

    @property
    def typed(self) -> str:
        """The command, as a shell takes it, to be typed where it was typed."""
        return shlex.join(["unet", *sys.argv[1:]])

    def _plan(self) -> "Plan":
        from unet_compare.study.plan import read_study, study_of

        options = {name: getattr(self, name) for name in ("data", "arms", "seeds", "metric", "margin")}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if self.file is not None:
            own = ["options of unet train"] if self.recipe != TrainConfig() else []
            if given or own:
                told = ", ".join([*(f"--{name}" for name in given), *own])
                raise UNetError(f"{told}: with FILE, write it there")
            return read_study(self.file)
        lacking = [f"--{name}" for name in ("arms", "seeds") if name not in given]
        if lacking:
            raise UNetError(f"{' and '.join(lacking)}: needed where there is no FILE")
        parted = self.recipe.split
        if self.recipe.seed or parted.fold:
            raise UNetError("--seed and --fold: are for one run; a study has --seeds, and takes all --folds in turn")
        if parted.folds is not None:
            given["folds"] = parted.folds
        return study_of({**given, "recipe": replace(self.recipe, split=replace(parted, folds=None))})
