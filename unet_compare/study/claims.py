"""Which process makes which run: claims in a folder that several processes and hosts have in common.

A claim of a run is a file NAME.N, made with a number N one above the last and only where there is none of that name
yet, which every file system does in one step. The last one holds; it is given back by a line in it, and is void where
its process is gone or has not touched it for long. No file is removed, so that no number comes twice.
"""

import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BEAT = 10.0
"""Seconds between two signs of life."""
SILENT = 120.0
"""Seconds without one after which a process on another host counts as gone."""


@dataclass(frozen=True)
class Owner:
    """A process."""

    host: str
    space: int
    """The namespace of its number: containers of one host may have one name."""
    pid: int

    @classmethod
    def this(cls) -> "Owner":
        """This one."""
        return cls(socket.gethostname(), _space(), os.getpid())

    def is_gone(self) -> bool:
        """Whether it certainly runs no more; of another host nobody knows."""
        if (self.host, self.space) != (socket.gethostname(), _space()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Claim:
    """A run that is this process's, until the `with` ends, or another process takes it over.

    Args:
        file: of the claim.
        lost: called in a thread of its own, once, where another process has taken it over.
    """

    def __init__(self, file: Path, lost: Callable[[], None]) -> None:
        self.file, self._lost, self._ended = file, lost, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self.holds:
            _write(self.file, None, new=False)

    @property
    def holds(self) -> bool:
        """Whether it is the last claim of its run."""
        return _last(self.file.parent, self.file.stem) == int(self.file.suffix[1:])

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            if not self.holds:
                self._lost()
                return
            os.utime(self.file)


def claim(folder: Path, name: str, lost: Callable[[], None]) -> Claim | None:
    """Take a run; None where another process has it.

    Args:
        folder: of the claims; it exists.
        name: of the run.
        lost: as in `Claim`.
    """
    last = _last(folder, name)
    if last and not _is_void(folder / f"{name}.{last}"):
        return None
    file = folder / f"{name}.{last + 1}"
    try:
        _write(file, Owner.this(), new=True)
    except FileExistsError:
        return None
    return Claim(file, lost)


def _last(folder: Path, name: str) -> int:
    numbers = (path.suffix[1:] for path in folder.iterdir() if path.stem == name)
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _is_void(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8")
        fields = json.loads(text) if text else {}
        if fields.get("released"):
            return True
        if fields and Owner(fields["host"], fields["space"], fields["pid"]).is_gone():
            return True
    except (ValueError, KeyError, TypeError, AttributeError):  # half written: its time tells
        pass
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".") as probe:
        now = os.fstat(probe.fileno()).st_mtime  # by the clock of the file system, which all hosts share
    return now - file.stat().st_mtime > SILENT


def _write(file: Path, owner: Owner | None, *, new: bool) -> None:
    fields = {"released": True} if owner is None else vars(owner)
    with file.open("x" if new else "w", encoding="utf-8") as stream:
        stream.write(json.dumps(fields))


def _space() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
