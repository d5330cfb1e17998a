"""Volumes as files of every kind that holds slices."""

from pathlib import Path

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
tifffile = pytest.importorskip("tifffile")

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AFFINE = np.array([[-0.7, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1]])
"""Columns of 0.7 mm, rows of 0.7 mm, slices of 3 mm."""


def write_nifti(path: Path, voxels: np.ndarray, *, affine=AFFINE, slope=None, intercept=0.0) -> None:
    """Voxels [d, h, w], or [d, h, w, c]."""
    image = nibabel.Nifti1Image(np.swapaxes(voxels, 0, 2), affine, dtype=voxels.dtype)
    if slope is not None:  # nibabel would scale the values itself
        with path.open("wb") if path.suffix == ".nii" else nibabel.openers.Opener(str(path), "wb") as file:
            image.header.set_data_offset(352)
            image.header["scl_slope"], image.header["scl_inter"] = slope, intercept
            file.write(image.header.binaryblock + b"\0" * 4)
            file.write(np.swapaxes(voxels, 0, 2).tobytes("F"))
        return
    nibabel.save(image, path)


def write_dicom(path: Path, voxels: np.ndarray, *, stored=None, rescale=None, **tags) -> None:
    """Frames [d, h, w] or [d, h, w, 3]."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * voxels.itemsize
    found.SOPClassUID = CTImageStorage
    found.Rows, found.Columns = voxels.shape[1:3]
    found.SamplesPerPixel = 1 if voxels.ndim == 3 else 3
    found.PhotometricInterpretation = "MONOCHROME2" if voxels.ndim == 3 else "RGB"
    if voxels.ndim == 4:
        found.PlanarConfiguration = 0
    if len(voxels) > 1:
        found.NumberOfFrames = len(voxels)
    found.BitsAllocated, found.BitsStored = bits, stored or bits
    found.HighBit, found.PixelRepresentation = found.BitsStored - 1, int(voxels.dtype.kind == "i")
    if rescale is not None:
        found.RescaleSlope, found.RescaleIntercept = map(str, rescale)
    for name, value in tags.items():
        setattr(found, name, value)
    found.PixelData = voxels.tobytes()
    found.save_as(path, enforce_file_format=True)
