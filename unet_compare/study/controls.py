"""What an arm has that no recipe says: the network it starts from, and faults that are planted in JAX's operations."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

from conversion.backends.frameworks import importing
from conversion.code import Known, build
from conversion.modules import read_module
from conversion.proof.samples import neighbour
from unet_compare.study.arms import Arm, Control
from unet_core.checkpoints.checkpoint import Checkpoint, new_network
from unet_core.training.train_config import TrainConfig

FLAX_MOMENTUM = 0.99
_CONFIGS: dict[Control, dict[str, Any]] = {
    "flax_momentum": {"norm_momentum": 1 - FLAX_MOMENTUM},
    "half_pixel": {"align_corners": False},
}
"""The controls that are networks of another config."""


def start_of(arm: Arm, recipe: TrainConfig, channels: int, classes: int) -> Checkpoint | None:
    """The network from which a run of the arm starts; None: the recipe's own of its seed.

    Args:
        arm: of the run.
        recipe: of the run, with its seed.
        channels: of the pictures.
        classes: of the masks.

    Raises:
        UNetError: there is no such network, or its code cannot be read.
    """
    changed = dict(arm.network) | (_CONFIGS.get(arm.control, {}) if arm.control else {})
    if arm.module is not None:
        start = _from_code(arm, recipe.seed, channels)
    elif changed or arm.control == "rounding":
        start = new_network(arm.changed(recipe.network(channels, classes), changed), recipe.seed)
    else:
        return None
    if arm.control == "rounding":
        return dataclasses.replace(start, tensors=neighbour(start.tensors, recipe.seed))
    return start


def _from_code(arm: Arm, seed: int, channels: int) -> Checkpoint:
    """A network with the weights that its own code draws from the seed."""
    with importing():
        import torch
    known = Known(module=arm.module, kwargs=arm.kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(known)
    return read_module(module, known.title, channels=channels)


@contextmanager
def planted(control: Control | None) -> Iterator[None]:
    """JAX's operations with a control's fault, for all that is compiled inside."""
    with _planting(control):
        yield


def _planting(control: Control | None) -> Any:
    if control not in ("biased_variance", "tf32"):
        return nullcontext()
    with importing():
        from unet_compare.study import jax_faults
    return mock.patch.dict(jax_faults.OPERATIONS, jax_faults.faulty(control))
