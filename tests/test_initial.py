import numpy as np
import pytest
from conftest import TINY

from unet_core import UNetConfig
from unet_core.graph.canonical import tensor_specs
from unet_core.graph.initial import initial_tensors


def equal(a, b):
    assert a.keys() == b.keys()
    return all(a[key].dtype == b[key].dtype and np.array_equal(a[key], b[key]) for key in a)


def test_kernels_have_torchs_distribution():
    """Uniform on +-1/sqrt(fan_in): standard deviation bound / sqrt(3)."""
    kernel = initial_tensors(UNetConfig(features=(64, 128)), 0)["bottom.conv.3.weight"]
    bound = 1 / np.sqrt(9 * 128)
    assert np.abs(kernel).max() <= bound
    assert np.abs(kernel).max() > 0.999 * bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert abs(kernel.mean()) < 0.01 * bound


def test_batch_norm_starts_as_the_identity():
    tensors = initial_tensors(TINY, 0)
    ends = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    for name, value in ends.items():
        assert (tensors[f"up1.conv.4.{name}"] == value).all()


def test_every_tensor_is_that_of_its_spec():
    tensors = initial_tensors(TINY, 0)
    assert {key: value.shape for key, value in tensors.items()} == {
        key: spec.shape for key, spec in tensor_specs(TINY).items()
    }


def test_seeds_draw_different_networks():
    assert not equal(initial_tensors(TINY, 0), initial_tensors(TINY, 1))


def test_a_tensor_does_not_depend_on_the_others():
    wider = UNetConfig(in_channels=3, out_channels=5, features=(4, 6, 8))
    assert np.array_equal(initial_tensors(TINY, 3)["up1.conv.0.weight"], initial_tensors(wider, 3)["up1.conv.0.weight"])


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_one_seed_is_one_network_in_both_twins(seed):
    unet_torch, unet_jax = pytest.importorskip("unet_torch"), pytest.importorskip("unet_jax")
    from flax import nnx

    from unet_jax.canonical import to_canonical as from_jax
    from unet_torch.canonical import to_canonical as from_torch

    arguments = {"in_channels": 3, "out_channels": 2, "features": (4, 6, 8)}
    in_torch = from_torch(unet_torch.UNet(**arguments, seed=seed))
    assert equal(in_torch, from_jax(unet_jax.UNet(**arguments, rngs=seed)))
    assert equal(in_torch, from_jax(unet_jax.UNet(**arguments, rngs=nnx.Rngs(seed))))
    assert equal(in_torch, from_jax(unet_jax.UNet(**arguments, rngs=nnx.Rngs(params=seed))))
    assert equal(in_torch, from_jax(nnx.jit(lambda: unet_jax.UNet(**arguments, rngs=nnx.Rngs(seed)))()))


def test_any_key_will_do():
    jax, unet_jax = pytest.importorskip("jax"), pytest.importorskip("unet_jax")
    from flax import nnx

    key = jax.random.key(3)
    seeded = unet_jax.UNet(features=(2, 3), rngs=3).out.weight[...]
    assert np.array_equal(unet_jax.UNet(features=(2, 3), rngs=key).out.weight[...], seeded)
    others = [jax.random.split(key)[0], jax.random.fold_in(key, 1), nnx.Rngs(3).fork()]
    for other in others:
        assert not np.array_equal(unet_jax.UNet(features=(2, 3), rngs=other).out.weight[...], seeded)
    inside = nnx.jit(lambda key: unet_jax.UNet(features=(2, 3), rngs=key))(others[0])
    assert np.array_equal(inside.out.weight[...], unet_jax.UNet(features=(2, 3), rngs=others[0]).out.weight[...])


def test_each_network_from_one_rngs_is_another():
    unet_jax = pytest.importorskip("unet_jax")
    from flax import nnx

    rngs = nnx.Rngs(0)
    first, second = (unet_jax.UNet(features=(2, 3), rngs=rngs) for _ in range(2))
    assert not np.array_equal(first.out.weight[...], second.out.weight[...])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_the_frameworks_read_differently_is_refused(seed):
    unet_torch, unet_jax = pytest.importorskip("unet_torch"), pytest.importorskip("unet_jax")
    with pytest.raises(ValueError, match="seed"):
        unet_torch.UNet(features=(2, 3), seed=seed)
    with pytest.raises(ValueError, match="seed"):
        unet_jax.UNet(features=(2, 3), rngs=seed)


def test_manual_seed_governs_torch():
    torch, unet_torch = pytest.importorskip("torch"), pytest.importorskip("unet_torch")
    from unet_torch.canonical import to_canonical

    def network():
        torch.manual_seed(5)
        return to_canonical(unet_torch.UNet(features=(2, 3)))

    assert equal(network(), network())
    assert not equal(network(), to_canonical(unet_torch.UNet(features=(2, 3))))
