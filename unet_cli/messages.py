"""Lines on the terminal while a command works: its own, and what the packages log."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from unet_core.staging import spoken

PACKAGES = ("conversion", "unet_core", "unet_jax", "unet_torch")
"""Their loggers have something to say to a person who waits."""


def nowhere() -> TextIO:
    """A stream of which nobody sees anything."""
    return open(os.devnull, "w", encoding="utf-8")


def say(line: str) -> None:
    """Print a line at once; whoever read along and left does not end the command."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.stdout = nowhere()  # for the rest of the process


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(spoken(record.getMessage()))


@contextlib.contextmanager
def printed() -> Iterator[None]:
    """Print what the packages log, line by line, and let no other handler show it a second time."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    printer = _Printer()
    for logger in loggers:
        logger.addHandler(printer)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(printer)
            logger.setLevel(level)
            logger.propagate = propagate
