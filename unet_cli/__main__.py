"""The command as it is installed, `unet` or `python -m unet_cli`: in large pages of memory, where they are to be had.

XLA takes a program's temporaries from the system at every call, which clears each page when it is first touched. Asking
for large ones is left to an environment variable that glibc reads when a process starts (docs/performance.md).
"""

import contextlib
import os
import sys
from pathlib import Path

_VARIABLE, _ASKED = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def in_large_pages() -> None:
    """Start this process again with the variable, unless it is set, where Linux gives large pages to who asks alone.

    Nothing but time depends on it: where the setting cannot be read, or nothing started, the process goes on as it is.
    """
    with contextlib.suppress(OSError):
        if _VARIABLE not in os.environ and "[madvise]" in _PAGES.read_text():
            os.environ[_VARIABLE] = _ASKED
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run() -> int:
    """Run the command; returns its exit code."""
    in_large_pages()
    from unet_cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
