import dataclasses

import pytest
from hypothesis import given
from strategies import configs

from unet_core import ConfigError, UNetConfig


@given(configs())
def test_json_round_trip(config):
    assert UNetConfig.from_json(config.to_json()) == config


def test_defaults_are_the_full_network():
    assert UNetConfig().features == (64, 128, 256, 512, 1024)
    assert UNetConfig().minimum_size == 16


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        UNetConfig().in_channels = 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"out_channels": 1.5}, "out_channels"),
        ({"out_channels": True}, "out_channels"),
        ({"features": (64,)}, "features"),
        ({"features": 64}, "features"),
        ({"features": "ab"}, "features"),
        ({"features": (1,) * 33}, "features"),
        ({"decoder_features": (64, 64)}, "decoder_features: 4 widths are needed"),
        ({"middle_features": (1, 2, 3, 0)}, "middle_features"),
        ({"upsampled_features": (1, 2, 3, 4)}, "upsampled_features: bilinear upsampling keeps the channels"),
        ({"upsampling": "cubic"}, "upsampling: one of bilinear, transposed"),
        ({"fit": "crop"}, "fit: one of resize, pad"),
        ({"output": None}, "output: one of sigmoid, softmax, logits"),
        ({"output": []}, "output: one of"),
        ({"features": (64, -1)}, "features"),
        ({"align_corners": "yes"}, "align_corners"),
        ({"skip_first": 1}, "skip_first"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon"),
        ({"norm_momentum": 1.5}, "norm_momentum"),
        ({"norm_momentum": None}, "norm_momentum"),
    ],
)
def test_impossible_value_is_named(fields, named):
    with pytest.raises(ConfigError, match=named):
        UNetConfig(**fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "list"),
        ('{"depth": 4}', "unknown fields: depth"),
        ('{"features": 64}', "features"),
        ('{"features": ["a", "b"]}', "features"),
    ],
)
def test_bad_json_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        UNetConfig.from_json(text)


@pytest.mark.parametrize(("size", "channels"), [((15, 64), 3), ((64, 15), 3), ((64, 64), 1)])
def test_impossible_input_is_refused(size, channels):
    with pytest.raises(ValueError, match="input"):
        UNetConfig().check_input(*size, channels)


@pytest.mark.parametrize(
    "fields",
    [
        {"decoder_features": (64, 128, 256, 512)},
        {"middle_features": (64, 128, 256, 512)},
        {"decoder_features": (8, 8, 8, 8), "middle_features": [8, 8, 8, 8]},
        {"upsampling": "transposed", "upsampled_features": [64, 128, 256, 512]},
    ],
)
def test_widths_that_are_the_default_are_the_same_network(fields):
    """However it is written down, one network has one config."""
    config = UNetConfig(**fields)
    spoken = {"middle_features": None, "upsampled_features": None}
    if "decoder_features" in fields and fields["decoder_features"] == config.features[:-1]:
        spoken["decoder_features"] = None
    assert config == UNetConfig(**{**fields, **spoken})
    assert config.middle_features is config.upsampled_features is None


def test_widths_of_the_decoder():
    config = UNetConfig(3, 1, (4, 6, 8), "transposed", decoder_features=(3, 5), upsampled_features=(7, 9))
    assert config.decoder_blocks == (("up2", 9 + 6, 5, 5, (8, 9)), ("up1", 7 + 4, 3, 3, (5, 7)))
    config = UNetConfig(3, 1, (4, 6, 8), decoder_features=(3, 5), middle_features=(2, 1))
    assert config.decoder_blocks == (("up2", 8 + 6, 1, 5, None), ("up1", 5 + 4, 2, 3, None))
