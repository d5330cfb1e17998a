"""Tiled prediction against the network on the whole picture, in both frameworks."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import configs
from test_twins import ROOT, methods, public_names

from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import DataError, UNetError
from unet_core.graph.family import graph
from unet_core.graph.regions import reach
from unet_core.prediction.tile_geometry import tiling

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx

import unet_jax.predict
import unet_torch.predict
from unet_jax.canonical import to_canonical as jax_canonical
from unet_jax.checkpoint import from_checkpoint as to_jax
from unet_torch.checkpoint import from_checkpoint as to_torch

CONFIGS = {
    "default": TINY,
    "half-pixel": dataclasses.replace(TINY, align_corners=False, skip_first=True),
    "one level": UNetConfig(1, 1, (5, 3)),
    "deep and narrow": UNetConfig(1, 3, (2, 3, 4, 5, 6)),
    "padded": dataclasses.replace(TINY, fit="pad", conv_bias=True),
    "transposed": dataclasses.replace(TINY, upsampling="transposed"),
    "transposed, half-pixel": dataclasses.replace(TINY, upsampling="transposed", align_corners=False),
    "narrower decoder": dataclasses.replace(TINY, decoder_features=(3, 4), middle_features=(5, 7)),
    "all at once": UNetConfig(
        2, 3, (4, 6, 6), "transposed", False, True, "pad", True, "softmax", (5, 4), (3, 7), (2, 3), 1e-4, 0.2
    ),
}
TWINS = {"torch": (unet_torch.predict, to_torch), "jax": (unet_jax.predict, to_jax)}
twins = pytest.mark.parametrize("twin", TWINS)
mostly_in_torch = pytest.mark.parametrize("twin", few(list(TWINS), "torch"))
"""For the geometry of tiles, which both twins share."""


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny tiles gain nothing from several, and lose much where others compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def predictor(twin, config=TINY, dtype=np.float64, **options):
    """A new one, with a model of its own."""
    module, of_checkpoint = TWINS[twin]
    return module.Predictor(of_checkpoint(Checkpoint(config, trained_tensors(config, dtype=dtype))), **options)


def whole(config, picture, dtype=np.float64):
    """The torch twin's logits of the whole picture; `test_models` holds the other twin to them."""
    model = to_torch(Checkpoint(config, trained_tensors(config, dtype=dtype)))
    x = torch.from_numpy(np.ascontiguousarray(picture, dtype)[None]).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model.logits(x)[0].permute(1, 2, 0).numpy()


def pixels(config, height, width):
    return np.random.default_rng(height * width).random((height, width, config.in_channels), np.float32)


def error(found, reference):
    """The largest, relative to how far the logits spread over the picture."""
    return np.abs(found - reference).max() / np.ptp(reference, axis=(0, 1)).max()


def small_tile(config):
    """One that overlaps exactly and still moves on."""
    return sum(reach(graph(config), (999, 999))[0]) + 2 * config.minimum_size


def test_the_twins_define_the_same_names_in_the_same_order():
    paths = [ROOT / f"unet_{twin}/predict.py" for twin in TWINS]
    assert public_names(paths[0]) == public_names(paths[1])
    assert methods(paths[0], "Predictor") == methods(paths[1], "Predictor")


@pytest.mark.parametrize(
    ("twin", "config"),
    few(
        {f"{twin}, {name}": (twin, config) for twin in TWINS for name, config in CONFIGS.items()},
        *(f"torch, {name}" for name in ("default", "deep and narrow", "transposed, half-pixel", "all at once")),
        "jax, all at once",
    ),
)
def test_tiles_answer_as_the_whole_picture_does(x64, twin, config):
    step, tile = config.minimum_size, small_tile(config)
    predict = predictor(twin, config, tile=(tile, tile + step))
    for height, width in ((step, 2 * step + 1), (tile - 1, tile - step - 3), (tile + 2 * step + 1, tile + step - 1)):
        picture = pixels(config, height, width)
        found = predict.logits(picture)
        assert found.dtype == np.float64
        assert error(found, whole(config, picture)) < 1e-12


@given(configs(most=4, levels=4), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=12)
def test_any_network_in_torch(config, more, wider):
    check_any("torch", config, more, wider)


@given(configs(most=4, levels=3), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_network_in_jax(x64, config, more, wider):
    check_any("jax", config, more, wider)


def check_any(twin, config, more, wider):
    tile = small_tile(config)
    picture = pixels(config, config.minimum_size + more, tile + wider)
    reference = whole(config, picture)  # a constant, where no ReLU lets anything through
    found = predictor(twin, config, tile=(tile, tile)).logits(picture)
    assert np.abs(found - reference).max() <= 1e-12 * np.abs(reference).max()


@mostly_in_torch
def test_tiles_that_reach_less_far_are_another_network(x64, twin, monkeypatch):
    picture = pixels(TINY, 131, 97)
    tile = small_tile(TINY) + 8
    predict = predictor(twin, tile=(tile, tile))
    reference = whole(TINY, picture)
    assert error(predict.logits(picture), reference) < 1e-12
    monkeypatch.setattr("unet_core.prediction.tile_geometry.reach", lambda *_: ((16, 16), (16, 16)))
    assert error(predict.logits(picture), reference) > 1e-8


@mostly_in_torch
def test_with_an_overlap_each_tile_is_a_picture_of_its_own(x64, twin):
    config, (height, width), tile = CONFIGS["half-pixel"], (100, 116), 80
    picture = pixels(config, height, width)
    found = predictor(twin, config, tile=(tile, tile), overlap=8).logits(picture)
    reference, expected = whole(config, picture), np.zeros((height, width, config.out_channels))
    near = np.zeros((height, width), bool)
    plan = tiling(config, (height, width), (tile, tile), 8)
    assert (plan.lines[0].starts, plan.lines[1].starts) == ((0, 20), (0, 36))
    for row, down in zip(plan.lines[0].starts, plan.lines[0].weights, strict=True):
        for column, across in zip(plan.lines[1].starts, plan.lines[1].weights, strict=True):
            part = slice(row, row + tile), slice(column, column + tile)
            expected[part] += down[:, None, None] * across[None, :, None] * whole(config, picture[part])
            far = [slice(28 * (first > 0), tile - 28 * (first == 0)) for first in (row, column)]
            inside = np.zeros((tile, tile), bool)
            inside[far[0], far[1]] = True
            near[part] |= ~inside & (down[:, None] * across > 0)
    assert error(found, expected) < 1e-12
    assert 0.05 < (~near).mean() < 0.8
    assert error(found[~near], reference[~near]) < 1e-12 < 1e-6 < error(found[near], reference[near]) < 0.5


@mostly_in_torch
def test_flips_average_four_mirror_images(x64, twin):
    picture = pixels(TINY, 83, 70)
    tile = small_tile(TINY)
    predict = predictor(twin, tile=(tile, tile), flips=True)
    mirrored = [
        whole(TINY, picture[::vertical, ::horizontal])[::vertical, ::horizontal]
        for vertical in (1, -1)
        for horizontal in (1, -1)
    ]
    assert error(predict.logits(picture), np.mean(mirrored, 0)) < 1e-12
    assert error(mirrored[0], np.mean(mirrored, 0)) > 1e-3


@mostly_in_torch
def test_bands_follow_one_another_from_the_top(twin):
    picture = pixels(TINY, 150, 20)
    tile = small_tile(TINY)
    predict = predictor(twin, dtype=np.float32, tile=(tile, tile))
    for predict.flips in (False, True):
        bands = list(predict.bands(picture))
        assert len(bands) > 2
        assert [top for top, _ in bands] == list(np.cumsum([0] + [len(rows) for _, rows in bands[:-1]]))
        assert {rows.shape[1:] for _, rows in bands} == {(20, TINY.out_channels)}
        assert {rows.dtype for _, rows in bands} == {np.dtype(np.float32)}


@mostly_in_torch
def test_whole_numbers_are_fractions_of_white(twin):
    predict = predictor(twin, dtype=np.float32)
    for dtype in (np.uint8, np.uint16):
        picture = (pixels(TINY, 40, 37) * np.iinfo(dtype).max).astype(dtype)
        fractions = picture / np.float32(np.iinfo(dtype).max)
        found = predict.logits(picture)
        np.testing.assert_array_equal(found, predict.logits(fractions))
        np.testing.assert_array_equal(found, predict.logits(np.asfortranarray(picture)))
        assert error(found, whole(TINY, fractions)) < 1e-5


@twins
def test_bfloat16_rounds_and_no_more(twin):
    picture = pixels(TINY, 50, 61)
    found = predictor(twin, dtype=np.float32, bfloat16=True).logits(picture)
    assert found.dtype == np.float32
    assert 1e-4 < error(found, whole(TINY, picture)) < 5e-2


@pytest.mark.parametrize("training", few([True, False], True))
@twins
def test_the_model_stays_as_it_is_and_its_weights_are_read_each_time(twin, training):
    module, of_checkpoint = TWINS[twin]
    model, picture = of_checkpoint(Checkpoint(TINY, trained_tensors(TINY))), pixels(TINY, 20, 30)
    model.train() if training else model.eval()
    predict = module.Predictor(model)
    first = predict.logits(picture)
    assert error(first, whole(TINY, picture)) < 1e-5
    assert model.training is training
    canonical = model.state_dict() if twin == "torch" else jax_canonical(model)
    for key, value in trained_tensors(TINY).items():
        np.testing.assert_array_equal(canonical[key], value)
    if twin == "torch":
        assert all(module.training is training for module in model.modules())
        with torch.no_grad():
            model.out.bias += 1
    else:
        model.out.bias[...] += 1
    np.testing.assert_allclose(predict.logits(picture), first + 1, atol=1e-5)


def test_torch_keeps_a_mixed_mode_also_where_the_network_fails():
    predict = predictor("torch", dtype=np.float32)
    model = predict.model.train()
    model.down1.eval()
    before = [module.training for module in model.modules()]
    predict.logits(pixels(TINY, 20, 30))
    assert [module.training for module in model.modules()] == before
    model.out = torch.nn.Conv2d(99, 1, 1)
    with pytest.raises(RuntimeError, match="channels"):
        predict.logits(pixels(TINY, 20, 30))
    assert [module.training for module in model.modules()][: len(before) - 1] == before[:-1]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_torch_predicts_with_the_network_inside_a_wrapper():
    model = predictor("torch", dtype=np.float32).model
    picture = pixels(TINY, 20, 30)
    found = unet_torch.predict.Predictor(torch.nn.DataParallel(model)).logits(picture)
    np.testing.assert_array_equal(found, unet_torch.predict.Predictor(model).logits(picture))
    with pytest.raises(TypeError, match="UNet or Network is needed, got Linear"):
        unet_torch.predict.Predictor(torch.nn.Linear(1, 1))


def test_jax_compiles_once_for_all_sizes_and_weights():
    config = UNetConfig(3, 2, (4, 6))
    predict = predictor("jax", config, np.float32, tile=(32, 32))
    other = to_jax(Checkpoint(config, trained_tensors(config, 1)))
    other.train()
    variables = nnx.split(other, nnx.Param, nnx.BatchStat)[1:]
    for height, width in ((4, 5), (32, 32), (41, 20), (15, 40)):
        picture = pixels(config, height, width)
        first = predict.logits(picture)
        found = predict.logits(picture, variables)
        assert error(first, found) > 1e-2
    assert predict._programs["cpu"]._cache_size() == 2, "one for a picture of just the tile's size"
    other.eval()
    np.testing.assert_allclose(found, other.logits(jnp.asarray(picture)[None])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch", few([2, 5], 5))
def test_tiles_that_are_computed_together_are_those_that_are_computed_alone(batch):
    picture = pixels(TINY, 81, 75)
    with jax.enable_x64(True):
        expected = predictor("jax", tile=(64, 64)).logits(picture)
        found = predictor("jax", tile=(64, 64), batch=batch).logits(picture)
    assert error(found, expected) < 1e-13


def test_no_tile_at_a_time_is_refused():
    with pytest.raises(UNetError, match="batch 0: at least one tile"):
        predictor("jax", dtype=np.float32, batch=0)


def test_weights_are_folded_once_until_they_change():
    predict, picture = predictor("jax", dtype=np.float32, tile=(64, 64)), pixels(TINY, 40, 40)
    before = predict.logits(picture)
    folded = predict._folded[2]
    predict.logits(picture)
    assert predict._folded[2] is folded
    dict(predict.model.variables())["up1.conv.4.bias"][...] += 1
    assert error(predict.logits(picture), before) > 1e-2
    assert predict._folded[2] is not folded


REPLICATED = """
import os
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
import jax, numpy as np, unet_jax
from flax import nnx
from unet_core.prediction.tile_geometry import tiling
from unet_jax.predict import Predictor
model = unet_jax.UNet(1, 1, features=(2, 3), rngs=0)
mesh = jax.make_mesh((2,), ("data",))
everywhere = jax.NamedSharding(mesh, jax.P())
variables = jax.device_put(nnx.split(model, nnx.Param, nnx.BatchStat)[1:], everywhere)
predict = Predictor(nnx.eval_shape(lambda: unet_jax.UNet(1, 1, features=(2, 3), rngs=None)))
picture = np.random.default_rng(0).random((20, 20, 1), np.float32)
found = predict.logits(picture, variables)
assert (found == predict.logits(picture, nnx.split(model, nnx.Param, nnx.BatchStat)[1:])).all()
split = jax.NamedSharding(mesh, jax.P(None, None, None, "data"))
place = lambda x: split if x.ndim == 4 and x.shape[3] % 2 == 0 else everywhere
kernels = jax.tree.map(lambda x: jax.device_put(x, place(x)), variables)
assert (found == predict.logits(picture, kernels)).all()
assert predict._programs["cpu"]._cache_size() == 1
large = np.random.default_rng(0).random((70, 40, 1), np.float32)
alone, spread = (Predictor(model, tile=(32, 40), devices=given) for given in (None, jax.devices()))
expected = alone.logits(large)
tiles = tiling(model.config, (70, 40), (32, 40))
network = spread._network(variables, tiles.plan.graph)
assert spread._logits(network, large, [(0, 0), (8, 0)], tiles).sharding.num_devices == 2
assert np.abs(spread.logits(large) - expected).max() < 1e-6
assert np.abs(spread.logits(large, kernels) - expected).max() < 1e-6
model.eval()
assert np.abs(found - model.logits(picture[None])[0]).max() < 1e-4
"""


@pytest.mark.slow
def test_several_devices(tmp_path):
    """A network without weights of its own takes those that lie on several, copied or split; tiles are spread."""
    done = subprocess.run([sys.executable, "-c", REPLICATED], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 40, 3), "an input of 3x40 is too small: 2 max-pools need at least 4x4"),
        ((40, 40, 1), "the input has 1 channels, the network takes 3"),
        ((40, 40), "a picture is an array of height, width and channels; this one is 40x40"),
    ],
)
@twins
def test_a_picture_that_does_not_fit_is_refused(twin, shape, message):
    if len(shape) != 3:
        from unet_core.prediction.stitching import planned

        with pytest.raises(DataError, match=message):
            planned(TINY, np.zeros(shape, np.uint8), None, None)
        return
    with pytest.raises(DataError, match=message):
        predictor(twin, dtype=np.float32).bands(np.zeros(shape, np.uint8))


@twins
def test_tiles_that_cover_nothing_are_refused(twin):
    with pytest.raises(UNetError, match="multiples of 4; give 64x64"):
        predictor(twin, dtype=np.float32, tile=(64, 62))
    with pytest.raises(UNetError, match="an overlap of 64 pixels: tiles of 64 can overlap by 0 to 60"):
        predictor(twin, dtype=np.float32, tile=(64, 64), overlap=64).bands(pixels(TINY, 100, 100))
