"""The lock of a run's folder: here one of the system, which lets go of it when its owner dies; in a bucket a lease."""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unet_core.errors import RunError
from unet_core.leases import SILENCE, Lease, Leases
from unet_core.paths import URLPath

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_LOOK = 3.0
"""Seconds between two looks at what another process does."""


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep a second process from training in the folder; the lock ends with this one, however it ends.

    Args:
        path: the run's folder. Of one in a bucket is only seen that nobody trains there.
        shared: for reading alone; others may read as well, and nothing is written.

    Raises:
        RunError: another process trains here.
    """
    if isinstance(path, URLPath):
        _wait_for_the_end(path, Leases(path))
        yield
        return
    if shared and not (path / _LOCK).exists():  # nobody has trained in this copy
        yield
        return
    with (path / _LOCK).open("r" if shared else "w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{path}: another process trains here, or moves the run; wait for it, or stop it") from error
        yield


@contextmanager
def leased(url: URLPath) -> Iterator[Lease]:
    """Keep every other process from training in a folder in a bucket; where nothing came into it, no lock is left.

    Raises:
        RunError: another process trains there.
    """
    leases = Leases(url)
    _wait_for_the_end(url, leases)
    lease = leases.take(_LOCK)
    if lease is None:
        raise lost(url)
    with lease:
        try:
            yield lease
        finally:
            lease.withdraw()


def lost(url: URLPath) -> RunError:
    """What is said where another process has taken a folder."""
    return RunError(f"{url}: another process trains here; this one writes nothing more")


def _wait_for_the_end(url: URLPath, leases: Leases) -> None:
    """Return once the process that trains in a folder has ended, or is taken for gone.

    Raises:
        RunError: it gives a sign of life.
    """
    before = -1.0
    while (seen := leases.look(_LOCK)).silence <= SILENCE:
        if seen.silence <= before:
            raise RunError(f"{url}: another process trains here, on {seen.host}; wait for it, or stop it")
        if before < 0:
            logger.info("%s: waiting %.0f s to see whether the process that trained here is gone", url, SILENCE)
        before = seen.silence
        time.sleep(_LOOK)
