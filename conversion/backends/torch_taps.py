"""The outputs of a network's nodes in PyTorch, noted with the gradients, and replaced where a proof forces it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from conversion.backends.backend import Forced
from unet_torch.canonical import as_numpy


class Notes:
    """Notes the outputs of nodes, and the gradient by that; and may force both."""

    def __init__(
        self, outputs: dict[str, np.ndarray], cotangents: dict[str, np.ndarray], forced: Forced | None
    ) -> None:
        self.outputs, self.cotangents, self.forced = outputs, cotangents, forced

    def of_node(self, name: str, answer: Tensor) -> Tensor:
        """A tap of a graph; what is no number is passed by."""
        if not answer.is_floating_point():
            return answer
        self.outputs[name] = copied(answer)
        handed_on: Tensor = _HandedOn.apply(answer, self, name)
        return handed_on


class _HandedOn(torch.autograd.Function):
    """What a node hands on to the next, and what it hands back to the one before."""

    @staticmethod
    def forward(context: Any, y: Tensor, notes: Notes, name: str) -> Tensor:
        forced = notes.forced if notes.forced is not None and notes.forced.fits(name, y.shape) else None
        context.given = notes, name, forced
        return (_like(y, forced.outputs[name]) if forced else y).clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        notes, name, forced = context.given
        notes.cotangents[name] = copied(gradient)
        return _like(gradient, forced.cotangents[name]) if forced else gradient, None, None


def _like(tensor: Tensor, values: np.ndarray) -> Tensor:
    """The values as such a tensor."""
    return torch.tensor(values, device=tensor.device, dtype=tensor.dtype)


def copied(x: Tensor) -> np.ndarray:
    """As an array that an in-place ReLU, which may come next, does not change."""
    return np.array(as_numpy(x), order="C")
