"""A run's folder: what it trains by, on what, how far it is, and what it has found.

RUN/config.json     the recipe, the backend and the data, for `--resume` and for people
RUN/history.jsonl   every step and every validation
RUN/states/         the latest training states, each with all that is needed to go on
RUN/best.safetensors   the network with the best validation so far, for either framework
RUN/tensorboard/    the same in curves, and sample predictions
RUN/profile/        where it was asked for, what the devices did in a few updates
"""

import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unet_core.checkpoints.checkpoint import Checkpoint, new_network
from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.config import Output
from unet_core.data.batches import Examples, batches
from unet_core.data.dataset import Dataset
from unet_core.data.labels import Classes
from unet_core.errors import ConfigError, RunError, counted
from unet_core.files import atomic
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.family import graph_of
from unet_core.graph.summary import operations
from unet_core.hub.store import HUB_WEIGHTS
from unet_core.paths import is_url
from unet_core.prediction.tile_geometry import Lengths, usual_tiles
from unet_core.training.train_config import TrainConfig

Backend = Literal["jax", "torch"]

CONFIG, HISTORY, STATES, BOARD, PROFILE = "config.json", "history.jsonl", "states", "tensorboard", "profile"
BEST, START = "best.safetensors", "start.safetensors"
_VERSION = 2
_READ = (1, 2)
"""Before 2, a run could not change its framework."""
_SEEN = 40.0
"""Seconds in which other hosts see what the first one has made; those of NFS look again every 30."""


@dataclass(frozen=True)
class RunConfig:
    """What `config.json` holds."""

    backend: Backend
    recipe: TrainConfig
    data: str
    """The folder, absolute, or "synthetic"."""
    training: tuple[str, ...]
    """The names of the pictures to train on."""
    validation: tuple[str, ...]
    """And of those to validate on."""
    digest: str
    """Of all pictures and masks."""
    channels: int
    """Of the pictures."""
    values: tuple[int, ...]
    """What the masks' pixels hold, by class."""
    versions: dict[str, str] = field(default_factory=dict, compare=False, metadata=OPTIONAL)
    """Of the packages that started the run, or that it was moved to."""
    switches: tuple[tuple[int, Backend], ...] = field(default=(), metadata=OPTIONAL)
    """For every move to the other framework, the step after which it was, and the framework before."""
    coloured: bool = field(default=False, metadata=OPTIONAL)
    """The values are colours, 0xRRGGBB."""
    class_names: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """What the classes are called, where the table of their colours said."""

    @property
    def classes(self) -> Classes:
        """What stands for them in masks."""
        return Classes(self.values, coloured=self.coloured, names=self.class_names)

    @property
    def pieces(self) -> tuple[tuple[int, int | None, Backend], ...]:
        """The framework of every piece of the run, with the steps behind its start and end (None: it goes on)."""
        ends: list[int | None] = [step for step, _ in self.switches]
        starts = [0, *(step for step, _ in self.switches)]
        backends: list[Backend] = [*(backend for _, backend in self.switches), self.backend]
        return tuple(zip(starts, [*ends, None], backends, strict=True))


def read_run_config(path: Path) -> RunConfig:
    """The settings of the run in the folder `path`.

    Raises:
        RunError: there is no run, or its config is damaged.
    """
    file = path / CONFIG
    try:
        fields = decoded(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))
        if decoded(int, fields.pop("version", None), "version") not in _READ:
            raise RunError(f"{file}: was written by a later release; update unet-twins")
        settings: RunConfig = decoded(RunConfig, fields)
        return settings
    except FileNotFoundError as error:
        raise RunError(f"{path}: is no run (there is no {CONFIG} in it)") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: is damaged: {error}") from error


def write_run_config(path: Path, settings: RunConfig) -> None:
    """The inverse of `read_run_config`.

    Raises:
        CheckpointError: it cannot be written.
    """
    with atomic(path / CONFIG, force=True) as partial:
        partial.write_text(json.dumps({"version": _VERSION, **encoded(settings)}, indent=1) + "\n", encoding="utf-8")


def is_run(path: Path) -> bool:
    """Whether a folder is a run's; one of a network, as the Hub has them, has a file of that name, too."""
    return (path / CONFIG).is_file() and not any((path / name).is_file() for name in HUB_WEIGHTS)


def has_begun(path: Path) -> bool:
    """Whether the run in a folder has come as far as its first step; before that, it is started anew."""
    return is_run(path) and (path / HISTORY).exists()


def await_run(path: Path) -> None:
    """Return once the folder that the first process has made is seen here.

    Raises:
        RunError: it is not: each machine would write to a folder of its own.
    """
    until = time.monotonic() + _SEEN
    while not is_run(path):
        if time.monotonic() > until:
            raise RunError(
                f"{path}: the first process has made it, and here it is not; give a folder that all hosts see, by its "
                "whole path, or an address, gs://bucket/name"
            )
        time.sleep(_SEEN / 40)


@dataclass
class Run:
    """A run that is about to train: its folder is locked, its data checked."""

    path: Path
    settings: RunConfig
    training: Dataset
    validation: Dataset
    start: Checkpoint
    """The network before the first step."""
    until: int | None = None
    """The step after which to leave for now, before the recipe's last one."""
    profile: int | None = None
    """How many updates to profile (`unet_core.training.profiling`)."""
    elsewhere: Path | None = None
    """The folder of the states, where that is not one in `path`."""
    publish: Callable[..., None] = lambda *_, **__: None
    """Puts what has changed where the run is (`unet_core.training.working_copy`)."""

    @property
    def states(self) -> Path:
        """The folder of the states."""
        return self.elsewhere or self.path / STATES

    @property
    def last(self) -> int:
        """The step after which the training ends this time."""
        return self.recipe.steps if self.until is None else min(self.until, self.recipe.steps)

    @property
    def recipe(self) -> TrainConfig:
        """How it trains."""
        return self.settings.recipe

    @property
    def crop(self) -> Lengths:
        """The size of its crops."""
        return self.recipe.crops(self.start.config.dimensions)

    @property
    def judged_sizes(self) -> tuple[Lengths, ...]:
        """The different sizes of what it is validated on; that of a crop where that is nothing."""
        return tuple(dict.fromkeys(self.validation.sizes)) or (self.crop,)

    @property
    def tiles(self) -> tuple[Lengths | None, Lengths | None]:
        """In which it is validated, and their overlap."""
        return usual_tiles(self.start.config, self.judged_sizes, self.crop)

    @property
    def output(self) -> Output:
        """What the logits of its network are."""
        return trained_output(self.start.config)

    @property
    def operations(self) -> int:
        """Of one update of the plain network (`unet_core.graph.summary.operations`)."""
        examples = self.recipe.batch * self.recipe.accumulate
        return operations(graph_of(self.start.config), examples, self.crop, training=True)

    def __str__(self) -> str:
        network, ignored = self.start.config, self.recipe.masks.ignore
        values = str(self.settings.classes)
        values += f", and {ignored}, which is ignored" if ignored is not None else ""
        validated = len(self.validation) or "none"
        title = network.title if isinstance(network, Graph) else f"UNet {'-'.join(map(str, network.features))}"
        kind = "volume" if network.dimensions == 3 else "picture"
        return (
            f"{counted(len(self.training), kind)} to train on, {validated} to validate on, "
            f"{counted(network.in_channels, 'channel')}; masks hold {values}; {title}"
        )

    def batches(self, start: int, share: tuple[int, int] = (0, 1)) -> Any:
        """A context with the batches from step `start` on; each has `accumulate` times `batch` examples."""
        recipe = self.recipe
        examples = Examples(self.training, size=self.crop, augmentation=recipe.augmentation, seed=recipe.seed)
        return batches(
            examples,
            batch=recipe.batch,
            steps=recipe.steps,
            accumulate=recipe.accumulate,
            start=start,
            share=share,
            threads=32 if is_url(self.settings.data) else 8,
        )


def start_network(start: Checkpoint | None, recipe: TrainConfig, channels: int, classes: int) -> Checkpoint:
    """The network before the first step, which has to have a logit for every class (one for two).

    Args:
        start: the one that is named; None: a new one of the recipe's seed.
        recipe: how to train.
        channels: of the pictures.
        classes: of the masks.

    Raises:
        ConfigError: the recipe, or `start`, does not fit.
    """
    if start is None:
        return new_network(recipe.network(channels, classes), recipe.seed)
    config = start.config
    recipe.check(config, classes)
    own = TrainConfig.features if isinstance(config, Graph) else config.features
    if recipe.features not in {own, TrainConfig.features}:
        raise ConfigError("--features: the network of --start has its own; leave that out")
    needed = 1 if classes == 2 else classes
    if config.out_channels not in {needed, classes}:
        raise ConfigError(
            f"{recipe.start}: its network has {config.out_channels} output channels; the masks have {classes} "
            f"classes, which are {needed}"
        )
    # Its loss is that of a softmax. A graph stays that of its code: `Run.output` says how it is judged.
    if not isinstance(config, Graph) and config.out_channels > 1 and config.output != "softmax":
        return dataclasses.replace(start, config=dataclasses.replace(config, output="softmax"))
    return start


def trained_output(config: Description) -> Output:
    """What the losses take a network's logits for, whatever the last node of a graph makes of them."""
    return "softmax" if config.out_channels > 1 else config.output


def versions_of(backend: Backend) -> dict[str, str]:
    """Of the packages that decide what a training in this framework makes."""
    names = ("numpy", "grain", "torch") if backend == "torch" else ("numpy", "grain", "jax", "flax", "optax")
    return {name: importlib.metadata.version(name) for name in names}
