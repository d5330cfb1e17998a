"""What a study found, as plain data: the page, the tables and the JSON file are made of nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from unet_compare.study.arms import FAULTS
from unet_compare.study.plan import TITLES, Metric, Study
from unet_compare.study.statistics import Interval

Verdict = Literal["equivalent", "different", "undecided"]


@dataclass(frozen=True)
class Score:
    """An arm in one metric."""

    mean: float
    interval: Interval
    """Over seeds and pictures."""
    spread: float
    """The standard deviation between seeds."""


@dataclass(frozen=True)
class Contrast:
    """An arm beside the first one, in one metric, by pairs of runs with the same seed."""

    metric: Metric
    seeds: int
    difference: float
    """The arm's score less the first one's."""
    interval: Interval
    """Over seeds and pictures."""
    spread: float
    """The standard deviation of the differences between seeds."""
    margin: float
    equivalence: float
    """The p value of two one-sided tests, corrected for there being several."""
    deviation: float
    """The p value of a difference, corrected alike."""
    power: float
    """How often so many seeds call arms without a difference equivalent."""
    needed: int | None
    """How many seeds do so in four of five cases; None: more than a thousand."""
    least_margin: float
    """Within which they are just equivalent, uncorrected."""
    verdict: Verdict
    identical: bool
    """Whether the scores of every pair are the same, picture by picture: then there is nothing to test."""

    @property
    def p_values(self) -> tuple[str, str]:
        """Of equivalence and of a difference, for people."""
        return ("-", "-") if self.identical else (f"{self.equivalence:.2g}", f"{self.deviation:.2g}")


@dataclass(frozen=True)
class Parting:
    """How far one arm's losses are from the first arm's, beside the band of rounding."""

    what: str
    """"training loss" or "validation loss"."""
    steps: Int[np.ndarray, " n"]
    apart: Float[np.ndarray, " n"]
    """The median over the runs."""
    limit: Float[np.ndarray, " n"]
    """Four times the most of what rounding made in any run up to that step."""
    left: int | None
    """The first step beyond the limit."""


@dataclass(frozen=True)
class Spent:
    """What the runs of an arm took: medians."""

    seconds: float
    images_per_second: float | None
    ratio: float | None
    """Of its time to the first arm's, the median over pairs of runs."""
    peak_bytes: float
    device_bytes: float | None
    joules: float | None


@dataclass(frozen=True)
class Where:
    """What `unet compare` says of the network of an arm, layer by layer, beside the first arm's."""

    text: str
    departs: bool


@dataclass(frozen=True)
class Judged:
    """An arm."""

    name: str
    control: str | None
    seeds: tuple[int, ...]
    scores: Mapping[Metric, Score]
    contrasts: tuple[Contrast, ...]
    """One for each metric; none of the first arm, and where fewer than two pairs are finished."""
    partings: tuple[Parting, ...]
    spent: Spent | None
    where: Where | None = None

    @property
    def left(self) -> tuple[int, str] | None:
        """The step after which it leaves the band of rounding, and in what."""
        return min(((one.left, one.what) for one in self.partings if one.left is not None), default=None)

    @property
    def found_by(self) -> tuple[str, ...]:
        """What tells it from the first arm."""
        scores = tuple(TITLES[one.metric] for one in self.contrasts if one.verdict == "different")
        steps = (f"{self.left[1]} from step {self.left[0]}",) if self.left else ()
        return (
            *scores,
            *steps,
            *((f"unet compare ({self.where.text})",) if self.where and self.where.departs else ()),
        )

    @property
    def told(self) -> str:
        """The same, in words; empty where nothing does."""
        return f"is found by {', '.join(self.found_by)}" if self.found_by else ""

    def contrast(self, metric: Metric) -> Contrast | None:
        """That in one metric."""
        return next((one for one in self.contrasts if one.metric == metric), None)


@dataclass(frozen=True)
class Outcome:
    """All of it."""

    study: Study
    arms: tuple[Judged, ...]
    finished: int
    """Runs."""
    variance: Mapping[Metric, Mapping[str, float]]
    """Of the arms that are no controls: parts from the arm, the seed, the fold, and the rest."""
    margins_given: tuple[Metric, ...]
    versions: Mapping[str, str]
    devices: tuple[str, ...]
    no_joules: str

    @property
    def compared(self) -> tuple[Judged, ...]:
        """The arms that are neither the first one nor controls."""
        return tuple(arm for arm in self.arms[1:] if arm.control is None)

    @property
    def faults(self) -> tuple[Judged, ...]:
        """The controls with a planted fault."""
        return tuple(arm for arm in self.arms if arm.control in FAULTS)

    @property
    def as_hoped(self) -> bool:
        """Whether all runs are there, all arms are equivalent, and all planted faults were found."""
        verdicts = [one.verdict for arm in self.compared if (one := arm.contrast(self.study.metric)) is not None]
        same = len(verdicts) == len(self.compared) and set(verdicts) <= {"equivalent"}
        return self.finished == self.study.runs and same and all(arm.found_by for arm in self.faults)

    @property
    def answer(self) -> str:
        """In a sentence for each arm."""
        return (
            " ".join(sentence(arm, self.study, self.arms[0].name) for arm in self.compared)
            or "Nothing is compared yet."
        )


def sentence(arm: Judged, study: Study, first: str) -> str:
    """What there is to say of an arm beside the first one."""
    of = arm.contrast(study.metric)
    if of is None:
        return f"{arm.name} has too few finished pairs of runs with {first} to be compared."
    title, interval = TITLES[study.metric], of.interval
    within = f"within {of.margin:.4g} of {title}"
    tests = f"difference {of.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}], {of.seeds} seeds"
    shown = f"{tests}, p = {of.equivalence:.2g}"
    if of.identical:
        shown = f"the same for every picture in all {of.seeds} pairs of runs; there is nothing to test"
    said = {
        "equivalent": f"{arm.name} is equivalent to {first} {within} ({shown})",
        "different": f"{arm.name} differs from {first} in {title} ({tests}, p = {of.deviation:.2g})",
        "undecided": f"{arm.name} is neither shown to be equivalent to {first} {within} nor to differ "
        f"({tests}; {_needed(of)})",
    }[of.verdict]
    ratio = arm.spent.ratio if arm.spent else None
    return f"{said}; it took {ratio:.2f} of the time." if ratio is not None else f"{said}."


def _needed(of: Contrast) -> str:
    if of.needed is None:
        return "more than a thousand seeds would decide it"
    if of.needed <= of.seeds:
        return f"{of.needed} seeds decide in four of five cases where there is no difference"
    return f"{of.needed} seeds would decide it"
