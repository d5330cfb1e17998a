"""The one table of names, read in both directions."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY, trained_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs

pytest.importorskip("jax")

from flax import nnx

import unet_jax
from unet_core import CheckpointError, UNetConfig
from unet_core.hub import tensor_specs
from unet_jax.hub import TABLE, nest, translate

TORCH_KEYS = list(tensor_specs(UNetConfig()))


@given(configs(most=5, levels=5), st.integers(0, 99))
def test_there_and_back_is_the_identity(config, seed):
    tensors = trained_tensors(config, seed)
    back = translate(translate(tensors, "jax", config), "torch", config)
    assert list(back) == list(tensors)
    for key, value in tensors.items():
        assert back[key].dtype == value.dtype
        assert np.array_equal(back[key], value)


@given(configs(most=5, levels=3))
@settings(max_examples=15)
def test_names_and_shapes_are_the_models_own(config):
    state = nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: unet_jax.UNet.from_config(config, rngs=None))))
    expected = {".".join(map(str, path)): (variable.shape, variable.dtype) for path, variable in state}
    found = {
        key: (value.shape, value.dtype) for key, value in translate(trained_tensors(config), "jax", config).items()
    }
    assert found == expected


def test_a_kernel_goes_from_oihw_to_hwio(tensors):
    kernel = np.arange(4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)
    tensors["down1.conv.0.weight"] = kernel
    assert translate(tensors, "jax", TINY)["down1.conv1.kernel"][1, 2, 0, 3] == kernel[3, 0, 1, 2]


@pytest.mark.parametrize("key", TORCH_KEYS)
def test_exactly_one_row_matches_each_key(key, tensors):
    renamed = {**trained_tensors(UNetConfig(features=(1, 1, 1, 1, 1)))}
    assert key in translate(translate(renamed, "jax", TINY), "torch", TINY)


def test_keys_without_a_row_and_rows_without_a_key_are_all_listed(tensors):
    kept = {key: value for key, value in tensors.items() if ".conv.4.bias" not in key and key != "out.bias"}
    kept["head.weight"] = kept["down1.norm.scale"] = np.zeros(1)
    with pytest.raises(CheckpointError) as error:
        translate(kept, "jax", TINY)
    message = str(error.value)
    assert "head.weight (0 rows)" in message
    assert "down1.norm.scale (0 rows)" in message
    assert r"rows without a tensor: *.conv.4.bias, out.bias" in message


def test_a_count_that_jax_cannot_hold_is_refused(tensors):
    tensors["bottom.conv.1.num_batches_tracked"] = np.array(2**31, np.int64)
    with pytest.raises(CheckpointError, match=r"bottom.conv.1.num_batches_tracked is 2147483648"):
        translate(tensors, "jax", TINY)
    tensors["bottom.conv.1.num_batches_tracked"] = np.array(2**31 - 1, np.int64)
    assert translate(tensors, "jax", TINY)["bottom.norm1.num_batches_tracked"] == 2**31 - 1


def test_a_wrong_permutation_would_be_seen(tensors, monkeypatch):
    """The control: under a table that swaps height and width, a translated kernel is another one."""
    right = translate(tensors, "jax", TINY)
    broken = tuple(row if row.axes is None else dataclasses.replace(row, axes=(3, 2, 1, 0)) for row in TABLE)
    monkeypatch.setattr("unet_jax.hub.TABLE", broken)
    assert not np.array_equal(translate(tensors, "jax", TINY)["bottom.conv1.kernel"], right["bottom.conv1.kernel"])


def test_nesting_follows_the_dots():
    one, two, three = (np.full(1, value) for value in (1, 2, 3))
    assert nest({"a.b.c": one, "a.b.d": two, "e": three}) == {"a": {"b": {"c": one, "d": two}}, "e": three}
