"""Reads the text of a program compiled for TPUs: what crosses between chips, and what every operation moves."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
"""Operations that move nothing, or whose parts are counted."""
_CONTROL = {"while", "conditional", "call", "async-start"}
"""Operations whose parts run as operations of their own; a fusion's are one."""

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"\b(?:body|condition|calls|to_apply|\w+_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)
_BUFFER = re.compile(r"\b([a-z]\w*)\[([\d,<= ]*)\](?:\{([\d,]*):?([^{}]*)\})?")
_FRAME = re.compile(r"(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}")
_LOCATION = re.compile(r"(\d+) \{file_name_id=(\d+) .*?\bline=(\d+) ")


class Buffer(NamedTuple):
    """One array of the program."""

    size: int
    """Bytes of its elements."""
    held: int
    """Bytes with the padding of its layout."""
    on_chip: bool
    """It lies in the chip's fast memory."""


class Instruction(NamedTuple):
    """One line of the program."""

    name: str
    shape: str
    opcode: str
    reads: tuple[str, ...]
    """The shapes of its operands."""
    rest: str
    """What follows them."""

    @property
    def called(self) -> list[str]:
        """The computations that it runs; of a choice's, the one where the condition holds."""
        found = _CALLED.findall(self.rest)
        names = [name for one, several in found for name in (one, *re.findall(r"[\w.\-]+", several)) if name]
        if self.opcode == "conditional":
            return names[-1:] if "branch_computations=" in self.rest else names[:1]
        return names

    @property
    def trips(self) -> int:
        """How often it runs them, as far as the compiler knows."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.rest) if self.opcode == "while" else None
        return int(found[1]) if found else 1


class Collective(NamedTuple):
    """All operations of one kind across chips."""

    operations: int
    size: int
    """Bytes that each chip puts in."""


class Move(NamedTuple):
    """What an operation moves between memory and the chip, at most: what it reads a part of counts whole."""

    name: str
    """In the text."""
    opcode: str
    makes: str
    reads: tuple[str, ...]
    """The operands in memory of a megabyte and more."""
    held: int
    """Bytes, with the padding of the layouts."""
    size: int
    """Bytes without."""
    cycles: int
    """That the compiler expects it to take; 0 where it does not say."""
    what: str
    """The operation of JAX that it comes from."""
    where: str
    """The lines of `unet_jax` that it comes from, caller first."""


Program = dict[str, list[Instruction]]
"""The instructions of every computation; those that are called come before those that call them, "ENTRY" last."""


def parse(text: str) -> Program:
    """The program that `compiled.as_text()` gives."""
    program: Program = {}
    instructions: list[Instruction] = []
    shapes: dict[str, str] = {}
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            instructions = program.setdefault("ENTRY" if match[1] else match[2], [])
            shapes = {}
        elif match := _INSTRUCTION.match(line):
            name, shape, opcode, rest = match.groups()
            end = _closing(rest)
            reads = tuple(shapes.get(read, "") for read in re.findall(r"%([\w.\-]+)", rest[:end]))
            instructions.append(Instruction(name, shape, opcode, reads, rest[end:]))
            shapes[name] = shape
    return program


def buffers(shape: str) -> list[Buffer]:
    """The arrays of a shape as the text has it, with layouts; a tuple's in order."""
    found = []
    for kind, dimensions, order, layout in _BUFFER.findall(shape):
        bits = 8 if kind == "pred" else int((re.search(r"\d+", kind) or [0])[0])
        sides = [int(side) for side in re.findall(r"\d+", dimensions)]
        padded = [sides[int(axis)] for axis in reversed(order.split(",")) if axis]
        if tile := re.match(r"T\(([\d,]+)\)", layout):
            tiles = [int(side) for side in tile[1].split(",")]
            padded = [1] * (len(tiles) - len(padded)) + padded
            for axis, side in enumerate(reversed(tiles), 1):
                padded[-axis] = -(-padded[-axis] // side) * side
        on_chip = re.search(r"S\([1-9]", layout) is not None
        found.append(Buffer(math.prod(sides) * bits // 8, math.prod(padded or sides) * bits // 8, on_chip))
    return found


def collectives(program: Program) -> dict[str, Collective]:
    """The operations across chips by kind.

    One that is split into start and done counts once; so does one that a TPU runs beside several fusions, each of which
    holds it under the same channel.
    """
    counts, sizes, seen = Counter[str](), Counter[str](), set[tuple[str, str]]()
    for instruction, times, _ in _walk(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES or not times:
            continue
        channel = re.search(r"\bchannel_id=(\d+)", instruction.rest)
        one = kind, channel[1] if channel else instruction.name
        if one not in seen:
            seen.add(one)
            counts[kind] += times
            sizes[kind] += times * sum(part.size for shape in instruction.reads for part in buffers(shape))
    return {kind: Collective(counts[kind], sizes[kind]) for kind in COLLECTIVES if counts[kind]}


def moves(program: Program, frames: dict[int, str]) -> Iterator[Move]:
    """What each operation moves; those within a fusion are one.

    Args:
        frames: what `source_lines` finds.
    """
    for instruction, times, alone in _walk(program):
        opcode = instruction.opcode
        if not alone or not times or opcode in _FREE or opcode.endswith("-done") or "ConcatBitcast" in instruction.rest:
            continue
        parts = [part for part in _parts(instruction) if not part.on_chip]
        cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
        what = re.search(r'op_name="([^"]*)"', instruction.rest)
        frame = re.search(r"stack_frame_id=(\d+)", instruction.rest)
        yield Move(
            instruction.name,
            opcode,
            _brief(instruction.shape),
            tuple(_brief(shape) for shape in instruction.reads if _is_large(shape)),
            times * sum(part.held for part in parts),
            times * sum(part.size for part in parts),
            times * int(cycles[1]) if cycles else 0,
            re.sub(r"\bjit\([^()]*\)/", "", what[1]) if what else "",
            frames.get(int(frame[1]), "") if frame else "",
        )


def source_lines(text: str) -> dict[int, str]:
    """For each stack frame of the text, the lines of `unet_jax` on it, outermost first, without those of `step.py`."""
    names = dict(re.findall(r'^(\d+) "(.*)"$', _section(text, "FileNames"), re.MULTILINE))
    places = {
        number: (Path(names[file]), line) for number, file, line in _LOCATION.findall(_section(text, "FileLocations"))
    }
    found: dict[int, str] = {}
    frames = _FRAME.findall(_section(text, "StackFrames"))
    first = int(frames[0][2]) if frames else 0  # the parent of a frame that has none
    for number, place, parent in frames:
        path, line = places[place]
        above = found.get(int(parent) - first, "")
        ours = path.parent.name == "unet_jax" and path.name != "step.py"
        found[int(number)] = f"{above} {path.stem}:{line}".strip() if ours else above
    return found


def _walk(program: Program) -> Iterator[tuple[Instruction, int, bool]]:
    """Every instruction, how often it runs, and whether it is an operation of its own."""
    times, alone = Counter({"ENTRY": 1}), {"ENTRY"}
    for name, instructions in reversed(program.items()):
        for instruction in instructions:
            yield instruction, times[name], name in alone
            for called in instruction.called:
                times[called] += times[name] * instruction.trips
                if name in alone and instruction.opcode in _CONTROL:
                    alone.add(called)


def _parts(instruction: Instruction) -> list[Buffer]:
    """What an operation reads and makes; of a copy that runs beside other operations, both ends."""
    made, read = buffers(instruction.shape), [part for shape in instruction.reads for part in buffers(shape)]
    if instruction.opcode == "copy-start":  # makes the copy, its operand and a handle
        return [made[0], *read]
    if instruction.opcode == "slice-start":  # makes its operand, the slice and a handle
        return [made[1], made[1]._replace(on_chip=read[0].on_chip)]
    return read + made


def _closing(text: str) -> int:
    """Where the parenthesis closes that was open before the text."""
    depth = 1
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return place
    return len(text)


def _section(text: str, name: str) -> str:
    found = re.search(rf"^{name}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _brief(shape: str) -> str:
    """A shape with the order of its axes, the tiles left out."""
    return re.sub(r"\{([\d,]*)(?::[^{}]*)?\}", r"{\1}", shape).replace("{}", "").replace("{0}", "")


def _is_large(shape: str) -> bool:
    return sum(part.held for part in buffers(shape) if not part.on_chip) >= 1e6
