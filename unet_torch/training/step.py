"""One update of everything in PyTorch. `unet_jax/training/step.py` is the twin."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.graph.canonical import tensor_specs
from unet_core.training.state import updated_shapes
from unet_core.training.train_config import TrainConfig
from unet_torch.checkpoint import from_checkpoint
from unet_torch.model import UNet
from unet_torch.network import Network
from unet_torch.training.losses import loss_value
from unet_torch.training.normalisation import prepared
from unet_torch.training.optimizers import averaged, clipped, optimizer_of
from unet_torch.training.processes import Processes

_DROPOUT = 2
"""Its stream of a seed, beside those of `unet_core.data.batches`."""


@dataclass
class TrainState:
    """What an update changes, in place."""

    model: UNet | Network
    optimizer: torch.optim.Optimizer
    average: UNet | Network | None
    """The moving average of weights and statistics."""

    def state_dict(self, step: int) -> dict[str, Any]:
        """What is saved, as plain PyTorch scripts do."""
        average = self.average.state_dict() if self.average else None
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return {"model": model, "optimizer": optimizer, "average": average, "step": step}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """The inverse of `state_dict`; raises what torch raises where the state is another network's."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for owner, entry in self.optimizer.state.items():  # a state that was converted has another memory format
            entry |= {name: torch.empty_like(owner).copy_(entry[name]) for name in entry if name != "step"}
        if self.average is not None:
            self.average.load_state_dict(saved["average"])


def new_state(
    checkpoint: Checkpoint, train_config: TrainConfig, device: torch.device, processes: Processes | None = None
) -> TrainState:
    """The state before the first update, on the device, in the memory format of `memory_format`.

    Args:
        checkpoint: the network to start from.
        train_config: gives optimiser, precision, and whether there is an average.
        device: where to.
        processes: those that train together; None: this one alone.
    """
    model = prepared(from_checkpoint(checkpoint), train_config, processes or Processes(device))
    model = model.to(device, dtype_of(train_config)).train()
    kernels = memory_format(device, checkpoint.config.dimensions + 2)
    model = model.to(memory_format=kernels)  # type: ignore[call-overload]  # of nn.Module, as documented
    average = copy.deepcopy(model).eval() if train_config.ema else None
    if isinstance(model, Network):
        model.generator = torch.Generator(device)
    named = dict(model.named_parameters())
    updated = updated_shapes(checkpoint.config)
    for name, parameter in named.items():
        parameter.requires_grad_(name in updated)
    return TrainState(model, optimizer_of(train_config.optimizer, [named[name] for name in updated]), average)


def updater(
    train_config: TrainConfig, state: TrainState, processes: Processes | None = None
) -> Callable[..., Float[Tensor, "2"]]:
    """The function that makes one update of `state`, in place.

    It takes `accumulate` batches one after the other, as in `placed`, the learning rate, the part of the average that
    it renews, and the updates before it, which decide what dropout draws; it returns loss and norm of the gradients
    before clipping, without waiting for them.

    Args:
        train_config: how to train.
        state: what to train.
        processes: those that train together, each on its part of the batches; None: this one alone.
    """
    together = processes or Processes(next(state.model.parameters()).device)
    logits = torch.compile(state.model.logits) if train_config.compile else together.parallel(state.model)
    batch, ignoring = train_config.batch // together.size, train_config.masks.ignore is not None
    names = tensor_specs(state.model.config)
    generator = state.model.generator if isinstance(state.model, Network) else None

    def update(
        image: Float[Tensor, "n c *s"], labels: UInt8[Tensor, " n *s"], rate: float, renewal: float, step: int = 0
    ) -> Float[Tensor, "2"]:
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad()
        loss = image.new_zeros(())
        parts = zip(image.split(batch), labels.split(batch), strict=True)
        for number, (part_image, part_labels) in enumerate(parts):
            if generator is not None:
                generator.manual_seed(_seed(train_config.seed, step, number, together.rank))
            with torch.autocast(image.device.type, torch.bfloat16, enabled=train_config.precision == "bfloat16"):
                output = logits(part_image)
            output = output.to(torch.promote_types(output.dtype, torch.float32))
            # Of the whole batch: what weighs classes, or is a Dice coefficient, is no mean over its parts.
            part = (
                loss_value(train_config.loss, together.of_all(output), together.of_all(part_labels), ignoring)
                / train_config.accumulate
            )
            (part * together.size).backward()  # of which the mean over the processes is taken
            loss = loss + part.detach()
        norm = clipped(state.model.parameters(), train_config.optimizer.clip)
        state.optimizer.step()
        if state.average is not None:
            average, current = (
                {name: tensors[name] for name in names}  # each once
                for tensors in (state.average.state_dict(), state.model.state_dict())
            )
            averaged(average, current, renewal)
        return torch.stack((loss, norm.detach()))

    return update


def placed(batch: Batch, train_config: TrainConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch on the device, channels first; from pinned memory, and without waiting, where that is a GPU."""
    image, labels = torch.from_numpy(batch.image).movedim(-1, 1), torch.from_numpy(batch.labels)
    if device.type == "cuda":
        image, labels = image.pin_memory(), labels.pin_memory()
    image = image.to(device, dtype_of(train_config), non_blocking=True, memory_format=memory_format(device, image.ndim))
    return image, labels.to(device, non_blocking=True)


def memory_format(device: torch.device, axes: int) -> torch.memory_format:
    """How maps of so many axes lie in memory: channels_last, fastest, but on a CPU as torch has them by itself.

    There torch sums up a channels_last map's mean and variance in float32, point after point: BatchNorm's output for
    pictures of a flat background is 0.6 % off at 512x512, and 5e-8 otherwise. An update takes 5 to 7 % longer.
    """
    if device.type == "cpu":
        return torch.contiguous_format
    return torch.channels_last if axes == 4 else torch.channels_last_3d


def _seed(*numbers: int) -> int:
    """Of the draws of a part of an update, whatever was drawn before: a resumed training draws the same."""
    return int(np.random.SeedSequence((_DROPOUT, *numbers)).generate_state(1, np.uint64)[0])


def dtype_of(train_config: TrainConfig) -> torch.dtype:
    """Of weights and images."""
    return torch.float64 if train_config.precision == "float64" else torch.float32
