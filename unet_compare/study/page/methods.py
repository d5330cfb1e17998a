"""How a study was made and judged, in the words of a methods section."""

from collections.abc import Iterator

from unet_compare.study.findings import Outcome
from unet_compare.study.plan import METRICS, TITLES
from unet_compare.study.statistics import RESAMPLES
from unet_compare.trajectories.verdict import FACTOR


def methods(found: Outcome) -> Iterator[str]:
    """Paragraphs."""
    study, first = found.study, found.arms[0].name
    recipe = study.arms[0].recipe
    seeds = f"{len(study.seeds)} seeds"
    folds = "" if study.folds is None else f" and each of {study.folds} folds"
    yield (
        f"Every arm was trained from {seeds}{folds}, for {recipe.steps} updates on batches of {recipe.batch} crops of "
        f"{recipe.crop} by {recipe.crop} pixels ({recipe.optimizer.optimizer}, learning rate "
        f"{recipe.optimizer.rate:g}, {recipe.schedule.schedule} schedule; these are the first arm's). Runs of one seed "
        "start from the same weights and see the same batches, with the same augmentation, in every arm: differences "
        "are of pairs. Scored is the network after the last update, on the pictures that were validated on."
    )
    yield (
        f"A run's score is the mean over its pictures of {', '.join(TITLES[metric] for metric in METRICS)}; "
        "calibration is the expected calibration error in 15 bins, and the boundary distance the mean distance in "
        "pixels of the points of either boundary from the other. Intervals are from a bootstrap over seeds and over "
        f"pictures, each resampled by itself ({RESAMPLES} resamples), widened for few seeds as Student's is."
    )
    given = [f"{study.margins[metric]:g} of {TITLES[metric]}" for metric in found.margins_given]
    margins = f"was given as {' and '.join(given)}" if given else "was not given"
    yield (
        f"Equivalence is judged by two one-sided paired t tests over the seeds (level {study.level:g}); the margin "
        f"{margins}, otherwise it is the standard deviation between the seeds of {first}. Differences are judged by a "
        "two-sided paired t test. p values are corrected by Holm's method over all metrics and arms, those of planted "
        "faults by themselves. An arm is called different where it is not equivalent and differs; undecided where "
        "neither is shown. These tests are about other seeds, on these pictures. The power is that of the "
        "equivalence test for arms without a difference, at the spread that was found, before the correction."
    )
    if any(arm.partings for arm in found.arms):
        yield (
            f"The band of rounding is made by an arm that differs from {first} by at most one unit in the last place "
            f"of each of its first weights: {FACTOR:g} times the largest difference of losses up to a step."
        )
    yield (
        "Parts of the variance are the components of a crossed design of arm, seed and fold from its mean squares, "
        "over the arms that are no controls; interactions are the rest."
    )
