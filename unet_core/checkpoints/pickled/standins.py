"""What stands for the objects of a pickle whose classes are not run, and how far plain values may be nested."""

from collections.abc import Iterator
from typing import Any

DEEPEST = 100
MOST_VALUES = 10_000_000


class Inert:
    """Stands for an object, a class or a function: what it is called and was given, and nothing that it would do.

    Two of them are equal where they are one.
    """

    __slots__ = ("args", "entries", "items", "kwargs", "made", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = (), kwargs: Any = None, *, made: bool = False) -> None:
        self.name, self.args, self.kwargs, self.made = name, args, kwargs, made
        self.state: Any = None
        """What its class would have been given to restore it."""
        self.entries: list[Any] = []
        """What was appended to it."""
        self.items: dict[Any, Any] = {}
        """What was put into it under a key."""

    def __repr__(self) -> str:
        return f"<{'an inert ' * self.made}{self.name}>"

    @property
    def kind(self) -> str:
        """Its class, without the module."""
        return self.name.rpartition(".")[2]

    @property
    def attributes(self) -> dict[Any, Any]:
        """Those of the object, as far as its state is a dict, or a pair of dicts as of a class with slots."""
        parts = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else (self.state,)
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


class Dict(dict[Any, Any]):
    """A dict of a class of its own, such as an OrderedDict."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.state: Any = None
        """Its attributes, such as the `_metadata` of a state_dict."""


class _Frame:
    """A value half-way through its parts."""

    __slots__ = ("depth", "parts", "size", "value")

    def __init__(self, value: Any) -> None:
        self.value, self.depth, self.size = value, 0, 1
        self.parts: Iterator[Any] = _parts(value) if isinstance(value, dict) else iter(value)

    def add(self, depth: int, size: int) -> None:
        self.depth, self.size = max(self.depth, depth + 1), self.size + size


def measure(value: object) -> None:
    """Refuse plain values that are nested deeper, or hold more, than any checkpoint's; an `Inert` is not looked into.

    A part that is shared counts every time: whoever walks through such a value meets it as often.

    Raises:
        ValueError: so they are; or one holds itself.
    """
    known: dict[int, tuple[int, int]] = {}
    frames = [_Frame([value])]
    inside: set[int] = set()
    while frames:
        frame = frames[-1]
        for part in frame.parts:
            if not isinstance(part, list | tuple | dict | set) or not part:
                frame.add(0, 1)
            elif id(part) in known:
                frame.add(*known[id(part)])
            elif id(part) in inside:
                raise ValueError("something in it holds itself")
            else:
                inside.add(id(part))
                frames.append(_Frame(part))
                break
        else:
            if frame.depth > DEEPEST or frame.size > MOST_VALUES:
                raise ValueError("it is nested deeper, or holds more values, than any checkpoint's")
            frames.pop()
            inside.discard(id(frame.value))
            known[id(frame.value)] = frame.depth, frame.size
            if frames:
                frames[-1].add(frame.depth, frame.size)


def _parts(value: dict[Any, Any]) -> Iterator[Any]:
    for key, entry in value.items():
        yield key
        yield entry
