import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_core import ConfigError, UNetConfig

widths = st.integers(1, 64)
configs = st.builds(
    UNetConfig,
    in_channels=widths,
    out_channels=widths,
    features=st.lists(widths, min_size=2, max_size=6).map(tuple),
    align_corners=st.booleans(),
    skip_first=st.booleans(),
    norm_epsilon=st.floats(1e-12, 1.0),
    norm_momentum=st.floats(1e-6, 1.0),
)


@given(configs)
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
