"""The convolution with fewer multiplications is the convolution: in float64, in float32's error, with controls."""

import numpy as np
import pytest
from conftest import trained_tensors
from test_faster import FAMILY, apart, both, inputs

from unet_core import UNetConfig
from unet_core.checkpoint import Checkpoint

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx

from unet_jax import winograd
from unet_jax.checkpoint import from_checkpoint
from unet_jax.convolution import convolve, convolve_plain
from unet_jax.layers import Convolution
from unet_jax.model import UNet
from unet_jax.plain import PlainUNet
from unet_jax.predict import Predictor

WAYS = ["by_rows", "by_tiles"]
SMALL = UNetConfig(3, 2, (2, 3), skip_first=True)


def wide(monkeypatch, way):
    """Even convolutions of one channel go that way."""
    monkeypatch.setattr(winograd, "_LEAST", 1)
    monkeypatch.setattr(winograd, "_MANY", {"by_rows": 1 << 20, "by_tiles": 1}[way])


def functions(model):
    """What each convolution of a network calls, and the shape of its kernel."""
    return [(layer.apply, layer.kernel.shape) for _, layer in nnx.iter_modules(model) if isinstance(layer, Convolution)]


@pytest.mark.parametrize("kind", [winograd.TWO, winograd.FOUR, winograd.transform(0.0, 1.0, -1.0, 2.0, -2.0, 0.5)])
def test_a_transform_gives_sums_of_three_products(kind):
    inputs, taps = np.random.default_rng(0).standard_normal(len(kind.inputs)), np.array([2.0, -3.0, 5.0])
    found = kind.outputs @ ((kind.taps @ taps) * (kind.inputs @ inputs))
    np.testing.assert_allclose(found, np.correlate(inputs, taps, "valid"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1), (2, 13), (6, 3)])
@pytest.mark.parametrize(("batch", "channels"), [(1, (3, 5)), (2, (4, 1))])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_convolution(x64, monkeypatch, way, size, batch, channels):
    wide(monkeypatch, way)
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(shape)) for shape in ((batch, *size, channels[0]), (3, 3, *channels)))
    function, ready = winograd.prepared(kernel)
    assert function is getattr(winograd, way)
    assert apart(jax.jit(function)(x, ready), convolve_plain(x, kernel)) < 1e-12


@pytest.mark.parametrize("part", ["inputs", "taps", "outputs"])
@pytest.mark.parametrize(("way", "kind"), [("by_rows", "FOUR"), ("by_tiles", "TWO")])
def test_a_wrong_weight_would_be_seen(x64, monkeypatch, way, kind, part):
    wide(monkeypatch, way)
    right = getattr(winograd, kind)
    weights = getattr(right, part).copy()
    weights[1, 1] *= 1.01
    monkeypatch.setattr(winograd, kind, right._replace(**{part: weights}))
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.standard_normal((1, 8, 8, 3))), jnp.asarray(rng.standard_normal((3, 3, 3, 2)))
    function, ready = winograd.prepared(kernel)
    assert apart(function(x, ready), convolve_plain(x, kernel)) > 1e-4


@pytest.mark.parametrize("way", WAYS)
def test_float32_is_as_exact_as_the_convolution(monkeypatch, way):
    """Of positive inputs, as a ReLU leaves them."""
    wide(monkeypatch, way)
    rng = np.random.default_rng(0)
    x, kernel = rng.random((1, 32, 32, 64)) + 0.5, rng.standard_normal((3, 3, 64, 64))
    with jax.enable_x64(True):
        exact = np.asarray(convolve_plain(jnp.asarray(x), jnp.asarray(kernel)))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    function, ready = winograd.prepared(kernel)
    found, direct = (
        np.linalg.norm(np.asarray(y, np.float64) - exact) for y in (function(x, ready), convolve_plain(x, kernel))
    )
    assert found <= 1.25 * direct


@pytest.mark.parametrize(
    ("shape", "function"),
    [
        ((3, 3, 64, 64), winograd.by_rows),
        ((3, 3, 256, 512), winograd.by_rows),
        ((3, 3, 512, 512), winograd.by_tiles),
        ((3, 3, 63, 512), None),
        ((3, 3, 512, 3), None),
        ((1, 1, 64, 64), None),
    ],
)
def test_the_kernel_decides(shape, function):
    found = jax.eval_shape(lambda kernel: (winograd.prepared(kernel) or (None, None))[1], jnp.zeros(shape))
    expected = {winograd.by_rows: (6, 3, *shape[2:]), winograd.by_tiles: (4, 4, *shape[2:]), None: None}[function]
    assert (found and found.shape) == expected


@pytest.mark.parametrize("config", [SMALL, *(pytest.param(config, marks=pytest.mark.slow) for config in FAMILY)])
@pytest.mark.parametrize("way", WAYS)
def test_the_network_folded_for_a_cpu_predicts_the_same(x64, monkeypatch, config, way):
    wide(monkeypatch, way)
    model, _ = both(config)
    x = inputs(config, (9, 14))[0]
    folded = model.fold("cpu")
    assert getattr(winograd, way) in {function for function, _ in functions(folded)}
    model.eval()
    assert apart(*(jax.jit(network.logits)(x) for network in (folded, model))) < 1e-12


@pytest.mark.parametrize("platform", [None, "tpu", "cuda"])
def test_any_other_platform_keeps_its_kernels(monkeypatch, platform):
    wide(monkeypatch, "by_rows")
    model = UNet(3, 1, features=(2, 3, 4), rngs=0)
    assert functions(model.fold(platform)) == functions(model)


def test_bfloat16_and_the_plain_network_stay_direct(monkeypatch):
    wide(monkeypatch, "by_rows")
    narrow = UNet(3, 1, features=(2, 3, 4), dtype=jnp.bfloat16, rngs=0).fold("cpu")
    assert {function for function, _ in functions(narrow)} == {convolve}
    plain = PlainUNet(3, 1, features=(2, 3, 4), rngs=0)
    assert functions(plain.fold("cpu")) == functions(plain)


def test_tiles_are_predicted_as_the_whole(x64, monkeypatch):
    wide(monkeypatch, "by_rows")
    called, function = [], winograd.by_rows
    monkeypatch.setattr(winograd, "by_rows", lambda x, kernel: called.append(x.shape) or function(x, kernel))
    model, _ = both(SMALL)
    model.eval()
    picture = np.random.default_rng(0).random((45, 33, 3)).astype(np.float32)
    found = Predictor(model, tile=(36, 36), batch=2).logits(picture)
    assert called, "the weights lie on a CPU"
    assert apart(found, np.asarray(jax.jit(model.logits)(picture[None]))[0]) < 1e-12


@pytest.mark.slow
def test_the_full_networks_float32_error_is_within_its_budget():
    """Beside torch's own, as the proof of a conversion asks for; of random numbers and of a photograph."""
    torch = pytest.importorskip("torch")
    from conversion.samples import samples
    from unet_torch.checkpoint import from_checkpoint as to_torch

    config = UNetConfig()
    checkpoint = Checkpoint(config, trained_tensors(config))
    folded = from_checkpoint(checkpoint).fold("cpu")
    assert {winograd.by_rows, winograd.by_tiles} < {function for function, _ in functions(folded)}
    ours = jax.jit(folded.logits)
    for sample in samples(config):
        x = torch.from_numpy(sample.x).permute(0, 3, 1, 2)
        with torch.inference_mode():
            exact = to_torch(checkpoint).double().eval().logits(x.double()).permute(0, 2, 3, 1).numpy()
            theirs = to_torch(checkpoint).eval().logits(x).permute(0, 2, 3, 1).numpy()
        errors = [np.linalg.norm(np.asarray(answer, np.float64) - exact) for answer in (ours(sample.x), theirs)]
        assert errors[0] <= 1.25 * errors[1]
