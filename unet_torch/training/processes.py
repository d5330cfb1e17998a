"""The processes that train one network together, as torchrun starts them. JAX has one program over a mesh instead."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unet_core.errors import ConfigError, RunError
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.training.peaks import peak
from unet_core.training.train_config import Precision, TrainConfig
from unet_torch.device import chosen_device
from unet_torch.model import UNet
from unet_torch.network import Network

_PATIENCE = timedelta(days=1)
"""How long processes wait for the slowest one, as at the end of a validation; where one dies, torchrun ends them."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. The first one alone writes and tells."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def check(self, train_config: TrainConfig, config: Description) -> None:
        """Raise ConfigError where they cannot share this training of the network of `config`."""
        if train_config.batch % self.size:
            raise ConfigError(
                f"batch {train_config.batch}: is not divided by the {self.size} processes; give a multiple of "
                f"{self.size}"
            )
        if train_config.norm_parts > 1 and train_config.norm_parts % self.size:
            raise ConfigError(
                f"norm_parts {train_config.norm_parts}: the {self.size} processes do not divide them; give 1, or a "
                f"multiple of {self.size}"
            )
        if train_config.compile and self.size > 1:
            raise ConfigError("--compile: is for one process; leave it out")
        if self.size > 1 and train_config.norm_parts == 1 and isinstance(config, Graph) and config.averages_batches:
            raise ConfigError(
                "norm_parts 1: several processes have no statistics of the whole batch of a network that was read from "
                f"its code; give --norm-parts {self.size}, for those of each process, or train by --backend jax"
            )

    def peak(self, precision: Precision) -> float | None:
        """FLOP/s of the devices of all together; None where nobody knows. Convolutions decide whether it is TF32's."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        one = peak(name, precision, tf32=torch.backends.cudnn.allow_tf32)
        return None if one is None else one * self.size

    def wait(self) -> None:
        """For the others.

        Raises:
            RunError: one of them has ended.
        """
        if self.size == 1:
            return
        try:
            dist.barrier()
        except RuntimeError as error:
            raise RunError("another process has ended before the training began; it says why") from error

    def total(self, number: float) -> float:
        """The sum of all processes' numbers."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(numbers)
        return numbers.item()

    def gathered(self, part: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "processes ..."]:
        """The arrays of all processes, in every bit, along a new first axis; they have the same shape and dtype."""
        return self.of_all(torch.from_numpy(part[None])).numpy()

    def agreed(self, step: int, folder: Path) -> int:
        """The step of the state of this folder that all have read.

        Raises:
            RunError: one has read another one's; they would train different networks.
        """
        steps = self.gathered(np.array(step)).tolist()
        if len(set(steps)) > 1:
            raise RunError(
                f"{folder}: the processes read states of different steps ({', '.join(map(str, steps))}): one cannot "
                "read what another can; see that all can read the folder, and start them again"
            )
        return step

    def align(self, model: nn.Module) -> None:
        """Give all the first one's buffers: statistics of parts of the batch are each process's own until then."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def parallel(self, model: UNet | Network) -> Callable[[Tensor], Tensor]:
        """The function from pictures to logits whose gradients are the mean over all processes."""
        if self.size == 1:
            return model.logits
        places = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(_Logits(model), device_ids=places)

    def of_all(self, part: Tensor) -> Tensor:
        """The parts of all processes, one after the other along the first axis; this one's alone has a gradient."""
        if self.size == 1:
            return part
        parts = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for _ in range(self.size)]
        dist.all_gather(parts, part.detach().contiguous())
        parts[self.rank] = part
        return torch.cat(parts)


class _Logits(nn.Module):
    """`logits` as the `forward` that DistributedDataParallel wraps."""

    def __init__(self, model: UNet | Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.logits(x)


def alone() -> Processes:
    """One process, on the first CUDA device where there is one, otherwise on the CPU."""
    return Processes(chosen_device())


@contextmanager
def started() -> Iterator[Processes]:
    """The processes that torchrun has started, each on a CUDA device of its own or all on the CPU; else this one."""
    if not dist.is_torchelastic_launched():
        yield alone()
        return
    device = alone().device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    try:
        yield Processes(device, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
