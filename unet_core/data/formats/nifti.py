"""NIfTI files (.nii, .nii.gz) as stacks of slices, by nibabel."""

import gzip
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from jaxtyping import Integer, Shaped

from unet_core.data.formats.decoded import Decoded, check_size, length
from unet_core.data.formats.stack import Grid, Stack
from unet_core.errors import DataError, MissingFrameworkError
from unet_core.installation import installing

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_FIRST, _SECOND = 348, 540
"""Bytes of the headers of NIfTI-1 and NIfTI-2."""
_ZIPPED = b"\x1f\x8b"
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_KNOWN = (np.dtype(np.uint8), np.dtype(np.uint16))
"""Types of which black and white are known."""


@dataclass(frozen=True)
class _Layout:
    """Where in the file the voxels are, in Fortran's order: x, y, z, channels."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    begin: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def planes(self, voxels: np.ndarray) -> Shaped[np.ndarray, "d h w n"]:
        """Voxels of this order as slices of rows of pixels, in the machine's byte order."""
        turned = voxels.transpose(2, 1, 0, 3)
        if turned.dtype.names is not None:  # the parts of a colour
            turned = np.stack([turned[name] for name in turned.dtype.names], -1).reshape(*turned.shape[:3], -1)
        return turned.astype(turned.dtype.newbyteorder("="), copy=False)


def is_nifti(file: BinaryIO) -> bool:
    """Whether the file begins as a NIfTI does, which may be zipped; afterwards it is at its beginning."""
    head = file.read(_FIRST)
    file.seek(0)
    if head.startswith(_ZIPPED):
        try:
            head = _unzipped(file).read(_FIRST)
        finally:
            file.seek(0)
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def nifti_stack(file: BinaryIO) -> Stack:
    """A volume [x, y, z] or [x, y, z, channel]; its slices are [y, x], in the order of z.

    Raises:
        DataError: other axes, values that are no numbers, more than a memory should be filled with, or truncated.
        MissingFrameworkError: nibabel is not installed.
    """
    zipped = file.read(2) == _ZIPPED
    file.seek(0)
    stream = _unzipped(file) if zipped else file
    header = _header(stream.read(_SECOND))
    layout = _layout(header)
    width, height, depth, parts = layout.shape
    samples = parts * len(layout.dtype.names or (0,))
    check_size(height, width, samples)
    if depth < 1:
        raise DataError("has no slices")
    if not zipped and layout.begin + layout.nbytes > length(file):
        raise DataError("is truncated: its header promises more than it holds; copy or save it anew")
    slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (slope, intercept)
    own = layout.dtype.newbyteorder("=")
    measured = (slope, intercept) != (1, 0) or not (own in _KNOWN or own.kind in "fV")
    kind = Decoded(np.empty((0, 0, samples), np.uint8), slope=slope, intercept=intercept, measured=measured)

    def plane(number: int) -> Decoded:
        from nibabel.fileslice import fileslice

        place = (slice(None), slice(None), slice(number, number + 1))
        voxels = fileslice(stream, place, layout.shape, layout.dtype, layout.begin, "F")
        return replace(kind, samples=np.ascontiguousarray(layout.planes(voxels)[0]))

    def voxels() -> tuple[Decoded, np.ndarray]:
        from nibabel.volumeutils import array_from_file

        whole = array_from_file(layout.shape, layout.dtype, cast(io.IOBase, stream), layout.begin, "F")
        stream.read(1)  # at its end, where there is nothing more, the checksum is looked at
        return kind, layout.planes(whole)

    itemsize = layout.dtype.itemsize * parts // samples
    return Stack(
        depth, height, width, samples, plane, voxels if zipped else None, itemsize=itemsize, grid=_grid(header)
    )


def write_nifti(path: Path, voxels: Integer[np.ndarray, "d h w *rgb"], grid: Grid) -> None:
    """Write slices, grey or RGB, as a volume that lies where `grid` says, zipped where the file's name ends in .gz.

    Raises:
        MissingFrameworkError: nibabel is not installed.
    """
    from nibabel.loadsave import save
    from nibabel.nifti1 import Nifti1Image

    if voxels.ndim == 4:
        voxels = np.ascontiguousarray(voxels).view([(part, "u1") for part in "RGB"])[..., 0]
    image = Nifti1Image(voxels.transpose(2, 1, 0), grid.affine)
    if grid.spacing is not None:
        image.header.set_zooms(grid.spacing[::-1])
        image.header.set_xyzt_units("mm")
    save(image, path)


def _unzipped(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))


def _header(block: bytes) -> "Nifti1Header":
    try:
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header
    except ModuleNotFoundError as missing:
        raise MissingFrameworkError(f"NIfTI files need nibabel: {installing('science')}") from missing
    second = block[4:7] in (b"n+2", b"ni2")
    if b"ni" in (block[4:6], block[344:346]):
        raise DataError("is a NIfTI of two files, .hdr and .img; save it as one .nii")
    size = _SECOND if second else _FIRST
    if len(block) < size:
        raise DataError("is truncated within its header; copy or save it anew")
    return (Nifti2Header if second else Nifti1Header)(block[:size], check=False)


def _layout(header: "Nifti1Header") -> _Layout:
    shape, dtype, begin = tuple(map(int, header.get_data_shape())), header.get_data_dtype(), header.get_data_offset()
    if len(shape) not in (2, 3, 4, 5) or (len(shape) == 5 and shape[3] != 1):
        raise DataError(f"holds an array of {shape}; save x, y, z, or x, y, z and channels")
    colours = dtype.names is not None and {dtype[name] for name in dtype.names} == {np.dtype(np.uint8)}
    if not colours and dtype.kind not in "uif":
        raise DataError(f"holds {dtype.name} values; save real numbers")
    if begin < _FIRST:
        raise DataError("is damaged: its header says that the voxels lie in the header itself; save it anew")
    x, y, z = (*shape, 1)[:3]
    return _Layout((x, y, z, math.prod(shape[3:])), dtype, begin)


def _grid(header: "Nifti1Header") -> Grid:
    x, y, z = (*map(float, header.get_zooms()), 1.0)[:3]
    scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    placed = header["sform_code"] != 0 or header["qform_code"] != 0
    affine = np.asarray(header.get_best_affine(), np.float64) if placed else None
    return Grid((z * scale, y * scale, x * scale), affine)
