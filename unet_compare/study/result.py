"""What one run of a study found: a file in the run's folder, which says that it is finished."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unet_compare.study.plan import Trial
from unet_core.codec import decoded, encoded, parsed
from unet_core.errors import RunError
from unet_core.files import atomic
from unet_core.prediction.scores import PictureScore

SCORES, RUNS = "scores.json", "runs"


@dataclass(frozen=True)
class Cost:
    """What a run took, of a machine that may do other things as well."""

    seconds: float
    """From reading the data to the last saved state, compiling and validating included."""
    images_per_second: float | None
    """In training, from the first report to the last one, validating included; None: there was one report."""
    peak_bytes: int
    """Of memory, of the whole process."""
    device_bytes: int | None
    """Of an accelerator's memory."""
    joules: Mapping[str, float]
    """By counter, of the whole machine, whoever used it."""
    no_joules: str
    """Why there are no more."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    arm: str
    """The digest of its arm."""
    seed: int
    fold: int | None
    data: str
    """The digest of its data."""
    pictures: tuple[PictureScore, ...]
    """Of the network after the last step, on the pictures that were validated on."""
    state: str
    """The digest of the state after the last step."""
    history: str
    """A sha256 of the history."""
    cost: Cost | None
    """None: it was made in several pieces."""
    versions: Mapping[str, str]
    device: str
    host: str
    version: int = 1

    def write(self, run: Path) -> None:
        """Into the run's folder."""
        with atomic(run / SCORES, force=True) as partial:
            partial.write_text(json.dumps(encoded(self), indent=1) + "\n", encoding="utf-8")


def read_result(run: Path) -> Result | None:
    """That of the run in a folder; None where it is not finished.

    Raises:
        RunError: the file is damaged.
    """
    file = run / SCORES
    try:
        found: Result = decoded(Result, parsed(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: is damaged ({error}); remove it, and the run is scored again") from error
    return found


def run_folder(folder: Path, trial: Trial) -> Path:
    """Where a run is."""
    return folder / RUNS / trial.arm.folder / trial.name
