"""A training state in canonical form: network, moments and average under torch's names and layouts, and the step."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_core.checkpoints.checkpoint import Checkpoint, digest
from unet_core.errors import CheckpointError, some
from unet_core.graph import Graph
from unet_core.graph.canonical import Description, Tensors, tensor_specs
from unet_core.training.settings import OptimizerName

MOMENTS: Mapping[OptimizerName, Mapping[str, str]] = {
    "adam": {"exp_avg": "mu", "exp_avg_sq": "nu"},
    "adamw": {"exp_avg": "mu", "exp_avg_sq": "nu"},
    "sgd": {"momentum_buffer": "trace"},
    "rmsprop": {"square_avg": "nu", "momentum_buffer": "trace"},
}
"""What an optimiser remembers of the gradients: for every moment, torch's name of it and optax's.

torch: the keys of `optimizer.state[parameter]` (torch/optim/{adam,sgd,rmsprop}.py). optax: the fields of
`ScaleByAdamState`, `TraceState` and `ScaleByRmsState` (optax/_src/transform.py).
"""


MOST_UPDATES = 2**31 - 1
"""As far as optax counts."""


@dataclass(frozen=True)
class OptimizerState:
    """What an optimiser remembers, whichever framework it is of."""

    optimizer: OptimizerName
    """Which one; adam and adamw remember the same."""
    step: int | None
    """Updates that it has made; None where nothing tells, as in torch's SGD."""
    moments: Mapping[str, Tensors] = field(repr=False)
    """By torch's name of the moment, then by the canonical one of the parameter, in the parameter's layout. A moment
    that the
    optimiser's settings do not need is not there; a parameter that was never updated has none in it."""

    def check(self, network: Checkpoint, source: str) -> None:
        """Hold the moments against the network.

        Raises:
            CheckpointError: moments that the optimiser has not, of no parameter, of another shape, or with values that
                no training leaves behind; they are listed.
        """
        shapes = parameter_shapes(network.config)
        wrong = [name for name in self.moments if name not in MOMENTS[self.optimizer]]
        for name, tensors in self.moments.items():
            wrong += [
                f"{name} of {key} ({'x'.join(map(str, value.shape))})"
                for key, value in tensors.items()
                if shapes.get(key) != value.shape
            ]
        if wrong:
            raise CheckpointError(f"{source}: the optimiser's state is not that of the network: {some(wrong)}")
        poisoned = [
            f"{name} of {key}: holds values {what}"
            for name, tensors in self.moments.items()
            for key, value in tensors.items()
            if (what := _poison(name, value))
        ]
        if poisoned:
            raise CheckpointError(f"{source}: no training goes on from this: {some(poisoned)}")


@dataclass(frozen=True)
class TrainingState:
    """All that an update changes."""

    step: int
    """Updates made."""
    network: Checkpoint
    optimizer: OptimizerState
    average: Tensors | None = field(default=None, repr=False)
    """The moving average of parameters and statistics, under the canonical names."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by names that say what it is, such as `exp_avg of down1.conv.0.weight`."""
        named = dict(self.network.tensors)
        for moment, tensors in self.optimizer.moments.items():
            named |= {f"{moment} of {key}": value for key, value in tensors.items()}
        return named | {f"average of {key}": value for key, value in (self.average or {}).items()}


def parameter_shapes(config: Description) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, in the order of torch's `parameters()`."""
    return {key: spec.shape for key, spec in tensor_specs(config).items() if spec.trained}


def updated_shapes(config: Description) -> dict[str, tuple[int, ...]]:
    """As `parameter_shapes`, without the parameters on which the logits do not depend.

    torch gives these no gradient, and its optimisers then leave them alone, weight decay included; so do the trainers.
    """
    shapes = parameter_shapes(config)
    return {key: shape for key, shape in shapes.items() if not isinstance(config, Graph) or key in config.trained}


def difference(a: TrainingState, b: TrainingState) -> list[str]:
    """The names of all in which two states are not the same in every bit; empty where they are."""
    one, other = a.arrays(), b.arrays()
    parted = ["step"] * (a.step != b.step) + ["optimizer"] * (a.optimizer.step != b.optimizer.step)
    return parted + [name for name in {**one, **other} if not _same(one.get(name), other.get(name))]


def state_digest(state: TrainingState) -> str:
    """The sha256, in hex, of all that `difference` compares, so that it is one for two states without a difference."""
    found = hashlib.sha256(f"step {state.step}, optimizer {state.optimizer.step}".encode())
    for name, value in sorted(state.arrays().items()):
        found.update(f"\n{name} {digest(value)}".encode())
    return found.hexdigest()


def _poison(moment: str, value: np.ndarray) -> str | None:
    if not np.isfinite(value).all():
        return "that are not finite"
    return "below zero" if moment.endswith(("_sq", "square_avg")) and (value < 0).any() else None


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return False
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
