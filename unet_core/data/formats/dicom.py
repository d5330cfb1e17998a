"""DICOM files of one frame or several, by pydicom, with the values that their rescaling means."""

import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from unet_core.data.formats.decoded import Decoded, check_size, length
from unet_core.data.formats.stack import KEPT, Grid, Stack, joined
from unet_core.errors import DataError, MissingFrameworkError, counted
from unet_core.installation import installing

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = b"1.2.840.10008.1.2.1.99\0"
"""The syntax in which even the header is compressed."""
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LEAST_FRAME = 8
"""Bytes of a compressed frame, which has a header of its own."""


def dicom_stack(file: BinaryIO) -> Stack:
    """The frames of a DICOM in the order in which they are stored.

    Raises:
        DataError: it holds no picture, or one of a kind that is not read, or is too large or truncated.
        MissingFrameworkError: pydicom is not installed.
    """
    try:
        from pydicom import config, dcmread
        from pydicom.pixels.utils import pixel_array
    except ModuleNotFoundError as missing:
        raise MissingFrameworkError(f"DICOM files need pydicom: {installing('science')}") from missing
    if _DEFLATED in file.read(1024):
        raise DataError("is a deflated DICOM, which is not read; save it in another transfer syntax")
    file.seek(0)
    _quiet()
    config.settings.reading_validation_mode = config.IGNORE  # texts that break the standard's rules are no pixels
    found = dcmread(file, stop_before_pixels=True)
    height, width, samples = (int(found.get(name, 0)) for name in ("Rows", "Columns", "SamplesPerPixel"))
    frames, bits = int(found.get("NumberOfFrames") or 1), int(found.get("BitsAllocated", 0))
    _check(found, height, width, samples, bits)
    packed = frames * height * width * samples * bits // 8
    least = frames * _LEAST_FRAME if found.file_meta.TransferSyntaxUID.is_compressed else packed
    if frames < 1 or least > length(file):
        said = counted(frames, "frame")
        raise DataError(f"is truncated: it holds less than the {said} of its header; copy or save it anew")

    def plane(number: int) -> Decoded:
        file.seek(0)
        return described(pixel_array(file, index=number), number)

    def described(pixels: np.ndarray, number: int) -> Decoded:
        if pixels.shape[:2] != (height, width):
            raise DataError("is damaged: a frame has another size than its header says; save it anew")
        slope, intercept = _rescaling(found, number)
        return Decoded(
            np.ascontiguousarray(np.atleast_3d(pixels)),
            slope=slope,
            intercept=intercept,
            measured=(slope, intercept) != (1, 0) or pixels.dtype.kind != "u" or int(found.BitsStored) not in (8, 16),
            inverted=found.PhotometricInterpretation == "MONOCHROME1",
        )

    def voxels() -> tuple[Decoded, np.ndarray]:
        file.seek(0)
        whole = pixel_array(file).reshape(frames, height, width, samples)
        return joined([described(pixels, number) for number, pixels in enumerate(whole)])

    at_once = frames > 1 and packed <= KEPT  # a header of many frames takes longer to read than a frame
    return Stack(
        frames, height, width, samples, plane, voxels if at_once else None, itemsize=bits // 8, grid=_grid(found)
    )


def _quiet() -> None:
    """Let pydicom not warn of files: what cannot be read is raised. The filters are those of all threads."""
    if all(getattr(one[3], "pattern", None) != "pydicom" for one in warnings.filters):
        warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")


def _check(found: "Dataset", height: int, width: int, samples: int, bits: int) -> None:
    if "Rows" not in found:
        raise DataError("is a DICOM without a picture")
    if found.get("SOPClassUID") == _SEGMENTATION:
        raise DataError("is a DICOM segmentation, which is not read; save masks as NIfTI, TIFF or PNG")
    check_size(height, width, samples)
    kind = found.get("PhotometricInterpretation", "")
    if kind == "PALETTE COLOR" or "ModalityLUTSequence" in found:
        table = "palette" if kind == "PALETTE COLOR" else "table of values"
        raise DataError(f"is a DICOM with a {table}, which is not read; save it as grey or RGB")
    if bits not in (8, 16, 32):
        raise DataError(f"is a DICOM of {bits} bits a sample; save it with 8, 16 or 32")


def _groups(found: "Dataset", number: int, name: str) -> "Dataset | None":
    """What a DICOM of several frames says under this name of one of them, or of all."""
    frames = found.get("PerFrameFunctionalGroupsSequence") or []
    shared = found.get("SharedFunctionalGroupsSequence") or []
    for group in (*frames[number : number + 1], *shared[:1]):
        if group.get(name):
            return group.get(name)[0]
    return None


def _rescaling(found: "Dataset", number: int) -> tuple[float, float]:
    own: Any = _groups(found, number, "PixelValueTransformationSequence") or found
    return float(own.get("RescaleSlope", 1)), float(own.get("RescaleIntercept", 0))


def _grid(found: "Dataset") -> Grid:
    """Where the frames lie, as far as it says."""
    measures: Any = _groups(found, 0, "PixelMeasuresSequence") or found
    between = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or found.get("SliceThickness")
    within = measures.get("PixelSpacing")
    if not within or not between:
        return Grid()
    rows, columns = map(float, within)
    return Grid((float(between), rows, columns), _affine(found, rows, columns, float(between)))


def _affine(found: "Dataset", rows: float, columns: float, between: float) -> np.ndarray | None:
    turned: Any = _groups(found, 0, "PlaneOrientationSequence") or found
    placed: Any = _groups(found, 0, "PlanePositionSequence") or found
    last: Any = _groups(found, int(found.get("NumberOfFrames") or 1) - 1, "PlanePositionSequence") or placed
    if "ImageOrientationPatient" not in turned or "ImagePositionPatient" not in placed:
        return None
    along, down = np.array(turned.ImageOrientationPatient, np.float64).reshape(2, 3)
    begin = np.array(placed.ImagePositionPatient, np.float64)
    across = np.cross(along, down) * between
    if (np.array(last.ImagePositionPatient, np.float64) - begin) @ across < 0:
        across = -across
    affine = np.eye(4)
    affine[:3] = np.stack([along * columns, down * rows, across, begin], 1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's axes go to the left and to the back
