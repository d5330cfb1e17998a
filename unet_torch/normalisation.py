"""BatchNorm over parts of a batch. `unet_jax/layers.py` has the same in `BatchNorm.parts`."""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Model = TypeVar("Model", bound=nn.Module)


class PartedBatchNorm(nn.BatchNorm2d):
    """Normalises each of equal parts of a batch by its own statistics; the running ones are of the first part.

    Args:
        norm: whose parameters and statistics it has.
        parts: how many.
    """

    def __init__(self, norm: nn.BatchNorm2d, parts: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.parts = parts
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Of a batch that `parts` divides, while training; as ever in eval mode."""
        if not self.training:
            return super().forward(x)
        first, *others = x.chunk(self.parts)
        untracked = (
            functional.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for part in others
        )
        return torch.cat((super().forward(first), *untracked))


def in_parts(model: Model, parts: int) -> Model:
    """`model`, in which every BatchNorm takes the statistics of so many parts of a batch; changed in place."""
    if parts > 1:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.BatchNorm2d):
                model.set_submodule(name, PartedBatchNorm(layer, parts))
    return model
