"""The process in which one candidate runs: `python -m unet_compare.speed.worker SETUP`.

It answers JSON with JSON, a line each, until its input ends:

    {"do": "describe"}             the framework's device, and how it is set
    {"do": "prepare"}              build, compile and warm up; what that took, and the memory of a call
    {"do": "turn", "number": 1}    the median seconds of the turn's calls, how fast matrices are multiplied, and how
                                   quickly the cores hand over what they wrote, before the calls and after

What fails is answered with {"failed": reason}. Whatever libraries print goes to the error stream.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import itertools
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unet_compare.speed.cores import handover
from unet_compare.speed.plan import Case, Precision, Setup
from unet_core.data.batches import Batch
from unet_core.device_errors import of_device
from unet_core.errors import first_line

WARM_UP = 3
"""Calls before the first turn, besides the very first one; their memory is measured, and torch's CUDA graphs are
recorded in them."""
LEAST = 0.1
"""Seconds that a turn calls before it is timed, and is timed, at least."""
PAUSE = 0.05
"""Seconds that a framework's threads have to free what a call has left."""
MATMULS = 3
"""Products of large matrices that are timed in a turn."""
ANSWERS = 64
"""Numbers of the first output that are told."""
_STATUS = Path("/proc/self/status")
_PDEATHSIG = 1  # of prctl(2)


class Job(Protocol):
    """A candidate in one case; each framework has its own."""

    channels: int
    """Of the pictures."""

    def placed(self, batch: Batch) -> Any:
        """The batch on the device."""

    def call(self, inputs: Any) -> Any:
        """What is timed; returns when the device is done."""

    def answer(self, output: Any) -> np.ndarray:
        """What a call computed: logits, NHWC, or loss and norm of the gradients."""

    def settle(self) -> None:
        """Give back what is not needed between two turns."""

    def memory_peak(self) -> int | None:
        """The most bytes that the framework had on its device in the last call; None as of `memory_used`."""


class SpeedBackend(Protocol):
    """A framework: `unet_compare.speed.jax_backend` and `unet_compare.speed.torch_backend`."""

    def use(self, precision: Precision) -> None:
        """Let a GPU take TF32 in float32's products, or not, before anything is compiled."""

    def describe(self) -> dict[str, Any]:
        """Its platform ("cpu", "gpu" or "tpu"), device, and settings that matter here."""

    def Job(self, setup: Setup) -> Job:  # noqa: N802  (a class)
        """A candidate in one case."""

    def memory_used(self) -> int | None:
        """Bytes that the framework has on its device; None on the CPU, where the process's are asked for."""

    def reset_peak(self) -> None:
        """Begin to look for it anew, where that is possible."""

    def matmul(self, precision: str) -> tuple[int, Callable[[], None]]:
        """The operations of a function that multiplies large matrices, and the function."""


class Worker:
    """Does what it is asked, for one candidate in one case."""

    def __init__(self, side: SpeedBackend, setup: Setup) -> None:
        self.side, self.setup = side, setup
        self.job: Job
        side.use(setup.precision)

    def describe(self) -> dict[str, Any]:
        """The framework's device, and how it is set."""
        return self.side.describe()

    def prepare(self) -> dict[str, Any]:
        """Build, compile and warm up; a part of the first output is told, so that candidates can be compared."""
        before = self._used()
        self.job = self.side.Job(self.setup)
        inputs = self._inputs(0, 1 + WARM_UP)
        first, output = timed(self.job.call, inputs[0])
        answer = self.job.answer(output).ravel()
        del output
        later, rests, peaks = zip(*(self._observed(each) for each in inputs[1:]), strict=True)
        told = None not in (*rests, *peaks)
        part = answer[:: max(len(answer) // ANSWERS, 1)][:ANSWERS]
        return {
            "compile_seconds": max(first - min(later), 0.0),
            "memory": {
                "before": before,
                "rest": min(rests) if told else None,  # the C library may keep what was freed
                "peak": statistics.median_low(peaks) if told else None,
            },
            "answer": part.astype(float).tolist(),
        }

    def turn(self, number: int) -> dict[str, Any]:
        """Medians of some calls, on inputs that are new in this turn, and of products; some before are not timed."""
        inputs = itertools.cycle(self._inputs(number, self.setup.calls))
        spent = 0.0
        while spent < LEAST:
            spent += timed(self.job.call, next(inputs))[0]
        before = self._handover()
        seconds: list[float] = []
        while len(seconds) < self.setup.calls or sum(seconds) < LEAST:
            seconds.append(timed(self.job.call, next(inputs))[0])
        handovers = before, self._handover()
        self.job.settle()
        count, multiply = self.matmul
        products = [timed(lambda _: multiply(), None)[0] for _ in range(1 + MATMULS)][1:]
        matmul = count / statistics.median(products)
        return {"seconds": statistics.median(seconds), "matmul": matmul, "handovers": handovers}

    @functools.cached_property
    def matmul(self) -> tuple[int, Callable[[], None]]:
        """The framework's; made after the memory was measured."""
        return self.side.matmul(self.setup.precision)

    def _observed(self, inputs: Any) -> tuple[float, int | None, int | None]:
        """Seconds of a call, the memory before it and, at most, in it."""
        self.job.settle()
        gc.collect()
        time.sleep(PAUSE)
        trim()
        rest = self._used()
        self._reset_peak()
        seconds, _ = timed(self.job.call, inputs)
        peak = self._peak()
        self.job.settle()
        return seconds, rest, peak

    def _inputs(self, turn: int, count: int) -> list[Any]:
        made = batches(self.setup.case, self.job.channels, turn, count)
        return [self.job.placed(batch) for batch in made]

    def _handover(self) -> float | None:
        """Between the cores that compute; None on another device."""
        return handover() if self.side.memory_used() is None else None

    def _used(self) -> int | None:
        own = self.side.memory_used()
        return resident("VmRSS") if own is None else own

    def _peak(self) -> int | None:
        own = self.job.memory_peak()
        return resident("VmHWM") if own is None else own

    def _reset_peak(self) -> None:
        self.side.reset_peak()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM, see proc(5)


def batches(case: Case, channels: int, number: int, count: int) -> Iterator[Batch]:
    """The random batches of a turn, the same for every candidate."""
    rng = np.random.default_rng((case.batch, case.height, case.width, number))
    shape = (case.batch, case.height, case.width)
    for _ in range(count):
        yield Batch(rng.random((*shape, channels), np.float32), rng.integers(0, 2, shape, np.uint8))


def timed(call: Callable[[Any], Any], inputs: Any) -> tuple[float, Any]:
    """Seconds, and what the call returned."""
    started = time.perf_counter()
    output = call(inputs)
    return time.perf_counter() - started, output


def resident(name: str) -> int | None:
    """Bytes of memory that the process has (VmRSS), or has had at most (VmHWM); None where the system does not tell."""
    try:
        match = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def trim() -> None:
    """Give memory that was freed back to the system, where its library can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _end_with_parent() -> None:
    """Even while it is stopped, where the system can do that."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


def reason(error: BaseException) -> str:
    """Why a candidate cannot run, in one line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # torch.compile's "backend='inductor' raised:"
        return first_line(RuntimeError(lines[1]))
    return first_line(error)


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setup = Setup.from_json(sys.argv[1])
    _end_with_parent()
    worker: Worker | None = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if worker is None:
                side: Any = importlib.import_module(f"unet_compare.speed.{setup.candidate.framework}_backend")
                worker = Worker(side, setup)
            reply = getattr(worker, message.pop("do"))(**message)
        except (Exception, SystemExit) as error:
            not_started = of_device(error) if worker is None else None
            reply = {"failed": not_started or reason(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
