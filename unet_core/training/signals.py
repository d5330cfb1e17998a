"""Leaving cleanly: a signal asks the loop to stop, and does not tear it apart."""

import os
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
def stop_requests(*, together: bool = False) -> Iterator[Request]:
    """Note SIGTERM and Ctrl-C instead of dying of them; a second Ctrl-C interrupts at once.

    Signals reach the main thread only; elsewhere nothing is changed, and nothing is noted.

    Args:
        together: SIGTERM is left to a service that several processes have in common, and Ctrl-C is handed on to it.
    """
    request = Request()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number
        if together:
            os.kill(os.getpid(), signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    wanted = (signal.SIGINT,) if together else (signal.SIGTERM, signal.SIGINT)
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
