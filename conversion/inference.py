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
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.opening import open_dataset
from unet_core.errors import DataError, MissingFrameworkError, some
from unet_core.graph.canonical import Description
from unet_core.paths import absolute, as_path
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
    values: tuple[int, ...]
    """What a mask's pixels hold, by class."""
    settings: RunConfig | None
    """Of the run that it comes from."""

    @property
    def config(self) -> Description:
        """The network's."""
        return self.checkpoint.config

    @property
    def output(self) -> Output:
        """What its logits are: what its run was trained on, or else what calling it makes of them."""
        return trained_output(self.config) if self.settings else self.config.output

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
        values, coloured = (self.settings.values, self.settings.coloured) if self.settings else (None, False)
        masks = self._masks(data).but(masks)
        source = open_dataset(
            data,
            channels=self.config.in_channels,
            values=values,
            coloured=coloured,
            masks=masks,
            pictures=self.pictures.but(pictures).of(self.config.dimensions),
            progress=progress,
        )
        if len(source.values) != len(self.values):
            raise DataError(
                f"{data}: the masks have {len(source.values)} classes ({some(source.values)}), the network tells "
                f"{len(self.values)} apart"
            )
        names = self.settings.class_names if self.settings else ()
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
    found, values, settings = opened_with_classes(as_path(path), hints)
    checkpoint = found.checkpoint
    tensors = {  # the command's JAX has no float64, and no mask depends on it
        key: value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in checkpoint.tensors.items()
    }
    backend = backend or (settings.backend if settings else _backend(found))
    return OpenedNetwork(dataclasses.replace(checkpoint, tensors=tensors), backend, values, settings)


def opened_with_classes(path: Path, hints: Hints = NO_HINTS) -> tuple[Opened, tuple[int, ...], RunConfig | None]:
    """The network of a checkpoint, or the best one of a run; what a mask's pixels hold, by class; the run's settings.

    Raises:
        unet_core.UNetError: the checkpoint cannot be read.
    """
    settings = read_run_config(path) if is_run(path) else None
    if settings is not None:
        path = path / BEST
        if not path.is_file():
            raise DataError(f"{path}: is not there yet; it comes with the run's first validation")
    found = opened(path, hints)
    config = found.checkpoint.config
    classes = 2 if config.out_channels == 1 else config.out_channels + (config.output == "sigmoid")
    values = settings.values if settings else (0, 255) if classes == 2 else tuple(range(classes))
    return found, values, settings


def _backend(found: Opened) -> Backend:
    if found.framework is not None:
        return found.framework
    try:
        with importing():
            import unet_jax.predict  # noqa: F401
    except MissingFrameworkError:
        return "torch"
    return "jax"
