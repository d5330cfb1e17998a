"""Tables of many rows in one file, a column an array: 100,000 rows are read in a second."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from unet_core.errors import DataError, first_line

Columns = Mapping[str, np.ndarray]


def text_column(words: Iterable[str]) -> UInt8[np.ndarray, " bytes"]:
    """Words in one array; none of them holds a NUL, as no name of a file does."""
    return np.frombuffer("".join(f"{word}\0" for word in words).encode(errors="surrogateescape"), np.uint8)


def words_of(column: np.ndarray) -> list[str]:
    """The inverse of `text_column`."""
    return column.tobytes().decode(errors="surrogateescape").split("\0")[:-1]


def write_columns(path: Path, columns: Columns) -> None:
    """Write a file; its parts have checksums."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.ascontiguousarray(column) for name, column in columns.items()})


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The inverse of `write_columns`.

    Raises:
        DataError: the file is damaged, or no such file.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}  # which checks the checksums
    except OSError:
        raise
    except Exception as error:  # zipfile meets damage with errors of all kinds
        raise DataError(f"{path}: is damaged ({first_line(error)})") from error
