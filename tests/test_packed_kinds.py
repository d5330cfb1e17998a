"""What is packed of slices, annotations and masks of several files is what the folder shows, bit for bit."""

import json

import numpy as np
import pytest
from volumes import tifffile, write_nifti

pytest.importorskip("grain")

from PIL import Image

from unet_core.data.formats.reading import Pictures
from unet_core.data.manifest import read_manifest
from unet_core.data.masks import Masks
from unet_core.data.opening import masks_for, open_dataset
from unet_core.data.packing import pack
from unet_core.data.split import Split
from unet_core.data.splitting import split
from unet_core.errors import DataError

RNG = np.random.default_rng(0)
SIZE = (12, 16)
WINDOW = Pictures(window=(-1000, 1000))


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(np.asarray(array, np.uint8)).save(path)
    elif path.suffix == ".tif":
        rgb = {"photometric": "rgb", "metadata": {"axes": "ZYXS"}} if array.ndim == 4 else {"metadata": {"axes": "ZYX"}}
        tifffile.imwrite(path, array, imagej=True, **rgb)
    else:
        write_nifti(path, array)


def marked(*lead, value=1):
    mask = np.zeros((*lead, *SIZE), np.uint8)
    mask[..., 3:7, 4:9] = value
    return mask


def slices(path):
    for n in range(3):
        save(path / f"images/{n}.nii.gz", RNG.integers(-900, 900, (4, *SIZE)).astype(np.int16))
        save(path / f"masks/{n}.nii.gz", marked(4) * np.arange(4, dtype=np.uint8)[:, None, None])
    return WINDOW, Masks()


def across(path):
    slices(path)
    return Pictures(window=(-1000, 1000), slice_axis="x"), Masks(ignore=3)


def of_colours(path):
    for n in range(3):
        save(path / f"images/{n}.tif", RNG.integers(0, 65536, (4, *SIZE)).astype(np.uint16))
        save(path / f"masks/{n}.tif", marked(4)[..., None] * np.array([200, 10 * n, 0], np.uint8))
    return Pictures(), Masks()


def of_classes(path):
    for n in range(3):
        save(path / f"images/{n}.png", RNG.integers(0, 256, SIZE))
        save(path / f"masks/{n}/core.png", marked(value=255))
        save(path / f"masks/{n}/rim.png", np.roll(marked(value=255), 6, 1))
    return Pictures(), Masks()


def slices_of_classes(path):
    for n in range(3):
        save(path / f"images/{n}.nii", RNG.integers(-900, 900, (4, *SIZE)).astype(np.int16))
        save(path / f"masks/{n}/core.nii", marked(4))
    return WINDOW, Masks()


def whole_of_classes(path):
    slices_of_classes(path)
    return WINDOW.of(3), Masks()


def coco(path):
    images, annotations = [], []
    for n in range(3):
        save(path / f"images/{n}.png", RNG.integers(0, 256, (*SIZE, 3)))
        images.append({"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]})
        shape = [[2, 2, 9, 2 + n, 9, 9]]
        annotations.append({"id": n, "image_id": n, "category_id": 1 + n % 2, "segmentation": shape, "iscrowd": n == 2})
    found = {"images": images, "annotations": annotations, "categories": [{"id": k, "name": f"k{k}"} for k in (1, 2)]}
    (path / "elsewhere.json").write_text(json.dumps(found))
    return Pictures(), Masks(annotations=str(path / "elsewhere.json"), ignore=255)


@pytest.mark.parametrize(
    "kind",
    [slices, across, of_colours, of_classes, slices_of_classes, whole_of_classes, coco],
    ids=lambda f: f.__name__,
)
def test_a_set_is_its_folder(kind, tmp_path):
    pictures, masks = kind(tmp_path / "data")
    pack(tmp_path / "data", tmp_path / "set", masks=masks, pictures=pictures, volumes=pictures.whole, shard_size=4000)
    folder = open_dataset(str(tmp_path / "data"), masks=masks, pictures=pictures)
    found = open_dataset(
        str(tmp_path / "set"),
        masks=masks_for(str(tmp_path / "set"), Masks()),
        pictures=Pictures().of(2 + pictures.whole),
    )
    for name in ("names", "files", "channels", "classes", "sizes", "spacings"):
        if name != "spacings" or pictures.whole:
            assert getattr(found, name) == getattr(folder, name), name
    assert found.digest() == folder.digest()
    pairs = [(folder.pair(n), found.pair(n)) for n in range(len(folder))]
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))
    assert not np.array_equal(pairs[0][0].image, found.pair(len(found) - 1).image), "the control"
    sides = [split(source, 1, Split()) for source in (folder, found)]
    assert [side.names for side in sides[0]] == [side.names for side in sides[1]]
    assert len(read_manifest(tmp_path / "set").shards) > 1 or kind is coco


def test_a_volume_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    pictures, masks = slices(tmp_path / "data")
    from unet_core.data import packing

    real = packing.record_places

    def meanwhile(*given):
        save(tmp_path / "data/images/1.nii.gz", np.zeros((4, *SIZE), np.int16))
        return real(*given)

    monkeypatch.setattr(packing, "record_places", meanwhile)
    with pytest.raises(DataError, match=r"images/1\.nii\.gz: has changed since it was read"):
        pack(tmp_path / "data", tmp_path / "set", masks=masks, pictures=pictures)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        (slices, {"masks": Masks(annotations="x.json")}, "--annotations x.json: the masks of .* were files"),
        (
            of_classes,
            {"masks": Masks(classes=2)},
            r"the classes are .* \(background, core, rim\)",
        ),
        (slices, {"pictures": Pictures(window=(0, 5))}, "were packed with other options"),
        (slices, {"pictures": Pictures().of(3)}, "a 3-D network takes volumes, and these are pictures"),
    ],
)
def test_what_was_settled_is_not_said_anew(tmp_path, kind, how, words):
    pictures, masks = kind(tmp_path / "data")
    pack(tmp_path / "data", tmp_path / "set", masks=masks, pictures=pictures)
    with pytest.raises(DataError, match=words):
        open_dataset(str(tmp_path / "set"), **how)
