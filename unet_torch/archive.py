"""What `torch.load` does not check of a file: that its bytes are those that were written, and that none is a trap."""

import os
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from unet_core.checkpoints.checkpoint import LONGEST_RECORD
from unet_core.checkpoints.containers import LEGACY_MAGIC
from unet_core.checkpoints.pickles import names_in
from unet_core.errors import CheckpointError, first_line, shown, some

_LARGEST_PICKLE = 1_000_000
"""Opcodes, and bytes beside a record's; that of a network with its optimiser has some ten thousand. torch reads a
million opcodes in seconds."""

_LARGEST_WITH_MORE = 10_000_000
"""The same; a script that logs every epoch in its checkpoint comes to one or two million."""

_MOST_MEMBERS = 20_000

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_TAIL = _END.size + _LOCATOR.size + _END64.size
"""The ends of a zip's table of members (APPNOTE.TXT 4.3.14 to 4.3.16), which torch always writes without a comment."""

_PLAIN = re.compile(
    r"collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)"
    r"|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch\.nn\.parameter Parameter"
    r"|torch (\w+Storage|Size|device|strided|(b?float|complex|u?int)\d+|bool)|torch\.serialization _get_layout"
)
"""The names to which the pickle of a state_dict, or of an optimiser's, refers. Narrower than torch's own list: that has
`bytearray`, `torch.Tensor` and `UntypedStorage` too, whose arguments may ask for any memory."""

_OTHER_TENSORS = re.compile(r"torch\._utils _rebuild_\w+|torch\.storage \w+|torch\._tensor \w+|torch \w+")
"""What pickles of sparse, quantised, meta and float8 tensors and of subclasses refer to besides."""


def check_archive(path: Path, also: Collection[str] = ()) -> None:
    """Refuse a file that `torch.load` should not be given.

    Args:
        path: the file.
        also: what its pickle may refer to besides, as `module name`; then it may be longer, too.

    Raises:
        CheckpointError: it is no PyTorch file, was cut short or damaged, or is not as torch writes it.
    """
    largest = _LARGEST_WITH_MORE if also else _LARGEST_PICKLE
    with open(path, "rb") as file:
        if file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC:
            file.seek(0)
            pickles, end = file.read(_LARGEST_PICKLE), 0
            for _ in range(5):  # magic number, protocol, system, the object, the keys of the storages that follow
                end = _check_pickle(pickles, str(path), also, largest, start=end)
            return
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            root = _check_members(archive, path, largest + LONGEST_RECORD)
            damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(
                    f"{path}: the file is damaged: its member {shown(damaged)} fails its checksum; get it again"
                )
            _check_pickle(archive.read(f"{root}/data.pkl"), str(path), also, largest)
            if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
                raise CheckpointError(f"{path}: not in little-endian byte order; save it again on a usual machine")
    except CheckpointError:
        raise
    except Exception as error:  # whatever zipfile meets in a damaged file
        raise CheckpointError(
            f"{path}: not a PyTorch file, or one that was cut short ({first_line(error)}); get the file again"
        ) from error


def _check_members(archive: zipfile.ZipFile, path: Path, largest: int) -> str:
    """Refuse members that torch would not have written, or not so; returns the folder that they are all in."""
    members = archive.infolist()
    names = [info.filename for info in members]
    if len(names) > _MOST_MEMBERS:
        raise CheckpointError(f"{path}: has {len(names)} members; no checkpoint has more than {_MOST_MEMBERS}")
    lowered = Counter(name.lower() for name in names)  # torch finds members without regard to case
    if any(re.search(r"/(constants\.pkl|code/)", name) for name in lowered):
        raise CheckpointError(f"{path}: is a TorchScript archive, which is a program; save model.state_dict() instead")
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
    claimed, size = sum(info.file_size for info in members), path.stat().st_size
    if claimed > size:
        raise CheckpointError(
            f"{path}: its members claim {claimed} bytes, the file has {size}; it is damaged or a trap"
        )
    if archive.getinfo(f"{roots[0]}/data.pkl").file_size > largest:
        raise CheckpointError(f"{path}: its pickle is longer than any checkpoint's ({largest} bytes)")
    return roots[0]


def _check_directory(path: Path) -> None:
    """Refuse an archive with more than one table of members: zipfile would check one, and torch read the other."""
    with open(path, "rb") as file:
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


def _check_pickle(pickle: bytes, source: str, also: Collection[str], largest: int, *, start: int = 0) -> int:
    """Refuse a pickle that refers to more than dense tensors need; returns where it ends.

    Raises:
        CheckpointError: so it does, or what it makes is deeper or larger than any checkpoint's.
    """
    found, end = names_in(pickle, source, start=start, most=largest)
    names = sorted(name for name in found if not _PLAIN.fullmatch(name) and name not in also)
    if names:
        listed = some(name.replace(" ", ".") for name in names)
        if all(_OTHER_TENSORS.fullmatch(name) for name in names):
            raise CheckpointError(f"{source}: holds tensors that are no dense tensors of real numbers: {listed}")
        raise CheckpointError(
            f"{source}: holds Python objects beside tensors, which are never run: {listed}; "
            "save model.state_dict() alone, or with numbers and strings"
        )
    return end
