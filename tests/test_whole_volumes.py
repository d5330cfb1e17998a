"""Volumes that a 3-D network takes whole: read, cropped, trained on, predicted in tiles and written as they lie."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from conftest import validations
from graphs import network, small
from volumes import AFFINE, nibabel, tifffile, write_dicom, write_nifti

from conversion.inference import open_network
from conversion.training import train
from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.data.augmentation import NONE, Augmentation
from unet_core.data.crops import planes_of, random_crop
from unet_core.data.folder import open_folder
from unet_core.data.formats.files import extent
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.opening import open_dataset
from unet_core.data.packing import pack
from unet_core.data.pictures import read_mask
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import ConfigError, DataError, UNetError
from unet_core.graph import Graph, Node
from unet_core.graph.scales import refusal
from unet_core.prediction.evaluation import evaluate
from unet_core.prediction.predictions import Predictor as Writer
from unet_core.prediction.sources import Source, Wanted, extent_of
from unet_core.prediction.tile_geometry import tiling, usual_tiles
from unet_core.training.history import read_history
from unet_core.training.settings import Loss
from unet_core.training.train_config import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread_at_most")

WHOLE = AS_STORED.of(3)
SHAPE = (9, 12, 14)


def volume(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(256, size=shape).astype(np.uint8)


def ball(shape=SHAPE):
    z, y, x = np.indices(shape)
    return ((z - 4) ** 2 + (y - 5) ** 2 + (x - 8) ** 2 < 14).astype(np.uint8)


def write(path, voxels):
    match path.suffix:
        case ".npy":
            np.save(path, voxels)
        case ".tif":
            tifffile.imwrite(path, voxels, photometric="minisblack")
        case ".dcm":
            write_dicom(path, voxels)
        case _:
            write_nifti(path, voxels)


def folder(path, count=3, *, shapes=(SHAPE,), mask=ball):
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    for number in range(count):
        shape = shapes[number % len(shapes)]
        write_nifti(path / f"images/{number}.nii.gz", 100 * ball(shape) + volume(number, shape) // 4)
        write_nifti(path / f"masks/{number}.nii.gz", mask(shape))
    return path


def exact(kind="transposed"):
    """A 3-D network that may be computed in tiles; `kind` is how it raises the lower map."""
    graph = small(channels=1, dimensions=3)
    nodes, tensors = [], dict(graph.tensors)
    for node in graph.nodes:
        if node.operation == "group_norm":
            node = Node(node.name, "relu", node.inputs)
        if node.name == "up" and kind != "transposed":
            tensors["up.weight"] = dataclasses.replace(tensors["up.weight"], shape=(4, 6, 1, 1, 1))
            how = {"mode": "nearest"} if kind == "nearest" else {"mode": "linear", "align_corners": kind == "corners"}
            nodes.append(Node("raised", "interpolate", node.inputs, {}, {"scale": (2.0, 2.0, 2.0), **how}))
            once = {"stride": (1,) * 3, "padding": ((0, 0),) * 3, "dilation": (1,) * 3, "groups": 1}
            node = Node("up", "convolution", ("raised",), node.tensors, once)
        nodes.append(node)
    return Graph(1, tuple(nodes), tensors, dimensions=3, sizes=graph.sizes)


def predictor(backend, checkpoint, **options):
    module = pytest.importorskip(f"unet_{backend}.predict")
    return module.Predictor(pytest.importorskip(f"unet_{backend}.checkpoint").from_checkpoint(checkpoint), **options)


def logits(checkpoint, voxels):
    """What the network answers to the whole volume, in PyTorch in float64."""
    torch = pytest.importorskip("torch")
    from unet_torch.checkpoint import from_checkpoint

    x = torch.from_numpy(voxels.astype(np.float32) / np.float32(255)).double()[None].movedim(-1, 1)
    with torch.inference_mode():
        return from_checkpoint(checkpoint).double().logits(x)[0].movedim(0, -1).numpy()


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        *itertools.product(["torch"], ["transposed", "corners", "centres", "nearest"]),
        *(pytest.param("jax", kind, marks=pytest.mark.slow) for kind in ("transposed", "corners", "nearest")),
    ],
)
def test_exact_tiles_are_the_whole_volume(backend, kind, x64):
    checkpoint, voxels = network(exact(kind), dtype=np.float64), volume(shape=(26, 20, 22, 1))
    whole = logits(checkpoint, voxels)
    found = predictor(backend, checkpoint, tile=(16, 18, 22)).logits(voxels)
    assert len(tiling(checkpoint.config, voxels.shape[:3], (16, 18, 22))) >= 4
    assert np.abs(found - whole).max() < 1e-12 * np.abs(whole).max()
    other = predictor(backend, checkpoint, tile=(16, 18, 22), overlap=2).logits(voxels)
    assert np.abs(other - whole).max() > 1e-4, "the control: tiles that are volumes of their own"


def test_a_volume_that_is_smaller_than_a_tile_ends_in_zeros(backend):
    checkpoint, voxels = network(small(channels=1, dimensions=3)), volume(shape=(9, 11, 13, 1))
    whole = logits(checkpoint, np.pad(voxels, [(0, 1)] * 3 + [(0, 0)]))[:9, :11, :13]
    found = predictor(backend, checkpoint, tile=(12, 12, 14), overlap=0).logits(voxels)
    assert np.abs(found - whole).max() < 1e-5 * np.abs(whole).max()
    with pytest.raises(DataError, match="an input of 9x11x13: the network takes multiples of 2 from 4 up"):
        predictor(backend, checkpoint).logits(voxels)


def test_the_mirror_images_of_a_volume_are_eight():
    checkpoint, voxels = network(exact()), volume(shape=(8, 10, 12, 1))
    ways = [np.s_[::a, ::b, ::c] for a, b, c in itertools.product((1, -1), repeat=3)]
    mean = np.mean([logits(checkpoint, voxels[way])[way] for way in ways], axis=0)
    assert np.abs(predictor("torch", checkpoint, flips=True).logits(voxels) - mean).max() < 1e-5


def test_the_usual_tiles_are_exact_or_those_of_the_crop():
    assert usual_tiles(exact(), [(20, 30, 40)]) == ((20, 30, 40), None)
    assert usual_tiles(exact(), [(21, 30, 40)], (8, 16, 16)) == ((8, 16, 16), (4, 8, 8))
    normed = small(channels=1, dimensions=3)
    assert "group_norm" in refusal(normed)
    assert usual_tiles(normed, [(20, 30, 400)]) == ((20, 30, 96), (10, 15, 48))
    assert usual_tiles(normed, [(20, 30, 40)], (2, 2, 8)) == ((2, 2, 8), (0, 0, 4))
    assert usual_tiles(small(), [(20, 30)], (8, 8)) == (None, None)


def crop(image, size=(4, 6, 6), how=NONE, seed=0, **more):
    labels = image[..., 0]
    return random_crop(image, labels, size=size, augmentation=how, rng=np.random.default_rng(seed), **more)


def test_a_crop_of_a_volume_is_flipped_along_every_axis():
    image = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6, 1)
    how = dataclasses.replace(NONE, flips=True)
    seen = {crop(image, (4, 5, 6), how, seed).labels.tobytes() for seed in range(60)}
    ways = [np.s_[::a, ::b, ::c] for a, b, c in itertools.product((1, -1), repeat=3)]
    assert seen == {image[..., 0][way].tobytes() for way in ways}


@pytest.mark.parametrize(
    ("spacing", "planes"),
    [
        (None, ((1, 2),)),
        ((3.0, 0.7, 0.7), ((1, 2),)),
        ((1.0, 1.05, 1.0), ((0, 1), (0, 2), (1, 2))),
        ((0.7, 3.0, 0.7), ((0, 2),)),
        ((1.0, 2.0, 3.0), ()),
    ],
)
def test_a_volume_is_turned_where_its_voxels_are_square(spacing, planes):
    assert planes_of(spacing, 3) == planes
    assert planes_of(spacing, 2) == ((0, 1),)
    image = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None] * 30, (8, 8, 8, 1))
    how = Augmentation(rotation=90, scale=0, brightness=0, contrast=0, noise=0)
    kept = []  # whether each slice is still of one value
    for seed in range(12):
        labels = crop(image, (6, 6, 6), how, seed, planes=planes).labels
        kept.append((labels == labels[:, :1, :1]).all())
    assert all(kept) == (not {0} & {axis for plane in planes for axis in plane})


def test_crops_that_are_no_cubes_keep_their_size_and_labels_follow_the_image():
    image = np.repeat(np.repeat(np.repeat(volume(shape=(4, 6, 6)) // 128 * 255, 3, 0), 3, 1), 3, 2)[..., None]
    how = dataclasses.replace(Augmentation(), brightness=0, contrast=0, noise=0, scale=0.5)
    for seed in range(8):
        found = crop(image, (4, 10, 8), how, seed, planes=planes_of((1, 1, 1), 3))
        assert found.labels.shape == (4, 10, 8)
        sure = abs(found.image[..., 0] - 0.5) > 0.49  # no edge between
        assert sure.mean() > 0.2
        np.testing.assert_array_equal(found.labels[sure] > 0, found.image[..., 0][sure] > 0.5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".tif", ".dcm"])
def test_a_volume_of_any_kind_is_one_pair(tmp_path, suffix):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    voxels = volume()
    write(tmp_path / f"images/a{suffix}", voxels)
    write_nifti(tmp_path / "masks/a.nii.gz", ball())
    data = open_folder(tmp_path, pictures=WHOLE)
    assert (data.names, data.files, data.sizes, data.channels) == (("a",), ("a",), (SHAPE,), 1)
    np.testing.assert_allclose(data.spacings[0], (3, 0.7, 0.7), rtol=1e-6)
    image, labels = data.pair(0)
    np.testing.assert_array_equal(image[..., 0], voxels)
    np.testing.assert_array_equal(labels, ball())
    assert data.remarks[-1] == "1 volume of voxels of 3x0.7x0.7 mm"


def test_other_spacings_are_remarked(tmp_path):
    folder(tmp_path)
    assert open_folder(tmp_path, pictures=WHOLE).remarks[-1] == "3 volumes of voxels of 3x0.7x0.7 mm"
    for kind in ("images", "masks"):
        write_nifti(tmp_path / kind / "0.nii.gz", ball(), affine=np.diag([0.7, 0.7, 2, 1]))
    said = "3 volumes, whose voxels are from 2x0.7x0.7 to 3x0.7x0.7 mm: resample them to one spacing beforehand"
    assert open_folder(tmp_path, pictures=WHOLE).remarks[-1] == said


def test_a_mask_for_each_class_may_be_a_volume(tmp_path):
    folder(tmp_path, 1)
    (tmp_path / "masks/0.nii.gz").rename(tmp_path / "core.nii.gz")
    (tmp_path / "masks/0").mkdir()
    (tmp_path / "core.nii.gz").rename(tmp_path / "masks/0/core.nii.gz")
    np.testing.assert_array_equal(open_folder(tmp_path, pictures=WHOLE).pair(0).labels, ball())


def _four_axes(path):
    tifffile.imwrite(path / "images/0.tif", np.zeros((2, *SHAPE), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    (path / "images/0.nii.gz").unlink()


def _picture(path):
    tifffile.imwrite(path / "images/0.tif", np.zeros(SHAPE[1:], np.uint8))
    (path / "images/0.nii.gz").unlink()


SPOILT = {
    "another shape": (
        lambda path: write_nifti(path / "masks/0.nii.gz", ball((9, 12, 13))),
        r"images/0\.nii\.gz is 9x12x14, but masks/0\.nii\.gz is 9x12x13$",
    ),
    "channels": (
        lambda path: write_nifti(path / "images/0.nii.gz", volume(shape=(*SHAPE, 2))),
        r"images/0\.nii\.gz has 2 channels where 1 is wanted$",
    ),
    "moments": (_four_axes, r"images/0\.tif: holds 2 volumes, one for each moment; save each as a file"),
    "spacing": (
        lambda path: write_nifti(path / "masks/0.nii.gz", ball(), affine=np.diag([0.7, 0.7, 2, 1])),
        r"images/0\.nii\.gz and masks/0\.nii\.gz: their headers place them elsewhere in space",
    ),
    "a picture": (_picture, r"images/0\.tif is one picture, where a 3-D network takes volumes$"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_volume_or_does_not_fit_is_refused_in_one_line(tmp_path, name):
    spoil, words = SPOILT[name]
    spoil(folder(tmp_path, 2))
    with pytest.raises(DataError, match=words) as caught:
        open_folder(tmp_path, channels=1, pictures=WHOLE)
    assert "\n" not in str(caught.value)


RECIPE = TrainConfig(crop=8, batch=2, steps=4, validation=1, validate_every=2, save_every=2, precision="float64")
START = small(channels=1, classes=1, dimensions=3)
REFUSED = {
    "crop": ({"crop": (8, 8)}, "crop 8x8: give one number, or 3: depth, height and width"),
    "too large": ({"crop": (10, 8, 8)}, "smaller than a crop of 10x8x8; give another --crop: 0 (9x12x14), 1 (9x12x14)"),
    "odd": ({"crop": (8, 8, 9)}, "crop 8x8x9: the network takes multiples of 2 from 4 up"),
    "slices": ({"pictures": Pictures(slice_axis="y")}, "slice_axis y: a 3-D network takes volumes whole; leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_training_that_volumes_do_not_allow_is_refused(tmp_path, name):
    changes, words = REFUSED[name]
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises((DataError, ConfigError)) as caught:
        train(tmp_path / "run", backend="torch", data=folder(tmp_path / "data"), recipe=recipe, start=network(START))
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="synthetic: a 3-D network takes volumes, and its pictures are none"):
        train(tmp_path / "run", backend="torch", data="synthetic", recipe=RECIPE, start=network(START))


def test_rows_of_volumes_are_not_shared_among_devices(tmp_path):
    pytest.importorskip("jax")
    from jax.sharding import AbstractMesh

    from unet_jax.training.mesh import check_rows

    with pytest.raises(ConfigError, match="use data and fsdp"):
        check_rows(AbstractMesh((1, 1, 2), ("data", "fsdp", "space")), RECIPE, START)


def test_both_frameworks_train_alike_on_volumes(tmp_path):
    pytest.importorskip("jax")
    data = folder(tmp_path / "data", shapes=(SHAPE, (10, 8, 15)))
    found = []
    for backend in ("torch", "jax"):
        out = tmp_path / backend
        train(out, backend=backend, data=data, recipe=RECIPE, start=network(START, dtype=np.float64))
        steps = read_history(out / "history.jsonl")
        found.append(([entry["loss"] for entry in steps if "loss" in entry], validations(out)))
    (losses, judged), (others, judged_too) = found
    assert len(losses) == RECIPE.steps
    np.testing.assert_allclose(losses, others, rtol=1e-9)
    np.testing.assert_allclose(judged, judged_too, rtol=1e-9)
    assert abs(losses[0] - losses[1]) > 1e-6, "the control: other batches have another loss"
    opened = open_network(tmp_path / "torch")
    source = opened.source(str(data), only="validation")
    assert source.sizes == (SHAPE,)
    bands = opened.bands(source.sizes)
    again = evaluate(bands, source, loss=Loss(), output=opened.output, scores=True)
    best = max(
        read_history(tmp_path / "torch/history.jsonl"), key=lambda entry: entry.get("validation", {}).get("mean_iou", 0)
    )
    assert again.loss == pytest.approx(best["validation"]["loss"], rel=1e-5)  # which is in float32
    assert again.metrics.mean_iou == best["validation"]["mean_iou"]


@pytest.mark.slow
def test_a_training_on_volumes_goes_on_bit_for_bit(tmp_path, backend):
    from unet_core.training.state import difference

    run = pytest.importorskip("conversion.runs").read_run
    data, start = folder(tmp_path / "data"), network(START, dtype=np.float64)
    train(tmp_path / "whole", backend=backend, data=data, recipe=RECIPE, start=start)
    train(tmp_path / "parts", backend=backend, data=data, recipe=RECIPE, start=start, until=2)
    between = run(tmp_path / "parts").state
    train(tmp_path / "parts", backend=backend, data=data, recipe=RECIPE, start=start, resume=True)
    one, other = (run(tmp_path / name).state for name in ("whole", "parts"))
    assert not difference(one, other)
    assert difference(one, between), "the control: the state before"


def test_maps_of_volumes_lie_channels_last_on_a_gpu():
    torch = pytest.importorskip("torch")
    from unet_torch.training.step import memory_format

    kinds = [memory_format(torch.device("cuda"), axes) for axes in (4, 5)]
    assert kinds == [torch.channels_last, torch.channels_last_3d]
    assert torch.zeros(2, 2, 2, 2, 2).to(memory_format=kinds[1]).stride()[1] == 1


def bright(pixels):
    """What takes voxels above a half for the foreground."""
    for first in range(0, len(pixels), 4):
        yield first, pixels[first : first + 4].astype(np.float32) / 255 - 0.5


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".tif"])
def test_a_prediction_lies_as_its_volume_does(tmp_path, suffix):
    path, voxels = tmp_path / f"a{suffix}", volume()
    if suffix == ".npy":
        np.save(path, voxels)
    elif suffix == ".tif":
        told = {"axes": "ZYX", "spacing": 3.0, "unit": "mm"}
        tifffile.imwrite(path, voxels, imagej=True, metadata=told, resolution=(1 / 0.7, 1 / 0.7))
    else:
        write_nifti(path, voxels)
    writer = Writer(bright, small(channels=1, classes=1, output="sigmoid", dimensions=3), (0, 255), pictures=WHOLE)
    source, wanted = Source(path, "a"), Wanted(probabilities=True, overlays=True)
    found = extent_of(source, WHOLE)
    files = wanted.files(tmp_path / "out", source, found)
    writer.predict(source, found, tmp_path / "out", wanted)
    mask = files["masks"]
    assert mask.name == {".nii": "a.nii.gz"}.get(suffix, f"a{suffix}")
    np.testing.assert_array_equal(read_mask(mask, WHOLE), (voxels > 127) * np.uint8(255))
    assert np.load(files["probabilities"]).shape == (*SHAPE, 1)
    assert tifffile.imread(files["overlays"]).shape == (*SHAPE, 3)
    spacing = extent(mask, WHOLE).grid.spacing
    assert spacing is None if suffix == ".npy" else np.allclose(spacing, (3, 0.7, 0.7), rtol=1e-3)
    if ".nii" in suffix:
        written, read = nibabel.load(mask), nibabel.load(path)
        np.testing.assert_array_equal(written.affine, read.affine)
        np.testing.assert_allclose(written.affine, AFFINE)
        assert nibabel.aff2axcodes(written.affine) == nibabel.aff2axcodes(AFFINE) == ("L", "P", "S")
        np.testing.assert_array_equal(np.asarray(written.dataobj) > 0, np.asarray(read.dataobj) > 127)


def test_the_commands_predict_and_judge_volumes(tmp_path, capsys):
    checkpoint, data = tmp_path / "net.safetensors", folder(tmp_path / "data", 2, mask=lambda shape: ball(shape) * 255)
    safetensors_file.write(checkpoint, network(small(channels=1, classes=1, output="sigmoid", dimensions=3)))
    common = ["--backend", "torch", "--tile", "8", "--overlap", "4"]
    assert main(["predict", str(checkpoint), str(data / "images"), "--out", str(tmp_path / "out"), *common]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.nii.gz", "1.nii.gz"]
    capsys.readouterr()
    assert main(["eval", str(checkpoint), "--data", str(data), "--json", *common]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["pixels"]) == 2 * np.prod(SHAPE)
    masks = [np.asarray(nibabel.load(tmp_path / "out" / f"{n}.nii.gz").dataobj) > 0 for n in range(2)]
    true = np.swapaxes(ball(), 0, 2) > 0
    assert found["dice"][1] == pytest.approx(
        2 * sum((m & true).sum() for m in masks) / (sum(m.sum() for m in masks) + 2 * true.sum())
    )


def test_the_command_refuses_a_picture_for_a_3_d_network(tmp_path, capsys):
    safetensors_file.write(tmp_path / "net.safetensors", network(START))
    np.save(tmp_path / "a.npy", np.zeros((8, 8), np.uint8))
    assert (
        main(["predict", str(tmp_path / "net.safetensors"), str(tmp_path / "a.npy"), "--out", str(tmp_path / "o")]) == 2
    )
    assert "a.npy: is one picture, where a 3-D network takes volumes" in capsys.readouterr().err
    with pytest.raises(UNetError, match="a tile of 9x9x9: all must be multiples of 2; give 10x10x10"):
        predictor("torch", network(exact()), tile=(9, 9, 9))


@pytest.mark.parametrize("suffix", [".nii.gz", ".npy", ".tif"])
def test_packed_volumes_are_those_of_their_folder(tmp_path, suffix):
    pytest.importorskip("grain")
    for number in range(3):
        for kind, voxels in (("images", volume(number)), ("masks", ball())):
            path = tmp_path / f"cells/{kind}/{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, voxels)
    assert main(["pack", str(tmp_path / "cells"), str(tmp_path / "set"), "--volumes"]) == 0
    whole, found = (open_dataset(str(tmp_path / name), pictures=WHOLE) for name in ("cells", "set"))
    for name in ("names", "sizes", "spacings", "classes", "channels", "remarks"):
        assert getattr(found, name) == getattr(whole, name)
    assert found.digest() == whole.digest()
    assert found.subset([2]).spacings == whole.spacings[2:]
    pairs = [(whole.pair(number), found.pair(number)) for number in range(3)]
    assert all(np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    assert not np.array_equal(pairs[0][0].image, pairs[1][1].image), "the control"


@pytest.mark.slow
def test_a_training_on_packed_volumes_is_that_on_their_folder(tmp_path):
    pytest.importorskip("grain")
    pack(folder(tmp_path / "data"), tmp_path / "set", volumes=True)
    for name in ("data", "set"):
        out = tmp_path / f"{name}_run"
        train(out, backend="torch", data=tmp_path / name, recipe=RECIPE, start=network(START, dtype=np.float64))
    one, other = (tmp_path / f"{name}_run/history.jsonl" for name in ("data", "set"))
    assert one.read_bytes() == other.read_bytes()


def test_volumes_that_were_packed_whole_are_not_cut(tmp_path):
    pytest.importorskip("grain")
    folder(tmp_path / "cells")
    pack(tmp_path / "cells", tmp_path / "set", volumes=True)
    with pytest.raises(DataError, match="holds whole volumes, which a 3-D network takes"):
        open_dataset(str(tmp_path / "set"))


def test_packed_pictures_are_no_volumes(tmp_path):
    pytest.importorskip("grain")
    write_folder(Synthetic(count=3, size=32), tmp_path / "cells")
    pack(tmp_path / "cells", tmp_path / "set")
    with pytest.raises(DataError, match="these are pictures; pack with --volumes"):
        open_dataset(str(tmp_path / "set"), pictures=WHOLE)
