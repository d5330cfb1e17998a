"""Start a run, or go on with one, once all that it needs has been checked."""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.safetensors_file import read, write
from unet_core.data.dataset import Dataset
from unet_core.data.formats.reading import AS_STORED
from unet_core.data.masks import AS_FOUND
from unet_core.data.opening import masks_for, open_dataset, recheck
from unet_core.data.split import UNGROUPED
from unet_core.data.splitting import split
from unet_core.data.synthetic import Synthetic
from unet_core.errors import ConfigError, DataError, RunError, counted, sized, some
from unet_core.files import atomic
from unet_core.graph import Graph
from unet_core.graph.suitability import refusal
from unet_core.paths import as_path
from unet_core.progress import Progress, silent
from unet_core.training.lock import locked
from unet_core.training.run import (
    START,
    STATES,
    Backend,
    Run,
    RunConfig,
    await_run,
    has_begun,
    is_run,
    read_run_config,
    start_network,
    versions_of,
    write_run_config,
)
from unet_core.training.train_config import TrainConfig
from unet_core.training.working_copy import WorkingCopy, working_copy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What a training runs on: devices, and this process among those that share it."""

    check: Callable[[Checkpoint], None] = lambda _: None
    """Raises ConfigError where it cannot train this network."""
    rank: int = 0
    """Of this process; the first one, 0, writes and logs."""
    wait: Callable[[], None] = lambda: None
    """Returns in all processes once each has called it."""
    divided: bool = False
    """Each of several processes writes its part of a state."""


@dataclass(frozen=True)
class Job:
    """The training that is asked for.

    Raises:
        ConfigError: no step to leave after, or none to profile, or folds of which none is for validation.
    """

    backend: Backend
    recipe: TrainConfig
    data: str
    """A data folder, what was packed of one, or "synthetic"."""
    start: Checkpoint | None = None
    """The network to start from, that of `recipe.start`; None: a new one of the recipe's seed."""
    resume: bool = False
    """Go on with the run in the folder where there is one."""
    until: int | None = None
    """Leave after this step, before the recipe's last one; the schedule is that of the whole recipe."""
    profile: int | None = None
    """How many updates to profile; it changes nothing of the run."""
    recheck: bool = False
    """Read every picture and mask again, whatever is known of the data from an earlier start."""

    def __post_init__(self) -> None:
        for name, value in (("until", self.until), ("profile", self.profile)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: give a whole number from 1 up")
        self.recipe.split.check_one()


@contextmanager
def open_run(
    path: Path,
    job: Job,
    *,
    machine: Machine = Machine(),
    progress: Progress = silent,
) -> Iterator[Run]:
    """Start a run, or go on with one; nothing is written before all the data has been checked.

    Args:
        path: the run's folder; made where it does not exist.
        job: what is to be trained.
        machine: on what.
        progress: is told how far the check of the data is.

    Raises:
        RunError: the folder holds something else, or another training, or another process trains there.
        DataError: the data cannot be trained on.
        ConfigError: the recipe does not fit the data, or the machine cannot train the network.
    """
    masks = masks_for(job.data, job.recipe.masks)
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, masks=masks))
    if machine.rank:
        machine.wait()  # for the folder, which the first process has then checked and made
        await_run(path)
        job = dataclasses.replace(job, resume=True)
    _check_folder(path, resume=job.resume)  # before anything is fetched
    with (
        working_copy(path, writes=machine.rank == 0, divided=machine.divided) as copy,
        _opened(copy, job, machine, progress) as run,
    ):
        yield run


@contextmanager
def _opened(copy: WorkingCopy, job: Job, machine: Machine, progress: Progress) -> Iterator[Run]:
    path = copy.path
    old = _check_folder(path, resume=job.resume)
    run = _checked(path, job, machine, old, progress)
    machine.check(run.start)
    _check_sizes(job.data, run)
    run.elsewhere, run.publish = copy.states, copy.publish
    if machine.rank:
        yield run
        return
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if _check_folder(path, resume=job.resume) != old:
            raise RunError(f"{path}: another process has trained here in the meantime; look at what it made")
        for left in (*path.glob(".*.partial"), *(path / STATES).glob(".*.partial")):
            shutil.rmtree(left)  # by a process that was killed while it wrote
        if job.start is not None and old is None:
            with atomic(path / START, force=True) as partial:
                write(partial, job.start)
        write_run_config(path, run.settings)
        copy.publish()
        machine.wait()
        logger.info("%s", run)
        tile, overlap = run.tiles
        if tile is not None and overlap is not None and len(run.validation):
            logger.info("validated in tiles of %s that overlap by %s voxels", sized(tile), sized(overlap))
        yield run


def _checked(path: Path, job: Job, machine: Machine, old: RunConfig | None, progress: Progress) -> Run:
    """The run, its data and settings held against those that it was started with, where it was."""
    start, recipe, data = job.start, job.recipe, job.data
    if old is not None:
        _check_same_training(path, old, job)
    if start is None and old is not None and (path / START).exists():
        start = read(path / START)
    if job.recheck and not machine.rank:
        recheck(data, recipe.split.validation_data)
    values = old.values if old else None
    channels = start.config.in_channels if start else None
    coloured = old is not None and old.coloured
    dimensions = start.config.dimensions if start else 2
    source = open_dataset(
        data,
        channels=channels,
        values=values,
        coloured=coloured,
        masks=recipe.masks,
        pictures=recipe.pictures.of(dimensions),
        progress=progress,
    )
    if isinstance(source, Synthetic) and (recipe.masks, recipe.pictures) != (AS_FOUND, AS_STORED):
        kind = "masks" if recipe.masks != AS_FOUND else "pictures"
        raise DataError(f"{data}: its {kind} are as they are; the options on {kind} are for a data folder")
    for line in () if machine.rank else source.remarks:
        logger.info("%s", line)
    training, validation, digest = _parted(source, recipe, progress)
    settings = RunConfig(
        job.backend,
        recipe,
        data=data if not as_path(data).exists() else str(as_path(data).resolve()),
        training=training.names,
        validation=validation.names,
        digest=digest,
        channels=source.channels,
        values=tuple(source.values),
        coloured=source.classes.coloured,
        class_names=old.class_names if old else source.classes.names,
        versions=old.versions if old else versions_of(job.backend),
        switches=old.switches if old else (),
    )
    if old is not None:
        _check_same_data(path, old, settings)
    network = start_network(start, recipe, source.channels, len(source.values))
    pictures = source.pictures.of(2)  # whole volumes or slices, that is the network's to say
    told = pictures if pictures != AS_STORED else None
    origin = dataclasses.replace(network.origin, pictures=told, classes=settings.classes)
    network = dataclasses.replace(network, origin=origin)
    return Run(path, settings, training, validation, network, job.until, job.profile)


def _parted(source: Dataset, recipe: TrainConfig, progress: Progress) -> tuple[Dataset, Dataset, str]:
    """The pictures to train on, those to validate on, and the digest of all."""
    other = recipe.split.validation_data
    if other is not None:
        validation = open_dataset(
            other,
            channels=source.channels,
            values=source.values,
            coloured=source.classes.coloured,
            masks=dataclasses.replace(recipe.masks, annotations=None),  # which is of the first folder
            pictures=source.pictures,
            progress=progress,
        )
        names, others = source.classes.names, validation.classes.names
        if names and others and names != others:
            raise DataError(f"{other}: its classes are {some(others)}, those to train on {some(names)}")
        return source, validation, sha256(f"{source.digest()} {validation.digest()}".encode()).hexdigest()
    training, validation = _split(source, recipe)
    if not len(validation) and recipe.schedule.schedule == "plateau":
        raise ConfigError("schedule plateau: falls by the validation's loss, and --validation 0 leaves none")
    return training, validation, source.digest()


def _split(source: Dataset, recipe: TrainConfig) -> tuple[Dataset, Dataset]:
    """The pictures to train on, and those to validate on."""
    if source.aside is None:
        return split(source, recipe.validation, recipe.split)
    if (recipe.validation, recipe.split) != (TrainConfig.validation, UNGROUPED):
        raise ConfigError(
            f"{counted(len(source.aside), 'of the pictures was', 'of the pictures were')} put aside for validation "
            "when they were packed; leave out --validation, --folds and --groups, or pack the data without them"
        )
    chosen = set(source.aside)
    return source.subset([n for n in range(len(source)) if n not in chosen]), source.subset(source.aside)


def _check_folder(path: Path, *, resume: bool) -> RunConfig | None:
    if has_begun(path):
        if not resume:
            raise RunError(f"{path}: holds a run already; go on with it by --resume, or name another folder")
        return read_run_config(path)
    if is_run(path):
        return None
    if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
        raise RunError(f"{path}: exists and is no run; name a new folder")
    return None


def _check_same_training(path: Path, old: RunConfig, new: Job) -> None:
    if old.backend != new.backend:
        raise RunError(
            f"{path}: was trained with --backend {old.backend}; go on with that, or move the run: unet convert {path} "
            f"NEW --to {new.backend}"
        )
    changed = old.recipe.changes(new.recipe)
    if changed:
        raise RunError(
            f"{path}: this run was started with another {some(changed)}; leave that out, or train into a new folder"
        )


def _check_same_data(path: Path, old: RunConfig, new: RunConfig) -> None:
    for name in ("training", "validation", "channels", "values", "digest"):
        if getattr(old, name) != getattr(new, name):
            raise RunError(
                f"{path}: the data is not what the run was started with: another {name}; restore {old.data}, or train "
                "into a new folder"
            )


def _check_sizes(data: str, run: Run) -> None:
    """Raise DataError where volumes have no whole crop, or pictures are none that the network can be validated on."""
    config, validation = run.start.config, run.validation
    if config.dimensions == 3:
        trained = zip(run.training.names, run.training.sizes, strict=True)
        small = [f"{name} ({sized(size)})" for name, size in trained if any(map(int.__lt__, size, run.crop))]
        if small:
            raise DataError(f"{data}: smaller than a crop of {sized(run.crop)}; give another --crop: {some(small)}")
    if run.tiles[1] is not None:  # tiles that are volumes of their own, of a size that it takes
        return
    named = list(zip(validation.names, validation.sizes, strict=True))
    if isinstance(config, Graph):
        refused = {size: refusal(config, size) for size in set(validation.sizes)}
        whys = {name: why for name, size in named if (why := refused[size])}
        if whys:
            why = next(iter(whys.values()))
            raise DataError(f"{data}: not to be validated on, for {why}: {some(whys)}")
        return
    least = config.minimum_size
    small = [name for name, size in named if min(size) < least]
    if small:
        raise DataError(f"{data}: too small to validate on ({least}x{least} is the least): {some(small)}")
