"""The zip in which torch keeps a pickle and the bytes of tensors: whether it is as torch writes it, and its members."""

import os
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from unet_core.checkpoints.pickled.parts import Part
from unet_core.errors import CheckpointError, first_line, shown, some

_MOST_MEMBERS = 20_000
_PART = 2**20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_TAIL = _END.size + _LOCATOR.size + _END64.size
"""The ends of a zip's table of members (APPNOTE.TXT 4.3.14 to 4.3.16), which torch always writes without a comment."""


class ZipArchive:
    """The members of an archive, in the one folder that it has; each is read, under its checksum, when it is asked for.

    Args:
        path: the file.
        needs: a member that it must have.

    Raises:
        CheckpointError: it is no archive, was cut short, or is not as torch writes it.
    """

    def __init__(self, path: Part, needs: str | None = "data.pkl") -> None:
        self.path = path
        with self._opened() as archive:
            _check_directory(path)
            members = archive.infolist()
            self.root = _check_members(members, path)
        self.sizes = {info.filename.removeprefix(f"{self.root}/"): info.file_size for info in members}
        """The bytes of every member, by its name in the folder."""
        if needs is not None and needs not in self.sizes:
            raise CheckpointError(
                f"{path}: not a PyTorch file, or one that was cut short (no {needs}); get the file again"
            )

    def read(self, name: str) -> np.ndarray:
        """The bytes of a member.

        Raises:
            CheckpointError: it is damaged.
        """
        found = np.empty(self.sizes[name], np.uint8)
        with self._opened() as archive, archive.open(f"{self.root}/{name}") as member:
            place = 0
            while part := member.read(_PART):  # the end of the member is where its checksum is looked at
                if place + len(part) > len(found):
                    raise zipfile.BadZipFile(f"{name} has changed")
                found[place : place + len(part)] = np.frombuffer(part, np.uint8)
                place += len(part)
            if place != len(found):
                raise zipfile.BadZipFile(f"{name} ends early")
        return found

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with self.path.open() as file, zipfile.ZipFile(file) as archive:
                yield archive
        except CheckpointError:
            raise
        except Exception as error:  # whatever zipfile meets in a damaged file
            if str(error).startswith("Bad CRC-32 for file"):
                raise CheckpointError(
                    f"{self.path}: the file is damaged: its member {shown(str(error)[21:-1])} fails its checksum; "
                    "get it again"
                ) from error
            raise CheckpointError(
                f"{self.path}: not a PyTorch file, or one that was cut short ({first_line(error)}); get the file again"
            ) from error


def _check_members(members: list[zipfile.ZipInfo], path: Part) -> str:
    """Refuse members that torch would not have written, or not so; returns the folder that they are all in."""
    names = [info.filename for info in members]
    members = [info for info in members if not re.match(r"[^/]+/code/", info.filename)]  # a program, which is not read
    if len(names) > _MOST_MEMBERS:
        raise CheckpointError(f"{path}: has {len(names)} members; no checkpoint has more than {_MOST_MEMBERS}")
    lowered = Counter(name.lower() for name in names)  # torch finds members without regard to case
    roots = sorted({name.split("/")[0] for name in names})
    odd = {
        "compressed": [info.filename for info in members if info.compress_type != zipfile.ZIP_STORED],
        "encrypted": [info.filename for info in members if info.flag_bits & 1],
        "stored twice": [name for name, times in lowered.items() if times > 1],
        "outside the archive": [name for name in names if name.startswith("/") or ".." in name.split("/")],
        "in several folders": roots[1:] and roots,
        "of other names": [
            name
            for name in names
            if name.lower().endswith(("/data.pkl", "/byteorder"))
            and name not in (f"{roots[0]}/data.pkl", f"{roots[0]}/byteorder")
        ],
    }
    for what, found in odd.items():
        if found:
            raise CheckpointError(f"{path}: not as torch writes it: members {what}: {some(found)}")
    claimed, size = sum(info.file_size for info in members), path.size
    if claimed > size:
        raise CheckpointError(
            f"{path}: its members claim {claimed} bytes, the file has {size}; it is damaged or a trap"
        )
    return roots[0] if roots else ""


def _check_directory(path: Part) -> None:
    """Refuse an archive with more than one table of members: zipfile would check one, and torch read the other."""
    with path.open() as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    end = tail[-_END.size :]
    if len(tail) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise zipfile.BadZipFile("File is not a zip file")
    _, disk, first_disk, here, count, length, offset, comment = _END.unpack(end)
    stop = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\x06\x07"):
        stop -= _LOCATOR.size + _END64.size
        record = tail[-_TAIL : -_END.size - _LOCATOR.size]
        _, _, place, _ = _LOCATOR.unpack(locator)
        signature, more, _, _, _, _, here64, count64, length64, offset64 = _END64.unpack(record)
        same = all(
            short in (long, limit)
            for short, long, limit in (
                (here, here64, 0xFFFF),
                (count, count64, 0xFFFF),
                (length, length64, 0xFFFFFFFF),
                (offset, offset64, 0xFFFFFFFF),
            )
        )
        sound = signature == b"PK\x06\x06" and more == _END64.size - 12 and place == stop and same
        here, count, length, offset = here64, count64, length64, offset64
    else:
        sound = True
    if not sound or comment or disk or first_disk or here != count or offset + length != stop:
        raise CheckpointError(f"{path}: not as torch writes it: the table of its members is not where it should be")
