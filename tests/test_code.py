"""A network's own code: how it is found and called, a file's tensors in it, and what comes of both."""

import contextlib

import jaxtyping
import numpy as np
import pytest
from conftest import SHALLOW, few

from unet_cli.main import main
from unet_core import CheckpointError, UNetConfig, UNetError
from unet_core.graph import Graph

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from foreign_unets import Milesial, trained
from forks import ARGUMENTS, built, written

import conversion
import unet_jax
import unet_torch
from conversion.code import Known, build, values_of
from conversion.containers import opened
from unet_torch import checkpoint as torch_file

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=4, bias=True):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, 2, 1)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x):
        y = self.last(torch.nn.functional.gelu(self.norm(self.first(x))))
        return {"mask": y, "half": y * self.scale}


def wide(**more):
    return Net(width=6, **more)


def nothing():
    return {}


def broken():
    raise RuntimeError("first line\\nsecond line")


number = 3
"""


@pytest.fixture
def unwatched():
    """While torch traces a size, it is no int, as the signatures of this project's own class say."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The path of such a file, beside which the test runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path / "small.py"


def net(small, **arguments):
    found: dict = {}
    exec(small.read_text(), found)
    return trained(found["Net"](**arguments))


@pytest.mark.parametrize("number", few(["torch.rand(())", "torch.tensor(0.5)"], "torch.tensor(0.5)"))
def test_a_file_that_lacks_what_its_code_draws_is_refused(small, number):
    small.write_text(
        "import torch\nclass Net(torch.nn.Conv2d):\n"
        f"    def __init__(self):\n        super().__init__(1, 1, 1)\n        self.factor = {number}\n"
        "    def forward(self, x):\n        return super().forward(x) * self.factor\n"
    )
    torch.save(net(small).state_dict(), "a.pt")
    drawn = "rand" in number
    with pytest.raises(CheckpointError, match="whenever it is built") if drawn else contextlib.nullcontext():
        opened(small.parent / "a.pt", Known(module="small.py:Net"))


def test_arguments_are_pythons_literals_and_other_words_strings():
    words = ["n_channels=3", "features=(4, 8)", "bilinear=True", "norm=batch", "quoted='3'", "path=a=b", "nothing=None"]
    assert values_of(words) == {
        "n_channels": 3,
        "features": (4, 8),
        "bilinear": True,
        "norm": "batch",
        "quoted": "3",
        "path": "a=b",
        "nothing": None,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.pt"], "give it as name=value"),
        (["3=4"], "give it as name=value"),
        (["a=1", "a=2"], "is given twice"),
        (["bilinear=false"], "Python writes False"),
    ],
)
def test_arguments_that_are_none_are_refused(words, message):
    with pytest.raises(UNetError, match=message):
        values_of(words)


def test_a_class_or_a_function_in_a_file_or_a_package_is_called(small):
    assert build(Known(module=f"{small}:Net", kwargs={"width": 3})).first.out_channels == 3
    assert build(Known(module="small.py:wide")).first.out_channels == 6
    assert build(Known(module="small:wide", kwargs={"bias": False})).first.bias is None
    assert isinstance(
        build(Known(module="torch.nn:Conv2d", kwargs=values_of(["in_channels=1", "out_channels=1", "kernel_size=1"]))),
        torch.nn.Conv2d,
    )


def test_a_file_is_imported_with_its_neighbours(tmp_path):
    for folder, width in (("one", 2), ("other", 3)):
        package = tmp_path / folder / "their_unet"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "parts.py").write_text(f"WIDTH = {width}")
        (package / "model.py").write_text(
            "from torch import nn\nfrom .parts import *\ndef make(): return nn.Conv2d(1, WIDTH, 1)"
        )
        (tmp_path / folder / "their_parts.py").write_text(f"WIDTH = {width}")
        (tmp_path / folder / "plain.py").write_text(
            "from torch import nn\nfrom their_parts import *\ndef make(): return nn.Conv2d(1, WIDTH, 1)"
        )
        for file in (package / "model.py", tmp_path / folder / "plain.py"):
            assert build(Known(module=f"{file}:make")).out_channels == width, (
                "of this folder, whatever was imported before"
            )


BAD_CODE = {
    "no colon": ("small.py", "give it as FILE.py:Class"),
    "no file": ("missing.py:Net", "missing.py: no such file"),
    "no package": ("no_such_package.unet:Net", "there is no no_such_package"),
    "no class": ("small.py:UNet", "there is no UNet to call; there are: Net"),
    "no function": ("small.py:number", "there is no number to call"),
    "no module": ("small.py:nothing", "makes a dict, no torch.nn.Module"),
    "fails": ("small.py:broken", "small.py:broken: its code fails: RuntimeError: first line"),
    "does not import": ("bad.py:Net", "its code fails: ModuleNotFoundError: No module named 'no_such_thing'"),
    "leaves": ("leaves.py:Net", "its code fails: SystemExit: 3"),
}


@pytest.mark.parametrize("name", BAD_CODE)
def test_code_that_cannot_be_run_is_said_to_be_theirs_in_one_line(small, capsys, name):
    spec, message = BAD_CODE[name]
    (small.parent / "bad.py").write_text("import no_such_thing")
    (small.parent / "leaves.py").write_text("raise SystemExit(3)")
    torch.save(net(small).state_dict(), "a.pt")
    assert main(["convert", "a.pt", "b", "--module", spec]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert not (small.parent / "b").exists()


def test_arguments_of_another_class_are_said_to_be_theirs(small, capsys):
    torch.save(net(small).state_dict(), "a.pt")
    assert main(["convert", "a.pt", "b", "--module", "small.py:Net", "--kwargs", "depth=3"]) == 2
    assert "small.py:Net: its code fails: TypeError" in capsys.readouterr().err


def test_weights_are_loaded_strictly_and_every_key_is_named(small):
    state = net(small).state_dict()
    state["first.weight"] = state["first.weight"][:, :2]
    state["extra"] = state.pop("last.bias")
    torch.save(state, "a.pt")
    with pytest.raises(CheckpointError) as error:
        opened(small.parent / "a.pt", Known(module="small.py:Net"))
    for part in (
        "are not those of small.py:Net",
        "missing: last.bias",
        "not of this network: extra",
        "first.weight is 4x2x3x3, not 4x3x3x3",
    ):
        assert part in str(error.value)


WRAPPED = {
    "bare": (lambda state: state, ""),
    "Lightning": (
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3},
        "state_dict.model",
    ),
    "an attribute of theirs": (
        lambda state: {f"segmenter.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(2)},
        "segmenter",
    ),
    "compiled layers": (
        lambda state: {name.replace("first", "first._orig_mod"): value for name, value in state.items()},
        "",
    ),
    "with an average": (
        lambda state: {"model": state, "ema": {name: value * 2 for name, value in state.items()}},
        "model",
    ),
}


@pytest.mark.parametrize("name", few(list(WRAPPED), "Lightning", "an attribute of theirs", "with an average"))
def test_wrappers_are_taken_off(small, name):
    wrap, label = WRAPPED[name]
    state = net(small).state_dict()
    torch.save(wrap(state), "a.pt")
    found = opened(small.parent / "a.pt", Known(module="small.py:Net", out="mask"))
    assert found.checkpoint.reading.key == label
    assert list(found.checkpoint.tensors) == list(state)
    for key, value in state.items():
        assert np.array_equal(found.checkpoint.tensors[key], value.numpy())


def test_the_network_that_is_meant_is_named_by_its_key(small):
    state = net(small).state_dict()
    double = {name: value * 2 for name, value in state.items()}
    torch.save({"one": state, "other": double}, "a.pt")
    known = {"module": "small.py:Net", "out": "mask"}
    with pytest.raises(CheckpointError, match="holds several networks: one, other; choose one with --key"):
        opened(small.parent / "a.pt", Known(**known))
    found = opened(small.parent / "a.pt", Known(**known, key="other")).checkpoint
    assert np.array_equal(found.tensors["last.bias"], double["last.bias"].numpy())


@pytest.mark.parametrize("out", few(["half", 1], 1))
def test_the_answer_that_is_meant_is_chosen(small, out):
    torch.save(net(small).state_dict(), "a.pt")
    found = opened(small.parent / "a.pt", Known(module="small.py:Net", out=out)).checkpoint
    assert any("scale" in node.tensors.values() for node in found.config.nodes)
    first = opened(small.parent / "a.pt", Known(module="small.py:Net")).checkpoint
    assert "it answers 2 tensors, mask, half; the graph answers mask" in first.reading.assumed


def test_what_the_code_tells_is_not_said_besides(small):
    torch.save(net(small).state_dict(), "a.pt")
    with pytest.raises(CheckpointError, match="the code tells output; leave that out"):
        opened(small.parent / "a.pt", Known(module="small.py:Net", output="sigmoid"))


@pytest.mark.parametrize("dtype", few([torch.float32, torch.float64, torch.bfloat16], torch.bfloat16))
def test_there_and_back_is_bit_for_bit(small, dtype):
    model = net(small).to(dtype)
    state = model.state_dict()
    torch.save(state, "a.pt")
    known = {"module": "small.py:Net", "out": "mask", "verify": False}
    conversion.convert("a.pt", "a.safetensors", **known)
    conversion.convert("a.pt", "a_jax", **known)
    for source in ("a.safetensors", "a_jax"):
        conversion.convert(source, "back.pt", force=True, verify=False)
        back = torch.load("back.pt", weights_only=True)
        assert list(back) == list(state)
        assert all(back[key].dtype == value.dtype and torch.equal(back[key], value) for key, value in state.items())
        model.load_state_dict(back, strict=True)


def test_old_files_without_counters_load_and_come_back_without(small):
    state = {key: value for key, value in net(small).state_dict().items() if "tracked" not in key}
    torch.save(state, "a.pt")
    conversion.convert("a.pt", "a_jax", module="small.py:Net", out="mask", verify=False)
    conversion.convert("a_jax", "back.pt", verify=False)
    assert list(torch.load("back.pt", weights_only=True)) == list(state)


TIED = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.parts = nn.ModuleList([self.conv, nn.ReLU(), nn.Conv2d(3, 2, 1)])

    def forward(self, x):
        return self.parts[2](self.parts[1](self.conv(self.conv(x))))
"""


def test_a_tensor_under_two_names_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tied.py").write_text(TIED)
    found: dict = {}
    exec(TIED, found)
    state = trained(found["Net"]()).state_dict()
    torch.save(state, "a.pt")
    done = conversion.convert("a.pt", "a_jax", module="tied.py:Net", verify=False)
    assert done.checkpoint.config.tensors["parts.0.weight"].same_as == "conv.weight"
    conversion.convert("a_jax", "back.pt", verify=False)
    back = torch.load("back.pt", weights_only=True)
    assert list(back) == list(state)
    found["Net"]().load_state_dict(back, strict=True)
    torch.save({name: value.clone() + ("parts" in name) for name, value in state.items()}, "apart.pt")
    with pytest.raises(CheckpointError, match=r"is one tensor in the code, but two in the file: parts\.0\.weight"):
        opened(tmp_path / "apart.pt", Known(module="tied.py:Net"))


@pytest.mark.slow
def test_a_network_of_the_family_is_kept_as_one(tmp_path):
    code = written("half-pixel corners", tmp_path)
    torch.save(built(code).state_dict(), tmp_path / "a.pt")
    done = conversion.convert(
        tmp_path / "a.pt", tmp_path / "b.pt", module=f"{code}:UNet", kwargs=values_of(ARGUMENTS.split()), verify=False
    )
    assert done.checkpoint.config == UNetConfig(3, 2, (4, 6, 8), align_corners=False)
    assert done.checkpoint.evidence.by == "code"
    assert torch_file.read(tmp_path / "b.pt").evidence == done.checkpoint.evidence


@pytest.mark.usefixtures("unwatched")
def test_to_jax_reads_the_code_not_the_names():
    model = unet_torch.UNet.from_config(SHALLOW, seed=0)
    assert isinstance(conversion.to_jax(model), unet_jax.UNet)
    model.down1.conv[2] = torch.nn.LeakyReLU(0.1)
    changed = conversion.to_jax(model.train())
    assert isinstance(changed, unet_jax.Network)
    assert changed.training
    assert any(node.operation == "leaky_relu" for node in changed.config.nodes)
    back = conversion.to_torch(changed)
    assert isinstance(back, unet_torch.Network)
    assert back.training
    assert list(back.state_dict()) == list(model.state_dict())


@pytest.mark.slow
def test_a_module_that_is_built_is_code_too(tmp_path):
    model = trained(Milesial(3, 2, width=4))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    found = opened(tmp_path / "a.pt", Known(module=Milesial(3, 2, width=4)))
    assert isinstance(found.checkpoint.config, Graph)
    assert found.checkpoint.evidence.source == "Milesial"
    assert model.training is False


@pytest.mark.usefixtures("small_graph_proof")
def test_the_whole_way_by_the_command(small, capsys):
    torch.save(net(small).state_dict(), "a.pt")
    named = ["--module", "small.py:Net", "--out-key", "mask"]
    assert main(["convert", "a.pt", "a_jax", *named]) == 0
    out = capsys.readouterr().out
    assert "SAME: the networks are the same: all " in " ".join(out.split())
    assert out.splitlines()[-1].startswith("known by code: run against small.py:Net (")
    assert main(["verify", "a.pt", "a_jax", *named]) == 0
    assert main(["convert", "a_jax", "back.pt"]) == 0
    capsys.readouterr()
    assert main(["verify", "--certificate", "a_jax.certificate.json"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a.pt (PyTorch file): the file that was proven, byte for byte; the network in it was not read" in said
    assert main(["verify", "--certificate", "a_jax.certificate.json", *named, "--again"]) == 0
    assert main(["inspect", "a.pt", *named, "--size", "32x48"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "first convolution 4x32x48 112" in said
    assert main(["inspect", "a_jax", "--json"]) == 0


@pytest.mark.usefixtures("small_graph_proof")
def test_a_scripts_training_goes_along(small):
    model = net(small).train()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        model(torch.randn(2, 3, 16, 16))["mask"].square().mean().backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}, "a.pt")
    conversion.convert("a.pt", "a_jax", to="jax", module="small.py:Net", out="mask")
    conversion.convert("a_jax", "back.pt", to="torch")
    before, back = (torch.load(name, weights_only=True) for name in ("a.pt", "back.pt"))
    assert all(torch.equal(value, back["model"][key]) for key, value in before["model"].items())
    model.load_state_dict(back["model"], strict=True)
    optimizer.load_state_dict(back["optimizer"])
    state = before["optimizer"]["state"]
    assert all(
        torch.equal(value, back["optimizer"]["state"][key][name]) for key in state for name, value in state[key].items()
    )
