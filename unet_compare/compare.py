"""Where two networks part, how much, and whether it matters: `unet compare`."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from conversion.backends.backend import Runner
from conversion.backends.pairs import converted, runners_of
from conversion.proof.checks import misshaped
from conversion.proof.proof import identical, side_of
from conversion.proof.samples import Sample, check_size, usual_sizes
from unet_compare.cost import cost
from unet_compare.crops import centre_crops, taken
from unet_compare.divergence import divergence
from unet_compare.findings import Comparison, Cost, Picture
from unet_compare.limits import Effort
from unet_compare.precisions import LogitsByPrecision, ladder, predictions
from unet_compare.trajectories import trajectories
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.data.dataset import Dataset
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.opening import SYNTHETIC, masks_for, open_dataset
from unet_core.data.pictures import as_float
from unet_core.errors import CheckpointError, ConfigError, DataError, UNetError, some
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.chance import draws
from unet_core.graph.suitability import check_training, refusal
from unet_core.paths import as_source
from unet_core.progress import Progress, silent
from unet_core.training.run import BEST, is_run, read_run_config

_NOTHING = "No pictures were predicted and nothing was trained"
SIDE = 192
"""Height and width of the pictures that both predict, in pixels, at most: the centres of larger ones."""
CROP = 128
"""Height and width of the crops that both are trained on. As of `SIDE`, a deep network may need more."""


def compare(
    a: Any,
    b: Any = None,
    *,
    data: str = SYNTHETIC,
    hints: Hints = NO_HINTS,
    size: tuple[int, ...] | None = None,
    effort: Effort | None = None,
    masks: Masks = AS_FOUND,
    pictures: Pictures = AS_STORED,
    progress: Progress = silent,
) -> Comparison:
    """Run two networks beside A in float64: layer by layer, on pictures, in training, in every precision; measure both.

    Args:
        a: a checkpoint, the folder of a run (its best network), a torch module or a `unet_jax.UNet`; it stays as it is.
        b: the same; without it, the network is compared with itself, converted to the other framework.
        data: a folder with `images/` and `masks/`, or "synthetic".
        hints: as in `conversion.verify`.
        size: height and width, in pixels, of what is traced layer by layer; None: an odd size, 75x91 for four levels.
        effort: how much is looked at.
        masks: how the masks of a folder are read; what it leaves open is as in the run A, if A is one.
        pictures: how its pictures are read; what it leaves open is as for those that A was trained on.
        progress: called before each stage with a few words and the fraction that is done.

    Raises:
        UNetError: a checkpoint cannot be read or trusted, the pictures do not fit the networks, or a number is wrong.
        MissingFrameworkError: a framework is not installed.

    Examples:
        >>> import unet_torch
        >>> from unet_compare.compare import Effort, compare
        >>> compare(unet_torch.UNet(features=(4, 8)), size=(8, 8), effort=Effort(pictures=0, steps=0, rounds=0)).equal
        True
    """
    effort, begun = effort or Effort(), time.monotonic()
    progress("reading", 0.0)
    a, b = (as_source(side) if isinstance(side, str | Path) else side for side in (a, b))
    (first, second), masks = _runners(_best(a), _best(b), hints), masks_for(data, _masks_of(a).but(masks))
    if (apart := misshaped(first, second)) is not None:
        return _comparison(first, second, begun, incomparable=str(apart))
    source = _pictures_of(data, first, masks, pictures)
    effort, crop, notes = _possible(effort, source, first.config, data)
    with _part(progress, 0.02, 0.35) as report:
        sample = sample_of(source, first, size)
        parts: dict[str, Any] = {"divergence": divergence(first, second, sample, seed=effort.seed, progress=report)}
    if effort.pictures:
        with _part(progress, 0.35, 0.5) as report:
            parts |= _predicted(first, second, source, effort, report)
    if effort.steps:
        with _part(progress, 0.5, 0.75) as report:
            settings = {name: getattr(effort, name) for name in ("steps", "band", "perturbation", "seed")}
            parts["trajectories"] = trajectories(
                first, second, source=source, data=data, masks=masks, crop=crop, **settings, progress=report
            )
    if effort.rounds:
        with _part(progress, 0.75, 1.0) as report:
            parts["cost"], untimed = _timed(first, effort.rounds, report)
            notes += untimed
    return _comparison(first, second, begun, notes=notes, **parts)


def _predicted(a: Runner, b: Runner, source: Dataset, effort: Effort, progress: Progress) -> dict[str, Any]:
    """What both make of pictures, and by how much their answers differ in every precision."""
    config = a.config
    crops = centre_crops(source, config, count=effort.pictures, side=max(SIDE, config.minimum_size))
    found = predictions(a, b, crops, progress=progress)
    return {"pictures": tuple(_pictures(found, config)), "ladder": ladder(found)}


def _pictures_of(data: str, first: Runner, masks: Masks, pictures: Pictures) -> Dataset:
    """The data, read as the first network's was, but for what is said of it."""
    how = (first.origin.pictures or AS_STORED).but(pictures)
    return open_dataset(data, channels=first.config.in_channels, masks=masks, pictures=how)


def _runners(a: Any, b: Any, hints: Hints) -> tuple[Runner, Runner]:
    """Both networks; without `b`, A and itself in the other framework."""
    first, second = converted(a, hints) if b is None else runners_of(a, b, hints)
    if isinstance(first.config, Graph) != isinstance(second.config, Graph):
        raise UNetError(
            "one of the two was read from its code, the other one was not: their layers have no common names; read "
            "both from code (--module), or compare either with its own conversion"
        )
    return first, second


def _possible(effort: Effort, source: Dataset, config: Description, data: str) -> tuple[Effort, int, tuple[str, ...]]:
    """What can be looked at of it, the side of the crops for training, and notes of what is left out.

    Raises:
        DataError: the pictures were chosen, and do not fit the network.
    """
    notes = tuple(_notes(source, config, data))
    if any(note.startswith(_NOTHING) for note in notes):
        effort = dataclasses.replace(effort, pictures=0, steps=0)
    if effort.pictures or effort.steps:
        _check_sizes(source, config, data)
    crop = max(CROP, 2 * config.minimum_size)
    why = _untrained(source, config, crop) if effort.steps else None
    if why is not None:
        effort, notes = dataclasses.replace(effort, steps=0), (f"Nothing was trained: {why}.",)
    return effort, taken(crop, config), notes


def _timed(network: Runner, rounds: int, progress: Progress) -> tuple[Cost | None, tuple[str, ...]]:
    """Time and memory of the network, or a note that says why it has none."""
    checkpoint = Checkpoint(network.config, dict(network.tensors), network.origin, evidence=network.evidence)
    try:
        return cost(checkpoint, rounds=rounds, progress=progress), ()
    except ConfigError as error:
        return None, (f"Nothing was timed: {error}.",)


def _comparison(a: Runner, b: Runner, begun: float, **parts: Any) -> Comparison:
    """What was found; what was not looked for is None, or empty."""
    nothing: dict[str, Any] = dict.fromkeys(("incomparable", "divergence", "trajectories", "ladder", "cost"))
    nothing |= {"pictures": (), "notes": ()}
    same = identical(a, b)
    return Comparison(
        side_of(a), side_of(b), len(a.tensors), same, **{**nothing, **parts}, seconds=time.monotonic() - begun
    )


def _best(network: Any) -> Any:
    """A run's best network in place of the run; anything else as it is."""
    if not isinstance(network, Path) or not is_run(network):
        return network
    best = network / BEST
    if not best.is_file():
        raise CheckpointError(f"{best}: is not there yet; it comes with the run's first validation")
    return best


def _masks_of(network: Any) -> Masks:
    """How a run reads masks."""
    return read_run_config(network).recipe.masks if isinstance(network, Path) and is_run(network) else AS_FOUND


def sample_of(source: Dataset, a: Runner, size: tuple[int, ...] | None) -> Sample:
    """The centres of the first and the last picture; smaller ones go on as in a mirror. In 3-D, random numbers."""
    if size is not None:
        check_size(a.config, *size)
    size = size or usual_sizes(a.config)[0]
    if len(size) != 2:
        x = np.random.default_rng(0).standard_normal((2, *size, a.config.in_channels), np.float32)
        return Sample(f"random {'x'.join(map(str, size))}", x)
    height, width = size
    crops = []
    for index in dict.fromkeys((0, len(source) - 1)):
        image, _ = source.pair(index)
        missing = [max(wanted - got, 0) for wanted, got in zip((height, width), image.shape[:2], strict=True)]
        grown = [(lack // 2, lack - lack // 2) for lack in missing]
        image = np.pad(as_float(image), (*grown, (0, 0)), mode="symmetric")
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        crops.append(image[top : top + height, left : left + width])
    names = " and ".join(dict.fromkeys((source.names[0], source.names[-1])))
    return Sample(f"{names}, {height}x{width}", np.stack(crops))


def _notes(source: Dataset, config: Description, data: str) -> Iterator[str]:
    """Why the pictures tell nothing of the network's outputs, if they do not.

    Raises:
        DataError: so it is, and the pictures were chosen.
    """
    if isinstance(config, Graph):
        yield (
            "The network was read from its code: its operations have no switches to try one by one, and its time is "
            "measured by unet bench alone."
        )
        side = (taken(max(SIDE, config.minimum_size), config),) * 2
        if refused := refusal(config, side):
            yield f"{_NOTHING}: {refused}."
            return
    classes = {2} if config.out_channels == 1 else {config.out_channels, config.out_channels + 1}
    if len(source.values) not in classes:
        why = f"the pictures have {len(source.values)} classes, the network answers {config.out_channels} logits"
        if data != SYNTHETIC:
            raise DataError(f"{data}: {why}")
        yield f"{_NOTHING}: {why}; --data names others."


def _untrained(source: Dataset, config: Description, crop: int) -> str | None:
    """Why the trainers would not take the network or these pictures, if they would not."""
    if isinstance(config, Graph):
        if draws(config, training=True):
            return "it drops at random, and the frameworks draw other numbers"
        try:
            check_training(config, 2, (taken(crop, config),) * 2)
        except ConfigError as error:
            return str(error)
    classes = len(source.values)
    if len(source) < 2:
        return "that takes two pictures, one of them to validate on"
    if config.out_channels not in (classes, 1 if classes == 2 else classes):
        return f"that takes a logit for each of the {classes} classes, the network answers {config.out_channels}"
    return None


def _check_sizes(source: Dataset, config: Description, data: str) -> None:
    """Raise DataError where a picture is smaller than the network takes: before any time is spent."""
    least = config.minimum_size
    small = [name for name, size in zip(source.names, source.sizes, strict=True) if min(size) < least]
    if small:
        raise DataError(
            f"{data}: {some(small)}: the network takes {least}x{least} pixels at least; leave such pictures out, or "
            "give --pictures 0 --steps 0"
        )


def _pictures(found: LogitsByPrecision, config: Description) -> Iterator[Picture]:
    one, other, exact = (
        _foreground(found.logits[key].astype(np.float64), config)
        for key in (("A", "float32"), ("B", "float32"), ("A", "float64"))
    )
    for number, (name, truth) in enumerate(zip(found.crops.names, found.crops.pairs, strict=True)):
        rounding = float(np.abs(one[number] - exact[number]).max())
        known = np.where(truth.labels < found.crops.classes, truth.labels, 0)
        yield Picture(name, truth.image, known, one[number], other[number], rounding)


def _foreground(logits: np.ndarray, config: Description) -> np.ndarray:
    """The probability of the first class that is not the background."""
    if config.out_channels == 1 or config.output == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits[..., 0])))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers[..., 1] / powers.sum(-1))


@contextmanager
def _part(progress: Progress, start: float, end: float) -> Iterator[Progress]:
    """The progress of a part of it all."""
    yield lambda text, done: progress(text, start + (end - start) * done)
