"""A network in either framework behind one face: what the proof asks of it, channels last, by canonical names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from conversion.backends.frameworks import importing
from unet_core.checkpoints.checkpoint import Checkpoint, Origin
from unet_core.checkpoints.containers import Container
from unet_core.checkpoints.evidence import Evidence
from unet_core.data.batches import Batch
from unet_core.errors import MissingFrameworkError
from unet_core.graph import Node
from unet_core.graph.canonical import FLOATS, Description, Tensors
from unet_core.training.settings import Optimizer
from unet_core.training.state import TrainingState
from unet_core.training.train_config import TrainConfig

if TYPE_CHECKING:
    from conversion.code import Live

Precision = Literal["float64", "float32"]
Framework = Literal["torch", "jax"]
Tool = Literal["torch", "jax", "onnxruntime"]
"""What a network was run in."""


Values = Sequence[np.ndarray]
"""What a node takes in, in torch's layout, in float64."""
Roles = Mapping[str, np.ndarray]
"""The tensors of a node by their roles."""
Sizes = Mapping[str, int]
"""Of a network's input, by name."""
Controls = tuple[float, float]
"""The learning rate of an update, and the part of the average of the weights that it renews."""


@dataclass(frozen=True)
class Step:
    """What one training step computes before the optimiser: the forward and the backward pass in training mode."""

    logits: Float[np.ndarray, "n *out k"]
    """Or what the network makes of them, where its runner returns that."""
    gradients: Tensors
    """Of every parameter, of the loss `mean(logits * cotangent)`."""
    statistics: Tensors
    """Everything else after the step: BatchNorm's running mean and variance, and what never changes."""


@dataclass(frozen=True)
class Trace:
    """The output of every node of the network's graph in one pass, in torch's layout, in forward order."""

    outputs: dict[str, np.ndarray]
    cotangents: dict[str, np.ndarray]
    """The gradient of the loss `mean(logits * cotangent)` by each of these."""
    gradients: Tensors
    """Of the loss, by the parameters."""
    statistics: Tensors
    """BatchNorm's, after the pass."""


@dataclass(frozen=True)
class Forced:
    """What nodes hand on in place of their own outputs, forward and backward; of another shape, their own."""

    outputs: Mapping[str, np.ndarray]
    cotangents: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, trace: Trace) -> "Forced":
        """The numbers of a trace, rounded to float32, so that they are the same in each precision."""
        outputs, cotangents = (
            {name: value.astype(np.float32) for name, value in of.items()} for of in (trace.outputs, trace.cotangents)
        )
        return cls(outputs, cotangents)

    def fits(self, name: str, shape: Sequence[int]) -> bool:
        """Whether it has numbers for a node whose output has this shape."""
        return name in self.outputs and self.outputs[name].shape == tuple(shape)


@runtime_checkable
class Tracer(Protocol):
    """A network made ready to be traced, in one precision and mode; every call starts from the same statistics."""

    def __call__(
        self,
        x: Float[np.ndarray, "n *size c"],
        cotangent: Float[np.ndarray, "n *out k"] | None = None,
        forced: Forced | None = None,
    ) -> Trace:
        """Run forward, and backward where there is a cotangent.

        Args:
            x: the input.
            cotangent: of the logits.
            forced: what each node hands on, after its own output was noted: each then errs by itself alone.
        """


@runtime_checkable
class Runner(Protocol):
    """A network that runs in one of the frameworks, at either precision, without being changed by it."""

    name: str
    framework: Framework
    device: str
    versions: Mapping[str, str]
    flags: Mapping[str, bool | str]
    """What decides how exact its products are, by the framework's names, as it is while the network runs here."""
    config: Description
    tensors: Tensors
    origin: Origin
    """The form in which the network first came."""
    evidence: Evidence
    """By what the config is known to be the user's network."""
    output: str
    """What calling the network makes of its logits."""
    whole: bool
    """Whether it returns that, not the logits: a module of the user's own tells no logits."""

    def with_tensors(self, tensors: Tensors) -> "Runner":
        """The same network with other parameters and statistics."""

    def as_called(self) -> "Runner":
        """The same network, which returns what calling it does."""

    def predict(self, x: Float[np.ndarray, "n *size c"], precision: Precision) -> Float[np.ndarray, "n *out k"]:
        """The logits in eval mode."""

    def step(
        self, x: Float[np.ndarray, "n *size c"], cotangent: Float[np.ndarray, "n *out k"], precision: Precision
    ) -> Step:
        """One step in training mode; what drops at random draws `draws`."""

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        """A function that runs it node by node."""

    def stepped(self, gradients: Sequence[Tensors], settings: Optimizer, precision: Precision) -> Tensors:
        """What the first updates of a new optimiser add to the parameters together, given the gradients of each."""


@runtime_checkable
class Backend(Protocol):
    """A framework: `conversion.backends.torch_backend` and `conversion.backends.jax_backend`."""

    def runner_of(self, model: Any, name: str, /) -> Runner:
        """A runner of a live model."""

    def runner_of_checkpoint(self, checkpoint: Checkpoint, name: str, /) -> Runner:
        """A runner of the network in a checkpoint."""

    def evaluated(self, node: Node, inputs: Values, roles: Roles, sizes: Sizes, /, *, training: bool) -> np.ndarray:
        """The output of one node alone, in float64."""

    def gradients(
        self, node: Node, inputs: Values, roles: Roles, sizes: Sizes, back: np.ndarray, /, *, training: bool
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """The gradients by a node's inputs, and by its tensors, of its output with the cotangent `back`."""

    def update(
        self, state: TrainingState, config: TrainConfig, batch: Batch, controls: Controls, /
    ) -> tuple[float, Tensors, TrainingState]:
        """One update by the trainer's own code, on `accumulate` times `batch` pictures.

        Returns:
            The loss, the gradients after clipping, and the state after the update.
        """


def backend_of(framework: Framework) -> Backend:
    """The module of a framework.

    Raises:
        MissingFrameworkError: it is not installed.
    """
    with importing():
        if framework == "torch":
            from conversion.backends import torch_backend

            return torch_backend
        from conversion.backends import jax_backend

        return jax_backend


def runner_of_checkpoint(checkpoint: Checkpoint, framework: Framework, name: str) -> Runner:
    """A runner of a checkpoint that is read already."""
    return backend_of(framework).runner_of_checkpoint(checkpoint, name)


def runner_in_either(checkpoint: Checkpoint, name: str) -> Runner:
    """The same in PyTorch, or, where that is not installed, in JAX."""
    try:
        return runner_of_checkpoint(checkpoint, "torch", name)
    except MissingFrameworkError:
        return runner_of_checkpoint(checkpoint, "jax", name)


def runner_of_code(live: "Live", checkpoint: Checkpoint, name: str) -> Runner:
    """A runner of a torch module of anybody's, which holds the tensors of a checkpoint that was read from its code."""
    with importing():
        from conversion.backends.torch_backend import ModuleRunner
    return ModuleRunner(live, checkpoint, name)


def frameworks_of(a: Framework | None, b: Framework | None) -> tuple[Framework, Framework]:
    """Where two networks run, of which one may run in either: then where the other does not, so that the twins meet."""
    second = b or other_framework(a or "torch")
    return a or other_framework(second), second


def framework_of_kind(kind: Container) -> Framework | None:
    """The one that reads and writes such files; None: each does."""
    return {Container.TORCH: "torch", Container.ORBAX: "jax"}.get(kind)  # type: ignore[return-value]


def other_framework(framework: Framework) -> Framework:
    """The one that the twin runs in."""
    return "jax" if framework == "torch" else "torch"


def draws(shape: Sequence[int]) -> Float[np.ndarray, "..."]:
    """What dropout and the like draw in a proof: numbers from 0 to 1, for one shape always the same.

    Both networks then drop alike, whatever else draws before. None is so near to a probability that rounding it would
    change what is dropped.
    """
    return (np.random.default_rng((7, *shape)).integers(2**16, size=tuple(shape)) + 0.5) / 2**16


def in_precision(value: Any, precision: Precision) -> Any:
    """A weight or statistic, NumPy's or JAX's, in this precision; counters and tables as they are."""
    return value.astype(precision, copy=False) if value.dtype in FLOATS else value
