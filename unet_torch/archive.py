"""What `torch.load` does not check of a file: that its bytes are those that were written, and that none is a trap."""

import re
import zipfile
from collections import Counter
from pathlib import Path

from unet_core.containers import LEGACY_MAGIC
from unet_core.errors import CheckpointError, first_line, shown, some
from unet_core.pickles import names_in

_LARGEST_PICKLE = 2_000_000
"""Bytes; that of a network with its optimiser has some ten thousand. torch reads a million opcodes in seconds."""

_MOST_MEMBERS = 20_000

_PLAIN = re.compile(
    r"collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)"
    r"|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch\.nn\.parameter Parameter"
    r"|torch (\w+Storage|Size|device|strided|(b?float|complex|u?int)\d+|bool)|torch\.serialization _get_layout"
)
"""The names to which the pickle of a state_dict, or of an optimiser's, refers. Narrower than torch's own list: that has
`bytearray`, `torch.Tensor` and `UntypedStorage` too, whose arguments may ask for any memory."""

_OTHER_TENSORS = re.compile(r"torch\._utils _rebuild_\w+|torch\.storage \w+|torch\._tensor \w+|torch \w+")
"""What pickles of sparse, quantised, meta and float8 tensors and of subclasses refer to besides."""


def check_archive(path: Path) -> None:
    """Refuse a file that `torch.load` should not be given.

    Raises:
        CheckpointError: it is no PyTorch file, was cut short or damaged, or is not as torch writes it.
    """
    with open(path, "rb") as file:
        if file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC:
            file.seek(0)
            pickles, end = file.read(_LARGEST_PICKLE), 0
            for _ in range(4):  # magic number, protocol, system, the object; the storages follow
                end = _check_pickle(pickles, str(path), start=end)
            return
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
            damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(
                    f"{path}: the file is damaged: its member {shown(damaged)} fails its checksum; get it again"
                )
            for info in archive.infolist():
                if info.filename.endswith("/data.pkl"):
                    _check_pickle(archive.read(info), str(path))
                elif info.filename.endswith("/byteorder") and archive.read(info) != b"little":
                    raise CheckpointError(f"{path}: not in little-endian byte order; save it again on a usual machine")
    except CheckpointError:
        raise
    except Exception as error:  # whatever zipfile meets in a damaged file
        raise CheckpointError(
            f"{path}: not a PyTorch file, or one that was cut short ({first_line(error)}); get the file again"
        ) from error


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    names = [info.filename for info in members]
    if any(re.search(r"/(constants\.pkl|code/)", name) for name in names):
        raise CheckpointError(f"{path}: is a TorchScript archive, which is a program; save model.state_dict() instead")
    odd = {
        "compressed": [info.filename for info in members if info.compress_type != zipfile.ZIP_STORED],
        "encrypted": [info.filename for info in members if info.flag_bits & 1],
        "stored twice": [name for name, times in Counter(names).items() if times > 1],
        "outside the archive": [name for name in names if name.startswith("/") or ".." in name.split("/")],
        "more than can be": names if len(names) > _MOST_MEMBERS else [],
    }
    for what, found in odd.items():
        if found:
            raise CheckpointError(f"{path}: not as torch writes it: members {what}: {some(found)}")
    claimed, size = sum(info.file_size for info in members), path.stat().st_size
    if claimed > size:
        raise CheckpointError(
            f"{path}: its members claim {claimed} bytes, the file has {size}; it is damaged or a trap"
        )


def _check_pickle(pickle: bytes, source: str, *, start: int = 0) -> int:
    """Refuse a pickle that refers to more than dense tensors need; returns where it ends.

    Raises:
        CheckpointError: so it does, or it is longer, deeper or larger than any checkpoint's.
    """
    if len(pickle) - start > _LARGEST_PICKLE:
        raise CheckpointError(f"{source}: its pickle is longer than any checkpoint's ({_LARGEST_PICKLE} bytes)")
    found, end = names_in(pickle, source, start=start)
    names = sorted(name for name in found if not _PLAIN.fullmatch(name))
    if names:
        listed = some(name.replace(" ", ".") for name in names)
        if all(_OTHER_TENSORS.fullmatch(name) for name in names):
            raise CheckpointError(f"{source}: holds tensors that are no dense tensors of real numbers: {listed}")
        raise CheckpointError(
            f"{source}: holds Python objects beside tensors, which are never run: {listed}; "
            "save model.state_dict() alone, or with numbers and strings"
        )
    return end
