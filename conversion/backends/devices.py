"""Both frameworks' devices, asked in processes of their own: a TPU may be in use, and a driver may end its process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unet_core.device_errors import of_device
from unet_core.errors import UNetError, first_line, shown

_PATIENCE = 120
"""Seconds for a framework to start its devices."""


@dataclass(frozen=True)
class Devices:
    """What a framework computes on."""

    names: tuple[str, ...] = ()
    problem: str | None = None
    """Why there are none."""


def devices_of(framework: str) -> Devices:
    """Start a framework, and have it tell its devices."""
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "conversion.backends.devices", framework],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return Devices(problem=f"has not started within {_PATIENCE} seconds; another process may hold the device")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return Devices(problem=f"ends with exit code {done.returncode}: {shown(said)}")
    found = json.loads(lines[-1])
    return Devices(tuple(found["names"]), found["problem"])


def _of_jax() -> list[str]:
    import jax

    names = ((device.platform, device.device_kind) for device in jax.local_devices())
    return [platform if kind == platform else f"{platform}: {kind}" for platform, kind in names]


def _of_torch() -> list[str]:
    import torch

    from unet_torch.device import chosen_device

    if chosen_device().type == "cpu":
        return ["cpu"]
    return [f"cuda: {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]


_ASKED: dict[str, Callable[[], list[str]]] = {"jax": _of_jax, "torch": _of_torch}


def main(framework: str) -> None:
    """Print the devices of a framework, as JSON."""
    found: dict[str, object] = {"names": [], "problem": None}
    try:
        found["names"] = _ASKED[framework]()
    except (UNetError, RuntimeError, AssertionError, ImportError, OSError) as error:
        found["problem"] = of_device(error) or first_line(error)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
