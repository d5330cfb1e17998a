"""The body of a class's `__call__`: the steps of a module as lines, with names for what several of them take."""

import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from conversion.exports.code.language import Language
from conversion.exports.code.tree import WIDTH, Path, Step, Tree
from unet_core.graph import INPUT, Graph
from unet_core.graph.sizes import Dim, Size, named

_DEEPEST = 2
"""Calls in one another, beside the outermost."""
_OPERATORS = frozenset({"add", "subtract", "multiply", "divide", "slice"})


class UnsizedError(Exception):
    """A module that does not know a size that it needs; one around it does."""


@dataclass
class Forward:
    """What a module computes, as Python.

    Args:
        tree: of the network.
        path: the module.
        attribute: how a layer or another module below it is reached, of its path.
        typed: whether what that answers has a type.
    """

    tree: Tree
    path: Path
    attribute: Callable[[Path], str]
    typed: Callable[[Path], bool]
    language: Language
    helpers: set[str]
    """The functions of the file's own that are called; more are added."""
    lines: list[str] = field(default_factory=list)
    shapes: dict[int, str] = field(default_factory=dict)
    """By the number of a line, the shape of what it computes; empty where that is several."""
    arguments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph: Graph = self.tree.graph
        self.steps = self.tree.steps(self.path)
        self.inputs = self.tree.inputs_of(self.path)
        self.outputs = self.tree.outputs_of(self.path)
        self._uses: dict[str, list[int]] = {}
        for number, step in enumerate(self.steps):
            for name in step.inputs:
                self._uses.setdefault(name, []).append(number)
        for name in self.outputs:
            self._uses.setdefault(name, []).append(len(self.steps))
        self._named: dict[str, str] = {}
        """What each value in use is called."""
        self._last = {name: max(numbers) for name, numbers in self._uses.items()}
        """The last step that takes each value, before any asks for its size."""
        self._references = [self._referred(number) for number in range(len(self.steps))]
        for number, found in enumerate(self._references):
            for name in found:
                self._uses.setdefault(name, []).append(number)
        self._inlined: dict[str, tuple[str, int]] = {}
        """The expressions of values that are written where they are taken, and how deep they are."""
        self._write()

    def _write(self) -> None:
        for number, name in enumerate(self.inputs):
            self._named[name] = self._argument(number, name)
        self.arguments = [self._named[name] for name in self.inputs]
        for number, step in enumerate(self.steps):
            text, depth = self._text(number, step)
            last = number == len(self.steps) - 1
            if last and step.outputs == self.outputs:
                if step.path is not None and not self.typed(step.path):
                    self.lines.append(f"{self.arguments[0]} = {text}")
                    text = self.arguments[0]  # which has one
                self.lines.append(f"return {text}")
                return
            if self._is_inlined(number, step, text, depth):
                self._inlined[step.outputs[0]] = text, depth
                continue
            targets: list[str] = []
            for name in step.outputs:
                targets.append(self._target(number, name, step, targets))
            self._named |= dict(zip(step.outputs, targets, strict=True))
            self.shapes[len(self.lines)] = self._shape(step)
            self.lines.append(f"{', '.join(targets)} = {text}")
        self.lines.append(f"return {', '.join(self._value(name)[0] for name in self.outputs)}")

    def _shape(self, step: Step) -> str:
        """Of what is computed in a line."""
        if len(step.outputs) > 1:
            return ""
        lengths = map(str, self.language.shape(self.graph.shapes[step.outputs[0]]))
        shape = ", ".join(re.sub(r"^[(]((?:.+|[(].+[)]) // [0-9]+)[)]$", r"\1", length) for length in lengths)
        for axis, letter in (("batch", "n"), ("depth", "d"), ("height", "h"), ("width", "w")):
            shape = shape.replace(axis, letter)
        return f"[{shape}]"

    def _text(self, number: int, step: Step) -> tuple[str, int]:
        given = [self._value(name) for name in step.inputs]
        depth = max((of for _, of in given), default=0) + 1
        if step.path is not None:
            return f"{self.attribute(step.path)}({', '.join(text for text, _ in given)})", depth
        by_name = dict(zip(step.inputs, given, strict=True))
        inputs = [by_name[name][0] for name in step.node.inputs]
        self._now = number
        return self.language.expression(self, step.node, inputs), depth

    def _value(self, name: str) -> tuple[str, int]:
        """How a value is written where it is taken, and how deep that is."""
        return self._inlined.pop(name) if name in self._inlined else (self._named[name], 0)

    def _is_inlined(self, number: int, step: Step, text: str, depth: int) -> bool:
        """Whether a value is written where it is taken: once, by the next step, in a line that one can read."""
        if len(step.outputs) != 1 or self._uses[step.outputs[0]] != [number + 1] or number + 1 == len(self.steps):
            return False
        follower = self.steps[number + 1]
        operates = follower.path is None and follower.node.operation in _OPERATORS
        if operates and step.path is None and step.node.operation in _OPERATORS:
            return False
        if self._references[number + 1] and step.outputs[0] in follower.inputs and step.path is None:
            return False
        return depth <= _DEEPEST and len(text) < WIDTH // 2 and not step.called

    def _argument(self, number: int, name: str) -> str:
        if len(self.inputs) == 1 or number == 0:
            return "x"
        if name == INPUT:
            return "picture"
        return "skip" if len(self.inputs) == 2 else f"skip{number}"

    def _target(self, number: int, name: str, step: Step, others: Sequence[str]) -> str:
        """What a value is called: x, while no other is; else by what computes it."""
        last = max(self._uses[name])
        busy = {
            self._named[other] for other in self._named if other != name and max(self._uses.get(other, [-1])) > number
        } | set(others)
        if last <= number + 1 and len(step.outputs) == 1:
            for short in ("x", "y"):
                if short not in busy:
                    return short
        wanted = _identifier(step.path[-1], step) if step.path is not None else "skip"
        if len(step.outputs) > 1:
            wanted = f"{wanted}_{step.outputs.index(name) + 1}"
        taken, free, count = busy | set(self._named.values()) | {"x", "y"}, wanted, 1
        while free in taken or keyword.iskeyword(free):
            count += 1
            free = f"{wanted}{count}"
        return free

    def sizes(self, dims: Sequence[Dim]) -> str:
        """See `conversion.exports.code.language.Scope`."""
        found = self._whole(tuple(dims), self._candidates(self._now))
        if found is not None:
            name, _ = found
            return f"{self._named[name]}.shape[{'1:-1' if self.language.channels_last else '2:'}]"
        written = [self._dim(dim, self._now) for dim in dims]
        return f"({', '.join(written)}{',' if len(written) == 1 else ''})"

    def helper(self, name: str) -> str:
        """See `conversion.exports.code.language.Scope`."""
        self.helpers.add(name)
        return name

    def _referred(self, number: int) -> list[str]:
        """The values whose sizes a step names."""
        step = self.steps[number]
        if step.path is not None:
            return []
        dims = list(_dims(step.node.attributes.values()))
        if step.node.operation == "interpolate":
            dims = list(_interpolated(self.graph, step))
        if not any(isinstance(dim, Size) for dim in dims):
            return []
        candidates = self._candidates(number)
        whole = self._whole(tuple(dims), candidates)
        if whole is not None:
            return [whole[0]]
        found: list[str] = []
        for dim in dims:
            self._dim(dim, number, found)
        return found

    def _candidates(self, number: int) -> list[str]:
        """The values that a step may ask for their sizes: those that are there, what lives longest first."""
        there = [*self.inputs, *(name for step in self.steps[:number] for name in step.outputs)]
        return sorted(there, key=lambda name: (-self._last.get(name, -1), there.index(name)))

    def _whole(self, dims: tuple[Dim, ...], candidates: Sequence[str]) -> tuple[str, int] | None:
        """The value whose height and width these are."""
        for number, name in enumerate(candidates):
            shape = self.graph.shapes[name]
            if len(shape) == self.graph.dimensions + 2 and shape[2:] == dims:
                return name, number
        return None

    def _dim(self, dim: Dim, number: int, found: list[str] | None = None) -> str:
        """A size by those of the values that are there."""
        if not isinstance(dim, Size):
            return str(dim)
        known = self._known(number)
        for factor in (1, 2, 4, 8, 16, 32):
            for size, (name, axis) in known.items():
                if size * factor == dim:
                    if found is not None:
                        found.append(name)
                    text = f"{self._named.get(name, name)}.shape[{axis}]"
                    return text if factor == 1 else f"{factor} * {text}"
        terms = []
        for atoms, times in dim.terms:
            parts = [self._atom(atom, number, found) for atom in atoms]
            if abs(times) != 1 or not parts:
                parts.insert(0, str(abs(times)))
            terms.append(("-" if times < 0 else "+", " * ".join(parts)))
        text = " ".join(f"{sign} {term}" for sign, term in terms)
        return text.removeprefix("+ ")

    def _atom(self, atom: Any, number: int, found: list[str] | None) -> str:
        if isinstance(atom, str):
            if named(atom) not in self._known(number):
                raise UnsizedError(atom)
            return self._dim(named(atom), number, found)
        name, one, other = atom
        if name != "//":
            return f"{name}({self._dim(one, number, found)}, {self._dim(other, number, found)})"
        parts = [self._dim(part, number, found) for part in (one, other)]
        wrapped = [f"({part})" if re.search(r" [-+*] ", part) else part for part in parts]
        return f"({wrapped[0]} // {wrapped[1]})"

    def _known(self, number: int) -> dict[Size, tuple[str, int]]:
        found: dict[Size, tuple[str, int]] = {}
        for name in self._candidates(number):
            shape = self.graph.shapes[name]
            if len(shape) != self.graph.dimensions + 2:
                continue
            for axis, size in enumerate(shape):
                if isinstance(size, Size) and axis != 1:
                    found.setdefault(size, (name, self.language.axis(axis, len(shape))))
        return found


def _dims(values: object) -> list[Dim]:
    """All sizes in attributes, however deep."""
    if isinstance(values, int | Size) and not isinstance(values, bool):
        return [values]
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        return []
    return [dim for value in values for dim in _dims(value)]


def _interpolated(graph: Graph, step: Step) -> tuple[Dim, ...]:
    """The size to which a step interpolates."""
    return graph.shapes[step.node.name][2:]


def _identifier(part: str, step: Step) -> str:
    """A name for a value, after a part of a module's name."""
    if part.isdigit() and step.path is not None and len(step.path) > 1:
        part = f"{step.path[-2]}{part}"
    found = re.sub(r"\W", "_", part)
    return f"{found}_" if found[:1].isdigit() or keyword.iskeyword(found) else found.lower()
