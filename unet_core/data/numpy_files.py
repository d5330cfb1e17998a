"""Arrays of NumPy as rasters: .npy, and .npz of one array. Pickles are never read."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from unet_core.data.decoded import Decoded, check_size
from unet_core.errors import DataError, some

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def npy_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width of the array in a .npy."""
    return _shape(file)[:2]


def npz_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width of the array in a .npz."""
    with _member(file) as array:
        return _shape(array)[:2]


def read_npy(file: BinaryIO) -> Decoded:
    """An array [h, w] or [h, w, n] of numbers, or of truths, which are 0 and 1; see `Decoded`.

    Raises:
        DataError: another array, or too large; NumPy's own errors besides.
    """
    _shape(file)
    file.seek(0)
    return _decoded(npy.read_array(file, allow_pickle=False))


def read_npz(file: BinaryIO) -> Decoded:
    """The only array of a .npz, as `read_npy` reads it."""
    with _member(file) as array:
        _shape(array)
    with _member(file) as array:
        return _decoded(npy.read_array(array, allow_pickle=False))


@contextmanager
def _member(file: BinaryIO) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1 or not names[0].endswith(".npy"):
            raise DataError(f"holds {some(names) or 'nothing'}, where one array is wanted; save each as a file")
        with archive.open(names[0]) as array:
            yield array


def _shape(file: IO[bytes]) -> tuple[int, int, int]:
    """What the header tells: height, width, samples."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise DataError("holds records, or is of a later NumPy; save a plain array of numbers")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.kind not in "buif":
        raise DataError(f"holds {dtype.name} values; save whole numbers, or fractions from 0 to 1")
    if len(shape) not in (2, 3):
        raise DataError(f"is an array of shape {shape}; save height x width, or height x width x channels")
    height, width, samples = (*shape, 1)[:3]
    check_size(height, width, samples)
    return height, width, samples


def _decoded(array: np.ndarray) -> Decoded:
    samples = np.ascontiguousarray(np.atleast_3d(array))
    if samples.dtype.kind == "b":
        return Decoded(samples.astype(np.uint8), white=1)
    return Decoded(samples.astype(samples.dtype.newbyteorder("="), copy=False))
