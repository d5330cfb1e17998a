"""An exported torch module as nodes of a graph: every ATen operator by its row, sizes as expressions of the picture's.

Code that works in place is followed through the views that it writes to, so that the graph has none of either.
"""

import dataclasses
import inspect
import operator
from collections.abc import Container, Mapping
from functools import cache
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves, tree_map_only

from unet_core.errors import shown, some
from unet_core.graph.sizes import Size
from unet_torch.reading.aten import ROWS, numbers
from unet_torch.reading.aten.numbers import Quotient
from unet_torch.reading.aten.views import unviewed
from unet_torch.reading.program import Constant, Held, Map, Program, UnreadableError

_IGNORED = frozenset(
    {
        *("device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "generator"),
        *("cudnn_enabled", "cudnn_enable", "implicit", "requires_grad"),
    }
)
"""Arguments that change nothing about the numbers."""

_RENAMED = {
    "self": "x",
    "input": "x",
    "other": "y",
    "tensors": "xs",
    "ord": "order",
    "p": "rate",
    "from": "low",
    "to": "high",
    "min": "low",
    "max": "high",
}
"""Names of arguments that Python, or a row's own, would be in the way of."""

_CHECKS = frozenset({"_assert_scalar", "_assert_tensor_metadata", "_assert_async"})
"""Operators that compute nothing; so do those whose names begin with `sym_constrain`."""


@dataclasses.dataclass(frozen=True)
class _Broken:
    """What no graph says; an error only where the output depends on it."""

    why: str


class _Cell:
    """What a value of the code is now: itself, or a view of another."""

    def __init__(self, value: Any, parent: "_Cell | None" = None, node: fx.Node | None = None) -> None:
        self.value = value
        self.parent = parent
        self.node = node
        self.source = None if parent is None else parent.value


class Translation:
    """An exported module that is written into a program.

    Args:
        exported: the module.
        held: its state_dict, by all the names that it has.
        values: of the tensors that are a part of the code, though they may stand in the state_dict.
        leaves: the paths of the modules that have no modules in them.
        program: to write to.
    """

    def __init__(
        self,
        exported: ExportedProgram,
        held: Mapping[str, Held],
        values: Mapping[str, torch.Tensor],
        leaves: Container[str],
        program: Program,
    ) -> None:
        self.exported = exported
        self.held = held
        self.values = values
        self.leaves = leaves
        self.p = program
        self.cells: dict[fx.Node, _Cell] = {}
        self.without_row: set[str] = set()

    def run(self) -> list[Any]:
        """What the module returns, flat: maps, and whatever else."""
        specs = {spec.arg.name: spec for spec in self.exported.graph_signature.input_specs}
        graph = self.exported.graph
        given = [self._given(specs[node.name]) for node in graph.nodes if node.op == "placeholder"]
        return self._run(self.exported.graph_module, [_Cell(value) for value in given])

    def require(self, value: Any) -> Map:
        """One of its outputs, for which every operation must be known.

        Raises:
            UnreadableError: code that no graph says.
        """
        if isinstance(value, _Broken):
            raise UnreadableError(
                f"operations that a graph does not have: {some(sorted(self.without_row), most=40)}"
                if self.without_row
                else value.why
            )
        return self.p.map(value)

    def _run(self, module: fx.GraphModule, given: list[_Cell]) -> list[Any]:
        cells = iter(given)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.cells[node] = next(cells)
            elif node.op == "get_attr":
                self.cells[node] = _Cell(getattr(module, node.target))
            elif node.op == "call_function":
                self.p.scope = self._scope(node)
                try:
                    self._call(node)
                except (UnreadableError, ValueError) as error:
                    why = str(error) if isinstance(error, UnreadableError) else f"{self.p.place}: {shown(error)}"
                    self.cells[node] = _Cell(_Broken(why))
        (last,) = (node for node in module.graph.nodes if node.op == "output")
        return [self._now(item) if isinstance(item, fx.Node) else item for item in tree_leaves(last.args[0])]

    def _given(self, spec: Any) -> Any:
        if spec.kind is InputKind.USER_INPUT:
            return self.p.picture
        if spec.target in self.values:
            return Constant(self.values[spec.target])
        if spec.target in self.held:
            return self.held[spec.target]
        return Constant(self.exported.constants[spec.target].detach())

    def _scope(self, node: fx.Node) -> tuple[str, bool]:
        """The innermost module that computes a node, and whether it has none in it."""
        stack = node.meta.get("nn_module_stack")
        if not stack:
            return self.p.scope
        path = list(stack.values())[-1][0]
        return ("", False) if path.startswith("_empty_nn_module_stack") else (path, path in self.leaves)

    def _now(self, node: fx.Node) -> Any:
        return self._current(self.cells[node])

    def _current(self, cell: _Cell) -> Any:
        if cell.parent is not None and cell.node is not None:
            source = self._current(cell.parent)
            if source is not cell.source:  # it was written to
                cell.value, cell.source = self._computed(cell.node, source), source
        return cell.value

    def _write(self, cell: _Cell, value: Any) -> None:
        if cell.parent is not None and cell.node is not None:
            base = self._current(cell.parent)
            arguments = [self._resolved(item) for item in cell.node.args[1:]]
            name = "getitem" if cell.node.target is operator.getitem else _name(cell.node.target)
            self._write(cell.parent, unviewed(self.p, name, base, arguments, value))
            cell.value, cell.source = value, self._current(cell.parent)
        elif isinstance(cell.value, Held):
            if cell.value.kind != "counter":
                raise UnreadableError(f"{self.p.place}: it writes to its tensor {shown(cell.value.name)}")
        else:
            cell.value = value

    def _call(self, node: fx.Node) -> None:
        target: Any = node.target
        first: Any = node.args[0] if node.args else None
        if isinstance(target, torch._ops.HigherOrderOperator):
            self.cells[node] = _Cell(self._inlined(target, *node.args))
            return
        if target is operator.getitem:
            self.cells[node] = _Cell(self._computed(node), self.cells[first], node)
            return
        schema = getattr(target, "_schema", None)
        in_place = schema is not None and bool(
            schema.arguments and schema.arguments[0].alias_info and schema.arguments[0].alias_info.is_write
        )
        if in_place:
            cell = self.cells[first]
            counts = isinstance(cell.value, Held) and cell.value.kind == "counter"
            self._write(cell, None if counts else self._computed(node))
            self.cells[node] = cell
            return
        aliases = schema is not None and bool(schema.returns and schema.returns[0].alias_info)
        parent = self.cells[first] if aliases and isinstance(first, fx.Node) else None
        self.cells[node] = _Cell(self._computed(node), parent, node)

    def _inlined(self, target: Any, *args: Any) -> Any:
        """A part of the code in which the gradient is switched on or off."""
        if target.__name__ != "wrap_with_set_grad_enabled":
            self.without_row.add(str(target))
            raise UnreadableError(f"{self.p.place}: {target}")
        enabled, part, *given = args
        answers = tuple(self._run(self._now(part), [self.cells[item] for item in given]))
        if self.p.training and not enabled and any(map(self.p.is_trained, answers)):
            raise UnreadableError(f"{self.p.place}: a part of it has no gradient")
        return answers

    def _resolved(self, item: Any) -> Any:
        return fx.node.map_arg(item, self._now)

    def _computed(self, node: fx.Node, first: Any = None) -> Any:
        """What a node of the code computes; with another first argument."""
        args = [self._resolved(item) for item in node.args]
        kwargs = {name: self._resolved(item) for name, item in node.kwargs.items()}
        if first is not None:
            args[0] = first
        broken = next((item for item in tree_leaves((args, kwargs)) if isinstance(item, _Broken)), None)
        if broken is not None:
            if isinstance(node.target, torch._ops.OpOverload) and not _is_known(node.target):
                self.without_row.add(str(node.target))
            return broken
        if node.target is operator.getitem:
            return args[0][args[1]]
        if numbers.known(node.target):
            return numbers.computed(node.target, tuple(args))
        if node.target is torch.ops.aten.sym_size.int:
            return args[0].shape[args[1]]
        name = _name(node.target)
        if _is_check(name):
            return None
        if _foldable(node.target, args, kwargs):
            return _folded(node.target, args, kwargs)
        if name not in ROWS:
            self.without_row.add(str(node.target))
            raise UnreadableError(f"{self.p.place}: {node.target}")
        return self._checked(node, ROWS[name](self.p, **self._bound(node.target, args, kwargs)))

    def _bound(self, target: Any, args: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by the names of the row; those that it does not take must not change anything."""
        takes = _parameters(_name(target))
        bound = {}
        for number, argument in enumerate(target._schema.arguments):
            default = argument.default_value if argument.has_default_value() else None
            value = args[number] if number < len(args) else kwargs.get(argument.name, default)
            name = _RENAMED.get(argument.name, argument.name)
            if name in takes:
                bound[name] = value
            elif argument.name not in _IGNORED and not (type(value) is type(default) and value == default):
                raise UnreadableError(f"{self.p.place}: {target} with {argument.name}={shown(value)}")
        return bound

    def _checked(self, node: fx.Node, value: Any) -> Any:
        """The output with torch's dtype; its sizes must be torch's own where the code was traced."""
        found = node.meta.get("val")
        if isinstance(value, tuple) and isinstance(found, list | tuple):
            return tuple(_typed(self.p, *pair) for pair in zip(value, found, strict=True))
        return _typed(self.p, value, found)


def _typed(p: Program, value: Any, found: Any) -> Any:
    if not isinstance(value, Map) or not isinstance(found, torch.Tensor):
        return value
    ours = tuple(map(p.hint, value.shape))
    theirs = tuple(size if isinstance(size, int) else size.node.hint for size in found.shape)
    if ours != theirs:
        raise UnreadableError(f"{p.place}: a map of {ours} that torch says is {theirs}")
    return dataclasses.replace(value, dtype=found.dtype) if value.dtype != found.dtype else value


def _name(target: Any) -> str:
    """The name of an operator, also of one that works in place."""
    name = str(target._schema.name).rpartition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _is_check(name: str) -> bool:
    return name in _CHECKS or name.startswith("sym_constrain")


def _is_known(target: Any) -> bool:
    return target is torch.ops.aten.sym_size.int or _name(target) in ROWS or _is_check(_name(target))


@cache
def _parameters(name: str) -> frozenset[str]:
    return frozenset(inspect.signature(ROWS[name]).parameters)


def _foldable(target: Any, args: Any, kwargs: Any) -> bool:
    """Whether it is computed from numbers that stand in the code alone."""
    if torch.Tag.nondeterministic_seeded in target.tags:
        return False
    return not any(isinstance(item, Map | Held | Size | Quotient) for item in tree_leaves((args, kwargs)))


def _folded(target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    args, kwargs = tree_map_only(Constant, lambda constant: constant.tensor.clone(), (args, kwargs))
    with torch.no_grad():
        return tree_map_only(torch.Tensor, Constant, target(*args, **kwargs))
