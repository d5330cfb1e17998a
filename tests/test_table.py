"""The names of tensors in JAX and in torch, in both directions."""

import numpy as np
import pytest
from conftest import TINY, by_examples, trained_tensors
from hypothesis import given
from hypothesis import strategies as st
from strategies import configs

pytest.importorskip("jax")

from flax import nnx

import unet_jax
from unet_core import CheckpointError
from unet_jax.canonical import nest, translate


@given(configs(most=5, levels=5), st.integers(0, 99))
def test_there_and_back_is_the_identity(config, seed):
    tensors = trained_tensors(config, seed)
    back = translate(translate(tensors, "jax", config), "torch", config)
    assert list(back) == list(tensors)
    for key, value in tensors.items():
        assert back[key].dtype == value.dtype
        assert np.array_equal(back[key], value)


@by_examples(5, 15, configs(most=5, levels=3))
def test_names_and_shapes_are_the_models_own(config):
    state = nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: unet_jax.UNet.from_config(config, rngs=None))))
    expected = {".".join(map(str, path)): (variable.shape, variable.dtype) for path, variable in state}
    found = {
        key: (value.shape, value.dtype) for key, value in translate(trained_tensors(config), "jax", config).items()
    }
    assert found == expected


def test_strange_and_missing_names_are_all_listed(tensors):
    kept = {key: value for key, value in tensors.items() if ".conv.4.bias" not in key and key != "out.bias"}
    kept["head.weight"] = kept["down1.norm.scale"] = np.zeros(1)
    with pytest.raises(CheckpointError) as error:
        translate(kept, "jax", TINY)
    message = str(error.value)
    assert "not of it: head.weight, down1.norm.scale" in message
    assert "missing: bottom.conv.4.bias, down1.conv.4.bias" in message
    assert "out.bias" in message


def test_a_count_that_jax_cannot_hold_is_refused(tensors):
    tensors["bottom.conv.1.num_batches_tracked"] = np.array(2**31, np.int64)
    with pytest.raises(CheckpointError, match=r"bottom.conv.1.num_batches_tracked is 2147483648"):
        translate(tensors, "jax", TINY)
    tensors["bottom.conv.1.num_batches_tracked"] = np.array(2**31 - 1, np.int64)
    assert translate(tensors, "jax", TINY)["bottom.conv.1.num_batches_tracked"] == 2**31 - 1


def test_nesting_follows_the_dots():
    one, two, three = (np.full(1, value) for value in (1, 2, 3))
    assert nest({"a.b.c": one, "a.b.d": two, "e": three}) == {"a": {"b": {"c": one, "d": two}}, "e": three}
