"""Networks of graphs, compared node by node."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

from conftest import trained_tensors

from conversion.backends.jax_backend import JaxRunner
from conversion.backends.torch_backend import TorchRunner
from conversion.proof.samples import Sample
from unet_compare.divergence import divergence
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.graph.family import graph

CONFIG = UNetConfig(2, 2, (3, 4), conv_bias=True)
SAMPLE = Sample("random", np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32))


def checkpoint(switched=None, **attributes):
    """The network, one of whose nodes has other attributes."""
    network = graph(CONFIG)
    nodes = tuple(
        dataclasses.replace(node, attributes={**node.attributes, **attributes}) if node.name == switched else node
        for node in network.nodes
    )
    return Checkpoint(dataclasses.replace(network, nodes=nodes), trained_tensors(CONFIG))


@pytest.fixture(scope="module")
def ours():
    return TorchRunner.of_checkpoint(checkpoint(), "A")


@pytest.mark.slow
def test_a_faithful_conversion_raises_no_alarm(ours):
    found = divergence(ours, JaxRunner.of_checkpoint(checkpoint(), "B"), SAMPLE)
    assert found.layer is None, f"{found.layer} {found.quantity} {found.error}"
    names = {row.layer for table in found.tables for row in table.rows}
    assert {"max_pool", "interpolate", "concatenate", "up1.conv.4", "out"} <= names


SWITCHED = [
    ("interpolate", {"align_corners": False}),
    ("up1.conv.1", {"epsilon": 1e-3}),
    ("down1.conv.4", {"momentum": 0.2}),
]


@pytest.mark.parametrize("kind", [TorchRunner, pytest.param(JaxRunner, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("node", "attributes"), SWITCHED)
def test_a_switched_attribute_is_found_at_its_node(ours, kind, node, attributes):
    found = divergence(ours, kind.of_checkpoint(checkpoint(node, **attributes), "B"), SAMPLE)
    assert found.layer == node
    assert found.cause
    assert {"max_pool", "interpolate", "concatenate", "up1.conv.4", "out"} <= {
        row.layer for table in found.tables for row in table.rows
    }
