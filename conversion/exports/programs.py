"""What was written, run by a tool that is not ours: a fresh Python, or onnxruntime."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from conversion.backends.backend import Tool
from unet_core.errors import UNetError, printable


@runtime_checkable
class Program(Protocol):
    """A file that predicts."""

    tool: Tool
    """What runs it."""
    versions: Mapping[str, str]

    def answers(self, pictures: Sequence[np.ndarray], /) -> list[np.ndarray]:
        """To batches of pictures in float32, channels last; the answers likewise."""

    def exact_answers(self, pictures: Sequence[np.ndarray], /) -> list[np.ndarray] | None:
        """In float64; None where the tool cannot."""


@dataclass(frozen=True)
class Fresh:
    """A script of Python that is run in an interpreter of its own, which sees no module of this project.

    It finds the arrays that it is given as `given`, by name, and leaves those that are asked for in `found`.
    """

    script: str
    double: bool = False
    """Let JAX have float64."""

    def run(self, **given: np.ndarray) -> dict[str, np.ndarray]:
        """What it finds.

        Raises:
            UNetError: it fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            one, other = Path(folder) / "given.npz", Path(folder) / "found.npz"
            np.savez(one, **given)  # type: ignore[arg-type]
            code = _FRAME.format(script=self.script, given=str(one), found=str(other))
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            environment["JAX_ENABLE_X64"] = str(int(self.double))
            command = [sys.executable, "-I", "-c", code]
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                last = [*done.stderr.strip().splitlines()[-1:], f"exit code {done.returncode}"][0]
                raise UNetError(f"what was written does not run in a Python of its own: {printable(last)}")
            with np.load(other) as file:
                return dict(file)


_FRAME = """
import sys
import numpy as np
given = dict(np.load({given!r}))
found = {{}}
{script}
own = [name for name in sys.modules if name.split(".")[0] in ("unet_core", "unet_jax", "unet_torch", "conversion")]
assert not own, own
np.savez({found!r}, **found)
"""


def in_order(arrays: Mapping[str, Any]) -> list[np.ndarray]:
    """Arrays under the names 0, 1, and so on."""
    return [arrays[str(number)] for number in range(len(arrays))]


def numbered(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `in_order`."""
    return {str(number): array for number, array in enumerate(arrays)}
