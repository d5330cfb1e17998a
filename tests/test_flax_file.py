"""Networks as one file of Flax NNX: what is printed, and that it computes the same without this project."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from conftest import TINY, trained_tensors
from graphs import Build, small, trained

pytest.importorskip("jax")
pytest.importorskip("torch")

import conversion
from conversion.containers import Opened
from conversion.exports.code import flax_file
from conversion.exports.code.tree import Tree
from conversion.exports.deployment import Source, read_source
from conversion.proof.checks import EVAL, GRADIENTS, STATISTICS, TRAINING
from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.labels import Classes
from unet_core.graph import INPUT, Graph, Node
from unet_core.graph.family import graph

SMALL = dataclasses.replace(TINY, features=(4, 6))


def printed(network, title="Net"):
    source = Source(Opened(Checkpoint(network, trained(network))), Classes((0, 1)))
    return flax_file.written(source, "net.safetensors").replace("Network", title)


def classes_in(text):
    return [line.removeprefix("class ").partition("(")[0] for line in text.splitlines() if line.startswith("class ")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    safetensors_file.write(folder / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    return conversion.export(folder / "a.safetensors", folder / "net.py")


def test_the_file_computes_the_same_in_eval_and_in_training(exported):
    assert {(check.quantity, check.precision) for check in exported.proof.checks} == {
        (EVAL, "float64"),
        (EVAL, "float32"),
        (TRAINING, "float64"),
        (GRADIENTS, "float64"),
        (STATISTICS, "float64"),
    }
    assert not exported.proof.untrained


def test_equal_blocks_are_one_class_and_names_stay(exported):
    text = exported.dst.read_text()
    assert classes_in(text) == ["BatchNorm", "DoubleConv", "UNet"]
    assert "self.down1 = DoubleConv(3, 4, rngs=rngs)" in text
    assert "x = self.up1(" in text
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == [
        "import json",
        "from pathlib import Path",
        "import jax",
        "import jax.numpy as jnp",
        "from flax import nnx",
    ]


def test_the_weights_lie_beside_it_as_a_checkpoint(exported):
    assert safetensors_file.read(exported.dst.with_suffix(".safetensors")).config == SMALL


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("align_corners: bool = True", "align_corners: bool = False"),
        pytest.param("nnx.relu,", "nnx.silu,", marks=pytest.mark.slow),
        pytest.param("count - 1", "count", marks=pytest.mark.slow),
    ],
)
def test_code_that_computes_otherwise_gets_no_name(tmp_path, monkeypatch, right, wrong):
    """The control: corners flipped, another function, another running variance."""
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    written = flax_file.written
    assert right in written(read_source(tmp_path / "a.safetensors"), "")
    monkeypatch.setattr(flax_file, "written", lambda *given: written(*given).replace(right, wrong))
    with pytest.raises(conversion.DifferentError):
        conversion.export(tmp_path / "a.safetensors", tmp_path / "net.py")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_there_is_no_code_for_is_named(tmp_path, capsys):
    network = small()
    first = network.nodes[-1].name
    flat = Node("turned", "flip", (first,), attributes={"axes": (2,)})
    source = tmp_path / "a.safetensors"
    more = dataclasses.replace(network, nodes=(*network.nodes, flat))
    safetensors_file.write(source, Checkpoint(more, trained(more)))
    assert main(["export", str(source), str(tmp_path / "net.py"), "--unchecked"]) == 2
    assert "there is no code for flip" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def residual(count):
    build = Build()
    x = build.conv("stem", INPUT, 3, 4)
    for number in range(count):
        y = build.add(f"stage.{number}.act", "relu", build.conv(f"stage.{number}.conv", x, 4, 4))
        x = build.add(f"stage.{number}.add", "add", y, x)
    build.conv("out", x, 4, 2, size=1)
    return Graph(3, tuple(build.nodes), build.tensors)


def test_blocks_that_come_again_are_made_in_a_loop():
    text = printed(residual(4))
    assert "nnx.Sequential(*[Stage(rngs=rngs) for _ in range(4)])" in text
    assert "nnx.relu(self.conv(x)) + x" in text


def test_a_module_into_which_its_answer_comes_back_is_not_closed():
    build = Build()
    x = build.conv("a.first", INPUT, 3, 4)
    x = build.conv("b.only", x, 4, 4)
    build.conv("a.second", x, 4, 2)
    network = Graph(3, tuple(build.nodes), build.tensors)
    assert Tree(network).closed == {(), ("b",)}
    assert "return self.a.second(x)" in printed(network)


@pytest.mark.parametrize("variant", [{"upsampling": "transposed"}, {"upsampling": "nearest"}, {"fit": "pad"}])
def test_every_size_is_that_of_a_value_at_hand(variant):
    network = graph(dataclasses.replace(TINY, **variant))
    text = printed(network)
    compile(text, "net.py", "exec")
    assert "height" not in text.partition("def __call__")[2].replace("[n, height", "")


def test_shapes_stand_beside_what_the_network_computes(exported):
    assert "# [n, h, w, 4]" in exported.dst.read_text()


def run(path):
    spec = importlib.util.spec_from_file_location("net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_load_takes_the_weights(exported):
    net = run(exported.dst)
    model = net.load(exported.dst.with_suffix(".safetensors"))
    x = np.zeros((1, 16, 16, 3), np.float32)
    assert model(x).shape == (1, 16, 16, 2)
    assert net.DEPLOYMENT["input"]["channels"] == 3
