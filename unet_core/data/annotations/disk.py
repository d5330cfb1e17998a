"""The pictures of a folder, found by what a file of annotations calls them."""

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from unet_core.data.formats.files import data_files

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that is uploaded."""


class Disk:
    """The pictures in a folder and in the folders in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = list(data_files(path))
        self._by_name: dict[str, list[Path]] = {}
        for file in self.files:
            self._by_name.setdefault(file.name, []).append(file)

    def find(self, called: str) -> Path | None:
        """The picture of this path or address; None where there is none, or several and no telling which."""
        address = urlsplit(called.replace("\\", "/"))
        there = parse_qs(address.query).get(
            "d", [address.path if address.scheme or address.query else address.geturl()]
        )
        parts = [part for part in unquote(there[0]).split("/") if part not in ("", ".", "..")]
        for name in (parts[-1:], [_UPLOADED.sub("", part) for part in parts[-1:]]):
            files = self._by_name.get(name[0], []) if name else []
            wanted = [*parts[:-1], *name]
            while len(files) > 1 and wanted:
                exact = [file for file in files if list(file.relative_to(self.path).parts[-len(wanted) :]) == wanted]
                if len(exact) == 1:
                    return exact[0]
                wanted = wanted[1:]
            if len(files) == 1:
                return files[0]
        return None
