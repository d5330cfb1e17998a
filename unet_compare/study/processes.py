"""The processes in which runs are made, from outside and from inside: each has its device, its faults, its memory."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unet_compare.study.arms import Arm
from unet_core.codec import decoded, encoded
from unet_core.errors import UNetError, shown

Process = subprocess.Popen[bytes]

_PATIENCE = 60.0
"""Seconds that a run has to save its state, once it is to leave."""


@contextmanager
def started(module: str, order: Any, arm: Arm) -> Iterator[Process]:
    """A process that does what it is told; where it has not ended with the `with`, it is to leave.

    Args:
        module: whose `main` it runs.
        order: what it is told, a dataclass.
        arm: for the device.
    """
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(path)}
    if arm.device is not None:
        own |= {"JAX_PLATFORMS": arm.device} | ({"CUDA_VISIBLE_DEVICES": ""} if arm.device == "cpu" else {})
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(encoded(order))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | own,
        start_new_session=True,  # Ctrl-C is this process's, which hands it on
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                stream.close()


def failure_of(process: Process) -> str | None:
    """Wait for its end; why it failed, if it did."""
    assert process.stderr is not None
    said = process.stderr.read()  # to its end; what it reads from stays open, or it would leave
    if process.wait() == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    last = shown(lines[-1].removeprefix("unet: ")) if lines else ""
    return last or f"its process ended with {process.returncode}"


def served(kind: type, work: Callable[[Any], None]) -> int:
    """Do what the only argument tells, a `kind`; 2 with a line where that cannot be. To be called by `main`."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        work(decoded(kind, json.loads(sys.argv[1])))
    except (UNetError, OSError, MemoryError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"unet: {line}\n")
        return 2
    return 0


def _leave_with_parent() -> None:
    os.read(0, 1)  # the buffered reader would be locked at the end
    os.kill(os.getpid(), signal.SIGTERM)
