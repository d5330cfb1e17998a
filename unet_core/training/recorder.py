"""Writes down what happens to a run, and tells how far it is."""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from unet_core.checkpoints.safetensors_file import read
from unet_core.errors import CheckpointError, RunError
from unet_core.prediction.evaluation import Bands, Evaluation, Share, evaluate
from unet_core.progress import Progress
from unet_core.training.history import History, read_history
from unet_core.training.run import BEST, BOARD, HISTORY, Run
from unet_core.training.signals import Request
from unet_core.training.tensorboard import TensorBoard

logger = logging.getLogger(__name__)

_SEEN_EVERY = 60.0
"""Seconds after which the history of a run in a bucket is put there anew, for those who watch it."""


class TrainingPlan(ABC):
    """What is due after which step, and at which rate the next one is made; the same in all processes of a training."""

    run: Run
    keeps: bool
    """Whether this process writes the network that is kept."""

    @property
    @abstractmethod
    def losses(self) -> list[float]:
        """Of the validations so far."""

    def rate(self, step: int) -> float:
        """The learning rate of the update after `step` updates."""
        return self.run.recipe.part(step, self.losses)

    def due(self, step: int, stop: bool) -> bool:
        """Whether losses are to be fetched after this step: they are in time for all that is written."""
        return step % self.run.recipe.log_every == 0 or self.validates(step) or self.saves(step, stop)

    def validates(self, step: int) -> bool:
        """Whether a validation follows this step."""
        return step % self.run.recipe.validate_every == 0 or step == self.run.recipe.steps

    def saves(self, step: int, stop: bool) -> bool:
        """Whether the state after this step is saved."""
        recipe = self.run.recipe
        return step % recipe.save_every == 0 or step == recipe.steps or stop

    def validate(self, step: int, bands: Bands, share: Share) -> bool:
        """Validate; True where the network is better than the one that is kept, and this process keeps it.

        Where there is nothing to validate on, the latest network is the one to keep.

        Args:
            step: updates made.
            bands: the network.
            share: the processes that validate together.

        Raises:
            RunError: its loss is no number.
        """
        run = self.run
        if not len(run.validation):
            return self.keeps
        found = evaluate(bands, run.validation, loss=run.recipe.loss, output=run.output, samples=4, share=share)
        if not math.isfinite(found.loss):
            raise self._diverged(f"the validation loss after step {step} is {found.loss}")
        return self._better(step, found)

    @abstractmethod
    def _better(self, step: int, found: Evaluation) -> bool: ...

    def _check(self, last: int, found: Sequence[Sequence[float]]) -> None:
        for step, (loss, norm) in enumerate(found, last - len(found) + 1):
            if not math.isfinite(loss + norm):
                raise self._diverged(f"the loss of step {step} is {loss}, the norm of its gradients {norm}")

    def _diverged(self, what: str) -> RunError:
        return RunError(f"{self.run.path}: {what}; train into a new folder with a smaller --rate, or with --clip 1")


class Follower(TrainingPlan):
    """Of a process that writes nothing down, as the first one does.

    Args:
        run: whose.
        step: updates that are behind it.
    """

    keeps = False

    def __init__(self, run: Run, step: int) -> None:
        self.run = run
        entries = (entry for entry in read_history(run.path / HISTORY) if entry["step"] <= step)
        self._losses = [entry["validation"]["loss"] for entry in entries if "validation" in entry]

    @property
    def losses(self) -> list[float]:
        """Of the validations so far."""
        return self._losses

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def steps(self, last: int, found: Sequence[Sequence[float]], rates: Sequence[float]) -> None:  # noqa: ARG002
        """Look at losses and norms of the updates up to step `last`, as all do.

        Raises:
            RunError: one is no number.
        """
        self._check(last, found)

    def _better(self, step: int, found: Evaluation) -> bool:  # noqa: ARG002
        """False, for the first process keeps the best network."""
        self._losses.append(found.loss)
        return False

    def flush(self) -> None:
        """There is nothing to bring to the disk."""

    def outcome(self, step: int, request: Request) -> "Outcome":
        """What is left to the first process to say."""
        steps = self.run.recipe.steps
        return Outcome(step, steps, math.nan, 0, request.signal if step < steps else None, first=False)


@dataclass
class Recorder(TrainingPlan):
    """Writes down what happens to a run: history, TensorBoard, progress bar, log.

    Args:
        run: whose.
        step: updates that are behind it.
        progress: is told where the training is.
        peak: FLOP/s of all devices together (`unet_core.training.peaks`); None where nobody knows.

    Raises:
        RunError: the run is beyond the recipe's last step, or its history is damaged.
    """

    run: Run
    step: int
    progress: Progress
    peak: float | None = None
    keeps = True

    def __post_init__(self) -> None:
        if self.step > self.run.recipe.steps:
            raise RunError(f"{self.run.path}: has made {self.step} steps already; give more --steps than that")
        if self.step:
            logger.info("going on after step %s of %s", self.step, self.run.recipe.steps)
        self.history = History(self.run.path / HISTORY, self.step)
        self._kept = self._best_that_is_kept()
        self._board = TensorBoard(self.run.path / BOARD, self.step)
        self._part = None if self.peak is None else self.run.operations / self.peak
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        self.history.close()

    @property
    def losses(self) -> list[float]:
        """Of the validations so far."""
        return self.history.losses

    def steps(self, last: int, found: Sequence[Sequence[float]], rates: Sequence[float]) -> None:
        """Write down loss, norm and rate of the updates up to step `last`.

        Raises:
            RunError: a loss that is no number; no state of it has been saved.
        """
        first, recipe = last - len(found) + 1, self.run.recipe
        now = time.monotonic()
        pace = len(found) / max(now - self._since, 1e-9)
        self._since = now
        mfu = None if self._part is None else self._part * pace
        for step, (loss, norm), rate in zip(range(first, last + 1), found, rates, strict=True):
            self._check(step, [(loss, norm)])
            self.history.step(step, loss=loss, norm=norm, rate=rate, mfu=mfu if step == last else None)
            self._board.scalars(step, {"training/loss": loss, "training/norm": norm, "training/rate": rate})
        speed = pace * recipe.batch * recipe.accumulate
        self._board.scalars(
            last, {"training/images per second": speed} | ({} if mfu is None else {"training/MFU": mfu})
        )
        used = "" if mfu is None else f", MFU {mfu:.1%}"
        left = _clock((recipe.steps - last) / pace)
        self.run.publish(self._flush, every=_SEEN_EVERY)
        told = f"step {last}, loss {found[-1][0]:.4f}, {speed:.3g} images/s{used}, {left} left"
        self.progress(told, last / recipe.steps)

    def _better(self, step: int, found: Evaluation) -> bool:
        logger.info("step %s: %s", step, found)
        self.history.validation(step, found.to_dict())
        self._board.scalars(step, {f"validation/{name}": value for name, value in found.scalars().items()})
        for name, picture in found.samples.items():
            self._board.picture(step, f"validation/{name}", picture)
        self._since = time.monotonic()
        better = found.metrics.mean_iou > self._kept
        self._kept = max(found.metrics.mean_iou, self._kept)
        return better

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._flush()
        self._since = time.monotonic()

    def _flush(self) -> None:
        self.history.flush()
        self._board.flush()

    def outcome(self, step: int, request: Request) -> "Outcome":
        """What to say at the end."""
        best = max(self.history.validations, key=lambda entry: entry["validation"]["mean_iou"], default=None)
        steps = self.run.recipe.steps
        return Outcome(
            step,
            steps,
            best["validation"]["mean_iou"] if best else math.nan,
            best["step"] if best else 0,
            request.signal if step < steps else None,
        )

    def _best_that_is_kept(self) -> float:
        """The mean IoU of the network that is kept; what every other beats where that is gone."""
        if self.history.best == -math.inf:
            return -math.inf
        try:
            read(self.run.path / BEST)
        except (CheckpointError, FileNotFoundError) as error:  # a run that was moved may come without
            logger.warning("the best network is lost (%s); the next validation writes one", error)
            return -math.inf
        return self.history.best


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass(frozen=True)
class Outcome:
    """Where a training has left the run."""

    step: int
    """Updates made."""
    steps: int
    """Updates asked for."""
    best: float
    """The best mean IoU of its validations; NaN before the first."""
    best_step: int
    """And after how many updates that was; 0 before the first validation."""
    stopped_by: int | None = None
    """The signal that ended it early."""
    first: bool = True
    """Whether this is the process that wrote it down, among those that trained together."""
