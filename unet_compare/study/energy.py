"""The energy that a machine's counters tell: RAPL's for processors, NVML's for GPUs. Others tell nothing."""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_RAPL = Path("/sys/class/powercap")


@dataclass
class Meter:
    """What was used between start and end, in joules, by counter: that of the machine, whoever used it."""

    joules: dict[str, float]
    absent: str
    """Why there is no more; empty where all counters were read."""


@contextlib.contextmanager
def measured() -> Iterator[Meter]:
    """Fills the meter when the `with` ends."""
    meter = Meter({}, "")
    before, meter.absent = _counters()
    yield meter
    after, _ = _counters()
    for name, (start, wraps) in before.items():
        if name in after:
            used = after[name][0] - start
            meter.joules[name] = used + wraps if used < 0 else used


def _counters() -> tuple[dict[str, tuple[float, float]], str]:
    """Joules by counter, with where each begins anew; and why others are missing."""
    found: dict[str, tuple[float, float]] = {}
    absent = []
    packages = sorted(_RAPL.glob("*rapl:?")) if _RAPL.is_dir() else []
    try:
        for folder in packages:
            energy, most = (float((folder / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj"))
            found[f"{(folder / 'name').read_text().strip()} ({folder.name})"] = energy, most
    except (OSError, ValueError):
        absent.append("RAPL may not be read here")
    if not packages:
        absent.append("this machine shows no RAPL")
    gpus = _nvml()
    if gpus is None:
        absent.append("NVML is not here")
    for number, joules in enumerate(gpus or ()):
        found[f"GPU {number}"] = joules, 0.0
    return found, "; ".join(absent)


def _nvml() -> list[float] | None:
    """The joules of every GPU since its driver was loaded (nvmlDeviceGetTotalEnergyConsumption)."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):
        return None
    found = []
    try:
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for number in range(count.value):
            handle, used = ctypes.c_void_p(), ctypes.c_ulonglong()
            if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0 and (
                library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used)) == 0
            ):
                found.append(used.value / 1e3)
    finally:
        library.nvmlShutdown()
    return found
