"""A file, or a part of one, to be read like a file."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast


class _Window(io.RawIOBase):
    """The bytes of a file from one place to another."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._file, self._begin, self._size, self._place = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise ValueError("a place before the file's begin")
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        self._file.seek(self._begin + self._place)
        found = self._file.read(max(0, min(len(buffer), self._size - self._place)))
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class Part:
    """A file, or a stretch of it."""

    path: Path
    begin: int = 0
    length: int | None = None
    """In bytes; None: to the end of the file."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size - self.begin if self.length is None else self.length

    def open(self) -> BinaryIO:
        """It, as a file of its own."""
        file = open(self.path, "rb")  # noqa: SIM115  (the caller closes it)
        whole = self.begin == 0 and self.length is None
        return file if whole else cast(BinaryIO, io.BufferedReader(_Window(file, self.begin, self.size)))
