"""A graph that is being written: nodes one after another, which get their names when all of them are there."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unet_core.errors import UNetError, shown, sized
from unet_core.graph import INPUT, OPERATIONS, Node
from unet_core.graph.graph import pruned
from unet_core.graph.node import Kind
from unet_core.graph.operations import Role
from unet_core.graph.sizes import AXES, Dim, Shape, evaluate, named

MOST_CONSTANTS = 100_000
"""Numbers of one constant that a graph may have in it."""


class UnreadableError(UNetError):
    """Code that no graph says."""


@dataclass(frozen=True)
class Map:
    """The output of a node, or the picture."""

    node: str
    shape: Shape
    dtype: torch.dtype


@dataclass(frozen=True)
class Held:
    """A tensor of the state_dict."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Constant:
    """Numbers that stand in the code."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """That of the code."""
        return self.tensor.dtype


Array = Map | Held | Constant


@dataclass(frozen=True)
class Drawing:
    """Random numbers that code draws."""

    places: tuple[int, ...]
    """Of those on which the output depends, among all."""
    total: int


class Program:
    """Nodes in the order in which they run.

    Args:
        channels: of the picture.
        size: of the picture where it was traced; its batch is `batch`.
        training: in which mode.
    """

    def __init__(self, channels: int, size: Sequence[int], batch: int, *, training: bool) -> None:
        axes = AXES[-len(size) :]
        self.training = training
        self.cumulative: frozenset[str] = frozenset()
        """The running means of the BatchNorms whose momentum is None."""
        self.frozen: frozenset[str] = frozenset()
        """The running means of the BatchNorms that stay in eval mode when the network is trained."""
        self.counters: dict[str, Held] = {}
        """The counter of batches of a BatchNorm, by its running mean."""
        self.scope = ("", False)
        """The module that computes now, and whether it has no modules in it."""
        self.picture = Map(INPUT, (named(AXES[0]), channels, *map(named, axes)), torch.float64)
        self.output = self.picture
        self.nodes: list[Node] = []
        self._sizes = {AXES[0]: batch, **dict(zip(axes, size, strict=True))}
        self._bases: dict[str, str] = {}
        self._parameters: dict[str, Map] = {}
        self._trained: set[str] = set()

    def hint(self, size: Dim) -> int:
        """A size where the program was traced."""
        return evaluate(size, self._sizes)

    def add(
        self,
        operation: str,
        *inputs: Array,
        tensors: Mapping[str, Held | None] | None = None,
        base: str | None = None,
        **attributes: Any,
    ) -> Map:
        """One more node: its output, with the dtype of its first input."""
        maps = [self.map(value) for value in inputs]
        held = {role: tensor for role, tensor in (tensors or {}).items() if tensor is not None}
        path, leaf = self.scope
        if base is None:
            base = path if leaf and path else f"{path}.{operation}" if path else operation
        node = Node(
            f"%{len(self.nodes)}",
            operation,
            tuple(value.node for value in maps),
            {role: tensor.name for role, tensor in held.items()},
            {name: _plain(value) for name, value in attributes.items()},
        )
        try:
            shape = OPERATIONS[operation].shape(
                *(value.shape for value in maps),
                **{role: Role(tensor.shape) for role, tensor in held.items()},
                **node.attributes,
            )
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            raise UnreadableError(f"{shown(base)}: {operation}: {shown(error)}") from error
        self.nodes.append(node)
        self._bases[node.name] = base
        if any(tensor.kind == "parameter" for tensor in held.values()) or not self._trained.isdisjoint(node.inputs):
            self._trained.add(node.name)
        return Map(node.name, shape, maps[0].dtype if maps else torch.float64)

    def is_trained(self, value: Any) -> bool:
        """Whether it depends on parameters."""
        if isinstance(value, Held):
            return value.kind == "parameter"
        return isinstance(value, Map) and value.node in self._trained

    def map(self, value: Any) -> Map:
        """The same as the output of a node."""
        if isinstance(value, Map):
            return value
        if isinstance(value, Held):
            if value.name not in self._parameters:
                made = self.add("parameter", tensors={"value": value}, base=value.name)
                self._parameters[value.name] = dataclasses.replace(made, dtype=value.dtype)
            return self._parameters[value.name]
        if isinstance(value, Constant):
            return self._constant(value.tensor)
        if isinstance(value, int | float):
            return self.add("full", shape=(), value=value)
        raise UnreadableError(f"{self.place}: {type(value).__name__} where a tensor is needed")

    def _constant(self, tensor: torch.Tensor) -> Map:
        dtype = named_dtype(tensor.dtype)
        if tensor.is_complex():
            raise UnreadableError(f"{self.place}: complex numbers")
        first = tensor.flatten()[:1].item() if tensor.numel() else 0
        if bool((tensor == first).all()):
            made = self.add("full", shape=tuple(tensor.shape), value=first, dtype=dtype)
        elif tensor.numel() > MOST_CONSTANTS:
            shape = sized(tensor.shape)
            raise UnreadableError(
                f"{self.place}: a constant of {shape} numbers that is not in the state_dict; register it as a buffer"
            )
        else:
            values = tuple(map(float, tensor.flatten().tolist()))
            made = self.add("constant", values=values, shape=tuple(tensor.shape), dtype=dtype)
        return dataclasses.replace(made, dtype=tensor.dtype)

    @property
    def place(self) -> str:
        """Where in the network the code is, for an error."""
        return shown(self.scope[0] or "the network")

    def draws(self, *, training: bool) -> "Drawing":
        """The random numbers that this code draws in a mode."""
        needed = {node.name for node in self._kept()}
        drawing = [node.name for node in self.nodes if _draws(node, training=training)]
        return Drawing(tuple(place for place, name in enumerate(drawing) if name in needed), len(drawing))

    def _kept(self) -> list[Node]:
        """The nodes on which the output depends; in training mode also, before it, those that renew statistics."""
        own = list(pruned(self.nodes, self.output.node))
        if not self.training:
            return own
        answering = 2 if own[-1].operation in ("sigmoid", "softmax") else 1
        last = own[-answering:]
        renewing = [node.name for node in self.nodes if _renews(node)]
        kept = [node for node in pruned(self.nodes, self.output.node, *renewing) if node not in last]
        if any(node.name in one.inputs for node in last for one in kept):
            raise UnreadableError("what is computed from the answer renews running statistics")
        return [*kept, *last]

    def finished(self) -> tuple[Node, ...]:
        """The nodes that are kept, under their final names; the output is the last.

        Raises:
            UnreadableError: what is computed from the output renews statistics.
        """
        names = {INPUT: INPUT}
        taken: Counter[str] = Counter()
        nodes = []
        for node in self._kept():
            base = self._bases[node.name]
            taken[base] += 1
            names[node.name] = base if taken[base] == 1 else f"{base}#{taken[base]}"
            inputs = tuple(names[name] for name in node.inputs)
            nodes.append(dataclasses.replace(node, name=names[node.name], inputs=inputs))
        return tuple(nodes)


def _renews(node: Node) -> bool:
    """Whether it has running statistics that it renews in training mode."""
    return "mean" in node.tensors and not node.attributes.get("frozen", False)


def _draws(node: Node, *, training: bool) -> bool:
    match node.operation:
        case "chance":
            return True
        case "dropout":
            return training or bool(node.attributes["always"])
        case "attention":
            return bool(node.attributes["rate"])
    return False


_DTYPES = {getattr(torch, name): name for name in ("float32", "bfloat16", "float16", "int64", "int32", "bool")} | {
    torch.float64: None
}


def named_dtype(dtype: torch.dtype) -> str | None:
    """Its name in a graph; None for that of the network, which is float64 where it is read."""
    if dtype not in _DTYPES:
        raise UnreadableError(f"numbers of the type {dtype}")
    return _DTYPES[dtype]


def _plain(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
