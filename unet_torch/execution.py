"""Runs a graph in PyTorch: node by node, NCHW. `unet_jax/execution.py` is the twin."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unet_core.graph import INPUT, Graph, Node
from unet_torch.operations import OPERATIONS, needs_run

Tensors = Mapping[str, Tensor]
Uniform = Callable[[tuple[int, ...]], Tensor]
"""Draws random numbers from 0 to 1 of a shape; every call draws anew."""
Tap = Callable[[str, Tensor], Tensor]
"""Is told the name of a node and its output, and returns what the node hands on."""


class Executed(NamedTuple):
    """What a graph computes, and the running statistics after a step of training."""

    answer: Tensor
    updates: dict[str, Tensor]


@dataclass
class _Run:
    """What a row may ask for beside its tensors."""

    training: bool
    dtype: torch.dtype
    uniform: Uniform
    tracked: dict[str, Tensor] = field(default_factory=dict)

    def track(self, role: str, value: Tensor) -> None:
        self.tracked[role] = value


def execute(
    graph: Graph,
    tensors: Tensors,
    x: Float[Tensor, "n c *size"],
    *,
    training: bool = False,
    draw: Uniform = torch.rand,
    norm_parts: int = 1,
    until: str | None = None,
    tap: Tap | None = None,
) -> Executed:
    """What a network computes from a batch of pictures.

    Args:
        graph: the network.
        tensors: by their names, those that stand there under an earlier name as well left out.
        x: the pictures.
        training: in training mode: with the statistics of the batch, and dropout.
        draw: where random numbers come from, in training; they are moved to the device of `x`.
        norm_parts: BatchNorm takes the statistics of each of so many equal parts of the batch; the first one's are
            tracked.
        until: the node whose output is wanted; None: the last one.
        tap: is told every node's output.

    Raises:
        ValueError: an input that the network does not take.
    """
    batch, channels, *size = x.shape
    graph.check_input(*size, channels)
    graph = graph.in_mode(training=training)
    sizes = graph.sizes_of(batch, size)
    uses = graph.uses()
    values = {INPUT: x}
    now = dict(tensors)
    updates: dict[str, Tensor] = {}
    answer = x
    for node in graph.nodes:
        run = _Run(training, x.dtype, lambda shape: draw(shape).to(x.device, x.dtype))
        names = graph.first_names(node)
        arrays = {role: now[name] for role, name in names.items()}
        attributes = node.at(sizes)
        if needs_run(node.operation):
            attributes["run"] = run
        inputs = [values[name] for name in node.inputs]
        answer = _computed(node, inputs, arrays, attributes, norm_parts if training else 1)
        if tap is not None:
            answer = tap(node.name, answer)
        values[node.name] = answer
        for role, value in run.tracked.items():
            name = names[role]
            now[name] = updates[name] = value.detach().to(tensors[name].dtype)
        if node.name == until:
            break
        for name in node.inputs:  # what nothing needs any more is let go of
            uses[name] -= 1
            if not uses[name]:
                del values[name]
    return Executed(answer, updates)


def _computed(
    node: Node, inputs: list[Tensor], arrays: dict[str, Tensor], attributes: dict[str, object], parts: int
) -> Tensor:
    row = OPERATIONS[node.operation]
    if node.operation != "batch_norm" or parts == 1:
        made: Tensor = row(*inputs, **arrays, **attributes)
        return made
    outputs = [row(part, **arrays, **attributes) for part in inputs[0].chunk(parts)[::-1]]  # the first one last
    return torch.cat(outputs[::-1])


def evaluated(
    node: Node,
    inputs: Sequence[Tensor],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    *,
    training: bool,
    draw: Uniform,
) -> Tensor:
    """What a node alone computes.

    Args:
        node: the node.
        inputs: what it takes in.
        tensors: by their roles.
        sizes: of the network's input, by name.
        training: in training mode.
        draw: where random numbers come from.
    """
    attributes = node.at(sizes)
    if needs_run(node.operation):
        attributes["run"] = _Run(training, torch.float64, draw)
    return _computed(node, list(inputs), dict(tensors), attributes, 1)
