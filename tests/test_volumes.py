"""Volumes come back slice by slice with the values that were written, and lie where they lay."""

import contextlib
import gzip
import struct
import warnings

import numpy as np
import pytest
from volumes import AFFINE, nibabel, pydicom, tifffile, write_dicom, write_nifti

from unet_core.data.formats.decoded import Decoded
from unet_core.data.formats.files import extent
from unet_core.data.formats.reading import Pictures
from unet_core.data.formats.stack import Grid, Kept, Stack
from unet_core.data.pictures import UnknownRangeError, read_mask, read_picture
from unet_core.data.volumes import read_volume, read_volume_mask
from unet_core.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (4, 9, 13), np.uint8)
HOUNSFIELD = RNG.integers(-1024, 3000, (4, 9, 13)).astype(np.int16)
SLICES = Pictures(pages="slices")
BODY = Pictures(window=(-1000, 1000))


def same(found, written):
    assert found.dtype == written.dtype
    np.testing.assert_array_equal(found, written)


def write(path, voxels):
    """A volume in the kind that the file's name says."""
    if path.name.endswith((".nii", ".nii.gz")):
        write_nifti(path, voxels)
    elif path.suffix == ".dcm":
        write_dicom(path, voxels)
    elif path.suffix == ".npy":
        np.save(path, np.asfortranarray(voxels) if path.stem == "fortran" else voxels)
    elif path.suffix == ".npz":
        np.savez_compressed(path, voxels)
    elif path.stem == "imagej":
        tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "ZYX"})
    elif path.stem == "ome":
        tifffile.imwrite(path, voxels, ome=True, metadata={"axes": "ZYX"})
    else:
        how = {"compression": "zlib", "tile": (16, 16)} if path.stem == "tiled" else {}
        tifffile.imwrite(path, voxels, photometric="minisblack", **how)


KINDS = ["a.nii", "a.nii.gz", "a.dcm", "a.npy", "fortran.npy", "a.npz", "imagej.tif", "ome.tif", "a.tif", "tiled.tif"]


@pytest.mark.parametrize("name", KINDS)
def test_each_slice_comes_back_across_each_axis(tmp_path, name):
    write(tmp_path / name, BYTES)
    for axis, place in {"z": 0, "y": 1, "x": 2}.items():
        how = Pictures(slice_axis=axis, pages="slices")
        found = extent(tmp_path / name, how)
        assert (found.pages, found.are) == (BYTES.shape[place], "slices")
        for number in (0, found.pages - 1, 1):
            written = np.take(BYTES, number, place)
            assert found.size == written.shape
            same(read_picture(tmp_path / name, how=how, at=number), written[:, :, None])
            same(read_mask(tmp_path / name, how, number), written)
    for number in (-1, 4):
        with pytest.raises(DataError, match=f"{name}: has 4 slices, and none of the number {number}"):
            read_picture(tmp_path / name, how=SLICES, at=number)


@pytest.mark.parametrize("name", KINDS)
def test_a_volume_read_whole_is_its_slices(tmp_path, name):
    write(tmp_path / name, BYTES)
    same(read_volume(tmp_path / name, how=Pictures(slice_axis="x", pages="slices")).voxels, BYTES[..., None])
    same(read_volume_mask(tmp_path / name, SLICES), BYTES)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, t) for n in ("a.nii", "a.nii.gz") for t in ("u1", "i1", "u2", "i2", ">i2", "i4", "f4", "f8")],
)
def test_a_nifti_of_every_type_is_read(tmp_path, name, dtype):
    voxels = (BYTES[:, :, :, None] // 2).astype(dtype).repeat(2, -1)
    voxels[..., 1] //= 2 if voxels.dtype.kind != "f" else 1
    write_nifti(tmp_path / name, voxels)
    found = read_picture(tmp_path / name, how=Pictures(window=(0, 127)), at=2)
    np.testing.assert_allclose(found, voxels[2].astype(np.float64) / 127, atol=1e-7)


def test_a_nifti_of_colours_has_three_channels(tmp_path):
    rgb = RNG.integers(0, 256, (4, 9, 13, 3), np.uint8)
    packed = rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed.swapaxes(0, 2), AFFINE), tmp_path / "a.nii.gz")
    same(read_picture(tmp_path / "a.nii.gz", at=3), rgb[3])


def test_a_second_nifti_is_read_too(tmp_path):
    nibabel.save(nibabel.Nifti2Image(BYTES.swapaxes(0, 2), AFFINE), tmp_path / "a.nii.gz")
    same(read_picture(tmp_path / "a.nii.gz", at=3), BYTES[3, :, :, None])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.dcm"])
@pytest.mark.parametrize("axis", ["z", "x"])
def test_slope_and_intercept_make_the_values(tmp_path, name, axis):
    raw = RNG.integers(0, 4096, (4, 9, 13), np.uint16)
    if name == "a.dcm":
        write_dicom(tmp_path / name, raw, rescale=(0.5, -1024))
    else:
        write_nifti(tmp_path / name, raw, slope=0.5, intercept=-1024)
    values = raw * 0.5 - 1024
    how = Pictures(window=(-1024, 1024), slice_axis=axis)
    found = read_picture(tmp_path / name, how=how, at=2)[:, :, 0]
    np.testing.assert_allclose(found, (np.take(values, 2, {"z": 0, "x": 2}[axis]) + 1024) / 2048, atol=1e-6)
    with pytest.raises(UnknownRangeError, match=r"holds values from -\d+\S* to \d+\S*, and nothing tells .* --window"):
        read_picture(tmp_path / name, how=Pictures(slice_axis=axis), at=2)


def test_each_frame_may_have_a_rescaling_of_its_own(tmp_path):
    def group(slope):
        scale = pydicom.Dataset()
        scale.RescaleSlope, scale.RescaleIntercept = str(slope), "0"
        own = pydicom.Dataset()
        own.PixelValueTransformationSequence = [scale]
        return own

    import pydicom

    frames = np.ones((3, 4, 5), np.uint16)
    write_dicom(tmp_path / "a.dcm", frames, PerFrameFunctionalGroupsSequence=[group(n) for n in (1, 2, 3)])
    for how, place in ((Pictures(window=(0, 4)), 0), (Pictures(window=(0, 4), slice_axis="y"), 1)):
        count = frames.shape[place]
        found = np.stack([read_picture(tmp_path / "a.dcm", how=how, at=n)[..., 0] for n in range(count)], place)
        np.testing.assert_array_equal(found, frames * np.array([1, 2, 3], np.float32)[:, None, None] / 4)


def test_a_window_clips_and_its_values_are_those_of_the_file(tmp_path):
    for name in ("a.nii.gz", "a.tif", "a.npy"):
        write(tmp_path / name, HOUNSFIELD)
        found = read_picture(tmp_path / name, how=Pictures(window=(-1000, 1000), pages="slices"), at=1)
        same(found[:, :, 0], (np.clip(HOUNSFIELD[1] + 1000.0, 0, 2000) / 2000).astype(np.float32))
    np.save(tmp_path / "b.npy", BYTES[0])
    same(read_picture(tmp_path / "b.npy", how=Pictures(window=(0, 255))), (BYTES[0, :, :, None] / 255).astype("f4"))
    np.save(tmp_path / "b.npy", np.array([[0, np.nan]]))
    with pytest.raises(DataError, match="values that are no numbers"):
        read_picture(tmp_path / "b.npy", how=BODY)


@pytest.mark.parametrize("window", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_window_without_a_width_is_refused(window):
    with pytest.raises(ConfigError, match="give two numbers, the lower one first"):
        Pictures(window=window)


@pytest.mark.parametrize("stored", [8, 12, 16])
def test_bits_of_a_dicom_tell_white_where_they_are_8_or_16(tmp_path, stored):
    frames = RNG.integers(0, 2**stored, (1, 9, 13)).astype(np.uint8 if stored == 8 else np.uint16)
    write_dicom(tmp_path / "a.dcm", frames, stored=stored)
    if stored == 12:
        with pytest.raises(DataError, match=r"a\.dcm: holds values from .* give --window"):
            read_picture(tmp_path / "a.dcm")
        return
    same(read_picture(tmp_path / "a.dcm"), frames[0, :, :, None])
    write_dicom(tmp_path / "b.dcm", frames, stored=stored, PhotometricInterpretation="MONOCHROME1")
    same(read_picture(tmp_path / "b.dcm"), ~frames[0, :, :, None])
    same(read_mask(tmp_path / "b.dcm"), frames[0])


def test_a_dicom_of_colours_has_three_channels(tmp_path):
    rgb = RNG.integers(0, 256, (2, 9, 13, 3), np.uint8)
    write_dicom(tmp_path / "a.dcm", rgb)
    same(read_picture(tmp_path / "a.dcm", at=1), rgb[1])


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "is a DICOM segmentation"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is a DICOM with a palette"),
        ({"Rows": 65535, "Columns": 65535}, "65535x65535 pixels of 1 sample are too many"),
        ({"Rows": 0}, "has no pixels"),
        ({"NumberOfFrames": 2_000_000_000}, "is truncated: it holds less than the 2000000000 frames"),
        ({"NumberOfFrames": 3}, "is truncated: it holds less than the 3 frames"),
        ({"BitsAllocated": 64}, "is a DICOM of 64 bits"),
    ],
)
def test_what_is_no_readable_dicom_is_said(tmp_path, tags, words):
    write_dicom(tmp_path / "a.dcm", np.zeros((2, 100, 100), np.uint8), **tags)
    for reads in (read_picture, extent):
        with pytest.raises(DataError, match=rf"a\.dcm: {words}"):
            reads(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.dcm", "imagej.tif", pytest.param("ome.tif", marks=pytest.mark.slow), "a.npy"]
)
def test_a_truncated_volume_is_found_at_every_byte(tmp_path, name):
    path = tmp_path / name
    voxels = RNG.integers(0, 256, (2, 5, 7), np.uint8)
    write(path, voxels)
    data, whole = path.read_bytes(), []
    for end in range(0, len(data), max(1, len(data) // 300)):
        path.write_bytes(data[:end])
        with contextlib.suppress(DataError):
            same(np.stack([read_picture(path, how=SLICES, at=n)[..., 0] for n in range(2)]), voxels)
            whole.append(end)  # what is missing stands behind the voxels
            continue
        with pytest.raises(DataError) as caught:
            read_volume(path, how=SLICES)
        assert str(caught.value).startswith(f"{path}: "), end
        assert "\n" not in str(caught.value), end
    assert not whole or whole[0] > len(data) // 3


def test_pydicom_does_not_warn_of_what_is_refused(tmp_path):
    write_dicom(tmp_path / "a.dcm", BYTES)
    data = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data.replace(b"\x08\0\x16\0UI", b"\x08\0\x16\0\0\0"))
    with warnings.catch_warnings(record=True) as control:
        warnings.simplefilter("always")
        pydicom.dcmread(tmp_path / "a.dcm")
    with warnings.catch_warnings(record=True) as warned, pytest.raises(DataError, match=r"a\.dcm: "):
        warnings.simplefilter("always")
        read_picture(tmp_path / "a.dcm", at=0)
    assert (len(control) > 0, warned) == (True, [])


def zipped_nifti(path, shape, *, behind=b"", dtype=2, bits=8, offset=352):
    header = nibabel.Nifti1Header()
    header["dim"] = [3, *shape, 1, 1, 1, 1]
    header["datatype"], header["bitpix"], header["vox_offset"] = dtype, bits, offset
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4 + behind))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((30000, 30000, 100), "30000x30000 pixels of 1 sample are too many"),
        ((10000, 10000, 1000), "1000x10000x10000 voxels of 1 byte are too many to be read at once"),
        ((0, 5, 5), "has no pixels"),
        ((5, 5, 0), "has no slices"),
        ((20, 20, 20), "cannot be read|damaged"),
    ],
)
def test_a_bomb_is_refused_by_its_header(tmp_path, shape, words):
    zipped_nifti(tmp_path / "a.nii.gz", shape, behind=b"\0" * 100)
    with pytest.raises(DataError, match=rf"a\.nii\.gz: .*({words})"):
        read_picture(tmp_path / "a.nii.gz", at=0)


def test_of_a_zipped_file_no_more_is_unpacked_than_its_header_says(tmp_path):
    zipped_nifti(tmp_path / "a.nii.gz", (20, 20, 20), behind=b"\0" * 60_000_000)
    same(read_mask(tmp_path / "a.nii.gz", at=3), np.zeros((20, 20), np.uint8))
    zipped_nifti(tmp_path / "a.nii.gz", (20, 20, 20), behind=b"\0" * 9000, offset=40)
    with pytest.raises(DataError, match="the voxels lie in the header itself"):
        read_mask(tmp_path / "a.nii.gz", at=3)


def test_a_nifti_of_complex_numbers_or_two_files_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), AFFINE), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii: holds complex64 values; save real numbers"):
        read_picture(tmp_path / "a.nii", at=0)
    nibabel.save(nibabel.Nifti1Pair(BYTES, AFFINE), tmp_path / "b.img")
    (tmp_path / "b.hdr").rename(tmp_path / "b.nii")
    with pytest.raises(DataError, match=r"b\.nii: is a NIfTI of two files"):
        read_picture(tmp_path / "b.nii", at=0)


def test_a_volume_is_no_picture_and_a_picture_no_volume(tmp_path):
    write_nifti(tmp_path / "a.nii", BYTES)
    with pytest.raises(DataError, match=r"a\.nii: holds 4 slices, where one picture is wanted"):
        read_picture(tmp_path / "a.nii")
    write_nifti(tmp_path / "b.nii", BYTES[:1])
    same(read_picture(tmp_path / "b.nii"), BYTES[0, :, :, None])
    np.save(tmp_path / "a.npy", BYTES[0])
    assert extent(tmp_path / "a.npy").pages == 1


def hyperstack(path, axes, shape, **how):
    pages = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    tifffile.imwrite(path, pages, metadata={"axes": axes}, photometric="minisblack", **how)
    return pages


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_metadata_tells_slices_from_channels(tmp_path, kind):
    path = tmp_path / "a.tif"
    pages = hyperstack(path, "CYX", (3, 4, 5), **{kind: True})
    assert extent(path).are == "channels"
    same(read_picture(path), np.moveaxis(pages, 0, 2))
    pages = hyperstack(path, "ZCYX", (2, 3, 4, 5), **{kind: True})
    assert extent(path)[1:3] == (2, "slices")
    same(read_picture(path, at=1), np.moveaxis(pages[1], 0, 2))
    pages = hyperstack(path, "TZYX", (2, 3, 4, 5), **{kind: True})
    assert extent(path)[1:3] == (6, "slices")
    same(read_picture(path, at=4)[..., 0], pages[1, 1])


def test_omes_channels_may_come_before_its_slices(tmp_path):
    pages = hyperstack(tmp_path / "a.tif", "CZYX", (3, 2, 4, 5), ome=True)
    same(read_picture(tmp_path / "a.tif", at=1), np.moveaxis(pages[:, 1], 0, 2))


def test_pages_without_metadata_are_what_someone_says(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", BYTES, photometric="minisblack")
    assert extent(tmp_path / "a.tif")[1:3] == (4, None)
    assert extent(tmp_path / "a.tif", SLICES).are == "slices"
    assert extent(tmp_path / "a.tif", Pictures(slice_axis="y"))[:3] == ((4, 13), 9, "slices")
    with pytest.raises(DataError, match="holds 4 slices, where one picture is wanted"):
        read_picture(tmp_path / "a.tif", how=SLICES)


def test_a_stack_of_imagejs_that_claims_too_many_pages_is_refused(tmp_path):
    hyperstack(tmp_path / "a.tif", "ZYX", (3, 4, 5), imagej=True)
    data = (tmp_path / "a.tif").read_bytes()
    assert b"images=3\nslices=3" in data
    (tmp_path / "a.tif").write_bytes(data.replace(b"images=3\nslices=3", b"images=99999999\n"[:-1] + b"\0\0"))
    with pytest.raises(DataError, match=r"a\.tif: "):
        read_picture(tmp_path / "a.tif", at=0)


def test_large_stacks_of_imagej_have_one_header(tmp_path):
    """ImageJ writes stacks of 4 GB and more so: one page, and all others behind it."""
    first = BYTES[0]
    description = b"ImageJ=1.54f\nimages=4\nslices=4\n\0"
    tags = [(256, 4, 1, 13), (257, 4, 1, 9), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(270, 2, len(description), 300), (273, 4, 1, 400), (277, 3, 1, 1), (278, 4, 1, 9), (279, 4, 1, first.size)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + b"\0" * 4
    (tmp_path / "a.tif").write_bytes((head.ljust(300, b"\0") + description).ljust(400, b"\0") + BYTES.tobytes())
    assert extent(tmp_path / "a.tif")[1:3] == (4, "slices")
    for number in range(4):
        same(read_picture(tmp_path / "a.tif", at=number)[..., 0], BYTES[number])


def test_where_a_volume_lies_is_kept(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", BYTES)
    grid = read_volume(tmp_path / "a.nii.gz").grid
    np.testing.assert_allclose(grid.spacing, (3, 0.7, 0.7), rtol=1e-6)
    np.testing.assert_allclose(grid.affine, AFFINE, rtol=1e-6)
    assert not grid.departs(Grid(grid.spacing, AFFINE))
    assert grid.departs(Grid(grid.spacing, np.diag([1.0, 1, 1, 1])))
    write_dicom(
        tmp_path / "a.dcm",
        BYTES,
        PixelSpacing=["0.7", "0.7"],
        SliceThickness="3",
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
        ImagePositionPatient=["-10", "-20", "-30"],
    )
    np.testing.assert_allclose(read_volume(tmp_path / "a.dcm").grid.affine, AFFINE, rtol=1e-6)
    for kind, unit in (("imagej", {"unit": "um", "spacing": 3000}), ("ome", {})):
        meta = {"axes": "ZYX", "PhysicalSizeZ": 3000, "PhysicalSizeY": 700, "PhysicalSizeX": 700}
        how = {"resolution": (1 / 700, 1 / 700)} if kind == "imagej" else {}
        tifffile.imwrite(
            tmp_path / "a.tif",
            BYTES,
            metadata=meta if kind == "ome" else {"axes": "ZYX", **unit},
            **{kind: True},
            **how,
        )
        np.testing.assert_allclose(read_volume(tmp_path / "a.tif").grid.spacing, (3, 0.7, 0.7), rtol=1e-3)
    np.save(tmp_path / "a.npy", BYTES[..., None])
    assert read_volume(tmp_path / "a.npy").grid == Grid()


def test_volumes_are_kept_within_a_bound():
    read = []

    def stack(number):
        def voxels():
            read.append(number)
            return Decoded(np.zeros((0, 0, 1), np.uint8)), np.full((2, 5, 5, 1), number, np.uint8)

        return Stack(2, 5, 5, 1, lambda _: Decoded(np.zeros((5, 5, 1), np.uint8)), voxels)

    kept = Kept(most=150)
    for number in (1, 1, 2, 1, 2, 3, 4, 4, 1):
        assert (kept.slice(number, stack(number), "z", 0).samples == number).all()
    assert read == [1, 2, 3, 4, 1]


def test_another_file_of_the_same_name_is_read_anew(tmp_path):
    for voxels in (BYTES, ~BYTES):
        write_nifti(tmp_path / "a.nii.gz", voxels)
        same(read_mask(tmp_path / "a.nii.gz", at=0), voxels[0])
