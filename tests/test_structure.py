"""The reader of names that no table has: every network of the family under made-up names, and what it does not take."""

import random

import pytest
from conftest import by_examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import configs

from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints.structure import read_structure
from unet_core.graph.canonical import infer_config, tensor_specs


def shapes(config, rename=lambda layer: f"net.{layer.replace('.', '_')}"):
    """The shapes of a network under names that tell nothing, in forward order, and the names of its layers."""
    specs = tensor_specs(config)
    layers = {spec.layer: rename(spec.layer) for spec in specs.values()}
    return {f"{layers[spec.layer]}.{key.rpartition('.')[2]}": spec.shape for key, spec in specs.items()}, layers


@given(configs(most=9, levels=5))
def test_any_network_in_forward_order_is_found(config):
    found, layers = shapes(config)
    assert read_structure(found, "x", ordered=True).layers == layers


@by_examples(20, 60, configs(most=9, levels=4), st.randoms(use_true_random=False))
def test_where_the_widths_fit_in_one_way_only_the_order_of_the_blocks_does_not_matter(config, rng):
    named, layers = shapes(config)
    if not read_structure(named, "x", ordered=True).unique:
        return
    blocks = [block.name for block in (*config.encoder_blocks, *config.decoder_blocks)]
    rng.shuffle(blocks)
    order = {f"net.{block}_": place for place, block in enumerate(blocks)}
    mixed = dict(sorted(named.items(), key=lambda item: order.get(item[0].partition("_")[0] + "_", 99)))
    assert read_structure(mixed, "x", ordered=True).layers == layers


def test_equal_widths_are_read_in_order_and_that_is_said():
    config = UNetConfig(3, 1, (4, 4, 4, 4))
    named, layers = shapes(config)
    found = read_structure(named, "x", ordered=True)
    assert found.layers == layers
    assert not found.unique


def test_equal_widths_without_an_order_are_refused():
    named, _ = shapes(UNetConfig(3, 1, (4, 4, 4, 4)))
    names = list(named)
    random.Random(0).shuffle(names)
    with pytest.raises(CheckpointError, match=r"several layers could be .*; save the state_dict as \.pt"):
        read_structure({name: named[name] for name in names}, "x", ordered=False)


def test_without_an_order_numbers_in_names_count_as_numbers():
    """`conv10` runs after `conv2`, which an order by letters would reverse."""
    config = UNetConfig(3, 1, (4, 6, 8))
    places = {
        layer: number for number, layer in enumerate(dict.fromkeys(s.layer for s in tensor_specs(config).values()))
    }
    named, layers = shapes(config, lambda layer: f"layer{places[layer]}")
    mixed = dict(sorted(named.items()))
    assert list(mixed) != list(named)
    assert read_structure(mixed, "x", ordered=False).layers == layers


@given(configs(most=9, levels=4))
def test_the_config_follows(config):
    named, _ = shapes(config)
    canonical = {layer: name for name, layer in read_structure(named, "x", ordered=True).layers.items()}
    renamed = {f"{canonical[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": shape for key, shape in named.items()}
    assert infer_config(renamed, "x").features == config.features


def without(part):
    return lambda found: {key: shape for key, shape in found.items() if part not in key}


OTHERS = {
    "no BatchNorm": (
        lambda found: {key: shape for key, shape in found.items() if "conv_1" not in key and "conv_4" not in key},
        "here are 10, 0, 0 and 1",
    ),
    "GroupNorm": (
        lambda found: {key: shape for key, shape in found.items() if "running" not in key and "tracked" not in key},
        "it has other layers: 'net.down1_conv_1' (weight 4, bias 4)",
    ),
    "a convolution of 5x5": (
        lambda found: {**found, "net.down1_conv_0.weight": (4, 3, 5, 5)},
        "it has other layers: 'net.down1_conv_0' (weight 4x3x5x5)",
    ),
    "a linear layer": (
        lambda found: {**found, "fc.weight": (4, 4), "fc.bias": (4,)},
        "it has other layers: 'fc' (weight 4x4, bias 4)",
    ),
    "one block too few": (without("bottom"), "here are 8, 8, 0 and 1"),
    "no head": (without("out"), "here are 10, 10, 0 and 0"),
    "widths that do not chain": (
        lambda found: {**found, "net.up1_conv_0.weight": (4, 11, 3, 3)},
        "do not chain up to a UNet",
    ),
    "a BatchNorm of another width": (
        lambda found: {
            key: (5,) if "down2_conv_1" in key and "tracked" not in key else shape for key, shape in found.items()
        },
        "with equal widths: net.down2_conv_0 with net.down2_conv_1",
    ),
    "convolutions that do not follow": (
        lambda found: {**found, "net.down2_conv_3.weight": (6, 7, 3, 3)},
        "net.down2_conv_0 answers 6 channels, net.down2_conv_3 takes 7",
    ),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_network_of_the_family_is_refused_with_the_reason(change, message):
    found, _ = shapes(UNetConfig(3, 1, (4, 6, 8)))
    with pytest.raises(CheckpointError) as error:
        read_structure(change(found), "x", ordered=True)
    assert message in str(error.value)


def test_many_equal_blocks_do_not_take_for_ever():
    """A search without a limit would try more orders than there are atoms."""
    named, _ = shapes(UNetConfig(4, 1, (4,) * 20))
    named["net.out.weight"] = (1, 5, 1, 1)
    with pytest.raises(CheckpointError, match="equal widths to tell them apart"):
        read_structure(named, "x", ordered=True)


def sequential(conv, norm, second, second_norm):
    """A network whose blocks are `nn.Sequential`, with the layers at these places."""
    places = {"conv.0": conv, "conv.1": norm, "conv.3": second, "conv.4": second_norm}

    def rename(layer):
        block, _, place = layer.partition(".")
        return f"{block}.block.{places[place]}" if place in places else layer

    return shapes(UNetConfig(3, 1, (4, 6, 8)), rename)


@pytest.mark.parametrize("places", [(0, 1, 3, 4), (0, 1, 4, 5), (1, 2, 4, 5)])
def test_places_with_room_for_an_activation_pass(places):
    named, layers = sequential(*places)
    assert read_structure(named, "x", ordered=True).layers == layers


@pytest.mark.parametrize(
    "places",
    [(0, 2, 3, 5), (0, 2, 4, 5), (0, 1, 3, 5), (1, 0, 4, 3), (0, 1, 2, 3)],
    ids=["ReLU before", "ReLU before once", "ReLU before later", "BatchNorm first", "no ReLU"],
)
@pytest.mark.parametrize("ordered", [True, False])
def test_another_order_of_layers_is_seen_in_the_places_of_a_sequential(places, ordered):
    """Convolution, ReLU, BatchNorm has the very same shapes."""
    named, _ = sequential(*places)
    with pytest.raises(CheckpointError, match=r"something else lies between|equal widths"):
        read_structure(named, "x", ordered=ordered)


def test_without_an_order_names_must_tell_which_layer_comes_first():
    names = {"conv.0": "c1", "conv.1": "norm_in", "conv.3": "c2", "conv.4": "norm_between"}

    def rename(layer):
        block, _, place = layer.partition(".")
        return f"{block}.{names[place]}" if place in names else layer

    named, layers = shapes(UNetConfig(3, 1, (4, 6, 8)), rename)
    assert read_structure(named, "x", ordered=True).layers == layers
    with pytest.raises(CheckpointError, match=r"nothing tells which of .*norm_between and .*norm_in runs first"):
        read_structure(dict(sorted(named.items())), "x", ordered=False)
