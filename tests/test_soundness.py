"""What `inspect` finds wrong with values, and what makes a checkpoint unfit."""

import ml_dtypes
import numpy as np
import pytest
from conftest import TINY, trained_tensors

from unet_core import CheckpointError
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.soundness import oddities, poison, trusted
from unet_core.graph.initial import initial_tensors


def changed(key, change, dtype=np.float32):
    tensors = trained_tensors(TINY, dtype=dtype)
    tensors[key] = change(tensors[key].copy()).astype(dtype)
    return tensors


def put(place, value):
    def change(tensor):
        tensor[place] = value
        return tensor

    return change


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_poison(dtype, value):
    tensors = changed("up1.conv.3.weight", put((0, 0, 0, 0), value), dtype)
    assert list(poison(tensors)) == ["up1.conv.3.weight: 1 of 144 values are NaN or infinite"]
    with pytest.raises(CheckpointError, match="x: no network runs on these values: up1"):
        trusted(Checkpoint(TINY, tensors), "x")


def test_a_negative_variance_is_poison():
    assert list(poison(changed("up1.conv.1.running_var", lambda v: -v))) == [
        "up1.conv.1.running_var: 4 of 4 variances are negative"
    ]


@pytest.mark.parametrize("key", ["up1.conv.1.running_var", "up1.conv.1.running_mean", "up1.conv.1.weight", "out.bias"])
def test_zeros_are_no_poison(key):
    assert not list(poison(changed(key, lambda value: value * 0)))


def test_a_trained_network_has_nothing_odd():
    assert not list(oddities(trained_tensors(TINY)))


def test_batch_norm_that_was_never_trained():
    assert any("BatchNorm was never trained: every running mean" in text for text in oddities(initial_tensors(TINY, 0)))


def test_one_batch_norm_that_was_never_trained():
    tensors = trained_tensors(TINY)
    tensors["up2.conv.4.running_mean"] = np.zeros(6, np.float32)
    tensors["up2.conv.4.running_var"] = np.ones(6, np.float32)
    assert list(oddities(tensors)) == [
        "BatchNorm was never trained in up2.conv.4: running mean 0 and running variance 1"
    ]


@pytest.mark.parametrize(
    ("weight", "bias", "dead"),
    [(0.0, 0.0, True), (0.0, -1.0, True), (0.1, -0.7, True), (-0.1, -0.7, True), (0.1, -0.5, False), (0.0, 0.1, False)],
)
def test_a_channel_whose_relu_never_fires(weight, bias, dead):
    tensors = changed("bottom.conv.1.weight", put(3, weight))
    tensors["bottom.conv.1.bias"][3] = bias
    found = list(oddities(tensors))
    assert found == (["dead channels, whose ReLU never fires: bottom.conv.1 1 of 8"] if dead else [])


def test_a_channel_that_was_constant_in_training():
    found = list(oddities(changed("bottom.conv.1.running_var", put(3, 0))))
    assert found == ["channels that are constant (running variance 0): bottom.conv.1 1 of 8"]


def test_a_kernel_of_zeros():
    assert list(oddities(changed("down2.conv.3.weight", lambda kernel: kernel * 0))) == [
        "kernels of zeros: down2.conv.3.weight"
    ]
