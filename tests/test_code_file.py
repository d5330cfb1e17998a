"""Networks as one file of code, of Flax NNX or PyTorch: what is printed, and what it computes without this project."""

import dataclasses
import importlib.util
import shutil

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from graphs import Build, small, trained

pytest.importorskip("jax")
pytest.importorskip("torch")

import torch
from mypy import api as mypy

import conversion
import unet_jax
import unet_torch
from benchmarks.public_networks import NETWORKS, built
from conversion.containers import Opened
from conversion.exports.code import code_file
from conversion.exports.code.flax_code import FLAX
from conversion.exports.code.torch_code import TORCH
from conversion.exports.code.tree import Tree
from conversion.exports.deployment import Source, read_source
from conversion.proof.checks import EVAL, GRADIENTS, STATISTICS, TRAINING
from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.labels import Classes
from unet_core.errors import UNetError
from unet_core.graph import INPUT, Graph, Node
from unet_core.graph.family import graph

SMALL = dataclasses.replace(TINY, features=(4, 6))


LANGUAGES = pytest.mark.parametrize("language", [FLAX, TORCH], ids=["flax", "torch"])


def printed(network, language=FLAX, title="Net"):
    source = Source(Opened(Checkpoint(network, trained(network))), Classes((0, 1)))
    return code_file.written(source, "net.safetensors", language).replace("Network", title)


def classes_in(text):
    return [line.removeprefix("class ").partition("(")[0] for line in text.splitlines() if line.startswith("class ")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    safetensors_file.write(folder / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    return conversion.export(folder / "a.safetensors", folder / "net.py")


@pytest.fixture(scope="module")
def in_torch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_torch")
    safetensors_file.write(folder / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    return conversion.export(folder / "a.safetensors", folder / "net.py", to="torch")


@pytest.mark.parametrize("exported_by", ["exported", "in_torch"])
def test_the_file_computes_the_same_in_eval_and_in_training(request, exported_by):
    exported = request.getfixturevalue(exported_by)
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
        "from collections.abc import Callable",
        "from pathlib import Path",
        "import jax",
        "import jax.numpy as jnp",
        "from flax import nnx",
    ]


def test_code_of_torch_imports_torch_alone_and_reads_as_the_module(in_torch):
    text = in_torch.dst.read_text()
    assert classes_in(text) == ["DoubleConv", "UNet"]
    assert "self.down1 = DoubleConv(3, 4)" in text
    assert 'x = F.interpolate(x, size=down1.shape[2:], mode="bilinear", align_corners=True)' in text
    assert "# [n, 4, h, w]" in text
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == [
        "import json",
        "from pathlib import Path",
        "import torch",
        "from torch import Tensor, nn",
        "from torch.nn import functional as F",
    ]


def test_code_of_torch_has_the_names_of_the_module(in_torch):
    expected = unet_torch.UNet.from_config(SMALL).state_dict()
    run(in_torch.dst).UNet().load_state_dict(expected, strict=True)
    assert run(in_torch.dst).load(in_torch.dst.with_suffix(".safetensors")).state_dict().keys() == expected.keys()


def heads(*numbers):
    """A network with a list of layers, of which these are called: of nnU-Net's, the last one is."""
    build, x = Build(), INPUT
    for number in numbers:
        x = build.conv(f"heads.{number}", x, 3, 3, size=1)
    build.conv("out", build.add("relu", "relu", x), 3, 2)
    return Graph(3, tuple(build.nodes), build.tensors)


@pytest.fixture(scope="session")
def strict(tmp_path_factory):
    """What `mypy --strict` says of a file, line by line."""
    alone = ["--strict", "--config-file=", f"--cache-dir={tmp_path_factory.mktemp('mypy')}"]
    return lambda file: mypy.run([*alone, str(file)])[0].splitlines()[:-1]


def test_a_list_of_which_one_is_called_has_its_number():
    text = printed(heads(1))
    assert 'nnx.Dict({"1": nnx.Conv(3, 3, (1, 1), rngs=rngs)})' in text
    assert 'self.heads["1"](x)' in text
    assert "nnx.Dict" not in printed(heads(0, 1))  # the control


@pytest.mark.slow
@LANGUAGES
def test_what_is_written_has_types(tmp_path, strict, language):
    file = tmp_path / "net.py"
    for network in (small(), graph(SMALL), heads(1)):
        text = printed(network, language)
        file.write_text(text)
        assert strict(file) == []
    file.write_text(text.replace(f"x: {language.array}", "x: int"))
    assert strict(file)  # the control


@pytest.mark.slow
def test_a_network_that_jax_keeps_becomes_code_of_torch(tmp_path):
    """And what that keeps is bit for bit what JAX had."""
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    unet_jax.save(unet_jax.load(tmp_path / "a.safetensors"), tmp_path / "a_jax")
    done = conversion.export(tmp_path / "a_jax", tmp_path / "net.py", to="torch")
    module = unet_torch.UNet.from_config(SMALL)
    module.load_state_dict(run(done.dst).load(done.dst.with_suffix(".safetensors")).state_dict(), strict=True)
    kept, expected = module.state_dict(), trained_tensors(SMALL)
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[name], expected[name]) for name in kept)


def test_tensors_that_nothing_takes_and_second_names_are_there_in_torch():
    """Whatever the state_dict has: a table, an unused layer, a layer that stands in two places."""
    network = small(rate=0.25)
    text = printed(network, TORCH)
    assert "self.table = nn.Buffer(torch.zeros((2, 3), dtype=torch.int64))" in text
    assert "self.unused = Unused(weight=(2, 4, 1, 1), bias=(2,))" in text
    namespace = {}
    exec(compile(text, "net.py", "exec"), namespace)
    own = trained(network)
    tensors = {name: torch.from_numpy(own[of.same_as or name].copy()) for name, of in network.tensors.items()}
    model = namespace["Net"]()
    model.load_state_dict(tensors, strict=True)
    again = model.state_dict()
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in again)


def test_the_weights_lie_beside_it_as_a_checkpoint(exported):
    assert safetensors_file.read(exported.dst.with_suffix(".safetensors")).config == SMALL


@pytest.mark.parametrize(
    ("to", "right", "wrong"),
    [
        pytest.param("flax", "align_corners: bool = True", "align_corners: bool = False", marks=pytest.mark.slow),
        pytest.param("flax", "nnx.relu,", "nnx.silu,", marks=pytest.mark.slow),
        pytest.param("flax", "count - 1", "count", marks=pytest.mark.slow),
        pytest.param("torch", "align_corners=True", "align_corners=False", marks=pytest.mark.slow),
        ("torch", "nn.BatchNorm2d(out_channels", "nn.BatchNorm2d(out_channels, momentum=0.2"),
    ],
)
def test_code_that_computes_otherwise_gets_no_name(tmp_path, monkeypatch, to, right, wrong):
    """The control: corners flipped, another function, another running variance."""
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    written = code_file.written
    assert right in written(read_source(tmp_path / "a.safetensors"), "", FLAX if to == "flax" else TORCH)
    monkeypatch.setattr(code_file, "written", lambda *given: written(*given).replace(right, wrong))
    with pytest.raises(conversion.DifferentError):
        conversion.export(tmp_path / "a.safetensors", tmp_path / "net.py", to=to)
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


@LANGUAGES
def test_layers_that_share_some_of_their_tensors_are_refused(language):
    build = Build()
    build.conv("second", build.conv("first", INPUT, 3, 3), 3, 3)
    build.tensors["second.weight"] = dataclasses.replace(build.tensors["second.weight"], same_as="first.weight")
    with pytest.raises(UNetError, match="there is no code for second, some of whose tensors"):
        printed(Graph(3, tuple(build.nodes), build.tensors), language)


def encoder_and_decoder(*second):
    """A decoder that holds the encoder too, of which these layers have second names there."""
    build = Build()
    x = build.conv("encoder.first", INPUT, 3, 4)
    build.again("encoder.all.0", "encoder.first")
    y = build.add("encoder.act", "relu", build.conv("encoder.second", x, 4, 4))
    joined = build.add("decoder.joined", "concatenate", x, y, axis=1)
    build.conv("decoder.out", joined, 8, 2, size=1)
    for name in second:
        build.again(f"decoder.encoder.{name}", "encoder.first" if name == "all.0" else f"encoder.{name}")
    return Graph(3, tuple(build.nodes), build.tensors)


@pytest.mark.parametrize(("second", "whole"), [(("first", "all.0", "second"), True), (("first", "all.0"), False)])
def test_a_module_that_stands_elsewhere_too_is_named_there(second, whole):
    network = encoder_and_decoder(*second)
    text = printed(network, TORCH)
    assert ("self.decoder.encoder = self.encoder\n" in text) is whole
    namespace = {}
    exec(compile(text, "net.py", "exec"), namespace)
    assert namespace["Net"]().state_dict().keys() == network.tensors.keys()


@LANGUAGES
def test_shapes_stand_in_a_class_that_is_used_once(language):
    text = printed(encoder_and_decoder(), language)
    assert f"first = self.first(x)  # {'[n, h, w, 4]' if language is FLAX else '[n, 4, h, w]'}" in text
    build = Build()
    x = INPUT
    for number in range(2):
        y = build.conv(f"stage{number}.first", x, 3, 3)
        x = build.add(f"stage{number}.add", "add", build.conv(f"stage{number}.second", y, 3, 3), y)
    twice = printed(Graph(3, tuple(build.nodes), build.tensors), language)
    assert "# [" not in twice.partition("class Net")[0].partition("class Stage")[2]


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


@LANGUAGES
@pytest.mark.parametrize("variant", [{"upsampling": "transposed"}, {"upsampling": "nearest"}, {"fit": "pad"}])
def test_every_size_is_that_of_a_value_at_hand(variant, language):
    network = graph(dataclasses.replace(TINY, **variant))
    text = printed(network, language)
    compile(text, "net.py", "exec")
    assert "height" not in text.partition(f"def {language.forward}")[2].replace("[n, height", "")


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


PUBLIC = ("nnunet.PlainConvUNet", "monai.BasicUNet", "smp.Unet-resnet34")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("to", ["flax", "torch"])
@pytest.mark.parametrize("name", PUBLIC)
def test_networks_of_others_are_written_and_proven(name, to, tmp_path, strict):
    pytest.importorskip(NETWORKS[name].package)
    module = built(name)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    done = conversion.export(tmp_path / "a.pt", tmp_path / "net.py", to=to, module=module)
    assert done.proof.equal
    assert not done.proof.untrained
    assert type(module).__name__ in classes_in(done.dst.read_text())
    assert strict(done.dst) == []
    if to == "torch":
        model = run(done.dst).load(done.dst.with_suffix(".safetensors"))
        model.load_state_dict(module.state_dict(), strict=True)
        assert model.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda weights: None, 0, "CONFIRMED"),
        (lambda weights: weights.unlink(), 1, "not there: its weights, net.safetensors"),
        (lambda weights: weights.write_bytes(weights.read_bytes()[:-1] + b"x"), 2, "its weights, net.safetensors"),
        (
            lambda weights: safetensors_file.write(weights, Checkpoint(SMALL, trained_tensors(SMALL, seed=1))),
            1,
            "its weights, net.safetensors, are not those that were proven",
        ),
    ],
)
def test_the_certificate_of_code_holds_its_weights_too(exported, tmp_path, capsys, change, code, said):
    folder = shutil.copytree(exported.dst.parent, tmp_path / "there")
    change(folder / "net.safetensors")
    assert main(["verify", "--certificate", str(folder / "net.py.certificate.json")]) == code
    out, err = capsys.readouterr()
    assert said in out + err


@pytest.mark.parametrize("part", few(["gradients", "statistics"], "gradients"))
def test_what_code_has_not_got_is_not_passed_over(tmp_path, monkeypatch, part):
    """A proof of the tensors that are there alone would hold of a file without any."""
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(SMALL, trained_tensors(SMALL)))
    run = code_file.Written.run

    def without(self, *given):
        found = run(self, *given)
        return dataclasses.replace(found, step=dataclasses.replace(found.step, **{part: {}}))

    monkeypatch.setattr(code_file.Written, "run", without)
    with pytest.raises(UNetError, match="what was written has no bottom"):
        conversion.export(tmp_path / "a.safetensors", tmp_path / "net.py", to="torch")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
