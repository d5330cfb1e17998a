"""The modules of a graph: which of them a class can be, and what each of these computes, step by step."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from conversion.exports.code.language import UnprintableError
from unet_core.graph import INPUT, Graph, Node

WIDTH = 100
"""Characters of a line of the code."""

Path = tuple[str, ...]
"""Of a module: the parts of its name."""


@dataclass(frozen=True)
class Step:
    """One line of what a module computes: an operation, a layer, or another module that is called."""

    nodes: tuple[Node, ...]
    """In order; of an operation or a layer, the only one."""
    inputs: tuple[str, ...]
    """The values that it takes in."""
    outputs: tuple[str, ...]
    """Those of its values that something else takes."""
    path: Path | None
    """Of the layer or the module; None: an operation without tensors."""
    called: bool = False
    """Whether it is a module of several nodes."""

    @property
    def node(self) -> Node:
        """The last one."""
        return self.nodes[-1]


class Tree:
    """The modules that have tensors in them, and the nodes of each.

    A module is closed where it can be called as one: nothing outside takes an answer of it and hands something back
    into it. What others are called for is called by the closed module around them.

    Args:
        graph: the network.
        opened: modules that are not to be called as one, though they could.
        sized: modules that take in the picture as well, for its size.
    """

    def __init__(self, graph: Graph, opened: Iterable[Path] = (), sized: Iterable[Path] = ()) -> None:
        self.graph = graph
        self.opened, self.sized = frozenset(opened), frozenset(sized)
        self.layers = {node.name: _module_of(graph, node) for node in graph.nodes if node.tensors}
        self.containers = {path[:depth] for path in self.layers.values() for depth in range(len(path))} | {()}
        self.owners = {node.name: self._owner(node) for node in graph.nodes}
        self._before = self._ancestors()

    def _owner(self, node: Node) -> Path:
        """The innermost module with tensors in it that a node is of."""
        if node.name in self.layers:
            return self.layers[node.name][:-1]
        path = tuple(node.name.partition("#")[0].split("."))
        return next(path[:depth] for depth in range(len(path), -1, -1) if path[:depth] in self.containers)

    def _ancestors(self) -> dict[str, int]:
        """For every node the set of those before it, as bits."""
        places = {node.name: number for number, node in enumerate(self.graph.nodes)}
        found: dict[str, int] = {INPUT: 0}
        for node in self.graph.nodes:
            found[node.name] = 0
            for name in node.inputs:
                found[node.name] |= found[name] | (1 << places[name] if name in places else 0)
        return found

    @cached_property
    def closed(self) -> frozenset[Path]:
        """The modules that can be called as one, the network among them."""
        return frozenset(path for path in self.containers if not path or self._is_closed(path))

    def _is_closed(self, path: Path) -> bool:
        if path in self.opened:
            return False
        inside = {node.name for node in self.graph.nodes if self.owners[node.name][: len(path)] == path}
        bits = sum(1 << number for number, node in enumerate(self.graph.nodes) if node.name in inside)
        behind = [
            number
            for number, node in enumerate(self.graph.nodes)
            if node.name not in inside and self._before[node.name] & bits
        ]
        back = sum(1 << number for number in behind)
        return not any(self._before[name] & back for name in inside)

    def home(self, node: str) -> Path:
        """The innermost closed module that a node is of."""
        path = self.owners[node]
        while path not in self.closed:
            path = path[:-1]
        return path

    def nodes_of(self, path: Path) -> list[Node]:
        """All that are computed in a module."""
        return [node for node in self.graph.nodes if self.owners[node.name][: len(path)] == path]

    def outputs_of(self, path: Path) -> tuple[str, ...]:
        """The values of a module that others take, in order."""
        return self._taken(self.nodes_of(path))

    def inputs_of(self, path: Path) -> tuple[str, ...]:
        """The values that a module takes in, in the order in which it needs them."""
        found = _needed(self.nodes_of(path))
        needs = any(one[: len(path)] == path for one in self.sized)
        return (*found, INPUT) if needs and INPUT not in found else found

    def _taken(self, nodes: Sequence[Node]) -> tuple[str, ...]:
        inside = {node.name for node in nodes}
        outside = {name for node in self.graph.nodes if node.name not in inside for name in node.inputs}
        outside.add(self.graph.nodes[-1].name)
        return tuple(node.name for node in nodes if node.name in outside)

    def steps(self, path: Path) -> list[Step]:
        """What a closed module computes, each step behind those whose values it takes."""
        groups: dict[object, list[Node]] = {}
        for node in self.nodes_of(path):
            home = self.home(node.name)
            groups.setdefault(node.name if home == path else self._below(path, home), []).append(node)
        steps = []
        for key, nodes in groups.items():
            called = isinstance(key, tuple)
            of = key if isinstance(key, tuple) else self.layers.get(nodes[0].name)
            inputs = self.inputs_of(key) if isinstance(key, tuple) else _needed(nodes)
            steps.append(Step(tuple(nodes), inputs, self._taken(nodes), of, called))
        return _ordered(steps, {node.name: number for number, node in enumerate(self.graph.nodes)})

    def _below(self, path: Path, home: Path) -> Path:
        """The closed module right below one that leads to another."""
        return next(home[:depth] for depth in range(len(path) + 1, len(home) + 1) if home[:depth] in self.closed)


def _module_of(graph: Graph, node: Node) -> Path:
    """The layer whose tensors a node takes."""
    found = {tuple(name.split(".")[:-1]) for name in graph.first_names(node).values()}
    if len(found) > 1:
        raise UnprintableError(f"{node.name}, some of whose tensors are those of another layer")
    return found.pop()


def _needed(nodes: Sequence[Node]) -> tuple[str, ...]:
    """What they take in from elsewhere."""
    inside = {node.name for node in nodes}
    return tuple(dict.fromkeys(name for node in nodes for name in node.inputs if name not in inside))


def _ordered(steps: Sequence[Step], places: Mapping[str, int]) -> list[Step]:
    """As the graph has them, but that each comes behind all whose values it takes."""
    source = {node.name: number for number, step in enumerate(steps) for node in step.nodes}
    waits = [{source[name] for name in step.inputs if name in source} for step in steps]
    ready = [(places[step.nodes[0].name], number) for number, step in enumerate(steps) if not waits[number]]
    heapq.heapify(ready)
    done: list[Step] = []
    while ready:
        _, number = heapq.heappop(ready)
        done.append(steps[number])
        for other, wait in enumerate(waits):
            if number in wait:
                wait.remove(number)
                if not wait:
                    heapq.heappush(ready, (places[steps[other].nodes[0].name], other))
    return done
