"""Judges the runs of a study: scores, differences with their tests, parts of the variance, costs."""

import dataclasses
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unet_compare.study.collected import Collected
from unet_compare.study.departure import partings
from unet_compare.study.findings import Contrast, Judged, Outcome, Score, Spent, Verdict, Where
from unet_compare.study.plan import METRICS, Metric, Study
from unet_compare.study.result import Result
from unet_compare.study.statistics import (
    bootstrap,
    deciding_seeds,
    difference_p,
    equivalence_p,
    equivalence_power,
    holm,
    smallest_margin,
    variance_parts,
)


def judged(study: Study, arms: Sequence[Collected], where: Mapping[str, Where]) -> Outcome:
    """Judge the runs of a study.

    Args:
        study: what was asked.
        arms: the runs.
        where: by arm, what `unet compare` says.
    """
    first = arms[0]
    rounding = next((arm for arm in arms if arm.arm.control == "rounding"), None)
    contrasts = {arm.arm.name: _raw(study, first, arm) for arm in arms[1:]}
    for planted in (False, True):  # each a family of tests
        family = [
            (arm.arm.name, of) for arm in arms[1:] if arm.arm.planted == planted for of in contrasts[arm.arm.name]
        ]
        for name, of in zip(
            (name for name, _ in family), _corrected([of for _, of in family], study.level), strict=True
        ):
            contrasts[name] = [of if one.metric == of.metric else one for one in contrasts[name]]
    found = tuple(
        Judged(
            arm.arm.name,
            arm.arm.control,
            arm.seeds,
            {metric: _score(arm, metric, study) for metric in METRICS} if arm.seeds else {},
            tuple(contrasts.get(arm.arm.name, ())),
            partings(first, rounding, arm) if rounding is not None and arm not in (first, rounding) else (),
            _spent(arm, first),
            where.get(arm.arm.name),
        )
        for arm in arms
    )
    results = [result for arm in arms for result in arm.results]
    versions = {name: version for result in results for name, version in result.versions.items()}
    devices = tuple(dict.fromkeys(f"{result.host}: {result.device}" for result in results))
    reasons = {result.cost.no_joules for result in results if result.cost} - {""}
    finished = sum(len(arm.results) for arm in arms)
    given = tuple(metric for metric in METRICS if metric in study.margins)
    return Outcome(study, found, finished, _variance(arms), given, versions, devices, "; ".join(sorted(reasons)))


def _raw(study: Study, first: Collected, arm: Collected) -> list[Contrast]:
    """The differences of an arm in all metrics, uncorrected."""
    seeds = tuple(seed for seed in first.seeds if seed in arm.seeds)
    if len(seeds) < 2:
        return []
    found = []
    for metric in METRICS:
        table = arm.of_pictures(metric, seeds) - first.of_pictures(metric, seeds)
        differences = table.mean(1)
        own = float(first.of_pictures(metric, seeds).mean(1).std(ddof=1))
        margin, spread = study.margins.get(metric, own), float(differences.std(ddof=1))
        found.append(
            Contrast(
                metric,
                len(seeds),
                float(differences.mean()),
                bootstrap(table, 1 - study.level),
                spread,
                margin,
                float(equivalence_p(differences, margin)),
                float(difference_p(differences)),
                equivalence_power(len(seeds), spread, margin, study.level),
                deciding_seeds(spread, margin, study.level),
                smallest_margin(differences, study.level),
                "undecided",
                not table.any(),
            )
        )
    return found


def _corrected(family: Sequence[Contrast], level: float) -> list[Contrast]:
    """The same with p values for there being so many, and what they say."""
    same = holm(np.array([one.equivalence for one in family])).tolist()
    other = holm(np.array([one.deviation for one in family])).tolist()
    found = []
    for one, equivalence, deviation in zip(family, same, other, strict=True):
        equivalent = one.identical or equivalence < level
        verdict: Verdict = "equivalent" if equivalent else "different" if deviation < level else "undecided"
        found.append(dataclasses.replace(one, equivalence=equivalence, deviation=deviation, verdict=verdict))
    return found


def _score(arm: Collected, metric: Metric, study: Study) -> Score:
    table = arm.of_pictures(metric, arm.seeds)
    means = table.mean(1)
    spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return Score(float(means.mean()), bootstrap(table, 1 - study.level), spread)


def _variance(arms: Sequence[Collected]) -> dict[Metric, dict[str, float]]:
    ours = [arm for arm in arms if arm.arm.control is None]
    seeds = tuple(seed for seed in ours[0].seeds if all(seed in arm.seeds for arm in ours))
    if len(seeds) < 2 or len(ours) < 2:
        return {}
    rows = [[arm.seeds.index(seed) for seed in seeds] for arm in ours]
    return {
        metric: variance_parts(
            np.stack([np.nanmean(arm.scores[metric][row], -1) for arm, row in zip(ours, rows, strict=True)])
        )
        for metric in METRICS
    }


def _spent(arm: Collected, first: Collected) -> Spent | None:
    costs = [result.cost for result in arm.results if result.cost is not None]
    if not costs:
        return None

    def median(values: Sequence[Any]) -> float | None:
        known = [value for value in values if value is not None]
        return plain.median(known) if known else None

    joules = [sum(cost.joules.values()) if cost.joules else None for cost in costs]
    paces = {(result.seed, result.fold): _pace(result) for result in first.results}
    ratios = [
        theirs / ours
        for result in arm.results
        if (theirs := paces.get((result.seed, result.fold))) and (ours := _pace(result))
    ]
    return Spent(
        plain.median(cost.seconds for cost in costs),
        median([cost.images_per_second for cost in costs]),
        None if arm is first else median(ratios),
        plain.median(cost.peak_bytes for cost in costs),
        median([cost.device_bytes for cost in costs]),
        median(joules),
    )


def _pace(result: Result) -> float | None:
    return result.cost.images_per_second if result.cost else None
