"""What tells, without reading a file, that it is still the one that was read."""

import os

SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file gives it another time, on file systems that count in whole seconds too."""


def stamp(entry: os.DirEntry[str], now: int) -> str:
    """The size and times of a file, which are others once it has changed; empty where that is not certain.

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
