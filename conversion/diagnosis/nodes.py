"""A node of a graph computed anew, in float64, from what it was handed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from conversion.backends.backend import Framework, Roles, Runner, Values, backend_of
from unet_core.graph import INPUT, Graph, Node
from unet_core.graph.canonical import FLOATS, Description, Tensors
from unet_core.graph.family import graph_of


@dataclass(frozen=True)
class TracedNetwork:
    """A network, and what its nodes had and did in one pass, in torch's layout."""

    framework: Framework
    config: Description
    tensors: Tensors
    x: np.ndarray
    """Its input, channels last."""
    handed: Mapping[str, np.ndarray]
    """What the nodes handed on."""
    back: Mapping[str, np.ndarray]
    """What they handed back: the gradients by their outputs."""
    training: bool

    @cached_property
    def graph(self) -> Graph:
        """In the mode of the pass."""
        return graph_of(self.config).in_mode(training=self.training)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """By name."""
        return {node.name: node for node in self.graph.nodes}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Of the input, by name."""
        batch, *size, _ = self.x.shape
        return self.graph.sizes_of(batch, size)

    @cached_property
    def known(self) -> dict[str, np.ndarray]:
        """What the nodes handed on, and the input."""
        return {**self.handed, INPUT: np.moveaxis(self.x, -1, 1)}

    def inputs(self, node: Node) -> list[np.ndarray] | None:
        """What a node takes in; None where that is not known, as of numbers that are no floats."""
        if not all(name in self.known for name in node.inputs):
            return None
        return [self.known[name].astype(np.float64) for name in node.inputs]

    def roles(self, node: Node, tensors: Tensors | None = None) -> dict[str, np.ndarray]:
        """A node's tensors by their roles, or those that stand for them among others."""
        of = self.tensors if tensors is None else tensors
        return {role: _wide(of[name]) for role, name in self.graph.first_names(node).items()}

    def takers(self, name: str) -> Iterator[Node]:
        """The nodes that have this one's output as an input."""
        return (node for node in self.graph.nodes if name in node.inputs)

    def answer(self, node: Node, inputs: Values, roles: Roles, *, training: bool | None = None) -> np.ndarray:
        """The output of a node, computed by the framework of this network."""
        training = self.training if training is None else training
        return backend_of(self.framework).evaluated(node, inputs, roles, self.sizes, training=training)

    def gradients(
        self, node: Node, inputs: Values, roles: Roles, back: np.ndarray
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """The gradients by what a node takes in, and by its tensors, of what it hands back."""
        backend = backend_of(self.framework)
        return backend.gradients(node, inputs, roles, self.sizes, back, training=self.training)


def network_of(
    runner: Runner,
    x: np.ndarray,
    handed: Mapping[str, np.ndarray],
    back: Mapping[str, np.ndarray] = MappingProxyType({}),
    *,
    training: bool,
) -> TracedNetwork:
    """That of a runner."""
    return TracedNetwork(runner.framework, runner.config, runner.tensors, x, handed, back, training)


def _wide(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64) if value.dtype in FLOATS else value
