"""BatchNorm over parts of a batch, and over the batch of several processes. In JAX both are in `execution.py`."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unet_core.training.train_config import TrainConfig
from unet_torch.network import Network
from unet_torch.training.processes import Processes

Model = TypeVar("Model", bound=nn.Module)


class _Replacing(nn.BatchNorm2d):
    """With the parameters and statistics of another one."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)


class PartedBatchNorm(_Replacing):
    """Normalises each of equal parts of a batch by its own statistics; the running ones are of the first part.

    Args:
        norm: whose parameters and statistics it has.
        parts: how many.
    """

    def __init__(self, norm: nn.BatchNorm2d, parts: int) -> None:
        super().__init__(norm)
        self.parts = parts

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


class _Total(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _Total.forward(_, gradient)


class GlobalBatchNorm(_Replacing):
    """Takes the statistics of the batches of all processes together: `nn.SyncBatchNorm`, which has no form for a CPU.

    Args:
        norm: whose parameters and statistics it has.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Of this process's part of the batch; as ever in eval mode."""
        if not self.training:
            return super().forward(x)
        kind, axes = x.dtype, (0, 2, 3)
        x = x.to(torch.promote_types(kind, torch.float32))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _Total.apply(x.sum(axes)) / count
        centred = x - mean[:, None, None]
        variance = _Total.apply(centred.square().sum(axes)) / count
        self._track(mean, variance * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(kind)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        for name, value in (("running_mean", mean), ("running_var", unbiased)):
            self.get_buffer(name).lerp_(value, self.momentum or 0.0)
        self.get_buffer("num_batches_tracked").add_(1)


def prepared(model: Model, train_config: TrainConfig, processes: Processes) -> Model:
    """`model`, in which every BatchNorm takes the statistics that `train_config` names; changed in place.

    Args:
        model: the network, in one process or, the same, in each of several.
        train_config: gives the parts of the batch.
        processes: those that share the batch.
    """
    parts = train_config.norm_parts // processes.size
    if isinstance(model, Network):
        model.norm_parts = max(parts, 1)
        return model
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        if parts > 1:
            model.set_submodule(name, PartedBatchNorm(layer, parts))
        elif train_config.norm_parts == 1 and processes.size > 1 and processes.device.type == "cpu":
            model.set_submodule(name, GlobalBatchNorm(layer))
    if train_config.norm_parts == 1 and processes.size > 1 and processes.device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model
