"""A profile of a few updates of a training: which ones, where it lies, and what is said of it."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from unet_core.errors import first_line

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Updates before the profile, in which programs are compiled and kernels are chosen."""


class Profiler(Protocol):
    """A framework's."""

    def start(self, folder: Path) -> None:
        """Record from now on, once the devices have nothing to do."""

    def update(self, number: int) -> AbstractContextManager[Any]:
        """The time of an update, under its number."""

    def stop(self) -> None:
        """Write into the folder what was recorded, once the devices have nothing to do."""


class Profile:
    """Records the updates after the first `WARM_UP` ones of this process, and what lies between them.

    It changes no number of the training. Where it cannot be written, the training goes on without it.

    Args:
        steps: how many updates; None: none, and nothing is said.
        folder: where to.
        profiler: the framework's.
    """

    def __init__(self, steps: int | None, folder: Path, profiler: Profiler) -> None:
        self._steps, self._folder, self._profiler = steps, folder, profiler
        self._made = 0
        self._recorded: list[int] = []
        self._recording, self._over = False, steps is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._recording:
            self._stop()
        elif not self._over:
            logger.warning(
                "nothing was profiled: the first %s updates are left out, and %s were made", WARM_UP, self._made
            )

    @contextmanager
    def update(self, step: int) -> Iterator[None]:
        """For the update that follows `step` updates, with all that belongs to it."""
        if self._made == WARM_UP and not self._over:
            self._start()
        self._made += 1
        if not self._recording:
            yield
            return
        with self._profiler.update(step + 1):
            yield
        self._recorded.append(step + 1)
        if len(self._recorded) == self._steps:
            self._stop()

    def _start(self) -> None:
        with self._given_up_where_it_fails():
            self._folder.mkdir(exist_ok=True)
            self._profiler.start(self._folder)
            self._recording = True

    def _stop(self) -> None:
        self._recording, self._over = False, True
        with self._given_up_where_it_fails():
            self._profiler.stop()
            made = f"updates {self._recorded[0]} to {self._recorded[-1]}" if self._recorded else "no whole update"
            logger.info("the profile of %s is in %s", made, self._folder)

    @contextmanager
    def _given_up_where_it_fails(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # those of both frameworks are RuntimeErrors
            self._recording, self._over = False, True
            logger.warning("%s: no profile: %s", self._folder, first_line(error))
