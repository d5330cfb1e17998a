"""What of this installation works: versions, devices, what is missing for what, free space."""

import dataclasses
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.backends.devices import Devices, devices_of
from unet_core import machine
from unet_core.installation import Extra, extras, version_of
from unet_core.version import VERSION

_LEAST = 10**9
"""Bytes of free space, of which less is a problem."""


@dataclass(frozen=True)
class Framework:
    """JAX or PyTorch, as it is installed."""

    name: str
    version: str
    devices: Devices


@dataclass(frozen=True)
class Space:
    """What is free where files are written."""

    folder: str
    free: int


@dataclass(frozen=True)
class Health:
    """What `examined` finds."""

    version: str
    python: str
    system: str
    frameworks: tuple[Framework, ...]
    extras: tuple[Extra, ...]
    spaces: tuple[Space, ...]
    problems: tuple[str, ...]
    """Each with what to do about it."""

    def to_json(self) -> str:
        """The same, as JSON."""
        fields: dict[str, Any] = dataclasses.asdict(self)
        return json.dumps(fields, indent=1)


def examined() -> Health:
    """Look at this installation; starts both frameworks' devices, each in a process of its own.

    Raises:
        MissingFrameworkError: nothing of it is installed, only the code is there.
    """
    parts = extras()
    installed = [(name, version_of(name)) for name in ("torch", "jax")]
    frameworks = [Framework(name, version, devices_of(name)) for name, version in installed if version is not None]
    folders = (Path.cwd(), Path(tempfile.gettempdir()))
    spaces = [Space(str(folder), shutil.disk_usage(folder).free) for folder in folders]
    return Health(
        VERSION,
        platform.python_version(),
        platform.platform(),
        tuple(frameworks),
        tuple(parts),
        tuple(spaces),
        (*_unfit(parts), *_without_devices(frameworks, parts), *_full(spaces)),
    )


def _unfit(parts: list[Extra]) -> Iterator[str]:
    for extra in parts:
        if extra.unfit:
            yield f"of another version than is needed: {', '.join(extra.unfit)}: {extra.install}"
    if parts[0].missing:
        yield f"not installed: {', '.join(parts[0].missing)}: {parts[0].install}"


def _without_devices(frameworks: list[Framework], parts: list[Extra]) -> Iterator[str]:
    """Frameworks that do not start, or leave an accelerator alone that is there."""
    if not frameworks:
        yield "neither framework is installed: install the extra torch, jax or all"
    command = {extra.name: extra.install for extra in parts}
    for framework in frameworks:
        found = framework.devices
        if found.problem is not None:
            yield f"{framework.name}: {found.problem}"
        elif framework.name == "jax" and machine.jax_device() != "cpu":
            continue  # it was asked for
        elif any(not name.startswith("cpu") for name in found.names):
            continue
        elif framework.name == "jax" and machine.tpu_chips():
            yield f"jax computes on the CPU, though there is a TPU: {command.get('tpu')}"
        elif framework.name == "jax" and machine.nvidia_gpus():
            yield f"jax computes on the CPU, though there is an NVIDIA GPU: {command.get('cuda')}"
        elif framework.name == "torch" and machine.nvidia_gpus() and not machine.torch_has_cuda():
            yield "torch is a build for CPUs, though there is an NVIDIA GPU: see pytorch.org for one for CUDA"


def _full(spaces: list[Space]) -> Iterator[str]:
    for space in spaces:
        if space.free < _LEAST:
            yield f"{space.folder}: {space.free / 1e9:.1f} GB are free: a state of the full network takes 0.4 GB"
