"""How a host leaves when JAX would not let it: its main thread waits for hosts that will not come."""

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave_at_exit(code: int) -> None:
    """Let the interpreter end without JAX's shutdown, which waits for the others, and aborts where they are gone."""

    def end() -> NoReturn:
        _flush()
        os._exit(code)

    atexit.register(end)


def leave(line: str) -> NoReturn:
    """End this process, whose main thread waits in JAX for what will not come."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"unet: {line}\n")
    _flush()
    os._exit(2)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
