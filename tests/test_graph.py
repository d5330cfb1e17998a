"""The graph as a value: JSON in and out, and one line for what is no network."""

import copy
import json
import pickle

import pytest

from unet_core import ConfigError, UNetConfig
from unet_core.graph import Graph, Node, Sizes, Tensor
from unet_core.graph.family import graph

CONFIGS = {
    "bilinear": UNetConfig(features=(4, 6, 8)),
    "transposed": UNetConfig(features=(4, 6), upsampling="transposed", conv_bias=True, output="softmax"),
    "padded": UNetConfig(features=(4, 6), fit="pad", skip_first=True, output="logits"),
}


@pytest.fixture(params=CONFIGS.values(), ids=list(CONFIGS))
def network(request):
    return graph(request.param)


def test_json_brings_the_same_graph_back(network):
    assert Graph.from_json(network.to_json()) == network


def test_a_copy_is_the_same_graph(network):
    assert copy.deepcopy(network) == network
    assert pickle.loads(pickle.dumps(network)) == network


def test_another_attribute_is_another_graph(network):
    fields = json.loads(network.to_json())
    node = next(node for node in fields["nodes"] if node["operation"] == "batch_norm")
    node["attributes"]["epsilon"] *= 2
    assert Graph.from_dict(fields) != network


def test_the_graph_of_a_config_tells_what_the_config_tells(network):
    config = next(config for config in CONFIGS.values() if graph(config) == network)
    assert (network.in_channels, network.out_channels) == (config.in_channels, config.out_channels)
    assert (network.output, network.minimum_size) == (config.output, config.minimum_size)
    assert network.answered((21, 33)) == (21, 33)


CONVOLUTION = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
KERNEL = {"kernel": Tensor((4, 3, 3, 3), "parameter")}


def _convolution(name="a", inputs=("input",), tensors=None, **changed):
    return Node(name, "convolution", inputs, tensors or {"weight": "kernel"}, {**CONVOLUTION, **changed})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Node("a", "convolute", ("input",)), "node a: there is no operation convolute"),
        (lambda: Node("a", "relu", ()), "node a, relu: it takes 1 to 1 inputs, not 0"),
        (lambda: Node("a", "relu", ("input",), {"weight": "w"}), "it takes the tensors"),
        (lambda: _convolution(strides=(1, 1)), "it takes the attributes stride"),
        (lambda: _convolution(stride=1.5), "node a, convolution: 1.5"),
        (lambda: Node("a", "leaky_relu", ("input",)), "it needs the attribute slope"),
        (lambda: Graph(3, (), {}), "the graph has 0 nodes"),
        (lambda: Graph(3, (Node("a", "relu", ("b",)),), {}), "node a: takes b, which is not there"),
        (lambda: Graph(3, (_convolution(),), {}), "node a: takes kernel, which is not there"),
        (lambda: Graph(3, (_convolution(), _convolution()), KERNEL), "node a: is there twice"),
        (lambda: Graph(3, (_convolution(stride=(1, 1, 1)),), KERNEL), "node a, convolution: "),
        (lambda: Graph(3, (Node("a", "mean", ("input",), {}, {"axes": (1,)}),), {}), "the network answers"),
        (lambda: Graph(3, (_convolution(),), {"kernel": Tensor((4, 3, 3, 3), "parameter", "other")}), "tensor kernel"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(make, message):
    with pytest.raises(ConfigError) as refused:
        make()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"nodes": 3}', '{"in_channels": 3, "dimensions": 2, "tensors": {}, "nodes": [{}]}'],
)
def test_damaged_json_is_refused(text):
    with pytest.raises(ConfigError, match="the graph is"):
        Graph.from_json(text)


@pytest.mark.parametrize(
    ("sizes", "size", "taken"),
    [
        (Sizes(), (1, 1), True),
        (Sizes(16, 32), (32, 48), True),
        (Sizes(16, 32), (16, 48), False),
        (Sizes(16, 32), (40, 48), False),
        (Sizes(1, 1, 64), (64, 65), False),
        (Sizes(only=((64, 48),)), (64, 48), True),
        (Sizes(only=((64, 48),)), (48, 64), False),
    ],
)
def test_sizes_say_which_inputs_are_taken(sizes, size, taken):
    assert sizes.take(size) == taken


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        (Sizes(), "any size from 1 up"),
        (Sizes(16, 32), "multiples of 16 from 32 up"),
        (Sizes(1, 8, 512), "any size from 8 to 512"),
        (Sizes(only=((64, 48), (96, 96))), "64x48 or 96x96 alone"),
    ],
)
def test_sizes_say_so_in_words(sizes, sentence):
    assert str(sizes) == sentence


def test_an_input_that_the_network_does_not_take_is_refused_with_that_sentence():
    network = Graph(3, (_convolution(),), KERNEL, sizes=Sizes(16, 32))
    network.check_input(48, 32, 3)
    with pytest.raises(ValueError, match="an input of 40x32: the network takes multiples of 16 from 32 up"):
        network.check_input(40, 32, 3)
