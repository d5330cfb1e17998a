"""Reads a pickle as what it says, and does nothing that it asks for: `pickletools` takes it apart, this puts it
together out of plain values, tensors that are not read yet, and stand-ins.

No name is looked up, no function called, no class made; extension codes, persistent ids and `__setstate__` are data
like everything else.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unet_core.checkpoints.pickled import known
from unet_core.checkpoints.pickled.making import Maker
from unet_core.checkpoints.pickled.standins import measure
from unet_core.errors import CheckpointError, first_line

MOST_OPCODES = 3_000_000
"""Of a state_dict some ten thousand; a script that logs every epoch in its checkpoint comes to one or two million."""

_LONGEST_NUMBER = 1000
"""Bytes."""

_MARK = object()


@dataclass(frozen=True)
class Unpickled:
    """What a pickle says."""

    value: Any
    end: int
    """Where it ends."""
    inert: tuple[str, ...]
    """The classes and functions that were left inert, sorted."""


def unpickled(
    pickle: bytes,
    source: str,
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    most: int = MOST_OPCODES,
) -> Unpickled:
    """What a pickle says; nothing in it is run.

    Args:
        pickle: the bytes, and others before and behind.
        source: for messages.
        start: where it begins.
        persistent: what stands for the object outside, of which the pickle has this id; None: an `Inert`.
        most: opcodes that it may have.

    Raises:
        CheckpointError: it is no sound pickle; or what it makes is deeper or larger than any checkpoint.
    """
    machine = _Machine(Maker(persistent))
    file = io.BytesIO(pickle)
    file.seek(start)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count == most:
                raise CheckpointError(f"{source}: its pickle has more opcodes than any checkpoint's ({most})")
            machine.step(opcode, argument)
        value = machine.result
        measure(value)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{source}: not a sound PyTorch file: its pickle: {first_line(error)}") from error
    return Unpickled(value, file.tell(), tuple(sorted(machine.maker.names - known.KNOWN.keys() - known.REFERRED)))


class _Machine:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Take from the stack what an opcode takes, and put there what it makes."""
        name = opcode.name
        if name in _PUSHED:
            self.stack.append(_checked(name, argument))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "DUP":
            self.stack.append(self._top())
        elif name == "POP":
            self.stack.pop()
        elif name == "STOP":
            self.result = self._taken(1)[0]
        elif name not in ("PROTO", "FRAME"):
            self._made(opcode, argument)

    def _made(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        count, marked = _TAKES[opcode.name]
        above: list[Any] = []
        if marked:
            while (value := self.stack.pop()) is not _MARK:
                above.append(value)
        parts = self._taken(count)
        if marked:
            parts.append(above[::-1])
        if argument is not None:
            parts.insert(0, argument)
        if opcode.name != "POP_MARK":
            make: Callable[..., Any] = _PLAIN.get(opcode.name) or getattr(self.maker, f"on_{opcode.name.lower()}")
            self.stack.append(make(*parts))

    def _taken(self, count: int) -> list[Any]:
        """The values on top of the stack, the topmost last."""
        if count > len(self.stack):
            raise ValueError("it takes more than there is")
        found = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        if any(value is _MARK for value in found):
            raise ValueError("it takes more than there is")
        return found

    def _top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("it keeps a mark")
        return self.stack[-1]


def _takes(opcode: pickletools.OpcodeInfo) -> tuple[int, bool]:
    """How many values an opcode takes below the mark, or in all; and whether it takes all down to a mark."""
    before = [kind.name for kind in opcode.stack_before]
    return (before.index("mark"), True) if "mark" in before else (len(before), False)


_TAKES = {opcode.name: _takes(opcode) for opcode in pickletools.opcodes}

_PLAIN: dict[str, Callable[..., Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "LIST": list,
    "TUPLE": tuple,
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), lambda *values: values),
}
"""The opcodes that make a plain container of what they take."""

_PUSHED = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg is not None
    and not opcode.stack_before
    and opcode.stack_after
    and opcode.stack_after[0].name in ("int", "int_or_bool", "float", "str", "bytes", "bytes_or_str", "bytearray")
) | {"NONE", "NEWTRUE", "NEWFALSE"}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _checked(name: str, argument: Any) -> Any:
    """What an opcode puts on the stack as it is."""
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if type(argument) is int and argument.bit_length() > 8 * _LONGEST_NUMBER:
        raise ValueError(f"a number of more than {_LONGEST_NUMBER} bytes")
    if isinstance(argument, bytearray):
        return bytes(argument)
    if name.endswith("STRING"):  # bytes of Python 2, in which text may be
        content = argument.encode("latin-1")
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content
    return argument
