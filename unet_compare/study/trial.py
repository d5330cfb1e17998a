"""One run of a study, in a process of its own: `python -m unet_compare.study.trial`, which is told it as JSON.

It leaves as `unet train` does where its standard input ends: whoever started it is gone.
"""

import dataclasses
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conversion.inference import OpenedNetwork, with_classes
from conversion.runs import read_run
from conversion.training import train
from unet_compare.study.arms import Arm
from unet_compare.study.controls import planted, start_of
from unet_compare.study.energy import measured
from unet_compare.study.plan import Order
from unet_compare.study.processes import served
from unet_compare.study.result import Cost, Result
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.opening import open_dataset
from unet_core.errors import RunError, UNetError
from unet_core.files import sha256_of
from unet_core.paths import as_path
from unet_core.prediction.evaluation import evaluate
from unet_core.training.run import HISTORY, has_begun
from unet_core.training.state import state_digest


@dataclass
class _Clock:
    """Notes when a training tells how far it is."""

    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)
    begun: float = field(default_factory=time.monotonic)

    def __call__(self, _text: str, done: float) -> None:
        if done > 0:
            self.last = done, time.monotonic()
            self.first = self.first or self.last

    def pace(self, images: int) -> float | None:
        """Images per second, of so many in all."""
        if self.first is None or self.last[0] <= self.first[0]:
            return None
        return images * (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])


def make(order: Order) -> None:
    """Train, or go on, to the last step; score the network; write what was found.

    Raises:
        UNetError: what training raises, or it was stopped before the last step.
    """
    arm, path = order.arm, as_path(order.path)
    recipe = arm.of_run(order.seed, order.fold, order.folds)
    _check_device(arm)
    with planted(arm.control):
        pieces, clock = has_begun(path), _Clock()
        with measured() as energy:
            start = None if pieces else _start(order)
            done = train(
                path, backend=arm.backend, data=order.data, recipe=recipe, resume=True, start=start, progress=clock
            )
        if done.step < done.steps:
            raise RunError(f"{path}: was stopped after step {done.step} of {done.steps}; its state is saved")
        images = recipe.steps * recipe.batch * recipe.accumulate
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        device, on_device = _device(arm)
        cost = Cost(time.monotonic() - clock.begun, clock.pace(images), memory, on_device, energy.joules, energy.absent)
        scored(order, None if pieces else cost, device)


def scored(order: Order, cost: Cost | None, device: str) -> None:
    """Score the network after the last step on what the run was validated on, and write what was found."""
    path = as_path(order.path)
    run = read_run(path)
    network, settings = run.state.network, run.settings
    averaged: Mapping[str, np.ndarray] = run.state.average or {}
    tensors = {**network.tensors, **averaged}
    narrow = {key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in tensors.items()}
    trained = with_classes(dataclasses.replace(network, tensors=narrow), settings.classes)
    judged = OpenedNetwork(trained, settings.backend, settings.classes, settings)
    other = settings.recipe.split.validation_data
    source = judged.source(other or settings.data, only=None if other else "validation")
    bands = judged.bands(source.sizes, bfloat16=settings.recipe.precision == "bfloat16")
    found = evaluate(bands, source, loss=settings.recipe.loss, output=judged.output, scores=True)
    Result(
        order.arm.digest,
        order.seed,
        order.fold,
        settings.digest,
        found.pictures,
        state_digest(run.state),
        sha256_of(path / HISTORY),
        cost,
        settings.versions | {"python": platform.python_version()},
        device,
        platform.node(),
    ).write(path)


def _start(order: Order) -> Checkpoint | None:
    arm = order.arm
    if arm.module is None and arm.control is None and not arm.network:
        return None
    recipe = arm.of_run(order.seed, order.fold, order.folds)
    source = open_dataset(order.data, masks=recipe.masks, pictures=recipe.pictures)
    return start_of(arm, recipe, source.channels, len(source.values))


def _check_device(arm: Arm) -> None:
    if arm.backend == "torch" and arm.device == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise UNetError(f"arm {arm.name}: PyTorch finds no gpu here")


def _device(arm: Arm) -> tuple[str, int | None]:
    """What the arm ran on, and the most of its own memory that was taken."""
    if arm.backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
        return f"CPU, {torch.get_num_threads()} threads", None
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"CPU, {os.cpu_count()} threads", None
    told: Any = device.memory_stats() or {}
    return device.device_kind, told.get("peak_bytes_in_use")


if __name__ == "__main__":
    sys.exit(served(Order, make))
