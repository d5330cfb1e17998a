"""What a network is printed in: how its layers are made, what operations are called, and what a file has beside it."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from conversion.backends.backend import Tool
from conversion.backends.frameworks import importing
from unet_core.errors import UNetError
from unet_core.graph import Graph, Node
from unet_core.graph.sizes import Dim, Shape


class UnprintableError(UNetError):
    """What this project has no code for.

    Args:
        what: the operation, or how it is used.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no code for {what}; ONNX and StableHLO may have a form for it")


@dataclass(frozen=True)
class Hole:
    """A number that may differ between the instances of a class."""

    value: int
    hint: str
    """What its parameter may be called."""


@dataclass(frozen=True)
class Option(Hole):
    """One that is a keyword, and left out where it is always the default."""

    keyword: str = ""
    default: int = 1


@dataclass(frozen=True)
class Made:
    """How a layer is made: a call with numbers in it."""

    parts: tuple[str | Hole, ...]
    helper: str = ""
    """The class of the file's own that it is of."""


def call(name: str, *arguments: str | Hole | tuple[str, Any], helper: str = "") -> Made:
    """A call; pairs are keywords, whose values may be holes."""
    parts: list[str | Hole] = [f"{name}("]
    for number, argument in enumerate(arguments):
        if isinstance(argument, Option):
            parts.append(argument)
            continue
        if number:
            parts.append(", ")
        if isinstance(argument, tuple):
            parts += [f"{argument[0]}=", argument[1] if isinstance(argument[1], Hole) else str(argument[1])]
        else:
            parts.append(argument)
    return Made((*parts, ")"), helper)


@runtime_checkable
class Scope(Protocol):
    """What an expression may ask for."""

    graph: Graph

    def sizes(self, dims: tuple[Dim, ...]) -> str:
        """Sizes as a tuple."""

    def helper(self, name: str) -> str:
        """The name of a function of the file's own, which it then has."""


Expression = Callable[[Scope, Node, list[str]], str]
"""What a node without tensors computes of its inputs, which are expressions."""
Layer = Callable[[int, Mapping[str, Shape], Mapping[str, Any]], Made]
"""How the layer of a node with tensors is made: of the rank of what it takes, the shapes of its tensors by their roles,
and its attributes."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """A library in which networks are written."""

    kind: str
    """What a person calls such a file."""
    tool: Tool
    """What runs it."""
    packages: tuple[str, ...]
    """All that it needs."""
    channels_last: bool
    module: str
    """The base of a class."""
    sequence: str
    """What calls several, one after the other."""
    several: str
    """What only holds several."""
    forward: str
    """The method that computes."""
    array: str
    """The type of a map."""
    start: tuple[str, ...]
    """The first lines of what makes a module."""
    nothing: str
    """What changes nothing, in a sequence."""
    gap: str
    """What stands where a list has nothing; empty: such a list is a mapping."""
    mapping: str
    """What holds several by their numbers, where nothing stands in a gap."""
    typed: bool
    """Whether calling a module that is no sequence, and in no list, has a type."""
    renamed: frozenset[str] | None
    """Names that its modules have themselves: attributes of these names, and keywords, get a `_` behind. None: the
    names are those of the checkpoint, all of which have to be there."""
    layers: Mapping[str, Layer]
    functions: Mapping[str, str]
    """Of one array, and nothing else."""
    arithmetic: Mapping[str, str]
    """Of two."""
    expressions: Mapping[str, Expression]
    entry: Callable[[str], str | None]
    """An expression of `x` as what a sequence may hold, where there is such."""
    head: str
    helpers: Mapping[str, str]
    """By their names, in the order in which a file has them."""
    aliases: Mapping[str, str]
    """The same, of constants: functions of its own that have no types."""
    load: str
    script: str
    """Runs the file at PATH with the weights at WEIGHTS; see `conversion.exports.programs.fresh`."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what it needs."""
        with importing():
            return {name: importlib.import_module(name).__version__ for name in self.packages}

    def layer(self, graph: Graph, node: Node) -> Made:
        """How the layer of a node with tensors is made.

        Raises:
            UnprintableError: there is no code for it.
        """
        if node.operation not in self.layers:
            raise UnprintableError(node.operation)
        roles = {role: graph.tensors[name].shape for role, name in node.tensors.items()}
        return self.layers[node.operation](len(graph.shapes[node.inputs[0]]), roles, node.attributes)

    def expression(self, scope: Scope, node: Node, inputs: list[str]) -> str:
        """What a node without tensors computes of its inputs, which are expressions.

        Raises:
            UnprintableError: there is no code for it.
        """
        name, of = node.operation, node.attributes
        if name in self.functions:
            return f"{self.functions[name]}({inputs[0]})"
        if name in self.arithmetic and all(number is None or isinstance(number, int | float) for number in of.values()):
            left, right = inputs if len(inputs) == 2 else _with_number(inputs[0], of)
            return self.arithmetic[name].format(left, right)
        if name not in self.expressions:
            raise UnprintableError(name)
        return self.expressions[name](scope, node, inputs)

    def shape(self, shape: Shape) -> Shape:
        """The shape of a map, in the order of its axes."""
        batch, channels, *size = shape
        return (batch, *size, channels) if self.channels_last else shape

    def axis(self, axis: int, rank: int) -> int:
        """Where an axis of torch's is, of a map."""
        return (0, *range(2, rank), 1).index(axis % rank) if self.channels_last else axis % rank


def _with_number(x: str, of: Mapping[str, Any]) -> tuple[str, str]:
    return (x, repr(of["right"])) if of["left"] is None else (repr(of["left"]), x)
