"""`unet train` and `unet plot`."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import tyro

from unet_cli.messages import say
from unet_cli.options import SourceOptions
from unet_core.errors import UNetError, counted
from unet_core.training.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train(SourceOptions):
    """Train a UNet on a folder of pictures and masks, in either framework, on the same batches.

    Ctrl-C and SIGTERM save the state and leave; --resume goes on. In the folder of the run: history.jsonl, the latest
    states, best.safetensors (the network with the best validation) and TensorBoard files.

    Example: unet train --backend jax --data cells --out run --steps 2000 --features 32 64 128 256
    """

    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """The folder for the run."""
    backend: Annotated[Literal["jax", "torch"] | None, tyro.conf.arg(metavar="jax|torch", help_behavior_hint="")] = None
    """The framework to train in."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """A folder with images/ and masks/, matching by name; or what unet pack made of one; or synthetic, for the built-in
    pictures."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in RUN, if there is one; what is not given is as it was."""
    until: Annotated[int | None, tyro.conf.arg(metavar="STEP", help_behavior_hint="")] = None
    """Leave after this step, before the last one (--steps), which decides the schedule; go on with --resume."""
    profile: Annotated[int | None, tyro.conf.arg(metavar="STEPS", help_behavior_hint="")] = None
    """Record what the devices do in so many updates, after the first three, into RUN/profile, for TensorBoard."""
    recheck: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read every picture and mask again, whatever is known of the data from an earlier start."""
    mesh: Annotated[str | None, tyro.conf.arg(metavar="AXIS=N,...", help_behavior_hint="")] = None
    """jax: how the devices share the work, e.g. data=4,fsdp=2,space=1. data splits the batch, fsdp weights and
    optimiser as well, space the height of the pictures; left out: all devices are data's. May change with --resume."""
    hosts: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """jax: how many processes train together, each by this command on its machine, in the same folder RUN; left out: as
    many as SLURM or a TPU says. 1: this one alone, whatever these say."""
    host: Annotated[int | None, tyro.conf.arg(metavar="I", help_behavior_hint="")] = None
    """jax: which of --hosts this one is, from 0 up."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="NAME:PORT", help_behavior_hint="")] = None
    """jax: with --hosts, the name of host 0 and a free port of it."""
    recipe: TrainConfig = field(default_factory=TrainConfig)

    @property
    def relief(self) -> str:
        """What helps where a device has too little memory."""
        smaller = "in a new run, a smaller --batch with more --accumulate, a smaller --crop, or --precision bfloat16"
        if self.backend == "torch":
            return f"give more processes (torchrun), or, {smaller}"
        return f"give --remat, or --mesh over more devices (both with --resume, too); or, {smaller}"

    def completed(self, arguments: Sequence[str]) -> Self:
        """With --resume, the same command with what it leaves out taken from the run."""
        from unet_core.training.run import is_run, read_run_config

        if not (self.resume and is_run(self.out)):
            return self
        old = read_run_config(self.out)
        default = type(self)(out=self.out, backend=old.backend, data=old.data, recipe=old.recipe)
        return tyro.cli(type(self), args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,))

    def run(self) -> int:
        """Train; 130 where Ctrl-C ended it."""
        from conversion.backends.machines import Cluster
        from conversion.training import train
        from unet_cli.tables import progress_bar
        from unet_core.training.run import BEST

        if self.backend is None or self.data is None:
            raise UNetError(
                f"{'--backend jax|torch' if self.backend is None else '--data DIR'}: is needed for a new run"
            )
        with progress_bar() as progress:
            done = train(
                self.out,
                backend=self.backend,
                data=self.data,
                recipe=self.recipe,
                resume=self.resume,
                until=self.until,
                profile=self.profile,
                recheck=self.recheck,
                mesh=self.mesh,
                cluster=Cluster(self.hosts, self.host, self.coordinator),
                hints=self.hints(None),
                progress=progress,
            )
        if not done.first:  # of several processes, the first one tells
            return 0
        if done.stopped_by is not None:
            name = signal.Signals(done.stopped_by).name
            say(f"stopped by {name} after step {done.step} of {done.steps}; the state is saved: go on with --resume")
            return 130 if done.stopped_by == signal.SIGINT else 0
        if done.step < done.steps:
            say(f"left after step {done.step} of {done.steps}; the state is saved: go on with --resume")
            return 0
        best = self.out / BEST
        kept = str(best) if best.exists() else f"but {best} is lost"
        found = f"best mean IoU {done.best:.3f} after step {done.best_step}" if done.best_step else "not validated"
        say(f"{counted(done.steps, 'step')}; {found}: {kept}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Draw the curves of one run, or of several over each other: losses, validation, learning rate.

    Example: unet plot run
    """

    runs: tyro.conf.Positional[tuple[Annotated[Path, tyro.conf.arg(metavar="RUN")], ...]]
    """Folders of runs."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The picture, .png, .svg or .pdf, replaced if it exists; left out: history.png in the first run."""

    relief: ClassVar[str] = ""

    def run(self) -> int:
        """Draw, and say where."""
        from unet_compare.curves import draw_runs

        if not self.runs:
            raise UNetError("RUN: name the folder of a run")
        out = self.out or self.runs[0] / "history.png"
        draw_runs(self.runs, out)
        print(f"the curves are in {out}")
        return 0
