"""The finished runs of a study, as arrays: scores by seed and picture, losses and validations by seed and step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from unet_compare.study.arms import Arm
from unet_compare.study.plan import METRICS, Metric, Study, Trial
from unet_compare.study.result import Result, read_result, run_folder
from unet_core.errors import RunError, some
from unet_core.files import sha256_of
from unet_core.training.history import read_history
from unet_core.training.run import HISTORY


@dataclass(frozen=True)
class Curve:
    """A quantity over the steps, of every run."""

    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, "r n"]


@dataclass(frozen=True)
class Collected:
    """The runs of one arm, of the seeds of which all folds are finished."""

    arm: Arm
    seeds: tuple[int, ...]
    scores: Mapping[Metric, Float[np.ndarray, "s f p"]]
    """By seed, fold and picture; where folds have fewer pictures than others, NaN."""
    results: tuple[Result, ...]
    """Of every seed and fold."""
    losses: Curve
    """Of every update."""
    validations: Mapping[str, Curve]
    """loss and mean_iou."""

    def of_pictures(self, metric: Metric, seeds: tuple[int, ...]) -> Float[np.ndarray, "s p"]:
        """The scores of some seeds, with the pictures of all folds side by side."""
        rows = self.scores[metric][[self.seeds.index(seed) for seed in seeds]]
        flat = rows.reshape(len(seeds), -1)
        return np.asarray(flat[:, np.isfinite(flat).all(0)])


def collect(study: Study, folder: Path) -> tuple[Collected, ...]:
    """All arms, in order.

    Raises:
        RunError: runs were made on other data than others, or scored on other pictures; or one is damaged.
    """
    found: dict[str, Result] = {}
    for trial in study.trials():
        result = read_result(run_folder(folder, trial))
        if result is not None:
            found[str(trial)] = result
    if len({result.data for result in found.values()}) > 1:
        raise RunError(
            f"{folder}: its runs were made on different data: the data has changed; restore it, or give another --out"
        )
    names: dict[int | None, tuple[str, ...]] = {}
    for trial, result in ((trial, found[str(trial)]) for trial in study.trials() if str(trial) in found):
        seen = tuple(picture.name for picture in result.pictures)
        if names.setdefault(trial.fold, seen) != seen:
            raise RunError(f"{run_folder(folder, trial)}: was scored on other pictures than other runs: {some(seen)}")
    return tuple(_collected(study, folder, arm, found) for arm in study.arms)


def _collected(study: Study, folder: Path, arm: Arm, found: Mapping[str, Result]) -> Collected:
    folds = (None,) if study.folds is None else tuple(range(1, study.folds + 1))
    seeds = tuple(seed for seed in study.seeds if all(str(Trial(arm, seed, fold)) in found for fold in folds))
    trials = [Trial(arm, seed, fold) for seed in seeds for fold in folds]
    results = tuple(found[str(trial)] for trial in trials)
    most = max((len(result.pictures) for result in results), default=0)
    scores: dict[Metric, np.ndarray] = {}
    for metric in METRICS:
        table = np.full((len(trials), most), np.nan)
        for row, result in zip(table, results, strict=True):
            row[: len(result.pictures)] = [getattr(picture, metric) for picture in result.pictures]
        scores[metric] = table.reshape(len(seeds), len(folds), most)
    histories = [_history(run_folder(folder, trial) / HISTORY, found[str(trial)]) for trial in trials]
    whole = max(map(len, histories), default=0)
    for trial, history in zip(trials, histories, strict=True):
        if len(history) < whole:
            path = run_folder(folder, trial)
            raise RunError(f"{path / HISTORY}: lacks steps that other runs have; remove {path}: it is made again")
    losses = [[(entry["step"], entry["loss"]) for entry in history if "loss" in entry] for history in histories]
    validated = [[entry for entry in history if "validation" in entry] for history in histories]
    validations = {
        name: _curve([[(entry["step"], entry["validation"][name]) for entry in entries] for entries in validated])
        for name in ("loss", "mean_iou")
    }
    return Collected(arm, seeds, scores, results, _curve(losses), validations)


def _history(path: Path, result: Result) -> list[dict[str, Any]]:
    if not path.exists() or sha256_of(path) != result.history:
        raise RunError(
            f"{path}: is not as it was when the run was scored; restore it, or remove {path.parent}: it is made again"
        )
    return read_history(path)


def _curve(runs: list[list[tuple[int, float]]]) -> Curve:
    if not runs:
        return Curve(np.zeros(0, int), np.zeros((0, 0)))
    table = np.array(runs, np.float64).reshape(len(runs), -1, 2)
    return Curve(table[0, :, 0].astype(int), table[:, :, 1])
