"""Prediction with networks that were read from code: whole pictures, of the sizes that they take."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from graphs import network, small, unpadded, volume
from test_import_walls import JAX, TORCH, WITHOUT

from conversion.inference import open_network
from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.errors import DataError, UNetError
from unet_core.graph import Sizes
from unet_core.prediction.metrics import decided
from unet_core.prediction.tile_geometry import tiling

pytestmark = pytest.mark.usefixtures("one_thread_at_most")


def predictor(backend, checkpoint, **options):
    module = pytest.importorskip(f"unet_{backend}.predict")
    return module.Predictor(pytest.importorskip(f"unet_{backend}.checkpoint").from_checkpoint(checkpoint), **options)


def picture(height, width, channels=3):
    return np.random.default_rng(height).integers(256, size=(height, width, channels)).astype(np.uint8)


def logits(checkpoint, pixels):
    """What the network answers, in PyTorch in float64."""
    torch = pytest.importorskip("torch")
    from unet_torch.checkpoint import from_checkpoint

    model = from_checkpoint(checkpoint).double()
    with torch.inference_mode():
        x = torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).double()[None].permute(0, 3, 1, 2)
        return model.logits(x)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [pytest.param((8, 12), marks=pytest.mark.slow), (20, 18)])
def test_a_picture_is_predicted_whole(backend, size):
    checkpoint, pixels = network(small(rate=0.5, output="sigmoid")), picture(*size)
    found = predictor(backend, checkpoint).logits(pixels)
    exact = logits(checkpoint, pixels)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() < 1e-5 * np.abs(exact).max()
    halves = [predictor(backend, checkpoint).logits(half) for half in np.split(pixels, 2)]
    assert np.abs(np.concatenate(halves) - exact).max() > 1e-3, "the control: the halves see less"


def test_flips_are_averaged(backend):
    checkpoint, pixels = network(), picture(8, 12)
    found = predictor(backend, checkpoint, flips=True).logits(pixels)
    each = [logits(checkpoint, pixels[::down, ::across])[::down, ::across] for down in (1, -1) for across in (1, -1)]
    assert np.abs(found - np.mean(each, axis=0)).max() < 1e-5
    assert np.abs(found - each[0]).max() > 1e-3


def test_bfloat16_is_near(backend):
    checkpoint, pixels = network(), picture(16, 16)
    found, exact = predictor(backend, checkpoint, bfloat16=True).logits(pixels), logits(checkpoint, pixels)
    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert found.dtype == np.float32
    assert 1e-4 < error < 0.1


def test_float64_stays_float64(backend, x64):
    checkpoint, pixels = network(dtype=np.float64), picture(8, 8)
    found = predictor(backend, checkpoint).logits(pixels)
    assert found.dtype == np.float64
    assert np.abs(found - logits(checkpoint, pixels)).max() < 1e-12


def test_new_weights_are_seen_and_the_model_stays_as_it_is():
    pytest.importorskip("jax")
    from flax import nnx

    from unet_jax.checkpoint import from_checkpoint
    from unet_jax.predict import Predictor

    model, pixels = from_checkpoint(network()), picture(8, 8)
    model.train()
    made = Predictor(model)
    first = made.logits(pixels)
    assert model.training
    other = nnx.split(from_checkpoint(network(seed=1)), nnx.Param, nnx.BatchStat)[1:]
    assert np.abs(made.logits(pixels, other) - logits(network(seed=1), pixels)).max() < 1e-5
    np.testing.assert_array_equal(made.logits(pixels), first)


def chancy():
    """Drops in eval mode too."""
    graph = small(rate=0.5)
    nodes = [
        dataclasses.replace(node, attributes={**node.attributes, "always": True}) if node.name == "bottom.3" else node
        for node in graph.nodes
    ]
    return dataclasses.replace(graph, nodes=tuple(nodes))


REFUSED = {
    "size": (small(), (9, 8), "an input of 9x8: the network takes multiples of 2 from 4 up"),
    "too small": (small(sizes=Sizes(1, 32)), (16, 40), "an input of 16x40: the network takes any size from 32 up"),
    "sizes": (small(sizes=Sizes(only=((8, 8),))), (8, 10), "an input of 8x10: the network takes 8x8 alone"),
    "channels": (small(channels=1), (8, 8), "the input has 3 channels, the network takes 1"),
    "unpadded": (unpadded(), (8, 8), "an input of 8x8: the network answers 8x8 pixels with 6x6: that is no mask"),
    "chance": (chancy(), (8, 8), "an input of 8x8: the network draws at random even where it predicts"),
    "volume": (volume(channels=3), (8, 8), "a volume is an array of depth, height, width and channels; this one is"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_it_does_not_take_is_refused(backend, name):
    graph, size, message = REFUSED[name]
    with pytest.raises(DataError) as error:
        predictor(backend, network(graph)).logits(picture(*size))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_tiles_that_are_not_exact_are_refused_with_the_reason(backend):
    with pytest.raises(UNetError, match=r"not exact: node bottom.1, group_norm: it draws on the whole map at once"):
        predictor(backend, network(), tile=(8, 8))


def test_tiles_with_an_overlap_are_blended(backend):
    checkpoint, pixels = network(), picture(20, 26)
    found = predictor(backend, checkpoint, tile=(16, 20), overlap=8).logits(pixels)
    expected = np.zeros((20, 26, 2))
    plan = tiling(checkpoint.config, (20, 26), (16, 20), 8)
    for row, down in zip(plan.lines[0].starts, plan.lines[0].weights, strict=True):
        for column, across in zip(plan.lines[1].starts, plan.lines[1].weights, strict=True):
            part = slice(row, row + 16), slice(column, column + 20)
            expected[part] += down[:, None, None] * across[None, :, None] * logits(checkpoint, pixels[part])
    assert len(plan) == 4
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def local(**options):
    """The small network without the norm that draws on the whole map."""
    graph = small(**options)
    nodes = [
        dataclasses.replace(node, operation="relu", tensors={}, attributes={}) if node.name == "bottom.1" else node
        for node in graph.nodes
    ]
    return dataclasses.replace(graph, nodes=tuple(nodes))


def test_tiles_are_exact_where_the_network_allows_it(backend, x64):
    checkpoint, pixels = network(local(output="softmax"), dtype=np.float64), picture(40, 58)
    found = predictor(backend, checkpoint, tile=(24, 24)).logits(pixels)
    exact = logits(checkpoint, pixels)
    assert len(tiling(checkpoint.config, (40, 58), (24, 24))) > 4
    assert np.abs(found - exact).max() < 1e-12 * np.abs(exact).max()


@pytest.fixture
def checkpoint(tmp_path):
    """The file of a network for pictures of one channel and masks of two classes, that of a sigmoid."""
    path = tmp_path / "net.safetensors"
    safetensors_file.write(path, network(small(channels=1, classes=1, output="sigmoid")))
    return path


def test_the_commands_predict_and_evaluate(backend, checkpoint, cells, tmp_path, capsys):
    from PIL import Image

    options = ["--backend", backend, "--bfloat16", "--flips"]
    pictures = ["predict", str(checkpoint), str(cells / "images"), "--out", str(tmp_path / "masks")]
    assert main([*pictures, "--probabilities", *options[:2]]) == 0
    assert "6 of 6 pictures predicted" in capsys.readouterr().out
    name = sorted((cells / "images").iterdir())[0]
    with Image.open(name) as file:
        exact = logits(safetensors_file.read(checkpoint), np.asarray(file)[..., None])
    mask = np.asarray(Image.open(tmp_path / "masks" / f"{name.stem}.png"))
    sure = np.abs(exact[..., 0]) > 1e-4
    np.testing.assert_array_equal(mask[sure], 255 * (exact[..., 0] > 0)[sure])
    found = np.load(tmp_path / "masks" / f"{name.stem}.npy")
    assert np.abs(found - 1 / (1 + np.exp(-exact))).max() < 1e-5
    assert main(["eval", str(checkpoint), "--data", str(cells), *options]) == 0
    assert "6 pictures: mean IoU" in capsys.readouterr().out
    assert main(["eval", str(checkpoint), "--data", str(cells), "--tile", "16"]) == 2
    assert capsys.readouterr().err.startswith("unet: tiles of this network are not exact: node bottom.1, group_norm: ")


def test_what_is_not_taken_is_passed_over_by_name(backend, cells, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    safetensors_file.write(path, network(small(channels=1, sizes=Sizes(64, 64))))
    arguments = ["predict", str(path), str(cells / "images"), "--out", str(tmp_path / "masks"), "--backend", backend]
    assert main(arguments) == 2
    found = capsys.readouterr()
    assert "0 of 6 pictures predicted" in found.out
    assert found.err.count("an input of 32x32: the network takes multiples of 64 from 64 up\n") == 6


def test_a_run_decides_as_it_was_trained(tmp_path):
    """Several sigmoids have a background besides; a run has trained them as a softmax."""
    from unet_core.training.run import RunConfig, write_run_config
    from unet_core.training.train_config import TrainConfig

    path = tmp_path / "run"
    path.mkdir()
    checkpoint = network(small(channels=1, classes=2, output="sigmoid"))
    safetensors_file.write(path / "best.safetensors", checkpoint)
    write_run_config(path, RunConfig("jax", TrainConfig(), "synthetic", ("a",), ("b",), "", 1, (0, 255)))
    assert open_network(path).output == "softmax"
    assert open_network(path / "best.safetensors").output == "sigmoid"
    values = np.array([[-2.0, -1.0]])
    assert decided(values, "softmax") != decided(values, "sigmoid")


USE = """
import json, numpy as np
from unet_cli.main import main
assert main(["inspect", "net.safetensors"]) == 0
recipe = ["--steps", "2", "--crop", "16", "--batch", "2", "--validate-every", "2", "--start", "net.safetensors"]
assert main(["train", "--backend", {backend!r}, "--data", "synthetic", "--out", "run", *recipe]) == 0
assert main(["train", "--resume", "--out", "run", "--steps", "3"]) == 0
assert main(["eval", "run", "--data", "synthetic"]) == 0
import unet_{backend}
model = unet_{backend}.load("run/best.safetensors")
unet_{backend}.save(model, "own{suffix}")
unet_{backend}.load("own{suffix}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("needs", "blocked", "suffix"), [("torch", JAX, ".pt"), ("jax", TORCH, "")], ids=["torch-only", "jax-only"]
)
def test_one_framework_alone_opens_trains_and_predicts(tmp_path, needs, blocked, suffix):
    pytest.importorskip(needs)
    safetensors_file.write(tmp_path / "net.safetensors", network(small(channels=1, classes=1, rate=0.2)))
    code = WITHOUT.format(blocked=blocked) + USE.format(backend=needs, suffix=suffix)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_network_is_another_with_another_graph():
    checkpoint = network()
    assert dataclasses.replace(checkpoint, config=small(output="softmax")).config != checkpoint.config
