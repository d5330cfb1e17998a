"""Leases: which of several processes and hosts does something, told by files in a folder or a bucket that they share.

A lease is a file NAME.N, made with a number N one above the last and only where there is none of that name yet, which
every file system and store does in one step. The last one holds. Its owner writes it anew every few seconds, and gives
it back by a word in it; it is void where its process is gone, or has not written it while another one looked on. The
last file stays, so that no number comes twice and an owner that comes back to life sees that there is a later one.
"""

import contextlib
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from unet_core.paths import write_new

BEAT = 10.0
"""Seconds between two signs of life."""

SILENCE = 120.0
"""Seconds without one, while a process looks on, after which it takes an owner for gone: longer than a store that does
not answer is asked again (`unet_core.objects`), and than NFS keeps what it knows."""


class Sight(NamedTuple):
    """What one process sees of a lease."""

    silence: float
    """Seconds that it has been as it is, while this process looked on; endless where nobody holds it."""
    host: str
    """Of the owner."""


class Lease:
    """What is this process's from the start of the `with` to its end, or until another process takes it over.

    Args:
        file: of the lease.
        owner: what tells this one from all others.
        lost: called in a thread of its own, once, where another process has taken it over.
    """

    def __init__(self, file: Path, owner: str, lost: Callable[[], None]) -> None:
        self.file, self._owner, self._lost = file, owner, lost
        self._beats, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(lambda: self.file.write_bytes(self.content(released=True)))

    def withdraw(self) -> None:
        """Leave nothing behind, where it is the first lease and nothing else has come into the folder."""
        with contextlib.suppress(OSError):
            if self.file.suffix == ".1" and [path.name for path in self.file.parent.iterdir()] == [self.file.name]:
                self._end(self.file.unlink)

    @property
    def holds(self) -> bool:
        """Whether it is the last one of its name, and this process's."""
        if _fields(_text(self.file)).get("owner") != self._owner:
            return False
        return self.file.suffix == f".{_numbers(self.file.parent).get(self.file.stem)}"

    def renewed(self) -> bool:
        """Give a sign of life; False where another process has taken it over."""
        self._beats += 1
        if not self.holds:
            return False
        self.file.write_bytes(self.content())
        return True

    def content(self, *, released: bool = False) -> bytes:
        """What the file holds."""
        about = {"owner": self._owner, "machine": _machine(), "process": os.getpid(), "host": socket.gethostname()}
        return json.dumps({**about, "beats": self._beats, "released": released}).encode()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # the next one may come through
                if not self.renewed():
                    self._lost()
                    return

    def _end(self, give_back: Callable[[], object]) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # others wait for its silence then
            if self.holds:
                give_back()


class Leases:
    """Those in a folder, as one process sees them.

    Args:
        folder: it exists, or is an address.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[str, float]] = {}
        """What stood in a file, and since when."""

    def numbers(self) -> dict[str, int]:
        """Of the last lease of every name that has one."""
        return _numbers(self._folder)

    def take(
        self, name: str, lost: Callable[[], None] = lambda: None, numbers: Mapping[str, int] | None = None
    ) -> Lease | None:
        """Take a lease; None where another process has it.

        Args:
            name: of what it is for.
            lost: as in `Lease`.
            numbers: what `numbers` found a moment ago, so that many names need one look; a lease that somebody has
                taken since is found when it would be made again.
        """
        numbers = self.numbers() if numbers is None else numbers
        if self.look(name, numbers).silence <= SILENCE:
            return None
        last, owner = numbers.get(name, 0), uuid.uuid4().hex
        mine = Lease(self._folder / f"{name}.{last + 1}", owner, lost)
        with contextlib.suppress(FileExistsError):  # perhaps by a try of ours whose answer was lost
            write_new(mine.file, mine.content())
        if not mine.holds:
            return None
        if last:
            with contextlib.suppress(OSError):  # it does no harm
                (self._folder / f"{name}.{last}").unlink(missing_ok=True)
        return mine

    def look(self, name: str, numbers: Mapping[str, int] | None = None) -> Sight:
        """See what becomes of a lease; what counts is what has changed since this process looked before."""
        last = (self.numbers() if numbers is None else numbers).get(name)
        if last is None:
            return Sight(math.inf, "")
        file = self._folder / f"{name}.{last}"
        text, now = _text(file), time.monotonic()
        fields = _fields(text)
        before, since = self._seen.get(file, ("", now))
        self._seen[file] = text, since if before == text else now
        is_void = bool(fields.get("released")) or _is_gone(fields)
        return Sight(math.inf if is_void else now - self._seen[file][1], str(fields.get("host", "another machine")))


def _numbers(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):  # nothing in the bucket yet
        for path in folder.iterdir():
            if path.suffix[1:].isdecimal():
                found[path.stem] = max(found.get(path.stem, 0), int(path.suffix[1:]))
    return found


def _text(file: Path) -> str:
    """What a file holds; nothing where it was removed a moment ago."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _fields(text: str) -> dict[str, Any]:
    """What an owner has written; nothing where that is half."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_gone(fields: dict[str, Any]) -> bool:
    """Whether the owner certainly runs no more; of a process of another machine nobody knows."""
    process, machine = fields.get("process"), _machine()
    if machine is None or fields.get("machine") != machine or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's; no process's
        return False
    return False


def _machine() -> str | None:
    """What tells the processes of this machine, since it was started, from all others; None: nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
