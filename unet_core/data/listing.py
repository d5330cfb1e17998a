"""What lies in the folders of a data folder, here or in a bucket, and what tells unread that it is as it was."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unet_core import objects
from unet_core.paths import URLPath

SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file gives it another time, on file systems that count in whole seconds too."""
_REMOTE_THREADS = 32


@dataclass(frozen=True)
class Item:
    """What a folder holds under one name."""

    name: str
    is_folder: Callable[[], bool]
    """Whether it is a folder with something in it, and no link."""
    stamp: Callable[[], str]
    """What is another one once the file has changed; empty where that is not certain."""


def part_of(path: Path, kind: str) -> Path | None:
    """The folder `images` or `masks` of a data folder, whatever the case of its letters; None: there is none."""
    if (path / kind).is_dir():
        return path / kind
    found = [one for one in path.iterdir() if one.name.casefold() == kind and one.is_dir()]
    return found[0] if len(found) == 1 else None


def lister(top: Path) -> Callable[[str], list[Item]]:
    """What tells all that is in a folder, by its name below `top`. Of a bucket, all is listed at once."""
    return _remote(top) if isinstance(top, URLPath) else lambda folder: _local(top / folder)


def threads_for(path: Path) -> int:
    """How many threads read a data folder: of a bucket, each waits for most of its time."""
    return _REMOTE_THREADS if isinstance(path, URLPath) else min(8, os.cpu_count() or 1)


def _local(folder: Path) -> list[Item]:
    now = time.time_ns()
    with os.scandir(folder) as entries:
        return [
            Item(
                entry.name,
                functools.partial(_is_folder, entry),
                functools.partial(_stamp, entry, now),
            )
            for entry in entries
        ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and bool(os.listdir(entry.path))


def _stamp(entry: os.DirEntry[str], now: int) -> str:
    """The size and times of a file.

    The system sets the second time whenever a file is written, replaced, or renamed, and nobody else can. A file that
    has changed just now may change again within the same tick of the clock: it is read again the next time.

    Args:
        entry: the file.
        now: the time of day, in nanoseconds, before it was listed.
    """
    try:
        file = entry.stat()
        changed = max(file.st_ctime_ns, entry.stat(follow_symlinks=False).st_ctime_ns)
    except OSError:
        return ""
    return "" if changed > now - SETTLED else f"{file.st_size} {file.st_mtime_ns} {changed}"


def _remote(top: URLPath) -> Callable[[str], list[Item]]:
    below: dict[str, dict[str, str | None]] = {}
    for name, entry in objects.listed(str(top)).items():
        stamp: str | None = f"{entry.size} {entry.version}" if entry.version else ""
        while name:
            folder, _, last = name.rpartition("/")
            known = folder in below
            below.setdefault(folder, {})[last] = stamp
            if known:
                break
            name, stamp = folder, None

    def items(folder: str) -> list[Item]:
        found = below.get(folder.strip("/"), {})
        return [Item(name, (stamp is None).__bool__, (stamp or "").__str__) for name, stamp in found.items()]

    return items
