"""The table in which a person wrote which colour stands for which class."""

from collections.abc import Sequence
from pathlib import Path

from unet_core.data.colours import hexadecimal
from unet_core.data.masks import MOST_CLASSES, colour_code
from unet_core.data.tables import lines_of
from unet_core.errors import ConfigError, DataError, counted, shown


def read_table(path: str | Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The colours of a table, and the names of their classes: a line each of name,r,g,b or of name,#rrggbb.

    A first line that names the columns is passed over.

    Raises:
        DataError: the file cannot be read, or is no such table.
    """
    lines = lines_of(path, "colours")
    if lines and _code(lines[0]) is None and lines[0][0].lower() in ("name", "class"):
        lines = lines[1:]
    codes = [_code(line) for line in lines]
    for line, code in zip(lines, codes, strict=True):
        if code is None:
            raise DataError(f"{shown(path)}: {','.join(line)}: give name,r,g,b from 0 to 255, or name,#rrggbb")
    found = tuple(code for code in codes if code is not None)
    if not 2 <= len(found) <= MOST_CLASSES or len(set(found)) < len(found):
        twice = next((hexadecimal(code) for code in found if found.count(code) > 1), None)
        what = f"has {twice} twice" if twice else f"has {counted(len(found), 'colour')}"
        raise DataError(f"{shown(path)}: {what}; give 2 to {MOST_CLASSES} classes a colour each")
    return found, tuple(line[0] for line in lines)


def _code(line: Sequence[str]) -> int | None:
    try:
        if len(line) == 2:
            return colour_code(line[1])
        red, green, blue = map(int, line[1:])
    except (ValueError, ConfigError):
        return None
    return red << 16 | green << 8 | blue if all(0 <= part <= 255 for part in (red, green, blue)) else None
