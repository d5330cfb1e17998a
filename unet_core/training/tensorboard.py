"""TensorBoard files beside the history, which is the truth."""

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from unet_core.errors import MissingFrameworkError, reason
from unet_core.installation import installing

logger = logging.getLogger(__name__)


class TensorBoard:
    """Writes event files; one that cannot be written is given up, and the training goes on.

    tensorboardX's own `SummaryWriter` writes from a process-wide queue that never ends where the disk is full.

    Args:
        folder: where to.
        step: where the training goes on; TensorBoard then drops what an interrupted process wrote of later ones.

    Raises:
        MissingFrameworkError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2
        except ModuleNotFoundError as error:
            raise MissingFrameworkError(f"training needs tensorboardX: {installing('train')}") from error
        self._summary, self._event, self._folder = summary, event_pb2, folder
        self._writer: Any = None
        try:
            folder.mkdir(exist_ok=True)
            self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        except OSError as error:
            self._give_up(error)
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=step + 1, session_log=started))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point on each of some curves."""
        for name, value in values.items():
            self._write(self._event.Event(step=step, summary=self._summary.scalar(name, value)))

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture under a slider of steps."""
        self._write(self._event.Event(step=step, summary=self._summary.image(name, pixels, dataformats="HWC")))

    def flush(self) -> None:
        """Bring it to the disk."""
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Flush, and write no more."""
        self.flush()
        self._end()

    def _write(self, event: Any) -> None:
        if self._writer is not None:
            event.wall_time = time.time()
            try:
                self._writer.write_event(event)
            except OSError as error:
                self._give_up(error)

    def _end(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # of what could not be flushed
                self._writer.close()
            self._writer = None

    def _give_up(self, error: OSError) -> None:
        self._end()
        logger.warning("%s: no more TensorBoard files: %s", self._folder, reason(error))
