"""A checkpoint of either framework, ready to predict in either framework."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from conversion.backends.frameworks import importing
from conversion.containers import Opened, opened
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.config import Output
from unet_core.data.dataset import Dataset
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.labels import Classes
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.opening import open_dataset
from unet_core.errors import CheckpointError, DataError, MissingFrameworkError, some
from unet_core.graph.canonical import Description
from unet_core.paths import absolute, as_path, as_source
from unet_core.prediction.evaluation import Bands
from unet_core.prediction.tile_geometry import Lengths, Overlap, shared_tile, tiling, usual_tiles
from unet_core.progress import Progress, silent
from unet_core.training.run import BEST, Backend, RunConfig, is_run, read_run_config, trained_output

Part = Literal["training", "validation"]


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that can predict."""

    checkpoint: Checkpoint
    backend: Backend
    classes: Classes
    """What stands for its classes in a mask."""
    settings: RunConfig | None
    """Of the run that it comes from."""

    @property
    def config(self) -> Description:
        """The network's."""
        return self.checkpoint.config

    @property
    def output(self) -> Output:
        """What its logits are: what its run was trained on, or else what calling it makes of them."""
        return output_of(self.checkpoint)

    @property
    def pictures(self) -> Pictures:
        """How pictures, or volumes, are read for it: as those that it was trained on."""
        return (self.checkpoint.origin.pictures or AS_STORED).of(self.config.dimensions)

    @property
    def crop(self) -> Lengths | None:
        """What its run trained on."""
        return self.settings.recipe.crops(self.config.dimensions) if self.settings else None

    def bands(
        self,
        sizes: Sequence[Lengths],
        *,
        tile: int | None = None,
        overlap: int | None = None,
        flips: bool = False,
        bfloat16: bool = False,
    ) -> Bands:
        """The function that predicts pictures; in JAX, all devices compute tiles.

        Args:
            sizes: of the pictures or volumes that are to come; they share one size of tiles.
            tile: height and width (and depth) of the tiles, in pixels; None: what suits `sizes`.
            overlap: of the tiles, in pixels; None: what makes the answers those for whole pictures; where neither is
                named, as its run validated.
            flips: average over the picture and its mirror images.
            bfloat16: compute in bfloat16.

        Raises:
            unet_core.UNetError: tiles that do not fit the network.
        """
        apart: Overlap = overlap
        if tile is None and overlap is None:
            tiles, apart = usual_tiles(self.config, sizes, self.crop)
        else:
            largest = None if tile is None else (tile,) * self.config.dimensions
            tiles = shared_tile(self.config, sizes, overlap, tile=largest)
        for size in set(sizes):
            if tiles is not None and min(size) >= self.config.minimum_size:
                tiling(self.config, size, tiles, apart)
        if self.backend == "torch":
            with importing():
                from unet_torch.checkpoint import from_checkpoint
                from unet_torch.predict import Predictor
            network = from_checkpoint(self.checkpoint)
            return Predictor(network, tile=tiles, overlap=apart, flips=flips, bfloat16=bfloat16).bands
        with importing():
            import jax

            from unet_jax import checkpoint, predict
        devices = jax.local_devices() if jax.local_device_count() > 1 else None
        model = checkpoint.from_checkpoint(self.checkpoint)
        return predict.Predictor(
            model, tile=tiles, overlap=apart, flips=flips, bfloat16=bfloat16, devices=devices
        ).bands

    def source(
        self,
        data: str,
        *,
        only: Part | None = None,
        masks: Masks = AS_FOUND,
        pictures: Pictures = AS_STORED,
        progress: Progress = silent,
    ) -> Dataset:
        """Pictures with masks to hold the network against.

        Args:
            data: a data folder, or "synthetic".
            only: those that the network's run trained on, or validated on; None: all.
            masks: how the masks are read; what it leaves open is as in the network's run.
            pictures: how the pictures are read; what it leaves open is as for those that the network was trained on.
            progress: is told how far the check of the data is.

        Raises:
            unet_core.DataError: the data cannot be used, has other classes, or lacks pictures of the run.
        """
        told = self.classes if self.settings or self.checkpoint.origin.classes else None
        masks = self._masks(data).but(masks)
        source = open_dataset(
            data,
            channels=self.config.in_channels,
            values=None if told is None else told.values,
            coloured=told is not None and told.coloured,
            masks=masks,
            pictures=self.pictures.but(pictures).of(self.config.dimensions),
            progress=progress,
        )
        if len(source.values) != len(self.classes.values):
            raise DataError(
                f"{data}: the masks have {len(source.values)} classes ({some(source.values)}), the network tells "
                f"{len(self.classes.values)} apart"
            )
        names = self.classes.names
        if names and source.classes.names and source.classes.names != names:
            raise DataError(f"{data}: its classes are {some(source.classes.names)}, the network's {some(names)}")
        if only is None:
            return source
        if self.settings is None:
            raise DataError(f"--only {only}: is for the folder of a run")
        other = self.settings.recipe.split.validation_data
        if other is not None:
            raise DataError(
                f"--only {only}: all of {other} was validated on; give that as --data, or {self.settings.data}"
            )
        chosen: tuple[str, ...] = getattr(self.settings, only)
        if not chosen:
            raise DataError(f"--only {only}: the run validated on nothing (--validation 0)")
        places = {name: place for place, name in enumerate(source.names)}
        gone = set(chosen) - places.keys()
        if gone:
            raise DataError(f"{data}: lacks the run's pictures {some(sorted(gone))}")
        return source.subset([places[name] for name in chosen])

    def _masks(self, data: str) -> Masks:
        """How its run read masks; the file of annotations is that of its own data alone."""
        if self.settings is None:
            return AS_FOUND
        masks = self.settings.recipe.masks
        own = str(absolute(as_path(data))) == self.settings.data
        return masks if own else dataclasses.replace(masks, annotations=None)


def open_network(path: str | Path, *, backend: Backend | None = None, hints: Hints = NO_HINTS) -> OpenedNetwork:
    """The network of a checkpoint, or the best one of a run.

    Args:
        path: a checkpoint of any kind and framework, or a run's folder.
        backend: where to compute, in float32 at most; None: in the framework of the run or checkpoint, or in JAX where
            it has none, if that is installed, otherwise in PyTorch.
        hints: what the file does not tell.

    Raises:
        unet_core.UNetError: the checkpoint cannot be read, or the framework is not installed.
    """
    found, classes, settings = opened_with_classes(as_source(path), hints)
    checkpoint = found.checkpoint
    tensors = {  # the command's JAX has no float64, and no mask depends on it
        key: value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in checkpoint.tensors.items()
    }
    backend = backend or (settings.backend if settings else _backend(found))
    return OpenedNetwork(dataclasses.replace(checkpoint, tensors=tensors), backend, classes, settings)


def output_of(checkpoint: Checkpoint) -> Output:
    """What the logits of a network are: what it was trained on here, or else what calling it makes of them."""
    return checkpoint.config.output if checkpoint.origin.classes is None else trained_output(checkpoint.config)


def with_classes(checkpoint: Checkpoint, classes: Classes) -> Checkpoint:
    """The same, with the classes of its run, which networks of earlier versions do not tell."""
    return dataclasses.replace(checkpoint, origin=dataclasses.replace(checkpoint.origin, classes=classes))


def opened_with_classes(path: Path, hints: Hints = NO_HINTS) -> tuple[Opened, Classes, RunConfig | None]:
    """The network of a checkpoint, or the best one of a run; what stands for its classes in a mask; the run's settings.

    Raises:
        unet_core.UNetError: the checkpoint cannot be read, or tells of other classes than its network.
    """
    settings = read_run_config(path) if is_run(path) else None
    if settings is not None:
        path = path / BEST
        if not path.is_file():
            raise DataError(f"{path}: is not there yet; it comes with the run's first validation")
    found = opened(path, hints)
    checkpoint = found.checkpoint
    if settings is not None:
        found = dataclasses.replace(found, checkpoint=with_classes(checkpoint, settings.classes))
        return found, settings.classes, settings
    stored, config = checkpoint.origin.classes, checkpoint.config
    if stored is not None and len(stored.values) != max(2, config.out_channels):
        count = len(stored.values)
        raise CheckpointError(f"{path}: tells of {count} classes, and its network answers {config.out_channels} logits")
    return found, stored or Classes.of_nobody(config.out_channels, config.output), None


def _backend(found: Opened) -> Backend:
    if found.framework is not None:
        return found.framework
    try:
        with importing():
            import unet_jax.predict  # noqa: F401
    except MissingFrameworkError:
        return "torch"
    return "jax"
