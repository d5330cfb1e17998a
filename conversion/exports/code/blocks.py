"""The blocks of a network, how their attributes are made, and which of them are of one class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conversion.exports.code.language import Hole, Made
from conversion.exports.code.tree import Path


@dataclass(frozen=True)
class Chain:
    """Several, called one after the other, or kept in a list."""

    items: "tuple[Construct, ...]"
    called: bool
    names: tuple[str, ...] = ()
    """Of a list that is a mapping."""


@dataclass(frozen=True)
class Use:
    """An instance of a class of the file."""

    block: "Block"


Construct = Made | Chain | Use
"""How an attribute is made."""


@dataclass(frozen=True)
class Body:
    """What a block computes, as Python."""

    arguments: tuple[str, ...]
    lines: tuple[str, ...]
    answers: int
    """How many values it answers."""
    shapes: Mapping[int, str]
    """By the number of a line, the shape of what it computes, in this block."""


@dataclass(eq=False)
class Block:
    """A module that is of a class of its own."""

    path: Path
    attributes: dict[str, Construct]
    forward: Body | None
    """None: it only holds others, or is a sequence."""
    sequence: Chain | None = None
    """What it calls one after the other, where that is all."""
    group: "Group" = field(init=False)

    @property
    def body(self) -> tuple[object, ...]:
        """What equal blocks have in common."""
        made = tuple((name, _shape(construct)) for name, construct in self.made.items())
        lines = () if self.forward is None else (*self.forward.arguments, *self.forward.lines)
        return made, lines

    @property
    def made(self) -> dict[str, Construct]:
        """How its attributes are made, or what it calls."""
        return self.attributes if self.sequence is None else {"": self.sequence}

    def holes(self) -> list[Hole]:
        """The numbers that may differ between the blocks of a class, in order."""
        return [hole for construct in self.made.values() for hole in holes_of(construct)]


@dataclass(eq=False)
class Group:
    """The blocks of one class."""

    name: str
    blocks: list[Block] = field(default_factory=list)

    def parameters(self) -> tuple[list[str], list[int | None]]:
        """The names of its parameters, and for every hole the number of its parameter; None where it is a constant."""
        columns = list(zip(*(tuple(hole.value for hole in block.holes()) for block in self.blocks), strict=True))
        hints = [hole.hint for hole in self.blocks[0].holes()]
        known: dict[tuple[int, ...], int] = {}
        names: list[str] = []
        places: list[int | None] = []
        for column, hint in zip(columns, hints, strict=True):
            if len(set(column)) == 1:
                places.append(None)
                continue
            if column not in known:
                known[column] = len(names)
                names.append(unused(hint, names))
            places.append(known[column])
        if "in_channels" in names and "out_channels" not in names and "channels" not in names:
            names[names.index("in_channels")] = "channels"
        return names, places

    def arguments(self, block: Block) -> list[Hole]:
        """What a block is made with."""
        names, places = self.parameters()
        holes = block.holes()
        return [Hole(holes[places.index(number)].value, name) for number, name in enumerate(names)]


def _shape(construct: Construct) -> object:
    if isinstance(construct, Made):
        return tuple(type(part).__name__ if isinstance(part, Hole) else part for part in construct.parts)
    if isinstance(construct, Use):
        return id(construct.block.group)
    return construct.called, construct.names, tuple(map(_shape, construct.items))


def holes_of(construct: Construct) -> list[Hole]:
    """The numbers in it that may differ."""
    if isinstance(construct, Made):
        return [part for part in construct.parts if isinstance(part, Hole)]
    if isinstance(construct, Use):
        return construct.block.group.arguments(construct.block)
    return [hole for item in construct.items for hole in holes_of(item)]


def unused(name: str, taken: Sequence[str]) -> str:
    """The name, or with a number where it is taken."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}{count}"
    return found
