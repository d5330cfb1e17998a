"""The lock of a run's folder in a bucket, where no system lets go of it when its owner dies.

An owner makes the object `.lock.N`, N one more than that of the last, which only one can: it is written where there is
none. Then it renews it until it is done. Whoever finds one that is not renewed takes the next number; an owner that
comes back to life sees that there is a later one, and writes no more.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unet_core import objects
from unet_core.errors import RunError, StorageError
from unet_core.paths import URLPath

logger = logging.getLogger(__name__)

_NAME = ".lock."
_BEAT = 10.0
"""Seconds after which an owner renews its lock."""

_SILENCE = 45.0
"""Seconds without a renewal after which an owner is taken for dead."""

_LOOK = 3.0


class Lease:
    """Keeps every other process from training in a folder, until the end of the `with`.

    Args:
        url: the run's folder.

    Raises:
        RunError: another process trains there.
    """

    def __init__(self, url: URLPath) -> None:
        self._url, self._owner, self._number, self._beats = url, uuid.uuid4().hex, 0, 0
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        numbers = locks_in(self._url)
        if numbers:
            _wait_for_the_end(self._url, numbers[-1])
        self._number = (numbers or [0])[-1] + 1
        with contextlib.suppress(FileExistsError):  # perhaps by a try of ours whose answer was lost
            objects.write(self._name(self._number), self._content(), new=True)
        self.check()
        for number in numbers:
            objects.remove(self._name(number))
        self._renewing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._renewing.join()
        with contextlib.suppress(StorageError, OSError, RunError):  # others wait for its silence then
            self.check()
            if all(name.startswith(_NAME) for name in objects.listed(str(self._url))):  # the run was never begun
                objects.remove(self._name(self._number))
            else:
                objects.write(self._name(self._number), self._content(released=True))

    def check(self) -> None:
        """Raise RunError where another process has taken the folder over."""
        numbers = locks_in(self._url)
        if numbers[-1:] != [self._number] or read_lock(self._url, self._number).get("owner") != self._owner:
            raise RunError(f"{self._url}: another process trains here; this one writes nothing more")

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT):
            self._beats += 1
            with contextlib.suppress(StorageError, OSError):  # the next one may come through
                objects.write(self._name(self._number), self._content())

    def _name(self, number: int) -> str:
        return str(self._url / f"{_NAME}{number}")

    def _content(self, *, released: bool = False) -> bytes:
        about = {"owner": self._owner, "machine": _machine(), "process": os.getpid(), "host": socket.gethostname()}
        return json.dumps({**about, "beats": self._beats, "released": released}).encode()


def locks_in(url: URLPath) -> list[int]:
    """The numbers of the locks in a run's folder, the latest last."""
    names = [name.removeprefix(_NAME) for name in objects.listed(str(url)) if name.startswith(_NAME)]
    return sorted(int(name) for name in names if name.isdecimal())


def read_lock(url: URLPath, number: int) -> dict[str, Any]:
    """What the owner of a lock has written; nothing where it is gone or is no such object."""
    try:
        found = json.loads((url / f"{_NAME}{number}").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_free(url: URLPath) -> None:
    """Raise RunError where a process trains in a folder, or may do so."""
    numbers = locks_in(url)
    if numbers:
        _wait_for_the_end(url, numbers[-1])


def _wait_for_the_end(url: URLPath, number: int) -> None:
    """Return once the owner of a lock has ended, or is taken for dead.

    Raises:
        RunError: it renews the lock.
    """
    first = read_lock(url, number)
    if not first or first.get("released") or _is_dead(first):
        return
    logger.info("%s: waiting %.0f s to see whether the process that trained here is gone", url, _SILENCE)
    until = time.monotonic() + _SILENCE
    while time.monotonic() < until:
        time.sleep(_LOOK)
        now = read_lock(url, number)
        if now.get("released"):
            return
        if now != first:
            host = first.get("host", "another machine")
            raise RunError(f"{url}: another process trains here, on {host}; wait for it, or stop it")


def _is_dead(lock: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that has ended."""
    process = lock.get("process")
    if lock.get("machine") != _machine() or not isinstance(process, int) or not _machine():
        return False
    return not Path(f"/proc/{process}").exists()


def _machine() -> str | None:
    """What tells the processes of this machine, since it was started, from all others; None: nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
