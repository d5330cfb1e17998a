"""What the operations of an ONNX file hand on while they are read, and what makes the graph of them."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unet_core.errors import UNetError, shown
from unet_core.graph import INPUT, OPERATIONS, Node
from unet_core.graph.node import Kind, Tensor
from unet_core.graph.operations import Role
from unet_core.graph.sizes import AXES, Dim, Shape, Size, evaluate, named

MOST_NUMBERS = 100_000
"""Of a constant that stands in the graph, or is computed while it is read."""

Numbers = Literal["float", "int", "bool"]


class UnreadableError(UNetError):
    """An operation that no graph says."""


@dataclass(frozen=True)
class Operation:
    """One of an ONNX file."""

    name: str
    kind: str
    """With its domain, where that is not ONNX's own."""
    inputs: tuple[str, ...]
    """Empty names are of those that are left out."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    """Tensors as arrays."""


@dataclass(frozen=True)
class Program:
    """What an ONNX file computes from one picture."""

    operations: tuple[Operation, ...]
    """Those that the output needs, in the order in which they run."""
    constants: Mapping[str, np.ndarray]
    """Its initialisers that are used, by name."""
    picture: str
    """What the input is called."""
    output: str
    opset: int
    shape: tuple[int | None, ...]
    """Of the input; None where it is free."""

    @property
    def traced(self) -> tuple[int, ...]:
        """A batch and a size that it is likely to take."""
        usual = (1, 64, 64) if len(self.shape) == 4 else (1, 32, 32, 32)
        batch, _, *size = self.shape
        return tuple(one or other for one, other in zip((batch, *size), usual, strict=True))


@dataclass(frozen=True)
class Map:
    """The output of a node, or the picture."""

    node: str
    shape: Shape
    numbers: Numbers = "float"


@dataclass(frozen=True, eq=False)
class Constant:
    """Numbers that the file has, or sizes of maps."""

    array: np.ndarray
    """Of objects where sizes are among them."""
    name: str = ""
    """Of the initialiser; empty: it was computed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.array.shape

    @property
    def numbers(self) -> Numbers:
        """Of which kind they are."""
        return "float" if self.array.dtype.kind == "f" else "bool" if self.array.dtype.kind == "b" else "int"

    @property
    def number(self) -> Any:
        """The only one.

        Raises:
            UnreadableError: there are several.
        """
        if self.array.size != 1:
            raise UnreadableError(f"{self.array.size} numbers where one is needed")
        item = self.array.reshape(-1)[0]
        return item if isinstance(item, Size) else item.item() if isinstance(item, np.generic) else item

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """As whole numbers, or sizes, in a row.

        Raises:
            UnreadableError: they are neither.
        """
        if self.array.size > MOST_NUMBERS or self.array.dtype.kind not in "iuO":
            raise UnreadableError(f"{self.array.dtype} of {self.shape} where sizes are needed")
        return tuple(item if isinstance(item, Size) else int(item) for item in self.array.reshape(-1))


Value = Map | Constant


def of_sizes(sizes: Any) -> Constant:
    """Whole numbers or sizes, alone or in a row, as the value that they are in ONNX."""
    whole = sizes if isinstance(sizes, list | tuple) else [sizes]
    symbolic = any(isinstance(size, Size) for size in whole)
    array = np.array(whole, object if symbolic else np.int64)
    return Constant(array if whole is sizes else array.reshape(()))


class Writer:
    """Nodes in the order in which they run, and the tensors that they have.

    Args:
        channels: of the picture.
        traced: its batch and size where the file was made, or a likely one.
        fixed_batch: whether that batch is written into the file.
    """

    def __init__(self, channels: int, traced: tuple[int, ...], *, fixed_batch: bool) -> None:
        axes = (AXES[0], *AXES[1 - len(traced) :])
        self.hints = dict(zip(axes, traced, strict=True))
        self.fixed_batch = fixed_batch
        self.picture = Map(INPUT, (named(axes[0]), channels, *map(named, axes[1:])))
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.kinds: dict[str, Kind] = {}
        self.scope = ""
        """The name of the operation that is read."""
        self._taken: Counter[str] = Counter((INPUT,))
        self._known: dict[tuple[Any, ...], str] = {}
        self._kept: list[Constant] = []
        self._modules: set[str] = set()

    def hint(self, size: Dim) -> int:
        """A size where the file was made."""
        return evaluate(size, self.hints)

    def add(
        self,
        operation: str,
        *inputs: Value,
        tensors: Mapping[str, str | None] | None = None,
        numbers: Numbers | None = None,
        **attributes: Any,
    ) -> Map:
        """One more node: its output, of the numbers of its first input."""
        maps = [self.map(value) for value in inputs]
        roles = {role: name for role, name in (tensors or {}).items() if name is not None}
        base = ".".join(part for part in re.split(r"[./:]+", self.scope) if part) or operation
        self._taken[base] += 1
        name = base if self._taken[base] == 1 else f"{base}#{self._taken[base]}"
        node = Node(name, operation, tuple(value.node for value in maps), roles, attributes)
        try:
            shape = OPERATIONS[operation].shape(
                *(value.shape for value in maps),
                **{role: Role(self.tensors[name].shape) for role, name in roles.items()},
                **node.attributes,
            )
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            raise UnreadableError(f"{operation}: {shown(error)}") from error
        self.nodes.append(node)
        return Map(name, shape, numbers or (maps[0].numbers if maps else "float"))

    def tensor(self, value: Value | None, kind: Kind = "parameter", *, turned: bool = False) -> str | None:
        """The name that a tensor of the file has in the state_dict; None of none.

        Args:
            value: the tensor.
            kind: what it is.
            turned: the other way round, rows as columns.

        Raises:
            UnreadableError: it is computed from the picture.
        """
        if value is None:
            return None
        if isinstance(value, Map) or value.array.dtype.kind == "O":
            raise UnreadableError("its tensors are computed from the picture")
        self._kept.append(value)
        key = (value.name or id(value), value.shape, kind == "statistic", turned)
        if key not in self._known:
            name = self._free(value.name or f"{self.scope}.constant")
            self.tensors[name] = np.ascontiguousarray(value.array.T if turned else value.array)
            self.kinds[name] = kind
            self._known[key] = name
        return self._known[key]

    def _free(self, wanted: str) -> str:
        """A name like this one that no other tensor has, and in which none is a module."""
        base = ".".join(part for part in re.split(r"[./:]+", wanted) if part) or "tensor"
        name, number = base, 1
        while name in self.tensors or name in self._modules or not self.tensors.keys().isdisjoint(_modules(name)):
            number += 1
            name = f"{base.replace('.', '_') if number > 2 else base}_{number}"
        self._modules.update(_modules(name))
        return name

    def map(self, value: Value) -> Map:
        """The same as the output of a node.

        Raises:
            UnreadableError: sizes, several of them, or too many numbers.
        """
        if isinstance(value, Map):
            return value
        if value.array.size == 1:
            dtype = None if value.numbers == "float" else "bool" if value.numbers == "bool" else "int64"
            made = self.add("full", shape=value.shape, value=value.number, dtype=dtype)
            return Map(made.node, made.shape, value.numbers)
        if value.numbers == "float":
            name = self.tensor(value, "parameter" if value.name else "buffer")
            return self.add("parameter", tensors={"value": name})
        if value.array.dtype.kind == "O" or value.array.size > MOST_NUMBERS:
            raise UnreadableError(f"a map of {math.prod(value.shape)} sizes or whole numbers")
        dtype = "bool" if value.numbers == "bool" else "int64"
        row = tuple(map(float, value.array.reshape(-1)))
        return self.add("constant", values=row, shape=value.shape, dtype=dtype, numbers=value.numbers)

    def described(self) -> dict[str, Tensor]:
        """The tensors as a graph has them."""
        return {name: Tensor(array.shape, self.kinds[name]) for name, array in self.tensors.items()}


def _modules(name: str) -> list[str]:
    """Those that a tensor of this name lies in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
