"""The full network, from a checkpoint that a plain PyTorch script saved to the same answers in JAX."""

import itertools

import numpy as np
import pytest
from conftest import trained_tensors

from unet_core import UNetConfig

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx
from plain_unet import PlainUNet

import conversion
import unet_jax
from benchmarks.conversion import MEMORY_BUDGET, measure_routes
from conversion.containers import read
from unet_jax.canonical import to_canonical as jax_canonical
from unet_torch.canonical import to_canonical as torch_canonical

pytestmark = pytest.mark.slow

SIZES = [(3, 64, 64), (1, 75, 91), (3, 256, 256)]
SIZES += [pytest.param(*size, marks=pytest.mark.long) for size in ((1, 64, 64), (3, 75, 91), (1, 256, 256))]
CHANNELS = {"trained": (3, 1), "random": (5, 4)}


@pytest.fixture(scope="module", params=CHANNELS)
def plain(request):
    """The user's own class and file, with statistics that training left behind, or as it was drawn."""
    torch.manual_seed(0)
    model = PlainUNet(*CHANNELS[request.param])
    if request.param == "trained":
        with torch.no_grad():
            for _ in range(2):
                model(torch.randn(2, 3, 64, 64) * 2 + 1)
    return model


@pytest.fixture(scope="module")
def ported(plain, tmp_path_factory):
    """The path of the Orbax directory that `convert` made of the user's file, and of one in float64."""
    folder = tmp_path_factory.mktemp("ported")
    paths = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        state = {
            key: value.to(dtype) if value.is_floating_point() else value for key, value in plain.state_dict().items()
        }
        torch.save(state, folder / f"{name}.pt")
        paths[name] = conversion.convert(folder / f"{name}.pt", folder / name, verify=False).dst
    return paths


def in_torch(plain, x, dtype, *, training):
    model = PlainUNet(x.shape[-1], plain.out.out_channels)
    model.load_state_dict(plain.state_dict())
    model.to(dtype).train(training)
    with torch.no_grad():
        logits = model.logits(torch.from_numpy(x).to(dtype).permute(0, 3, 1, 2))
    return logits.permute(0, 2, 3, 1).numpy(), torch_canonical(model)


def in_jax(path, x, dtype, *, training):
    with jax.enable_x64(dtype == jnp.float64):
        model = unet_jax.load(path)
        model.train() if training else model.eval()
        graphdef, state = nnx.split(model)

        @jax.jit
        def run(state, x):
            model = nnx.merge(graphdef, state)
            return model.logits(x), nnx.state(model)

        logits, state = run(state, jnp.asarray(x, dtype))
        return np.asarray(logits), jax_canonical(nnx.merge(graphdef, state))


def largest(found, reference):
    return np.abs(found.astype(np.float64) - reference).max()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize(("n", "height", "width"), SIZES)
def test_the_ported_network_is_the_same(plain, ported, n, height, width, training):
    channels = plain.down1.conv[0].in_channels
    x = np.random.default_rng(n * height).standard_normal((n, height, width, channels), np.float32)
    exact, exact_statistics = in_torch(plain, x, torch.float64, training=training)
    wide, wide_statistics = in_jax(ported["float64"], x, jnp.float64, training=training)
    assert largest(wide, exact) <= 1e-12 * np.abs(exact).max()
    for key, value in exact_statistics.items():
        assert largest(wide_statistics[key], value) <= 1e-12 * np.abs(value).max(), key
    own, _ = in_torch(plain, x, torch.float32, training=training)
    ours, _ = in_jax(ported["float32"], x, jnp.float32, training=training)
    assert largest(ours, exact) <= 1.25 * largest(own, exact)


def test_there_and_back_is_bit_exact(plain, tmp_path):
    torch.save(plain.state_dict(), tmp_path / "a.pt")
    places = [tmp_path / name for name in ("a.pt", "b", "c.safetensors", "d.pt")]
    for src, dst in itertools.pairwise(places):
        conversion.convert(src, dst, verify=False)
    first, last = read(places[0]).tensors, read(places[-1]).tensors
    assert list(first) == list(last)
    for key, value in first.items():
        assert value.dtype == last[key].dtype
        assert value.tobytes() == last[key].tobytes()
    PlainUNet(plain.down1.conv[0].in_channels, plain.out.out_channels).load_state_dict(
        torch.load(places[-1], weights_only=True), strict=True
    )


def test_the_proof_of_the_full_network():
    model = conversion.to_jax(PlainUNet())
    proof = conversion.verify(conversion.to_torch(model), model)
    assert proof.equal, proof.verdict


def test_a_conversion_adds_little_memory(tmp_path):
    for row in measure_routes(tmp_path, rounds=1):
        assert row["added_over_checkpoint"] <= MEMORY_BUDGET, row


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
def test_no_false_alarm_across_the_frameworks(seed):
    """Random small networks, the JAX twin against torch."""
    from unet_core.checkpoints.checkpoint import Checkpoint
    from unet_torch.checkpoint import from_checkpoint

    rng = np.random.default_rng(seed)
    features = tuple(int(width) for width in rng.integers(1, 17, rng.integers(2, 5)))
    config = UNetConfig(int(rng.integers(1, 5)), int(rng.integers(1, 4)), features)
    model = from_checkpoint(Checkpoint(config, trained_tensors(config, seed)))
    proof = conversion.verify(model, conversion.to_jax(model), seed=seed)
    assert proof.equal, proof.verdict
