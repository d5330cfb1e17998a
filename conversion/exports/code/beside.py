"""What a checkpoint has beside the layers of its network: second names of modules, and tensors that nothing takes."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np

from conversion.exports.code.blocks import Construct
from conversion.exports.code.language import Made, UnprintableError
from conversion.exports.code.tree import Path, Tree
from unet_core.graph import Graph, Tensor


class Beside:
    """Of a network whose names all have to be there.

    Args:
        graph: the network.
        tree: its modules.
        tensors: of its checkpoint, for their dtypes.
    """

    def __init__(self, graph: Graph, tree: Tree, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.layers = frozenset(tree.layers.values())
        self._own: dict[Path, dict[str, Tensor]] = {}
        """By the path of a module, its own tensors."""
        for name, tensor in graph.tensors.items():
            *path, last = name.split(".")
            self._own.setdefault(tuple(path), {})[last] = tensor
        self._same = {path: same for path, own in self._own.items() if (same := self._shared(path, own)) is not None}
        self.kept = [path for path in self._own if path not in self._same]
        """The modules that have tensors of their own."""
        self._modules = {path[:depth] for path in self.kept for depth in range(len(path) + 1)}

    def _shared(self, path: Path, own: Mapping[str, Tensor]) -> Path | None:
        """The module that one without layers is, under a second name."""
        firsts = [tensor.same_as for tensor in own.values() if tensor.same_as is not None]
        if path in self.layers or not firsts:
            return None
        (*first, _), *_ = (name.split(".") for name in firsts)
        if [".".join([*first, name]) for name in own] != firsts:
            raise UnprintableError(f"{'.'.join(path)}, some of whose tensors are those of another module")
        return tuple(first)

    @cached_property
    def _second(self) -> dict[Path, set[str]]:
        """By path, the names below it, of all modules."""
        found: dict[Path, set[str]] = {}
        for path in self._own:
            for depth, name in enumerate(path):
                found.setdefault(path[:depth], set()).add(name)
        return found

    def _is(self, path: Path) -> Path | None:
        """The module that this one is: every layer below it has a second name there, and there is no other."""
        if path in self._own:
            return self._same.get(path)
        below = self._layers_below(path)
        for rest in sorted(below):
            first = self._same.get((*path, *rest), ())
            if len(first) > len(rest) and first[-len(rest) :] == rest:
                there = first[: -len(rest)]
                same = all(self._first((*path, *rest)) == self._first((*there, *rest)) for rest in below)
                return there if same and self._layers_below(there) == below else None
        return None

    def _first(self, path: Path) -> Path:
        return self._same.get(path, path)

    def _layers_below(self, path: Path) -> set[Path]:
        """The rest of the paths of all with tensors below a module."""
        return {of[len(path) :] for of in self._own if of[: len(path)] == path}

    def second_names(self, owner: Callable[[Path], Path]) -> Iterator[tuple[Path, Path]]:
        """Modules that stand elsewhere too, each with the module that has to make it so.

        Args:
            owner: the innermost module with a class around another.
        """
        tops = dict.fromkeys(
            next(path[:depth] for depth in range(len(path) + 1) if path[:depth] not in self._modules)
            for path in self._same
        )
        for top in tops:
            together = top[:-1]
            for path, same in self._same.items():
                while path[: len(top)] == top and same[: len(together)] != together:
                    together = together[:-1]
            yield owner(together), top

    def again(self, path: Path, reached: Callable[[Path], str], called: Callable[[Path], str]) -> str:
        """A module under a second name, as an expression."""
        same = self._is(path)
        if same is not None:
            return reached(same)
        names = sorted(self._second[path], key=lambda name: (len(name), name))
        parts = {name: self.again((*path, name), reached, called) for name in names}
        if not all(map(str.isdigit, names)):
            return f"nn.ModuleDict({{{', '.join(f'{name!r}: {part}' for name, part in parts.items())}}})"
        items = ", ".join(parts.get(str(number), "nn.Identity()") for number in range(int(names[-1]) + 1))
        return f"nn.Sequential({items})" if called(path) == "Sequential" else f"nn.ModuleList([{items}])"

    def unused(self, path: Path) -> Made | None:
        """A module whose tensors nothing takes; None: it is none."""
        if path in self.layers or path not in self._own or path in self._second:
            return None
        given = [f"{name}={self._made(path, name)}" for name in self._own[path]]
        return Made((f"Unused({', '.join(given)})",), "Unused")

    def attributes(self, path: Path) -> Mapping[str, Construct]:
        """Tensors that nothing takes, of a module that has others in it."""
        if path in self.layers or path not in self._second:
            return {}
        made = {name: self._made(path, name) for name in self._own.get(path, {})}
        return {
            name: Made((f"nn.Parameter(torch.zeros({text}))" if text.startswith("(") else f"nn.Buffer({text})",))
            for name, text in made.items()
        }

    def _made(self, path: Path, name: str) -> str:
        """Of a parameter the shape, and of a buffer zeros."""
        tensor, whole = self._own[path][name], ".".join([*path, name])
        if tensor.kind == "parameter":
            return str(tensor.shape)
        dtype = self.tensors[whole].dtype
        return f"torch.zeros({tensor.shape}{'' if dtype.kind in 'fV' else f', dtype=torch.{dtype}'})"
