"""Arrays of NumPy as rasters: .npy, and .npz of one array. Pickles are never read."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from unet_core.data.formats.decoded import Decoded, check_size, length
from unet_core.data.formats.stack import Stack
from unet_core.errors import DataError, some

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def npy_stack(file: BinaryIO, *, last: bool = True) -> Stack:
    """An array [h, w], [h, w, n] or [d, h, w, n] of numbers, or of truths, which are 0 and 1; see `Decoded`.

    Args:
        file: the file.
        last: of three axes, the last one is channels; else the first one is slices, or channels.

    Raises:
        DataError: another array, or too large; NumPy's own errors besides.
    """
    header = _read_header(file, last=last)
    begin, (_, height, width, samples), dtype = file.tell(), header.shape, header.dtype
    pixels = height * width * samples
    if begin + header.shape[0] * pixels * dtype.itemsize > length(file):
        raise DataError("is truncated: its header promises more than it holds; copy or save it anew")

    def plane(number: int) -> Decoded:
        if header.fortran:
            return _decoded(voxels()[number])
        file.seek(begin + number * pixels * dtype.itemsize)
        return _decoded(np.frombuffer(file.read(pixels * dtype.itemsize), dtype).reshape(height, width, samples))

    def voxels() -> np.ndarray:
        file.seek(0)
        return npy.read_array(file, allow_pickle=False).reshape(header.shape)

    return header.stack(plane, voxels if header.fortran else None)


def npz_stack(file: BinaryIO, *, last: bool = True) -> Stack:
    """The only array of a .npz, as `npy_stack` reads it."""
    with _member(file) as array:
        header = _read_header(array, last=last)

    def voxels() -> np.ndarray:
        with _member(file) as array:
            return npy.read_array(array, allow_pickle=False).reshape(header.shape)

    return header.stack(lambda number: _decoded(voxels()[number]), voxels)


@contextmanager
def _member(file: BinaryIO) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1 or not names[0].endswith(".npy"):
            raise DataError(f"holds {some(names) or 'nothing'}, where one array is wanted; save each as a file")
        with archive.open(names[0]) as array:
            yield array


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, int, int, int]
    """Slices, height, width, samples."""
    dtype: np.dtype
    fortran: bool

    def stack(self, plane: Callable[[int], Decoded], voxels: Callable[[], np.ndarray] | None) -> Stack:
        """The array's slices; where a slice cannot be read alone, `voxels` reads all."""

        def whole() -> tuple[Decoded, np.ndarray]:
            assert voxels is not None
            every = voxels()
            kind = _decoded(every[0])
            return kind, every.astype(kind.samples.dtype, copy=False)

        return Stack(*self.shape, plane, voxels and whole, itemsize=self.dtype.itemsize)


def _read_header(file: IO[bytes], *, last: bool) -> _Header:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise DataError("holds records, or is of a later NumPy; save a plain array of numbers")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.kind not in "buif":
        raise DataError(f"holds {dtype.name} values; save whole numbers, or fractions from 0 to 1")
    if len(shape) not in (2, 3, 4):
        raise DataError(
            f"is an array of shape {shape}; save height x width, with channels behind them, or slices before"
        )
    if len(shape) == 3:
        if last and shape[0] == shape[1] == shape[2] > 1:
            raise DataError(
                f"is an array of shape {shape}, and nothing tells which axis is channels; give --pages channels or "
                "slices if it is the first, or save 1 x height x width x channels"
            )
        shape = (1, *shape) if last else (*shape, 1)
    depth, height, width, samples = (1, *shape, 1) if len(shape) == 2 else shape
    check_size(height, width, samples)
    if depth < 1:
        raise DataError("has no slices")
    return _Header((depth, height, width, samples), dtype, fortran)


def _decoded(array: np.ndarray) -> Decoded:
    samples = np.ascontiguousarray(array)
    if samples.dtype.kind == "b":
        return Decoded(samples.astype(np.uint8), white=1)
    return Decoded(samples.astype(samples.dtype.newbyteorder("="), copy=False))
