"""The accelerators that this machine shows, without starting any: a TPU is then nobody else's, and takes its time."""

import os
import re
from importlib import metadata
from pathlib import Path

from unet_core.installation import version_of

_DEVICES = Path("/dev")
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def tpu_chips() -> int:
    """How many chips of a TPU this machine has."""
    return len([*_DEVICES.glob("accel[0-9]*"), *(_DEVICES / "vfio").glob("[0-9]*")])


def nvidia_gpus() -> list[str]:
    """The names of this machine's NVIDIA GPUs."""
    found = []
    for file in sorted(_NVIDIA.glob("*/information")):
        try:
            model = re.search(r"^Model:\s*(.*\S)", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        found.append(model[1] if model else "NVIDIA GPU")
    return found


def jax_device() -> str:
    """What JAX computes on, as far as can be told without starting it."""
    asked = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    if asked:
        return asked
    chips, gpus = tpu_chips(), nvidia_gpus()
    if chips and version_of("libtpu"):
        return f"tpu: {chips} chips" if chips > 1 else "tpu: 1 chip"
    if gpus and any(version_of(f"jax-cuda{number}-plugin") for number in (12, 13)):
        return f"cuda: {_counted(gpus)}"
    return "cpu"


def torch_device() -> str:
    """What PyTorch computes on, as far as can be told without starting it."""
    gpus = nvidia_gpus()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return f"cuda: {_counted(gpus)}" if gpus and not hidden and torch_has_cuda() else "cpu"


def torch_has_cuda() -> bool:
    """Whether the PyTorch that is installed is one for NVIDIA's GPUs."""
    needed = (metadata.requires("torch") or ()) if version_of("torch") else ()
    return any(name.startswith(("nvidia-", "cuda-")) for name in needed)


def _counted(names: list[str]) -> str:
    kinds = dict.fromkeys(names)
    return ", ".join(f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in kinds)
