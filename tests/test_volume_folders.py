"""Folders of volumes: slices to train on, parted by volume, predicted and written as volumes."""

from pathlib import Path

import numpy as np
import pytest
from volumes import AFFINE, nibabel, tifffile, write_dicom, write_nifti

from unet_core.data.folder import open_folder
from unet_core.data.formats.reading import Pictures
from unet_core.data.formats.stack import Grid
from unet_core.data.masks import Masks
from unet_core.data.pictures import read_mask, read_picture
from unet_core.data.split import Split
from unet_core.data.splitting import split
from unet_core.data.volumes import read_volume
from unet_core.errors import DataError
from unet_core.prediction.predictions import write_mask

RNG = np.random.default_rng(0)
BODY = Pictures(window=(-1000, 1000))


def blob(shape=(3, 24, 32)):
    _, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    return ((y - 12) ** 2 + (x - 16) ** 2 < 60).astype(np.uint8)


def scan(shape=(3, 24, 32)):
    return RNG.integers(-900, 900, shape).astype(np.int16)


def volumes(path: Path, count=3, suffix=".nii.gz"):
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    for number in range(count):
        write_nifti(path / f"images/p{number}{suffix}", scan())
        write_nifti(path / f"masks/p{number}.nii.gz", blob())
    return path


def refused(path, words, **options):
    with pytest.raises(DataError, match=words) as caught:
        open_folder(path, **options)
    assert "\n" not in str(caught.value)


def test_a_volume_is_one_pair_for_each_of_its_slices(tmp_path):
    data = open_folder(volumes(tmp_path), pictures=BODY)
    assert data.names == tuple(f"p{n}[{k:03d}]" for n in range(3) for k in range(3))
    assert data.files == tuple(f"p{n}" for n in range(3) for _ in range(3))
    assert (data.channels, data.values, set(data.sizes)) == (1, (0, 1), {(24, 32)})
    image, labels = data.pair(4)
    assert (image.dtype, image.shape) == (np.float32, (24, 32, 1))
    np.testing.assert_array_equal(labels, blob()[1])
    assert "9 slices of 3 volumes; those of one are all trained on, or none is" in data.remarks
    assert "pictures: -1000 is black, 1000 is white, and what is beyond them is clipped" in data.remarks
    part = data.subset([4, 0])
    assert (part.names, part.slices) == (("p1[001]", "p0[000]"), (1, 0))


def test_slices_may_be_cut_across_another_axis(tmp_path):
    data = open_folder(volumes(tmp_path), pictures=Pictures(window=(-1000, 1000), slice_axis="y"))
    assert len(data) == 3 * 24
    np.testing.assert_array_equal(data.pair(12).labels, blob()[:, 12])


def test_values_of_an_unknown_range_are_asked_about_in_one_line(tmp_path):
    words = r"images/p0\.nii\.gz and 2 more: values from -9\d\d to 8\d\d, and nothing tells .* give --window LOW HIGH"
    refused(volumes(tmp_path), words)


def test_the_slices_of_a_volume_stay_on_one_side(tmp_path):
    data = open_folder(volumes(tmp_path, 4), pictures=BODY)
    training, validation = split(data, 0.2)
    assert (set(training.files), set(validation.files)) == ({"p0", "p1", "p2"}, {"p3"})
    _, validation = split(data, 0, Split(folds=2, fold=1))
    assert set(validation.files) == {"p0", "p1"}
    (tmp_path / "groups.csv").write_text("p0.nii.gz,a\np1.nii.gz,b\np2.nii.gz,b\np3,a\n")
    _, validation = split(data, 2, Split(groups=str(tmp_path / "groups.csv")))
    assert set(validation.files) == {"p1", "p2"}
    with pytest.raises(DataError, match="of 12 pictures in 4 volumes this leaves none"):
        split(data, 12)


def test_other_slices_or_another_place_in_space_are_refused(tmp_path):
    folder = volumes(tmp_path)
    write_nifti(folder / "masks/p1.nii.gz", blob((2, 24, 32)))
    refused(folder, r"images/p1\.nii\.gz has 3 slices, but masks/p1\.nii\.gz has 2$", pictures=BODY)
    write_nifti(folder / "masks/p1.nii.gz", blob(), affine=np.diag([1.0, 1, 1, 1]))
    refused(folder, r"p1\.nii\.gz: their headers place them elsewhere in space", pictures=BODY)
    write_nifti(folder / "masks/p1.nii.gz", blob((3, 24, 30)))
    refused(folder, r"images/p1\.nii\.gz is 24x32, but masks/p1\.nii\.gz is 24x30$", pictures=BODY)
    write_nifti(folder / "masks/p1.nii.gz", blob().astype(np.float64))
    assert len(open_folder(folder, pictures=BODY)) == 9


def test_slices_that_nobody_labelled_are_left_out(tmp_path):
    mask = blob()
    mask[1] = 255
    write_nifti(volumes(tmp_path) / "masks/p1.nii.gz", mask)
    data = open_folder(tmp_path, pictures=BODY, masks=Masks(ignore=255))
    assert len(data) == 8
    assert data.blank == ("masks/p1.nii.gz[001]",)
    np.testing.assert_array_equal(data.pair(data.names.index("p1[002]")).labels, blob()[2])


def stacks(path: Path, mask):
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    tifffile.imwrite(path / "images/0.tif", RNG.integers(0, 4000, (3, 24, 32), np.uint16), photometric="minisblack")
    tifffile.imwrite(path / "masks/0.tif", mask, photometric="minisblack")
    return path


def test_the_mask_tells_what_pages_are(tmp_path):
    data = open_folder(stacks(tmp_path / "a", blob()))
    assert (len(data), data.channels, data.pictures.pages) == (3, 1, "slices")
    data = open_folder(stacks(tmp_path / "b", blob()[0]))
    assert (len(data), data.channels, data.pictures.pages) == (1, 3, "channels")
    refused(stacks(tmp_path / "c", blob()[:2]), r"images/0\.tif has 3 pages, but masks/0\.tif has 2$")
    refused(tmp_path / "b", r"images/0\.tif has 3 slices, but masks/0\.tif has 1$", pictures=Pictures(pages="slices"))
    assert any("--window 0 4095 makes 4095 white" in line for line in data.remarks)


def test_frames_of_a_dicom_have_a_mask_of_pages(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    write_dicom(tmp_path / "images/0.dcm", (scan() + 1024).astype(np.uint16), rescale=(1, -1024))
    tifffile.imwrite(tmp_path / "masks/0.tif", blob() * 255, photometric="minisblack")
    data = open_folder(tmp_path, pictures=BODY)
    assert (len(data), data.values, data.pictures) == (3, (0, 255), BODY)


def run(*arguments):
    from unet_cli.main import main

    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run, and that of its data."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("trained")
    folder = volumes(path / "data", suffix=".nii")
    size = ("--steps", 1, "--features", 4, 8, "--crop", 16, "--batch", 2)
    assert (
        run("train", "--backend", "torch", "--data", folder, "--out", path / "run", *size, "--window", -1000, 1000) == 0
    )
    return path / "run", folder


def test_a_network_keeps_its_window_in_the_run_and_through_a_conversion(trained, tmp_path, capsys):
    path, folder = trained
    assert run("predict", path, folder / "images", "--out", tmp_path / "a", "--probabilities") == 0
    found = nibabel.load(tmp_path / "a/p1.nii.gz")
    np.testing.assert_allclose(found.affine, AFFINE, rtol=1e-6)
    likely = np.load(tmp_path / "a/p1.npy")
    assert likely.shape == (3, 24, 32, 1)
    np.testing.assert_array_equal(read_mask(tmp_path / "a/p1.nii.gz", at=2), likely[2, ..., 0] > 0.5)
    other = tmp_path / "other"
    pytest.importorskip("jax")
    assert run("convert", path / "best.safetensors", other, "--no-certificate", "--no-verify") == 0
    assert run("convert", other, tmp_path / "back.pt", "--no-certificate", "--no-verify") == 0
    predict = ("predict", tmp_path / "back.pt", folder / "images/p1.nii", "--probabilities")
    assert run(*predict, "--out", tmp_path / "b") == 0
    np.testing.assert_allclose(np.load(tmp_path / "b/p1.npy"), likely, atol=1e-6)
    assert run(*predict, "--out", tmp_path / "c", "--window", -1000, 0) == 0
    assert np.abs(np.load(tmp_path / "c/p1.npy") - likely).max() > 1e-4
    assert run("eval", path, "--data", folder, "--only", "validation") == 0
    assert "3 pictures" in capsys.readouterr().out
    assert run("train", "--resume", "--out", path, "--window", 0, 1) == 2
    assert "started with another --window" in capsys.readouterr().err


def test_predictions_across_another_axis_lie_as_the_volume_does(trained, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", scan((20, 24, 32)), photometric="minisblack")
    write_nifti(tmp_path / "b.nii", scan((20, 24, 32)))
    targets = [tmp_path / name for name in ("a.tif", "b.nii")]
    how = ("--probabilities", "--overlays", "--slice-axis", "x")
    assert run("predict", trained[0], *targets, "--out", tmp_path / "out", *how) == 0
    for name in ("a", "b"):
        assert np.load(tmp_path / f"out/{name}.npy").shape == (20, 24, 32, 1)
    likely = np.load(tmp_path / "out/a.npy")[..., 0]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), likely > 0.5)
    assert tifffile.imread(tmp_path / "out/b_overlay.tif").shape == (32, 20, 24, 3)
    assert nibabel.load(tmp_path / "out/b.nii.gz").shape == (32, 24, 20)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3)])
def test_masks_of_numbers_and_of_colours_are_written_as_volumes(tmp_path, shape):
    written = RNG.integers(0, 256, shape, np.uint8)
    for name in ("a.nii.gz", "a.tif"):
        write_mask(tmp_path / name, written, Grid((3, 0.7, 0.7)))
        found = read_volume(tmp_path / name)
        np.testing.assert_array_equal(found.voxels, written.reshape(4, 5, 6, -1))
        np.testing.assert_allclose(found.grid.spacing, (3, 0.7, 0.7), rtol=1e-3)


def test_predictions_of_sub_folders_go_into_such_ones_and_unknown_pages_are_asked_about(trained, tmp_path, capsys):
    path, folder = trained
    (tmp_path / "new/a/b").mkdir(parents=True)
    np.save(tmp_path / "new/a/b/1.npy", scan()[0])
    np.save(tmp_path / "new/a/1.npy", scan()[0])
    tifffile.imwrite(tmp_path / "new/2.tif", scan(), photometric="minisblack")
    capsys.readouterr()
    out = tmp_path / "new/out"
    for _ in range(2):
        assert run("predict", path, tmp_path / "new", "--out", out, "--force") == 2
        said = capsys.readouterr()
        assert "2 of 3 pictures predicted" in said.out
        assert "2.tif: has 3 pages, and nothing tells what they are; give --pages slices or --pages" in said.err
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*.*")) == ["a/1.png", "a/b/1.png"]
    assert run("predict", path, folder, "--out", out) == 2
    assert f"{folder}: is a data folder, with masks; name {folder}/images" in capsys.readouterr().err
    (folder / "images").rename(folder / "Images")
    assert run("predict", path, folder, "--out", out) == 2
    assert f"{folder}: is a data folder, with masks; name {folder}/Images" in capsys.readouterr().err


BANDS = RNG.integers(0, 256, (3, 24, 32), np.uint8)


def array_folder(path, *arrays, mask=None):
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    for number, array in enumerate(arrays):
        np.save(path / f"images/{number}.npy", array)
        np.save(path / f"masks/{number}.npy", blob()[0] if mask is None else mask)
    return path


@pytest.mark.parametrize("mask", [blob()[0], blob()[:1]], ids=["h w", "1 h w"])
def test_an_array_of_bands_is_told_by_its_mask(tmp_path, mask):
    data = open_folder(array_folder(tmp_path, BANDS, BANDS, mask=mask))
    assert (data.channels, data.pictures.pages) == (3, "channels")
    np.testing.assert_array_equal(data.pair(1).image, np.moveaxis(BANDS, 0, 2))
    np.testing.assert_array_equal(data.pair(1).labels, blob()[0])
    assert sum("first axis of a .npy of three axes, are channels" in line for line in data.remarks) == 1
    assert open_folder(tmp_path).names == data.names, "from the index"


def test_an_array_with_channels_behind_is_read_as_ever(tmp_path):
    data = open_folder(array_folder(tmp_path, np.moveaxis(BANDS, 0, 2), np.moveaxis(BANDS, 0, 2)))
    assert (data.channels, data.pictures.pages) == (3, None)
    assert not [line for line in data.remarks if "axis" in line]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((BANDS, np.moveaxis(BANDS, 0, 2)), r"images/1\.npy: what its pages or axes are is not as in images/0\.npy"),
        ((BANDS[:, :20],), r"images/0\.npy is 3x20, but masks/0\.npy is 24x32"),
        ((np.zeros((24, 24, 24), np.uint8),), r"nothing tells which axis is channels; give --pages channels"),
    ],
    ids=["both kinds", "another size", "a cube"],
)
def test_arrays_that_are_ambiguous_are_refused(tmp_path, arrays, words):
    refused(array_folder(tmp_path, *arrays), words)


def test_bands_first_are_thought_of_where_the_channels_do_not_fit(tmp_path):
    hint = r"has 32 channels where 3 are wanted; if these are the first axis of the array, give --pages channels"
    np.save(tmp_path / "a.npy", BANDS)
    with pytest.raises(DataError, match=hint):
        read_picture(tmp_path / "a.npy", 3)
    assert read_picture(tmp_path / "a.npy", 3, Pictures(pages="channels")).shape == (24, 32, 3)
    with pytest.raises(DataError, match=r"has 32 channels where 4 are wanted$"):
        read_picture(tmp_path / "a.npy", 4)


def test_a_cube_is_read_as_it_is_said_to_be(tmp_path):
    cube = RNG.integers(0, 256, (8, 8, 8), np.uint8)
    folder = array_folder(tmp_path, cube, cube, mask=np.eye(8, dtype=np.uint8))
    found = open_folder(folder, pictures=Pictures(pages="channels"))
    np.testing.assert_array_equal(found.pair(0).image, np.moveaxis(cube, 0, 2))
    for number in range(2):
        np.save(folder / f"images/{number}.npy", cube[None])
    np.testing.assert_array_equal(open_folder(folder).pair(0).image, cube)
