"""The graph of a config is the graph that is read from its torch module, for every option of the config."""

import dataclasses

import pytest
from conftest import few

from unet_core.config import UNetConfig
from unet_core.errors import ConfigError
from unet_core.graph.family import graph

torch = pytest.importorskip("torch")

from unet_torch.model import UNet
from unet_torch.reading.read import read

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

BASE = UNetConfig(in_channels=1, out_channels=2, features=(2, 3, 4))
TOGETHER = {
    "bilinear": {},
    "transposed and padded": {
        "features": (2, 3),
        "upsampling": "transposed",
        "fit": "pad",
        "upsampled_features": (5,),
        "output": "softmax",
    },
    "nearest and groups": {"features": (2, 4), "upsampling": "nearest", "norm": "group", "norm_groups": 2},
    "the others": {
        "in_channels": 3,
        "out_channels": 1,
        "align_corners": False,
        "skip_first": True,
        "conv_bias": True,
        "output": "logits",
        "decoder_features": (3, 5),
        "middle_features": (4, 2),
        "norm_epsilon": 1e-3,
        "norm_momentum": 0.25,
    },
}
OPTIONS = {
    "one channel": {"in_channels": 3, "out_channels": 1},
    "deeper": {"features": (2, 3, 4, 5)},
    "transposed": {"upsampling": "transposed"},
    "transposed and padded": {"upsampling": "transposed", "fit": "pad"},
    "half-pixel corners": {"align_corners": False},
    "skip first": {"skip_first": True},
    "padded": {"fit": "pad"},
    "biases": {"conv_bias": True},
    "softmax": {"output": "softmax"},
    "logits": {"output": "logits"},
    "widths": {"decoder_features": (3, 5), "middle_features": (4, 2)},
    "raised widths": {"upsampling": "transposed", "upsampled_features": (5, 6)},
    "nearest": {"upsampling": "nearest"},
    "nearest and padded": {"upsampling": "nearest", "fit": "pad"},
    "groups": {"features": (2, 4, 6), "norm": "group", "norm_groups": 2, "norm_epsilon": 1e-3},
    "epsilon and momentum": {"norm_epsilon": 1e-3, "norm_momentum": 0.25},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("options", few(TOGETHER, "bilinear", "transposed and padded"))
def test_the_graph_of_a_config_is_the_graph_of_its_module(options):
    config = dataclasses.replace(BASE, **options)
    assert read(UNet.from_config(config, seed=0)).graph == graph(config)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_so_it_is_for_each_option_alone(options):
    config = dataclasses.replace(BASE, **options)
    assert read(UNet.from_config(config, seed=0)).graph == graph(config)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_makes_another_graph(option):
    assert graph(dataclasses.replace(BASE, **OPTIONS[option])) != graph(BASE)


def test_every_option_is_tried():
    for cases in (OPTIONS, TOGETHER):
        tried = {name for options in cases.values() for name in options} | {"features", "upsampling", "fit"}
        assert tried == {field.name for field in dataclasses.fields(UNetConfig)}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "options",
    few(
        {
            "both": ({"upsampling": "nearest", "features": (2, 4), "norm": "group", "norm_groups": 2},),
            "nearest": ({"upsampling": "nearest"},),
            "groups": ({"features": (2, 4, 6), "norm": "group", "norm_groups": 2},),
        },
    ),
)
def test_an_option_that_needs_no_more_than_its_node_runs_in_jax(options):
    pytest.importorskip("jax")
    import conversion

    model = UNet.from_config(dataclasses.replace(BASE, **options), seed=0)
    proof = conversion.verify(model, conversion.to_jax(model), size=(13, 18))
    assert proof.equal, proof.verdict


def test_channels_that_make_no_equal_groups_are_refused():
    with pytest.raises(ConfigError, match="norm_groups: 2 channels are not 8 equal groups"):
        dataclasses.replace(BASE, norm="group")


def test_a_stored_config_is_as_before_where_it_has_batch_norm():
    assert "norm" not in BASE.to_dict()
    grouped = dataclasses.replace(BASE, features=(2, 4), norm="group", norm_groups=2)
    assert UNetConfig.from_dict(grouped.to_dict()) == grouped
