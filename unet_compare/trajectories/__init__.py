"""Trains two networks on the same batches, beside runs that differ by what rounding could do."""

import math
from collections.abc import Mapping

from unet_compare.backends.backend import TrainableNetwork, check_alike
from unet_compare.crops import centre_crops
from unet_compare.findings import Trajectories
from unet_compare.limits import LEAST_BAND, Perturbation
from unet_compare.trajectories.runs import distance, runs_of, start_of, trained_side_by_side
from unet_compare.trajectories.verdict import UNIT, parts_of, start_difference, verdict_of
from unet_core.data.batches import Examples
from unet_core.data.dataset import Dataset
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.splitting import split
from unet_core.errors import UNetError
from unet_core.progress import Progress, silent
from unet_core.training.settings import Optimizer, check_choice
from unet_core.training.train_config import TrainConfig

__all__ = ["UNIT", "distance", "trajectories"]

WORDS: Mapping[Perturbation, str] = {
    "ulp": "one unit in the last place of the weights",
    "order": "the order of the batches",
}
"""What the runs of a band differ in, for people."""

_PICTURES = 2
"""How many pictures the runs are validated on."""


def trajectories(
    a: TrainableNetwork,
    b: TrainableNetwork,
    *,
    source: Dataset,
    data: str = "",
    masks: Masks = AS_FOUND,
    steps: int = 12,
    batch: int = 2,
    crop: int = 128,
    rate: float = 1e-4,
    seed: int = 0,
    band: int = LEAST_BAND,
    perturbation: Perturbation = "ulp",
    progress: Progress = silent,
) -> Trajectories:
    """Train A, B, and a band of runs like A, from where the networks are, in float32 and by their trainers' updates.

    The runs make one step after the other side by side, so that no weights of earlier steps are kept.

    Args:
        a, b: the networks, each with its framework; the band runs in that of `a`.
        source: pictures and masks; the last fifth of them is for validation.
        data: what to call them.
        masks: how the masks were read.
        steps: updates of each run, by Adam.
        batch: crops in a batch.
        crop: height and width of a crop, in pixels.
        rate: the learning rate.
        seed: of the batches, and of what the band differs in.
        band: runs in the band.
        perturbation: what they differ in.
        progress: is told how many steps are made.

    Raises:
        UNetError: numbers that make no comparison; networks or data that do not fit together; or A cannot be trained.
    """
    _check(len(source), steps, rate, band, perturbation)
    adam = Optimizer(rate=rate)
    train_config = TrainConfig(steps=steps, batch=batch, crop=crop, seed=seed, optimizer=adam, masks=masks)
    first, second = (start_of(network, train_config, source) for network in (a, b))
    check_alike(first.config, second.config)
    training, validation = split(source, train_config.validation)
    crops = centre_crops(validation, first.config, count=_PICTURES, side=crop)

    progress(f"starting {band + 2} runs", 0)
    runs = runs_of(a.framework, first, b.framework, second, train_config, band, perturbation)
    examples = Examples(training, size=(crop, crop), augmentation=train_config.augmentation, seed=seed)
    trained_side_by_side(runs, first, train_config, examples, crops, progress)
    start, parts = start_difference(first, second), parts_of(runs, first.config)
    curves, words = tuple(run.curve() for run in runs), WORDS[perturbation]
    weights, statistics = (part.limit for part in parts)
    left, verdict = verdict_of(parts, runs, start, words)
    return Trajectories(steps, batch, crop, rate, data, words, curves, start, weights, statistics, left, verdict)


def _check(pictures: int, steps: int, rate: float, band: int, perturbation: Perturbation) -> None:
    check_choice("perturbation", perturbation, Perturbation)
    if band < LEAST_BAND:
        raise UNetError(f"band {band}: give {LEAST_BAND} runs or more")
    if not (math.isfinite(rate) and rate > 0):
        raise UNetError(f"rate {rate}: give a number above 0")
    if perturbation == "order" and steps < 2:
        raise UNetError(f"steps {steps}: one batch has no other order; give 2 or more")
    if pictures < 2:
        raise UNetError("the training needs 2 pictures or more, one of them to validate on")
