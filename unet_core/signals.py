"""Leaving cleanly: a signal asks the loop to stop, and does not tear it apart."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Request:
    """Whether somebody has asked to stop."""

    signal: int | None = None
    """SIGTERM or SIGINT, once it has come."""


@contextmanager
def stop_requests() -> Iterator[Request]:
    """Note SIGTERM and Ctrl-C instead of dying of them; a second Ctrl-C interrupts at once.

    Signals reach the main thread only; elsewhere nothing is changed, and nothing is noted.
    """
    request = Request()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    heeded = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
