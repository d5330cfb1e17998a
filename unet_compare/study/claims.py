"""Which process makes which run: claims in a folder, or in a bucket, that several processes and hosts have in common.

A claim of a run is a file NAME.N, made with a number N one above the last and only where there is none of that name
yet, which every file system and bucket does in one step. The last one holds. Its owner writes it anew every few
seconds, and gives it back by a word in it; it is void where its process is gone, or has not written it while another
one looked on. No file is removed, so that no number comes twice.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from unet_core import objects
from unet_core.paths import URLPath

BEAT = 10.0
"""Seconds between two signs of life."""
SILENT = 120.0
"""Seconds without one, while this process looks on, after which one on another host counts as gone."""


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
        token: what tells it from every other.
        lost: called in a thread of its own, once, where another process has taken it over.
    """

    def __init__(self, file: Path, token: str, lost: Callable[[], None]) -> None:
        self.file, self._token, self._lost = file, token, lost
        self._ended, self._beats = threading.Event(), 0
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # others wait for its silence then
            if self.holds:
                _write(self.file, json.dumps({"released": True}))

    @property
    def holds(self) -> bool:
        """Whether it is the last claim of its run."""
        return _numbers(self.file.parent).get(self.file.stem) == int(self.file.suffix[1:])

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._beats += 1
            with contextlib.suppress(OSError):  # the next one may come through
                if not self.holds:
                    self._lost()
                    return
                _write(self.file, _content(self._token, self._beats))


class Claims:
    """Those of a study, as one process sees them.

    Args:
        folder: it exists, or is an address.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[str, float]] = {}
        """What stood in a claim, and since when."""

    def numbers(self) -> dict[str, int]:
        """Of the last claim of every run that has one."""
        return _numbers(self._folder)

    def take(self, name: str, lost: Callable[[], None], numbers: Mapping[str, int] | None = None) -> Claim | None:
        """Take a run; None where another process has it.

        Args:
            name: of the run.
            lost: as in `Claim`.
            numbers: what `numbers` found a moment ago, so that many runs need one look; a claim that somebody has made
                since is found when it would be made again.
        """
        last = (self.numbers() if numbers is None else numbers).get(name, 0)
        if last and not self._is_void(self._folder / f"{name}.{last}"):
            return None
        file, token = self._folder / f"{name}.{last + 1}", uuid.uuid4().hex
        return Claim(file, token, lost) if _is_made(file, _content(token, 0)) else None

    def _is_void(self, file: Path) -> bool:
        text = file.read_text(encoding="utf-8", errors="replace")
        try:
            fields = json.loads(text) if text else {}
            if fields.get("released"):
                return True
            if fields and Owner(fields["host"], fields["space"], fields["pid"]).is_gone():
                return True
        except (ValueError, KeyError, TypeError, AttributeError):  # half written
            pass
        now = time.monotonic()
        before, since = self._seen.get(file, ("", now))
        self._seen[file] = text, since if before == text else now
        return now - self._seen[file][1] > SILENT


def _numbers(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):  # nothing in the bucket yet
        for path in folder.iterdir():
            if path.suffix[1:].isdigit():
                found[path.stem] = max(found.get(path.stem, 0), int(path.suffix[1:]))
    return found


def _content(token: str, beats: int) -> str:
    return json.dumps({**vars(Owner.this()), "token": token, "beats": beats})


def _is_made(file: Path, text: str) -> bool:
    """Whether a file is there now that was not there, and is this one."""
    try:
        if isinstance(file, URLPath):
            objects.write(str(file), text.encode(), new=True)
        else:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(text)
    except FileExistsError:
        return isinstance(file, URLPath) and file.read_text() == text  # by a try whose answer was lost
    return True


def _write(file: Path, text: str) -> None:
    if isinstance(file, URLPath):
        objects.write(str(file), text.encode())
    else:
        file.write_text(text, encoding="utf-8")


def _space() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
