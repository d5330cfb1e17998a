"""Tables that a person wrote, as CSV."""

import csv
import os

from unet_core.errors import DataError, reason, shown
from unet_core.paths import as_path


def lines_of(path: str | os.PathLike[str], of: str) -> list[list[str]]:
    """The cells of every line that is not empty.

    Args:
        path: the file.
        of: what it is a table of, for the message.

    Raises:
        DataError: it cannot be read, or is no such file.
    """
    try:
        with as_path(path).open(encoding="utf-8-sig", newline="") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {reason(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown(path)}: is no table of {of}; save it as CSV") from error
