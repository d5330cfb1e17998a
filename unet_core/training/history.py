"""A run's history: one JSON line per step and per validation, the same for every way of getting there."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unet_core.errors import RunError, reason
from unet_core.files import atomic


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history, the first one first; a last line that was cut off is left out.

    Raises:
        RunError: a line in between is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
            names = ("loss", "mean_iou") if "validation" in entry else ("loss", "norm", "rate")
            numbers = entry["validation"] if "validation" in entry else entry  # noqa: SIM401  (of a list as well)
            if not all(isinstance(numbers[name], float | int) for name in names):
                raise ValueError
            entries.append({**entry, "step": int(entry["step"])})
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path}: line {number} is damaged; restore the file, or train into a new folder") from error
    return entries


class History:
    """Appends to `history.jsonl`.

    A line of a step holds `step` (updates made), `loss` and `norm` (of the gradients, before clipping) of the update
    that led there, and its `rate`; a line of a validation holds `step` and `validation`. Times are not in it: two runs
    of one recipe have the same history, bit for bit, on the same machine. What alone comes of them is `mfu`, the
    utilisation of devices whose peak is known, in the line of the last step of those that it is of.

    Args:
        path: the file.
        step: where the training goes on; later lines, which are made again, are taken out first.

    Raises:
        RunError: the lines up to `step` are not whole.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [entry for entry in read_history(path) if entry["step"] <= step]
        if [entry["step"] for entry in kept if "loss" in entry] != list(range(1, step + 1)):
            raise RunError(f"{path}: does not have the steps up to {step}; restore it, or train into a new folder")
        with atomic(path, force=True) as partial:
            partial.write_text("".join(_line(entry) for entry in kept), encoding="utf-8")
        self.validations = [entry for entry in kept if "validation" in entry]
        self._file = path.open("a", encoding="utf-8")

    @property
    def losses(self) -> list[float]:
        """Of the validations so far."""
        return [entry["validation"]["loss"] for entry in self.validations]

    @property
    def best(self) -> float:
        """The largest mean IoU of the validations so far; minus infinity before the first."""
        return max((entry["validation"]["mean_iou"] for entry in self.validations), default=float("-inf"))

    def step(self, step: int, *, loss: float, norm: float, rate: float, mfu: float | None = None) -> None:
        """Add a step's line."""
        known = {} if mfu is None else {"mfu": mfu}
        self._write({"step": step, "loss": loss, "norm": norm, "rate": rate, **known})

    def validation(self, step: int, found: dict[str, Any]) -> None:
        """Add a validation's line."""
        entry = {"step": step, "validation": found}
        self.validations.append(entry)
        self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        with self._writing():
            self._file.write(_line(entry))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.path}: not written: {reason(error)}") from error

    def flush(self) -> None:
        """Force all lines to the disk, so that a state that is saved next never is ahead of them."""
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush, and write no more."""
        try:
            self.flush()
        finally:
            with contextlib.suppress(OSError):  # what cannot be flushed cannot be closed either
                self._file.close()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
