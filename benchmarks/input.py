"""Whether the input keeps up with the training step.

    python -m benchmarks.input [--backend jax] [--data DIR] [--features 16 32 64 128 256]

Three figures, each the median over the steps of a window, the windows in turn: the step on one batch that stays on the
device; the step on batches as they are read, augmented and put there; and the reading alone, with nothing else to do.
The input does not starve the step where the first two are alike.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import UNetError
from unet_core.training.opening import Job, open_run
from unet_core.training.run import Backend, Run
from unet_core.training.train_config import TrainConfig


@dataclass(frozen=True)
class Input:
    """Measure the input of a training."""

    backend: Backend = "jax"
    """The framework whose step it feeds."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """A data folder; left out: 32 built-in pictures of 512x512, written as PNGs first."""
    features: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Channels of each level."""
    batch: int = 4
    """Crops in a batch."""
    crop: int = 256
    """Height and width of the crops."""
    steps: int = 10
    """Steps in a window."""
    windows: int = 3
    """Windows of each kind."""

    def run(self) -> dict[str, float]:
        """Measure; returns seconds per step."""
        steps = 3 * self.steps * self.windows + 50
        recipe = TrainConfig(features=self.features, batch=self.batch, crop=self.crop, steps=steps)
        with tempfile.TemporaryDirectory() as folder:
            data = self.data
            if data is None:
                data = str(Path(folder) / "cells")
                write_folder(Synthetic(count=32, size=512), data)
            with open_run(Path(folder) / "run", Job(self.backend, recipe, data)) as run:
                return self._measure(run)

    def _measure(self, run: Run) -> dict[str, float]:
        with run.batches(0) as batches:
            step, ready = (_jax if self.backend == "jax" else _torch)(run, batches)
            fixed = next(ready)
            for _ in range(3):
                step(fixed)
            times: dict[str, list[float]] = {"step, fixed batch": [], "step, with its input": []}
            for _ in range(self.windows):
                times["step, fixed batch"] += _timed(lambda: step(fixed), self.steps)
                times["step, with its input"] += _timed(lambda: step(next(ready)), self.steps)
        alone = []
        with run.batches(0) as batches:
            next(batches)
            started = time.perf_counter()
            for _ in itertools.islice(batches, 2 * self.steps):
                pass
            alone.append((time.perf_counter() - started) / (2 * self.steps))
        return {name: statistics.median(found) for name, found in times.items()} | {"input alone": alone[0]}


def _timed(call: Callable[[], object], count: int) -> list[float]:
    found = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def _jax(run: Run, batches: Iterator[Any]) -> tuple[Callable[[Any], None], Iterator[Any]]:
    from unet_jax.training import step as jax_step
    from unet_jax.training.mesh import device_mesh

    recipe = run.recipe
    mesh = device_mesh(recipe.batch)
    state = jax_step.new_state(run.start, recipe, mesh)
    update = jax_step.updater(recipe, jax_step.abstract_model(run.start, recipe))
    update = jax_step.compiled(update, state, recipe, mesh, run.start.config.in_channels)
    controls = jax_step.controls_of(1e-3, 0.0, mesh)

    def step(batch: Any) -> None:
        nonlocal state
        state, values = update(state, *batch, controls)
        values.block_until_ready()

    return step, jax_step.placed(batches, recipe, mesh)


def _torch(run: Run, batches: Iterator[Any]) -> tuple[Callable[[Any], None], Iterator[Any]]:
    import torch

    from unet_torch.training import step as torch_step

    recipe = run.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    update = torch_step.updater(recipe, torch_step.new_state(run.start, recipe, device))

    def step(batch: Any) -> None:
        update(*batch, 1e-3, 0.0).tolist()

    return step, (torch_step.placed(batch, recipe, device) for batch in batches)


def main() -> int:
    """Print the figures; returns the exit code."""
    try:
        found = tyro.cli(Input, prog="python -m benchmarks.input").run()
    except UNetError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(json.dumps({name: round(seconds, 4) for name, seconds in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
