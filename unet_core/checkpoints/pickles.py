"""Walks through a pickle without running it: to which Python names it refers, how deep and large it would become."""

import io
import pickletools
from dataclasses import dataclass
from typing import Any

from unet_core.errors import CheckpointError, first_line

DEEPEST = 100
MOST_VALUES = 10_000_000


@dataclass
class _Value:
    """What stands for an object on the pickle machine's stack; lists and dicts grow in place."""

    depth: int = 0
    size: int = 1
    held: bool = False
    """Whether something else holds it already."""

    def take(self, parts: "list[_Value]") -> None:
        """Become what holds these too; a part that is shared counts every time."""
        if self.held and parts:
            raise ValueError("something grows after it was put into something else, or into itself")
        for part in parts:
            part.held = True
        self.depth = max(self.depth, *(part.depth + 1 for part in parts)) if parts else self.depth
        self.size += sum(part.size for part in parts)
        if any(part is self for part in parts):
            raise ValueError("something holds itself")


_MARK = _Value()


def names_in(pickle: bytes, source: str, *, start: int = 0, most: int = MOST_VALUES) -> tuple[set[str], int]:
    """The Python names (`module name`) to which a pickle refers, and where it ends.

    Args:
        pickle: the bytes, and others before and behind.
        source: for messages.
        start: where it begins.
        most: opcodes that it may have.

    Raises:
        CheckpointError: it is no sound pickle; or what it makes would be nested deeper, or hold more values, than any
            checkpoint, each shared part counted every time: whoever walks through that, hashes or frees it, is lost.
    """
    names: set[str] = set()
    stack: list[_Value] = []
    memo: dict[Any, _Value] = {}
    file = io.BytesIO(pickle)
    file.seek(start)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            name = opcode.name
            if count == most:
                raise CheckpointError(f"{source}: its pickle has more opcodes than any checkpoint's ({most})")
            if name == "MARK":
                stack.append(_MARK)
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "DUP":
                stack.append(stack[-1])
            else:
                if name in ("GLOBAL", "INST"):
                    names.add(str(argument))
                elif name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                    names.add(name)
                made = _step(opcode, stack)
                if made is not None and (made.depth > DEEPEST or made.size > MOST_VALUES):
                    raise CheckpointError(
                        f"{source}: its pickle is nested deeper, or holds more values, than any checkpoint's"
                    )
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{source}: not a sound PyTorch file: its pickle: {first_line(error)}") from error
    return names, file.tell()


def _step(opcode: pickletools.OpcodeInfo, stack: list[_Value]) -> _Value | None:
    """Take from the stack what an opcode takes, and put there what it makes."""
    before = [kind.name for kind in opcode.stack_before]
    parts: list[_Value] = []
    if "mark" in before:
        while (value := stack.pop()) is not _MARK:
            parts.append(value)
        before = before[: before.index("mark")]
    parts += [stack.pop() for _ in before]
    if not opcode.stack_after:
        return None
    grows = opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
    made = parts.pop() if grows else _Value()
    made.take(parts)
    stack.append(made)
    return made
