"""The processes in which candidates run, from outside. `unet_compare/speed/worker.py` is what they do."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from unet_compare.speed.plan import Setup
from unet_core.errors import shown


class WorkerError(Exception):
    """A candidate cannot run; the message says why, in one line."""


class OutOfTimeError(Exception):
    """The deadline is over."""


class Worker:
    """A process for one candidate, and its end with those that it started.

    It is stopped while it has nothing to do: the threads of some frameworks go on asking for work, and would slow down
    the others.

    Args:
        setup: what it is told.
        deadline: when to wait for it no longer, by `time.monotonic`; None: never.
    """

    def __init__(self, setup: Setup, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._folder = tempfile.TemporaryDirectory(prefix="unet-bench-")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self._process = subprocess.Popen(
            self.command(setup),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment(),
            text=True,
            start_new_session=True,  # Ctrl-C is the parent's
        )

    def command(self, setup: Setup) -> list[str]:
        """What to run."""
        return [sys.executable, "-m", "unet_compare.speed.worker", json.dumps(setup)]

    def _environment(self) -> dict[str, str]:
        """The parent's; but compilers find nothing of an earlier run, and JAX takes memory as it needs it."""
        path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        return own | {
            "PYTHONPATH": os.pathsep.join(path),
            "TORCHINDUCTOR_CACHE_DIR": self._folder.name,
            "TRITON_CACHE_DIR": str(Path(self._folder.name) / "triton"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Have it do something, and wait for the answer.

        Raises:
            WorkerError: it cannot, or it died.
            OutOfTimeError: it has not answered by the deadline.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
            self._process.stdin.flush()
        rest = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
        if not select.select([self._process.stdout], [], [], rest)[0]:
            raise OutOfTimeError
        line = self._process.stdout.readline()
        self._process.send_signal(signal.SIGSTOP)
        if not line:
            raise WorkerError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise WorkerError(reply["failed"])
        return reply

    def _last_words(self) -> str:
        self._process.send_signal(signal.SIGCONT)
        code = self._process.wait()
        if code < 0:
            why = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
            return f"ended by {signal.Signals(-code).name}{why}"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"ended with exit code {code}{f': {shown(said[-1])}' if said else ''}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it at once: it has nothing to save."""
        if self._errors.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):  # what was never sent
            self._process.communicate()
        self._errors.close()
        with contextlib.suppress(OSError):
            self._folder.cleanup()
