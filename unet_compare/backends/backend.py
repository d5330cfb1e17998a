"""What the comparison asks of either framework, in NHWC and under canonical names, in torch's layouts."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float

from conversion.backends.backend import Framework
from conversion.backends.frameworks import importing
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.errors import UNetError
from unet_core.graph.canonical import FLOATS, Description, Tensors, tensor_specs
from unet_core.training.train_config import TrainConfig

Precision = Literal["float64", "float32", "tf32", "bfloat16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""From the most to the least exact."""

Pictures = Sequence[Float[np.ndarray, "h w c"]]
"""From 0 to 1, all of one size."""


class TrainableNetwork(Protocol):
    """A network and the framework that it runs in, such as a `conversion.backends.backend.Runner`."""

    @property
    def name(self) -> str: ...

    @property
    def framework(self) -> Framework: ...

    @property
    def config(self) -> Description: ...

    @property
    def tensors(self) -> Tensors: ...


@runtime_checkable
class Training(Protocol):
    """A network in training, by the updates of its framework's trainer."""

    def step(self, batch: Batch, rate: float) -> tuple[float, float]:
        """Make one update; returns its loss, and the norm of the gradients."""

    def tensors(self) -> dict[str, np.ndarray]:
        """Parameters and statistics as they are now. They may be views, to be let go of before the next step."""

    def logits(self, pictures: Pictures) -> list[Float[np.ndarray, "h w k"]]:
        """What the network computes in eval mode."""


class Trainer(Protocol):
    """Starts trainings of networks of one config; what has to be compiled is compiled once for all of them."""

    def start(self, checkpoint: Checkpoint) -> Training:
        """A training from these weights on, before its first step."""


class Backend(Protocol):
    """A framework: `unet_compare.backends.torch_backend` and `unet_compare.backends.jax_backend`.

    Products are full float32, unless they are to be TF32.
    """

    def Trainer(self, train_config: TrainConfig) -> Trainer:  # noqa: N802  (a class)
        """Trains by this recipe."""

    def lacks_tf32(self) -> str | None:
        """Why the device has no TF32; None where it has."""

    def predict(
        self, checkpoint: Checkpoint, precision: Precision, pictures: Pictures
    ) -> list[Float[np.ndarray, "h w k"]]:
        """The logits in eval mode, in one of the precisions; for bfloat16, the weights stay float32."""


def side(framework: Framework) -> Backend:
    """The framework's module.

    Raises:
        MissingFrameworkError: it is not installed.
    """
    with importing():
        if framework == "torch":
            from unet_compare.backends import torch_backend

            return torch_backend
        from unet_compare.backends import jax_backend

        return jax_backend


def in_dtype(checkpoint: Checkpoint, dtype: str) -> Checkpoint:
    """The same network with weights and statistics of this dtype."""
    tensors = {
        key: value.astype(dtype) if value.dtype in FLOATS else value for key, value in checkpoint.tensors.items()
    }
    return Checkpoint(checkpoint.config, tensors)


def check_alike(a: Description, b: Description) -> None:
    """Raise UNetError where two networks have tensors of other shapes, and nothing of theirs can be compared."""
    one, other = ({key: spec.shape for key, spec in tensor_specs(config).items()} for config in (a, b))
    if one != other:
        raise UNetError("the networks have tensors of other shapes: they cannot run side by side")
