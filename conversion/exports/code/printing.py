"""The classes of a network: equal modules are one class, and what differs between them are its parameters."""

import keyword
import re
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from conversion.exports.code.beside import Beside
from conversion.exports.code.blocks import Block, Body, Chain, Construct, Group, Use, unused
from conversion.exports.code.forward import Forward, UnsizedError
from conversion.exports.code.language import Language, Made, UnprintableError
from conversion.exports.code.layout import class_of
from conversion.exports.code.tree import Path, Step, Tree
from unet_core.graph import Graph

_PLAIN = ("Sequential", "ModuleList", "")
"""Classes that only hold others."""


class Printer:
    """Makes the classes of a network.

    Args:
        graph: the network.
        called: what the class of a module is called in the network's own code, by its path; empty: nobody knows.
        title: what the network's own class is called.
        language: what they are written in.
        tensors: of the checkpoint.
    """

    def __init__(
        self,
        graph: Graph,
        called: Callable[[Path], str],
        title: str,
        language: Language,
        tensors: Mapping[str, np.ndarray],
    ) -> None:
        self.graph, self.called, self.title, self.language = graph, called, title, language
        opened: set[Path] = set()
        sized: set[Path] = set()
        while True:
            self.helpers: set[str] = set()
            self.groups: list[Group] = []
            self.tree = Tree(graph, opened, sized)
            self._beside = Beside(graph, self.tree, tensors) if language.renamed is None else None
            self._paths = self._children()
            self._again: dict[Path, list[Path]] = {}
            """By the path of a module with a class, the modules below it that stand elsewhere too."""
            for owner, path in () if self._beside is None else self._beside.second_names(self._class_around):
                self._again.setdefault(owner, []).append(path)
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
        return [class_of(group, self.language) for group in self.groups]

    def _children(self) -> dict[Path, list[str]]:
        """By the path of a module that has others in it, the names of these, in order."""
        found: dict[Path, list[str]] = {}
        kept = self.tree.layers.values() if self._beside is None else self._beside.kept
        for name, tensor in self.graph.tensors.items():
            path = tuple(name.split(".")[:-1])
            if tensor.same_as is None and path in kept:
                for depth in range(len(path)):
                    names = found.setdefault(path[:depth], [])
                    if path[depth] not in names:
                        names.append(path[depth])
        return found

    def _class_around(self, path: Path) -> Path:
        """The innermost module around it that has a class of its own, with names in it."""
        return next(
            path[:depth]
            for depth in range(len(path), -1, -1)
            if not depth or not all(map(str.isdigit, self._paths[path[:depth]]))
        )

    def _block(self, path: Path) -> Block:
        attributes: dict[str, Construct] = {}
        forward, sequence = None, None
        if path in self.tree.closed and path and all(name.isdigit() for name in self._paths[path]):
            chain = self._chain(path)
            sequence = None if chain is None else Chain(tuple(chain), called=True)
        if sequence is None:
            attributes = {self._attribute(name): self._construct((*path, name)) for name in self._paths[path]}
            attributes |= self._attributes_beside(path)
        if sequence is None and path in self.tree.closed:
            try:
                attribute = partial(self._reached, path)
                found = Forward(self.tree, path, attribute, self._is_typed, self.language, self.helpers)
                forward = Body(tuple(found.arguments), tuple(found.lines), len(found.outputs), found.shapes)
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

    def _attributes_beside(self, path: Path) -> Mapping[str, Construct]:
        """What a module has beside its layers."""
        if self._beside is None:
            return {}
        found = dict(self._beside.attributes(path))
        for top in self._again.get(path, ()):
            text = self._beside.again(top, lambda of: self._reached(path, of), self.called)
            found[self._reached(path, top).removeprefix("self.")] = Made((text,))
        return found

    def _construct(self, path: Path) -> Construct:
        unused = None if self._beside is None else self._beside.unused(path)
        if unused is not None:
            self.helpers.add(unused.helper)
            return unused
        if path not in self._paths:
            node = next(node for node in self.graph.nodes if self.tree.layers.get(node.name) == path)
            made = self.language.layer(self.graph, node)
            self.helpers |= {made.helper} - {""}
            return made
        digits = all(name.isdigit() for name in self._paths[path])
        if digits and self.called(path) in _PLAIN:
            chain = self._chain(path) if path in self.tree.closed else None
            if chain is not None:
                return Chain(tuple(chain), called=True)
            if path in self.tree.closed:
                raise _OpenError(path)
            names = tuple(self._paths[path]) if self._is_mapping(path) else ()
            return Chain(tuple(self._items(path)), called=False, names=names)
        return Use(self._block(path))

    def _is_mapping(self, path: Path) -> bool:
        """Whether a list lacks some of its numbers, and nothing can stand there."""
        names = self._paths[path]
        return not self.language.gap and names != [str(number) for number in range(len(names))]

    def _is_typed(self, path: Path) -> bool:
        """Whether what calling a module answers has a type: in Flax, not that of a sequence, or of one in a list."""
        sequence = all(name.isdigit() for name in self._paths.get(path, ("",)))
        return self.language.typed and not sequence and not path[-1].isdigit()

    def _items(self, path: Path) -> list[Construct]:
        """Those in a list, each at its own place where something can stand between them."""
        items: list[Construct] = []
        for name in self._paths[path]:
            while self.language.gap and len(items) < int(name):
                items.append(Made((self.language.gap,)))
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
                items.append(Made((self.language.nothing,)))
            if step.path is not None and (place is None or len(items) != place):
                return None
            if step.path is not None and len(step.path) != len(path) + 1:
                return None
            item = self._construct(step.path) if step.path is not None else self._function(path, step)
            if item is None:
                return None
            items.append(item)
        whole = len({step.path for step in steps if step.path is not None}) == len(self._paths[path])
        return items if whole and self.tree.outputs_of(path) == before else None

    def _function(self, path: Path, step: Step) -> Made | None:
        """An operation in a chain; None where none can hold it."""
        forward = Forward.__new__(Forward)
        forward.graph, forward.language, forward.helpers = self.graph, self.language, self.helpers
        forward.steps, forward.inputs, forward._named = [step], step.inputs, {step.inputs[0]: "x"}
        forward._last, forward._now = {step.inputs[0]: 0}, 0
        try:
            text = self.language.expression(forward, step.node, ["x"] * len(step.node.inputs))
        except (UnsizedError, KeyError) as error:
            raise _OpenError(path) from error
        entry = self.language.entry(text)
        return None if entry is None else Made((entry,))

    def _reached(self, path: Path, of: Path) -> str:
        """How a module is reached from another above it."""
        text = "self"
        for depth in range(len(path), len(of)):
            name = of[depth]
            if not name.isdigit() or depth == len(path):
                text += f".{self._attribute(name)}"
            else:
                text += f'["{name}"]' if self._is_mapping(of[:depth]) else f"[{name}]"
        return text

    def _attribute(self, name: str) -> str:
        """What an attribute is called."""
        renamed, word = self.language.renamed, keyword.iskeyword(name)
        if not name.isidentifier() or (renamed is None and word):
            raise UnprintableError(f"a module called {name!r}")
        return f"{name}_" if renamed is not None and (word or name in renamed or name.endswith("_")) else name

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
