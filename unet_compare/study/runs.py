"""Makes the runs of a study that are missing, in a folder or bucket that several processes and hosts may share.

DIR/study.json               the plan, for people, and the digest of the data
DIR/runs/ARM/arm.json        what decides the arm's runs: no others are taken for them
DIR/runs/ARM/seed-K/         a run of `unet train`; scores.json in it says that it is finished
DIR/claims/                  which process makes which run (`unet_core.leases`)
DIR/report/                  what the study found
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from unet_compare.study.arms import Arm
from unet_compare.study.plan import Order, Study, Trial
from unet_compare.study.processes import Process, failure_of, started
from unet_compare.study.result import RUNS, read_result, run_folder
from unet_core.codec import encoded, parsed
from unet_core.data.opening import SYNTHETIC, masks_for, open_dataset
from unet_core.errors import RunError, counted, of_system, some
from unet_core.files import atomic
from unet_core.leases import Leases
from unet_core.paths import as_target, is_url
from unet_core.progress import Progress, silent

logger = logging.getLogger(__name__)

PLAN, CLAIMS, REPORT, ARM = "study.json", "claims", "report", "arm.json"
_POLL = 2.0
"""Seconds between two looks at what others do."""


@dataclass
class Tally:
    """What has become of a study's runs."""

    made: int = 0
    """By this process."""
    missing: list[Trial] = field(default_factory=list)
    """Not made yet, by anybody."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why runs of this process failed, by name."""


def finished(folder: Path, trial: Trial) -> bool:
    """Whether a run has been made and scored.

    Raises:
        RunError: what is there is of another study.
    """
    path = run_folder(folder, trial)
    found = read_result(path)
    if found is not None and (found.arm, found.seed, found.fold) != (trial.arm.digest, trial.seed, trial.fold):
        raise RunError(f"{path}: is a run of another study; give another --out")
    return found is not None


def prepare(study: Study, folder: Path, *, most: int | None = None, progress: Progress = silent) -> None:
    """Make a study's folder, or see that one may be gone on with; its plan may have more arms and seeds than before.

    Args:
        study: what is to be made.
        folder: where.
        most: runs that are to be made now; where there are none, the data is not looked at.
        progress: is told how far the check of the data is.

    Raises:
        StorageError: an address where nothing is written.
        RunError: it holds something else, or runs of another study, or of other data.
        DataError: the data cannot be trained on.
    """
    as_target(folder)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file; a study is a folder, so give another --out")
    others = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
    begun = (folder / PLAN).exists()  # behind the look into the folder, in which another process may begin it
    if others and not begun:
        raise RunError(f"{folder}: exists and is no study; give another --out")
    if not begun and study.data != SYNTHETIC and not is_url(study.data) and not Path(study.data).exists():
        raise RunError(f"{study.data}: no such folder; give one that holds images/ and masks/")
    for arm in study.arms:
        _check_arm(folder / RUNS / arm.folder, arm)
    missing = [trial for trial in study.trials() if not finished(folder, trial)]
    digest = _digest(study, folder, progress) if missing and most != 0 else _old_digest(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / PLAN, force=True) as partial:  # first, as it tells another process that this is a study
            plan = {**encoded(study), "digest": digest}
            partial.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        (folder / CLAIMS).mkdir(exist_ok=True)
        for arm in study.arms:
            place = folder / RUNS / arm.folder
            place.mkdir(parents=True, exist_ok=True)
            with atomic(place / ARM, force=True) as partial:
                partial.write_text(json.dumps(arm.identity(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(of_system(error)) from error


def _digest(study: Study, folder: Path, progress: Progress) -> str:
    """Of the data, which is what earlier runs were made on."""
    recipe = study.arms[0].recipe
    given = {study.data: recipe.masks}
    if recipe.split.validation_data is not None:
        given[recipe.split.validation_data] = replace(recipe.masks, annotations=None)  # which is of the first folder
    found = [
        open_dataset(data, masks=masks_for(data, masks), pictures=recipe.pictures, progress=progress).digest()
        for data, masks in given.items()
    ]
    new, old = " ".join(found), _old_digest(folder)
    if old not in (None, new) and any(run_folder(folder, trial).exists() for trial in study.trials()):
        raise RunError(f"{study.data}: is not the data that {folder} was begun with; restore it, or give another --out")
    return new


def _old_digest(folder: Path) -> str | None:
    """Of the data that the study was begun with; None: nobody has looked at it yet."""
    file = folder / PLAN
    if not file.exists():
        return None
    try:
        found = parsed(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: is damaged ({error}); restore it, or give another --out") from error
    return found.get("digest") if isinstance(found, dict) else None


def _check_arm(place: Path, arm: Arm) -> None:
    file = place / ARM
    if not place.is_dir() or not any(path.name.startswith("seed-") for path in place.iterdir()):
        return  # without a run an arm may become another
    try:
        old = parsed(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{place}: is not of this study (there is no {ARM} in it); give another --out") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: is damaged ({error}); restore it, or give another --out") from error
    new = arm.identity()
    if old != new:
        changed = list(_changed(old, new)) if isinstance(old, dict) else ["all"]
        raise RunError(f"{place}: holds runs of another study: another {some(changed)}; give another --out")


def _changed(old: dict[str, object], new: dict[str, object]) -> Iterator[str]:
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _changed(one, other)
        elif one != other:
            yield name


def carry_out(study: Study, folder: Path, *, most: int | None = None, progress: Progress = silent) -> Tally:
    """Make what is missing, run after run; where other processes have the rest, wait for them.

    Args:
        study: what is to be made.
        folder: where; `prepare` has made it.
        most: runs that this process makes, and then leaves; None: all that are to be had.
        progress: is told which run is being made.

    Raises:
        RunError: the first run fails; or a run is of another study.
    """
    tally, claims, seconds = Tally(), Leases(folder / CLAIMS), 0.0
    tally.missing = [trial for trial in study.trials() if not finished(folder, trial)]
    while tally.missing and (most is None or tally.made < most):
        begun = time.monotonic()
        taken = _take(study, folder, claims, tally, progress)
        if taken is not None and str(taken) not in tally.failed:
            tally.made += 1
            seconds += time.monotonic() - begun
        elif taken is not None and not tally.made:
            raise RunError(tally.failed[str(taken)])
        tally.missing = [one for one in tally.missing if not finished(folder, one) and str(one) not in tally.failed]
        share = 1 - len(tally.missing) / study.runs
        if taken is None and tally.missing:
            progress(f"waiting for {counted(len(tally.missing), 'run')} of other processes", share)
            time.sleep(_POLL)
        elif tally.made:
            left, count = duration(seconds / tally.made * len(tally.missing)), len(tally.missing)
            progress(f"about {left} left", share)
            if tally.made == 1 and count:
                logger.info(
                    "the first run took %.0f s: the %s about %s in one process",
                    seconds,
                    counted(count, "other takes", "others take"),
                    left,
                )
    tally.missing = [trial for trial in study.trials() if not finished(folder, trial)]
    return tally


def _take(study: Study, folder: Path, claims: Leases, tally: Tally, progress: Progress) -> Trial | None:
    """Make the first of the missing runs that nobody has; None: there is none."""
    numbers = claims.numbers()
    for trial in tally.missing:
        running: list[Process] = []
        mine = claims.take(f"{trial.arm.folder}_{trial.name}", partial(_stop, running), numbers)
        if mine is None:
            continue
        with mine:
            if finished(folder, trial):
                continue
            progress(str(trial), 1 - len(tally.missing) / study.runs)
            failure = _made(Order(str(run_folder(folder, trial)), *trial, study.folds, study.data), running)
            if failure is not None and mine.holds:
                tally.failed[str(trial)] = f"{trial}: {failure}"
        return trial
    return None


def _stop(running: list[Process]) -> None:
    for process in running:
        process.terminate()


def _made(order: Order, running: list[Process]) -> str | None:
    """Make a run in a process of its own; why it failed, if it did."""
    with started("unet_compare.study.trial", order, order.arm) as process:
        running.append(process)
        return failure_of(process)


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"
