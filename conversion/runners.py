"""Either twin behind one face: what the proof asks of a network, in NHWC and in the hub's names and layouts."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from conversion.containers import read
from conversion.frameworks import needed
from unet_core.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.containers import Container, existing_container
from unet_core.errors import UNetError
from unet_core.hub import COUNTER, Tensors, tensor_specs
from unet_core.reading import NO_HINTS, Hints
from unet_core.settings import Optimizer

Precision = Literal["float64", "float32"]
Framework = Literal["torch", "jax"]


Controls = tuple[float, float]
"""The learning rate of an update, and the part of the average of the weights that it renews."""


@dataclass(frozen=True)
class Step:
    """What one training step computes before the optimiser: the forward and the backward pass in training mode."""

    logits: Float[np.ndarray, "n h w k"]
    gradients: Tensors
    """Of every parameter, of the loss `mean(logits * cotangent)`."""
    statistics: Tensors
    """BatchNorm's running mean and variance after the step."""


@dataclass(frozen=True)
class Trace:
    """What every layer answers in one pass, NHWC, by the hub's names, in forward order.

    Besides the layers that have parameters there is what lies between them: `downN.pool` (`bottom.pool`), `upN.join`
    (the upsampled and the skip, concatenated) and `*.conv.2` (the block's first ReLU).
    """

    outputs: dict[str, np.ndarray]
    cotangents: dict[str, np.ndarray]
    """The gradient of the loss `mean(logits * cotangent)` by the answer of each layer that has parameters."""
    gradients: Tensors
    """Of the loss, by the parameters."""
    statistics: Tensors
    """BatchNorm's, after the pass."""


@dataclass(frozen=True)
class Forced:
    """What layers that have parameters hand on in place of their own answers, forward and backward."""

    outputs: Mapping[str, np.ndarray]
    cotangents: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, trace: Trace, config: UNetConfig) -> "Forced":
        """The numbers of a trace, rounded to float32, so that they are the same in each precision."""
        outputs, cotangents = (
            {name: of[name].astype(np.float32) for name in layers_of(config) if name in of}
            for of in (trace.outputs, trace.cotangents)
        )
        return cls(outputs, cotangents)


@runtime_checkable
class Tracer(Protocol):
    """A network made ready to be traced, in one precision and mode; every call starts from the same statistics."""

    def __call__(
        self,
        x: Float[np.ndarray, "n h w c"],
        cotangent: Float[np.ndarray, "n h w k"] | None = None,
        forced: Forced | None = None,
    ) -> Trace:
        """Run forward, and backward where there is a cotangent.

        Args:
            x: the input.
            cotangent: of the logits.
            forced: what each layer hands on, after its own answer was noted: each then errs by itself alone.
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
    config: UNetConfig
    tensors: Tensors
    odd_sizes: bool
    """Whether it takes any size, not only multiples of its `minimum_size`."""
    output: str
    """What calling the network makes of its logits; of a foreign module, what its code really does."""

    def with_tensors(self, tensors: Tensors) -> "Runner":
        """The same network with other parameters and statistics."""

    def predict(self, x: Float[np.ndarray, "n h w c"], precision: Precision) -> Float[np.ndarray, "n h w k"]:
        """The logits in eval mode."""

    def step(
        self, x: Float[np.ndarray, "n h w c"], cotangent: Float[np.ndarray, "n h w k"], precision: Precision
    ) -> Step:
        """One step in training mode."""

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        """A function that runs it layer by layer."""

    def stepped(self, gradients: Sequence[Tensors], settings: Optimizer, precision: Precision) -> Tensors:
        """What the first updates of a new optimiser add to the parameters together, given the gradients of each."""


def runners_of(a: Any, b: Any, hints: Hints = NO_HINTS) -> tuple[Runner, Runner]:
    """A runner for each of two networks: paths of checkpoints, torch modules or JAX UNets.

    A `.safetensors` file belongs to no framework: it runs in the one that the other network does not run in, so that
    the twins meet; of two such files, the first runs in torch and the second in JAX.

    Args:
        hints: what `a` does not tell; the fields of the config go for `b` too, where it stores none.

    Raises:
        UNetError: a checkpoint cannot be read or trusted, or a network is none of the three.
        MissingFrameworkError: a framework is not installed.
    """
    first = _framework_of(a)
    second = _framework_of(b) or _other(first or "torch")
    lent = dataclasses.replace(hints, key=None, dialect=None, where_needed=True)
    return _runner(a, first or _other(second), hints), _runner(b, second, lent)


def converted(a: Any, hints: Hints = NO_HINTS) -> tuple[Runner, Runner]:
    """A runner of a network, and one of the same network in the other framework; arguments and errors as `runners_of`.

    A `.safetensors` file first runs in torch.
    """
    first = _runner(a, _framework_of(a) or "torch", hints)
    second = _other(first.framework)
    network = Checkpoint(first.config, dict(first.tensors))
    return first, runner_of_checkpoint(network, second, f"{first.name}, in {_TITLES[second]}")


def runner_of_checkpoint(checkpoint: Checkpoint, framework: Framework, name: str) -> Runner:
    """A runner of a checkpoint that is read already."""
    module: Any = needed(f"conversion.{framework}_runner")
    runner: Runner = (module.TorchRunner if framework == "torch" else module.JaxRunner).of_checkpoint(checkpoint, name)
    return runner


def frameworks_of(a: Container, b: Container) -> tuple[Framework, Framework]:
    """As `runners_of` chooses them for files of these kinds."""
    first, second = _OF_CONTAINER[a], _OF_CONTAINER[b]
    second = second or _other(first or "torch")
    return first or _other(second), second


def in_precision(value: np.ndarray, precision: Precision) -> np.ndarray:
    """A weight or statistic in this precision; the batch counter as it is."""
    return value if value.dtype == COUNTER else value.astype(precision)


def layers_of(config: UNetConfig) -> list[str]:
    """The layers that have parameters, in forward order."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in tensor_specs(config)))


def input_name(layer: str) -> str | None:
    """The name of what a layer takes in, where that is no other layer's answer; None where it is."""
    block, _, place = layer.partition(".")
    if place == "conv.3":
        return f"{block}.conv.2"
    if place != "conv.0" or block == "down1":
        return None
    return f"{block}.join" if block.startswith("up") else f"{block}.pool"


_OF_CONTAINER: Mapping[Container, Framework | None] = {
    Container.TORCH: "torch",
    Container.ORBAX: "jax",
    Container.SAFETENSORS: None,
}


_TITLES: Mapping[Framework, str] = {"torch": "PyTorch", "jax": "JAX"}


def _other(framework: Framework) -> Framework:
    return "jax" if framework == "torch" else "torch"


def _framework_of(network: Any) -> Framework | None:
    if isinstance(network, str | Path):
        return _OF_CONTAINER[existing_container(Path(network))]
    bases = {base.__module__.split(".")[0] for base in type(network).__mro__}
    if "torch" in bases:
        return "torch"
    if "flax" in bases:
        return "jax"
    raise UNetError(f"a path, a torch module or a JAX UNet is needed, got {type(network).__name__}")


def _runner(network: Any, framework: Framework, hints: Hints) -> Runner:
    if isinstance(network, str | Path):
        return runner_of_checkpoint(read(Path(network), hints), framework, str(network))
    module: Any = needed(f"conversion.{framework}_runner")
    name = f"the {framework} model"
    runner: Runner = (
        module.TorchRunner(network, name, hints) if framework == "torch" else module.JaxRunner(network, name)
    )
    return runner
