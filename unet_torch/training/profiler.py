"""PyTorch's profiler, for `unet_core.training.profiling`. `unet_jax/training/profiler.py` is the twin."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch


class Profiler:
    """Writes a Chrome trace, which Perfetto and PyTorch's plugin of TensorBoard read, of this process and its device.

    It is compressed, because PyTorch does not say where the disk is full; what compresses it does.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._session: torch.profiler.profile | None = None

    def start(self, folder: Path) -> None:
        """Record from now on."""
        self._wait()
        write = torch.profiler.tensorboard_trace_handler(str(folder), use_gzip=True)
        self._session = torch.profiler.profile(on_trace_ready=write)
        self._session.start()

    def update(self, number: int) -> AbstractContextManager[Any]:
        """A step of the profile, under the name by which the plugin knows one."""
        return torch.profiler.record_function(f"ProfilerStep#{number}")

    def stop(self) -> None:
        """Write what was recorded."""
        try:
            self._wait()
        finally:
            if self._session is not None:
                self._session.stop()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
