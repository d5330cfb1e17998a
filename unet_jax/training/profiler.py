"""XLA's profiler, for `unet_core.training.profiling`. `unet_torch/training/profiler.py` is the twin."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import Array


@dataclass(frozen=True)
class Profiler:
    """Writes what TensorBoard's profile plugin and xprof read, of this process and its devices.

    Python's own calls are left out: noting them all slows down the host, and they are most of the file.
    """

    pending: Sequence[Array]
    """What the updates so far have answered and nobody has fetched; the last one comes when they are done."""

    def start(self, folder: Path) -> None:
        """Record from now on."""
        jax.block_until_ready(self.pending)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(folder, profiler_options=options)

    def update(self, number: int) -> AbstractContextManager[Any]:
        """A step of the profile."""
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def stop(self) -> None:
        """Write what was recorded."""
        try:
            jax.block_until_ready(self.pending)
        finally:
            jax.profiler.stop_trace()
