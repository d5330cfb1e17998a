"""`unet predict` and `unet eval`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from unet_cli.options import ON_CPU, SourceOptions
from unet_core.data.formats.reading import Pictures
from unet_core.data.masks import Masks
from unet_core.errors import DataError, counted
from unet_core.training.settings import Loss

if TYPE_CHECKING:
    from conversion.inference import OpenedNetwork
    from unet_core.data.dataset import Dataset
    from unet_core.prediction.evaluation import Bands


@dataclass(frozen=True, kw_only=True)
class Computing(SourceOptions):
    """Where and how a network computes."""

    backend: Annotated[Literal["jax", "torch"] | None, tyro.conf.arg(metavar="jax|torch", help_behavior_hint="")] = None
    """The framework to compute in; left out: the checkpoint's own, or JAX."""
    tile: Annotated[int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="")] = None
    """Height and width (and depth) of the tiles in which large pictures, or volumes, are computed."""
    overlap: Annotated[int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="")] = None
    """Of neighbouring tiles; left out: as much as makes the result that of the whole picture. With less, tiles are
    blended: faster, and not exact near the seams."""
    flips: tyro.conf.FlagCreatePairsOff[bool] = False
    """Average over the picture and its mirror images: four times the work, of volumes eight."""
    bfloat16: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compute in bfloat16."""

    relief: ClassVar[str] = f"give a smaller --tile, --bfloat16, or {ON_CPU}"

    def bands(self, network: "OpenedNetwork", sizes: Sequence[tuple[int, ...]]) -> "Bands":
        """The network, ready for pictures of these sizes."""
        return network.bands(sizes, tile=self.tile, overlap=self.overlap, flips=self.flips, bfloat16=self.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Predict(Computing):
    """Predict masks of pictures of any size. CKPT is any checkpoint that unet inspect reads, or the folder of a run.

    A picture that cannot be read is reported and passed over; the exit code is then 2.

    Example: unet predict run slice.png --out masks --overlays
    """

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CKPT")]]
    """The network."""
    images: tyro.conf.Positional[tuple[Annotated[Path, tyro.conf.arg(metavar="IMAGE")], ...]]
    """Pictures and volumes, or folders of them; the predictions of what lies in folders in these go into such ones."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder for the predictions; it is made."""
    probabilities: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write them, too, as NAME.npy: float32, height x width x channels."""
    overlays: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the pictures, tinted where a class was found, as NAME_overlay.png."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace predictions that are there."""
    pictures: Pictures = field(default_factory=Pictures)
    """What is left out here is as for the pictures that the network was trained on."""

    def run(self) -> int:
        """Predict; 2 where a picture was passed over."""
        from conversion.inference import open_network
        from unet_cli.tables import progress_bar
        from unet_core.paths import as_target
        from unet_core.prediction.predictions import Predictor
        from unet_core.prediction.sources import Wanted, check_targets, extent_of, sources_in

        wanted = Wanted(probabilities=self.probabilities, overlays=self.overlays)
        sources = sources_in(self.images, as_target(self.out))
        network = open_network(self.checkpoint, backend=self.backend, hints=self.hints(None))
        how = network.pictures.but(self.pictures).of(network.config.dimensions)
        good, bad = [], []
        for source in sources:
            try:
                good.append((source, extent_of(source, how)))
            except DataError as error:
                bad.append(str(error))
        check_targets(good, self.out, wanted, force=self.force)
        predictor = Predictor(
            self.bands(network, [found.size for _, found in good] or [(1,) * network.config.dimensions]),
            network.config,
            network.classes.values,
            network.classes.coloured,
            network.output,
            how,
        )
        done = 0
        try:
            with progress_bar() as progress:
                for number, (source, found) in enumerate(good):
                    progress(source.name, number / len(good))
                    try:
                        predictor.predict(source, found, self.out, wanted)
                        done += 1
                    except DataError as error:
                        bad.append(str(error))
        finally:
            print(f"{done} of {counted(len(sources), 'picture')} predicted in {self.out} ({network.backend})")
            for line in bad:
                print(f"unet: passed over: {line}", file=sys.stderr)
        return 2 if bad else 0


@dataclass(frozen=True, kw_only=True)
class Eval(Computing):
    """Compare a network's masks with those of a data folder: metrics from one confusion matrix over all pixels.

    The loss is that of the run; for other checkpoints the cross-entropy.

    Example: unet eval run --data cells
    """

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CKPT")]]
    """Any checkpoint that unet inspect reads, or the folder of a run."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """A folder with images/ and masks/, or what unet pack made of one; or synthetic."""
    only: Annotated[Literal["training", "validation"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Only those pictures that the run (CKPT) trained on, or validated on."""
    one_by_one: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="pictures")] = False
    """Score each picture by itself as well: its calibration and the distance of its boundaries, too."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""
    recheck: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read every picture and mask again, whatever is known of the data from an earlier start."""
    masks: Masks = field(default_factory=Masks)
    """What is left out here is as in the run."""
    pictures: Pictures = field(default_factory=Pictures)
    """What is left out here is as for the pictures that the network was trained on."""

    def run(self) -> int:
        """Print the metrics."""
        from conversion.inference import open_network
        from unet_cli.tables import print_evaluation, progress_bar
        from unet_core.data.opening import recheck
        from unet_core.prediction.evaluation import evaluate

        network = open_network(self.checkpoint, backend=self.backend, hints=self.hints(None))
        if self.recheck:
            recheck(self.data)
        with progress_bar() as progress:
            source = network.source(
                self.data, only=self.only, masks=self.masks, pictures=self.pictures, progress=progress
            )
            bands = self.bands(network, source.sizes)
            loss = network.settings.recipe.loss if network.settings else Loss()
            found = evaluate(bands, source, loss=loss, output=network.output, scores=self.one_by_one, progress=progress)
        if self.json:
            scores = {"pictures": [vars(one) for one in found.pictures]} if self.one_by_one else {}
            print(json.dumps(found.to_dict() | scores))
        else:
            print_evaluation(found, _class_names(network, source), len(source))
        return 0


def _class_names(network: "OpenedNetwork", source: "Dataset") -> Sequence[str]:
    """What the classes are called, or else what stands for them in the masks."""
    from unet_core.data.labels import in_words

    names = network.classes.names or source.classes.names
    return names or [in_words([value], coloured=source.classes.coloured) for value in source.values]
