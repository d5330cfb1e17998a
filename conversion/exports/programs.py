"""What was written, run by a tool that is not ours: a fresh Python, or onnxruntime."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from conversion.backends.backend import Step, Tool
from unet_core.errors import UNetError, printable


@dataclass(frozen=True)
class Answers:
    """What a file answers to batches of pictures, channels last."""

    narrow: list[np.ndarray]
    """In float32."""
    wide: list[np.ndarray] | None = None
    """In float64; None where the tool cannot."""
    step: Step | None = None
    """Of training on the first batch, in float64, nothing dropped; None: it only predicts."""


@runtime_checkable
class Program(Protocol):
    """A file that predicts."""

    tool: Tool
    """What runs it."""
    versions: Mapping[str, str]
    trains: bool
    """Whether it can be trained as well."""

    def run(self, pictures: Sequence[np.ndarray], cotangent: np.ndarray, /) -> Answers:
        """Answer to batches in float32; the cotangent is that of a step on the first, as `Runner.step` takes it."""


def fresh(script: str, **given: np.ndarray) -> dict[str, np.ndarray]:
    """Run a script in a Python of its own, which sees no module of this project.

    Args:
        script: finds the arrays that it is given as `given`, by name, and leaves those that are asked for in `found`.
        given: the arrays.

    Raises:
        UNetError: it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "given.npz", Path(folder) / "found.npz"
        np.savez(one, **given)  # type: ignore[arg-type]
        code = _FRAME.format(script=script, given=str(one), found=str(other))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [sys.executable, "-I", "-c", code]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            last = [*done.stderr.strip().splitlines()[-1:], f"exit code {done.returncode}"][0]
            raise UNetError(f"what was written does not run in a Python of its own: {printable(last)}")
        with np.load(other) as file:
            return dict(file)


_FRAME = """
import sys
sys.dont_write_bytecode = True
import numpy as np
given = dict(np.load({given!r}))
found = {{}}
{script}
own = [name for name in sys.modules if name.split(".")[0] in ("unet_core", "unet_jax", "unet_torch", "conversion")]
assert not own, own
np.savez({found!r}, **found)
"""


def in_order(arrays: Mapping[str, np.ndarray], head: str = "") -> list[np.ndarray]:
    """Arrays under the names 0, 1, and so on, with something before."""
    count = sum(name.startswith(head) for name in arrays)
    return [arrays[f"{head}{number}"] for number in range(count)]


def numbered(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `in_order`."""
    return {str(number): array for number, array in enumerate(arrays)}
