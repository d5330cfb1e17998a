"""The classes of a network: equal modules are one class, and what differs between them are its parameters."""

import keyword
import re
from collections.abc import Callable

from conversion.exports.code.blocks import Block, Body, Chain, Construct, Group, Use, unused
from conversion.exports.code.flax_layers import Made, UnprintableError, layer
from conversion.exports.code.flax_table import expression
from conversion.exports.code.forward import Forward, UnsizedError
from conversion.exports.code.layout import class_of
from conversion.exports.code.tree import Path, Step, Tree
from unet_core.graph import Graph

_TAKEN = frozenset(
    ["rngs", "layers", "train", "eval", "sow", "perturb", "set_attributes", "iter_modules", "iter_children"]
)
"""Names of attributes that Flax's modules have; those of the network get a `_` behind."""
_PLAIN = ("Sequential", "ModuleList", "")
"""Classes that only hold others."""


class Printer:
    """Makes the classes of a network.

    Args:
        graph: the network.
        called: what the class of a module is called in the network's own code, by its path; empty: nobody knows.
        title: what the network's own class is called.
    """

    def __init__(self, graph: Graph, called: Callable[[Path], str], title: str) -> None:
        self.graph, self.called, self.title = graph, called, title
        opened: set[Path] = set()
        sized: set[Path] = set()
        while True:
            self.helpers: set[str] = set()
            self.groups: list[Group] = []
            self.tree = Tree(graph, opened, sized)
            self._paths = self._children()
            try:
                self.root = self._block(())
                break
            except _OpenError as error:
                found = sized if isinstance(error, _UnsizedError) else opened
                if not error.path or error.path in found:
                    name = ".".join(error.path) or "the network"
                    raise UnprintableError(f"{name}, whose sizes none of its values has") from error
                found.add(error.path)

    def classes(self) -> list[list[str]]:
        """The lines of every class, each behind those that it uses."""
        return [class_of(group) for group in self.groups]

    def _children(self) -> dict[Path, list[str]]:
        """By the path of a module that has others in it, the names of these, in order."""
        found: dict[Path, list[str]] = {}
        for name, tensor in self.graph.tensors.items():
            path = tuple(name.split(".")[:-1])
            if tensor.same_as is None and path in self.tree.layers.values():
                for depth in range(len(path)):
                    names = found.setdefault(path[:depth], [])
                    if path[depth] not in names:
                        names.append(path[depth])
        return found

    def _block(self, path: Path) -> Block:
        attributes: dict[str, Construct] = {}
        forward, sequence = None, None
        if path in self.tree.closed and path and all(name.isdigit() for name in self._paths[path]):
            chain = self._chain(path)
            sequence = None if chain is None else Chain(tuple(chain), called=True)
        if sequence is None:
            attributes = {_attribute(name): self._construct((*path, name)) for name in self._paths[path]}
        if sequence is None and path in self.tree.closed:
            try:
                found = Forward(self.tree, path, lambda of: self._reached(path, of), self.helpers)
                forward = Body(tuple(found.arguments), tuple(found.lines), len(found.outputs))
            except UnsizedError as error:
                raise _UnsizedError(path) from error
        block = Block(path, attributes, forward, sequence)
        for group in self.groups:
            if group.blocks[0].body == block.body and group.name.rstrip("0123456789") == self._name(path):
                break
        else:
            group = Group(unused(self._name(path), [one.name for one in self.groups]))
            self.groups.append(group)
        block.group = group
        group.blocks.append(block)
        return block

    def _construct(self, path: Path) -> Construct:
        if path not in self._paths:
            node = next(node for node in self.graph.nodes if self.tree.layers.get(node.name) == path)
            made = layer(self.graph, node)
            self.helpers |= {made.helper} - {""}
            return made
        digits = all(name.isdigit() for name in self._paths[path])
        if digits and self.called(path) in _PLAIN:
            chain = self._chain(path) if path in self.tree.closed else None
            if chain is not None:
                return Chain(tuple(chain), called=True)
            if path in self.tree.closed:
                raise _OpenError(path)
            return Chain(tuple(self._items(path)), called=False)
        return Use(self._block(path))

    def _items(self, path: Path) -> list[Construct]:
        """Those in a list, each at its own place."""
        items: list[Construct] = []
        for name in self._paths[path]:
            while len(items) < int(name):
                items.append(Made(("None",)))
            items.append(self._construct((*path, name)))
        return items

    def _chain(self, path: Path) -> list[Construct] | None:
        """The modules and functions that are called one after the other; None where it is no such chain."""
        steps = self.tree.steps(path)
        items: list[Construct] = []
        before = self.tree.inputs_of(path)
        for step in steps:
            if step.inputs != before or len(step.outputs) != 1 or len(before) != 1:
                return None
            before = step.outputs
            place = _place(step, path)
            if place and not items:
                return None
            while place is not None and len(items) < place:
                items.append(Made(("lambda x: x",)))
            if step.path is not None and (place is None or len(items) != place):
                return None
            if step.path is not None and len(step.path) != len(path) + 1:
                return None
            items.append(self._construct(step.path) if step.path is not None else self._function(path, step))
        return items if self.tree.outputs_of(path) == before else None

    def _function(self, path: Path, step: Step) -> Made:
        forward = Forward.__new__(Forward)
        forward.graph, forward.helpers = self.graph, self.helpers
        forward.steps, forward.inputs, forward._named = [step], step.inputs, {step.inputs[0]: "x"}
        forward._last, forward._now = {step.inputs[0]: 0}, 0
        try:
            text = expression(forward, step.node, ["x"] * len(step.node.inputs))
        except (UnsizedError, KeyError) as error:
            raise _OpenError(path) from error
        plain = re.fullmatch(r"([\w.]+)\(x\)", text)
        return Made((plain[1] if plain else f"lambda x: {text}",))

    def _reached(self, path: Path, of: Path) -> str:
        """How a module is reached from another above it."""
        text = "self"
        for depth in range(len(path), len(of)):
            name = of[depth]
            text += (
                f"[{name}]"
                if name.isdigit() and depth > len(path) and self._is_list(of[:depth])
                else (f".{_attribute(name)}")
            )
        return text

    def _is_list(self, path: Path) -> bool:
        return all(name.isdigit() for name in self._paths[path]) and self.called(path) in _PLAIN

    def _name(self, path: Path) -> str:
        """Of a class."""
        if not path:
            return self.title
        called = self.called(path)
        if called and called not in _PLAIN:
            return called
        words = [part for part in path if not part.isdigit()]
        stem = re.sub(r"[_\d]+$", "", words[-1]) if words else ""
        return "".join(word[:1].upper() + word[1:] for word in stem.split("_")) or "Block"


class _OpenError(Exception):
    """A module that cannot be a class that is called."""

    def __init__(self, path: Path) -> None:
        self.path = path


class _UnsizedError(_OpenError):
    """A module that does not know the picture's size, and needs it."""


def _place(step: Step, path: Path) -> int | None:
    """The place of a step in a module whose parts are numbered."""
    name = step.path or tuple(step.node.name.partition("#")[0].split("."))
    part = name[len(path)] if len(name) > len(path) and name[: len(path)] == path else ""
    return int(part) if part.isdigit() else None


def _attribute(name: str) -> str:
    """What an attribute is called."""
    if not name.isidentifier():
        raise UnprintableError(f"a module called {name!r}")
    return f"{name}_" if name in _TAKEN or name.endswith("_") or keyword.iskeyword(name) else name
