"""A training in either framework, from one call."""

import dataclasses
from pathlib import Path

from conversion.backends.machines import AS_STARTED, Cluster, machine_of
from conversion.containers import read
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import ConfigError
from unet_core.paths import as_path, as_target
from unet_core.progress import Progress, silent
from unet_core.training.opening import Job, open_run
from unet_core.training.recorder import Outcome
from unet_core.training.run import BEST, Backend, has_begun, is_run
from unet_core.training.train_config import TrainConfig


def train(
    out: str | Path,
    *,
    backend: Backend,
    data: str | Path,
    recipe: TrainConfig | None = None,
    resume: bool = False,
    until: int | None = None,
    profile: int | None = None,
    recheck: bool = False,
    mesh: str | None = None,
    cluster: Cluster = AS_STARTED,
    hints: Hints = NO_HINTS,
    start: Checkpoint | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Train into the folder `out`; `unet_core.training.run` says what is then in it.

    Args:
        out: the run's folder; it is made.
        backend: the framework to train in, "jax" or "torch".
        data: a folder with `images/` and `masks/`, or "synthetic".
        recipe: how to train; None: as `TrainConfig()` says.
        resume: go on with the run in `out`, where there is one.
        until: leave after this step, before the recipe's last one, which decides the schedule; go on by `resume`.
        profile: record what the devices do in so many updates, after the first three, into `out`/profile.
        recheck: read every picture and mask again, whatever is known of the data from an earlier start.
        mesh: how JAX's devices share the work, as "data=4,fsdp=2,space=1" (`unet_jax.training.mesh`); whatever it was
            before. None: all of them split the batch.
        cluster: the hosts on which JAX trains, where neither SLURM nor a TPU says so. Of several, only the first one
            writes the history and logs; all need the same folder.
        hints: what nothing in `recipe.start` tells, where that is a checkpoint of another project.
        start: the network to start from, where the recipe names none; a run that has begun keeps its own.
        progress: is told where it is.

    Raises:
        unet_core.UNetError: bad data, a recipe that does not fit it or the devices, a folder that holds something else,
            a framework that is not installed, a loss that is no number, a full disk; in one line.
    """
    recipe, out = recipe or TrainConfig(), as_target(out)
    if (recipe.compile and backend != "torch") or (recipe.remat and backend != "jax"):
        raise ConfigError("--compile is for --backend torch, --remat for --backend jax")
    if not recipe.rewrites and backend != "jax":
        raise ConfigError("--no-rewrites is for --backend jax")
    with machine_of(backend, recipe, mesh, cluster) as (machine, trained):
        if machine.rank:
            progress = silent
        begun = resume and has_begun(out)  # such a run keeps what it started from
        recipe = _absolute(recipe)
        start = None if begun else start if recipe.start is None else _start(as_path(recipe.start), hints)
        job = Job(backend, recipe, str(data), start, resume=resume, until=until, profile=profile, recheck=recheck)
        with open_run(out, job, machine=machine, progress=progress) as run:
            return trained(run, progress=progress)


def _start(path: Path, hints: Hints) -> Checkpoint:
    """The network to start from, which a checkpoint or the best one of a run is."""
    return read(path / BEST if is_run(path) else path, hints)


def _absolute(recipe: TrainConfig) -> TrainConfig:
    """The recipe with the files that it names where they are, wherever the run is gone on with."""
    masks, parted = recipe.masks, recipe.split
    if parted.validation_data is not None and as_path(parted.validation_data).exists():
        parted = dataclasses.replace(parted, validation_data=_resolved(parted.validation_data))
    return dataclasses.replace(
        recipe,
        start=_resolved(recipe.start),
        masks=dataclasses.replace(masks, colors=_resolved(masks.colors), annotations=_resolved(masks.annotations)),
        split=dataclasses.replace(parted, groups=_resolved(parted.groups)),
    )


def _resolved(path: str | None) -> str | None:
    return None if path is None else str(as_path(path).resolve())
