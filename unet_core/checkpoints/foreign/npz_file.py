"""NumPy archives of parameters, as `numpy.savez(FILE, **parameters)` writes them."""

import zipfile
from pathlib import Path

import numpy as np

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, exported
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from, record_array
from unet_core.checkpoints.pickled.tensors import sizes
from unet_core.errors import CheckpointError, first_line, some

_MOST_TIMES = 100
"""That a file may grow when it is unpacked; weights hardly shrink."""


def contents(path: Path) -> Contents:
    """What the file holds; only the heads of its arrays are read.

    Raises:
        CheckpointError: it is no such file, is damaged, or would grow beyond measure.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > _MOST_TIMES * path.stat().st_size:
                raise CheckpointError(f"{path}: would unpack to more than {_MOST_TIMES} times its size; a trap")
            found = {info.filename.removesuffix(".npy"): _array(path, archive, info) for info in members}
            if len(found) != len(members):
                raise CheckpointError(f"{path}: has two arrays of one name")
    except CheckpointError:
        raise
    except Exception as error:  # whatever zipfile and NumPy meet in a damaged file
        raise CheckpointError(f"{path}: is no sound .npz of plain arrays: {first_line(error)}") from error
    return contents_from(path, {"": found}, ordered=True, times=_MOST_TIMES)


def write(path: Path, checkpoint: Checkpoint, *, dialect: str = OWN.name) -> None:
    """Write a new archive: every tensor under its name, and the record as an array of bytes.

    Raises:
        CheckpointError: the dialect cannot hold this network, NumPy's files not its dtypes, or it cannot be written.
    """
    tensors, _ = exported(checkpoint, dialect)
    odd = [name for name, value in tensors.items() if value.dtype.isbuiltin != 1]
    if odd:
        raise CheckpointError(f"{path.name}: not written: NumPy's files have no bfloat16: {some(odd)}")
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, value in {**tensors, RECORD_KEY: record_array(checkpoint, dialect)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Lazy:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read(member)
        if dtype.hasobject or dtype.names:
            raise ValueError(f"{info.filename} is of {dtype}")
        sizes(shape, "a shape")
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} claims more numbers than it has")

    def load() -> np.ndarray:
        with zipfile.ZipFile(path) as again, again.open(info.filename) as member:
            found: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        return found.astype(found.dtype.newbyteorder("="), copy=False)

    return Lazy(tuple(shape), dtype.newbyteorder("="), load)
