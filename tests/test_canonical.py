import numpy as np
import pytest
from conftest import TINY, trained_tensors
from hypothesis import given
from strategies import configs

from unet_core import CheckpointError, UNetConfig
from unet_core.graph.canonical import check_tensors, infer_config, tensor_specs


def shapes(config):
    return {key: spec.shape for key, spec in tensor_specs(config).items()}


def test_keys_of_the_full_network():
    keys = tensor_specs(UNetConfig())
    blocks = ["down1", "down2", "down3", "down4", "bottom", "up4", "up3", "up2", "up1"]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = []
    for block in blocks:
        for convolution in (0, 3):
            expected.append(f"{block}.conv.{convolution}.weight")
            expected += [f"{block}.conv.{convolution + 1}.{name}" for name in norm]
    assert list(keys) == [*expected, "out.weight", "out.bias"]


@given(configs(most=9, levels=11))
def test_config_is_read_off_the_shapes(config):
    found = infer_config(shapes(config), "x")
    told = ("in_channels", "out_channels", "features", "conv_bias")
    assert (found.upsampling == "transposed") == (config.upsampling == "transposed")
    widths = ("decoder_features", "middle_features", "upsampled_features")
    for field in (*told, *widths):
        assert getattr(found, field) == getattr(config, field)


@pytest.mark.parametrize("key", list(tensor_specs(TINY)))
def test_any_missing_tensor_is_named(tensors, key):
    del tensors[key]
    config = infer_config({name: value.shape for name, value in tensors.items()}, "x")
    with pytest.raises(CheckpointError, match=f"missing: {key}"):
        check_tensors(tensors, config, "x")


@pytest.mark.parametrize("key", [key for key, spec in tensor_specs(TINY).items() if spec.shape and spec.layer != "out"])
def test_any_misshaped_tensor_is_named(tensors, key):
    tensors[key] = np.concatenate([tensors[key], tensors[key][:1]])
    config = infer_config({name: value.shape for name, value in tensors.items()}, "x")
    with pytest.raises(CheckpointError, match=f"wrong shape: .*{key} is "):
        check_tensors(tensors, config, "x")


@pytest.mark.parametrize("key", ["out.weight", "out.bias"])
def test_a_misshaped_head_is_refused(tensors, key):
    tensors[key] = np.concatenate([tensors[key], tensors[key][:1]])
    config = infer_config({name: value.shape for name, value in tensors.items()}, "x")
    with pytest.raises(CheckpointError, match="wrong shape: out"):
        check_tensors(tensors, config, "x")


def test_everything_wrong_is_listed_at_once(tensors):
    del tensors["down1.conv.0.weight"], tensors["up1.conv.4.bias"]
    tensors["head.weight"] = np.zeros(3, np.float32)
    tensors["out.bias"] = np.zeros(5, np.float32)
    tensors["bottom.conv.1.bias"] = np.zeros(8, np.int32)
    with pytest.raises(CheckpointError) as error:
        check_tensors(tensors, TINY, "file.pt")
    message = str(error.value)
    for part in (
        "file.pt: ",
        "missing: down1.conv.0.weight, up1.conv.4.bias;",
        "not of this network: head.weight;",
        "wrong shape: out.bias is 5, not 2;",
        "wrong dtype: bottom.conv.1.bias is int32",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "keys",
    [{}, {"encoder.weight": (3,)}, {"down1.conv.0.weight": (4, 3, 3, 3)}, {"bottom.conv.0.weight": (4, 3, 3, 3)}],
)
def test_foreign_tensors_are_refused(keys):
    with pytest.raises(CheckpointError, match="not the tensors of this UNet"):
        infer_config(keys, "x")


def test_a_level_without_any_tensor_is_named():
    found = {key: shape for key, shape in shapes(TINY).items() if not key.startswith(("down2.", "up2."))}
    found["down3.conv.0.weight"] = (8, 8, 3, 3)
    with pytest.raises(CheckpointError, match="no tensor of down2"):
        infer_config(found, "x")


def test_trained_marks_what_an_optimiser_updates():
    trained = {key for key, spec in tensor_specs(TINY).items() if spec.trained}
    assert {key.rpartition(".")[2] for key in trained} == {"weight", "bias"}
    assert len(trained) == 5 * 2 * 3 + 2


def test_trained_tensors_are_the_network(tensors):
    check_tensors(tensors, TINY, "x")
    check_tensors(trained_tensors(TINY, dtype=np.float64), TINY, "x")
