"""Every command and every line of code in the README runs as it stands."""

import re
import shlex
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import trained_tensors

from unet_cli.main import main
from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint, Origin, exported
from unet_core.data.synthetic import Synthetic, write_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


THEIRS = """
import torch
from torch import nn


class UNet(nn.Module):
    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(n_channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.1))
        self.out = nn.Conv2d(8, n_classes, 1)

    def forward(self, x):
        skip = self.down(x)
        y = nn.functional.interpolate(nn.functional.avg_pool2d(skip, 2), skip.shape[2:], mode="nearest")
        return self.out(torch.cat((skip, y), 1))
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    return [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.usefixtures("small_graph_proof", "one_thread")
def test_unet_commands_run(tmp_path, monkeypatch):
    """In the order given, on a small network: they are the same for every size."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("jax")
    from unet_torch import checkpoint as torch_file
    from unet_torch.canonical import as_torch
    from unet_torch.checkpoint import from_checkpoint

    monkeypatch.chdir(tmp_path)
    config = UNetConfig(3, 1, (4, 6))
    torch_file.write(tmp_path / "model.pt", Checkpoint(config, trained_tensors(config)))
    semantics = {"skip_first": True, "fit": "pad", "output": "logits"}
    foreign = Checkpoint(UNetConfig(3, 1, (4, 6), **semantics), trained_tensors(config), Origin("milesial"))
    named = {name: as_torch(value) for name, value in exported(foreign, "milesial")[0].items()}
    torch.save(named, tmp_path / "milesial.pth")
    layers = {
        layer: f"layer{number}" for number, layer in enumerate(dict.fromkeys(key.rpartition(".")[0] for key in named))
    }
    unknown = {f"{layers[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in named.items()}
    torch.save(unknown, tmp_path / "other.pt")
    x = torch.randn(1, 3, 16, 20)
    with torch.no_grad():
        answer = from_checkpoint(foreign).eval()(x)
    np.savez(tmp_path / "pair.npz", input=x.numpy(), output=answer.numpy())
    (tmp_path / "their").mkdir()
    (tmp_path / "their" / "unet.py").write_text(THEIRS)
    names: dict[str, type[torch.nn.Module]] = {}
    exec(THEIRS, names)
    torch.save(names["UNet"](3, 2).state_dict(), tmp_path / "theirs.pt")
    module = from_checkpoint(Checkpoint(config, trained_tensors(config)))
    optimizer = torch.optim.Adam(module.parameters())
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "script.pt")
    found = [command for command in commands() if command[0] == "unet"]
    assert len(found) >= 4
    write_folder(Synthetic(count=6, size=32), "cells")
    for command in found:
        assert main([*command[1:], *brief(command)]) == 0, shlex.join(command)


def brief(command):
    """What makes a training small."""
    if command[1] != "train":
        return []
    if "--resume" in command:
        return ["--steps", "4"]
    if "--start" in command:
        return ["--steps", "2", "--crop", "16", "--batch", "2"]
    return ["--steps", "2", "--features", "3", "4", "--crop", "16", "--batch", "2"]


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_nothing_is_left_to_fill_in(path):
    assert not re.search(r"^[A-Z]{4,}$|\bHELP\b|TODO|XXX", (ROOT / path).read_text(), re.MULTILINE)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {command[1] for command in commands() if command[0] == "make"}
    targets |= set(re.findall(r"`make ([\w-]+)`", README))
    assert targets >= {"demo", "test", "install", "bench", "lint", "test-slow", "fuzz"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("path", ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(path):
    page = ROOT / path
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text()):
        if target.startswith("https://github.com/"):
            continue
        assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_python_runs(tmp_path, monkeypatch):
    for package in ("torch", "jax"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "trained").is_dir()


def test_the_guards_table_has_every_case():
    for package in ("torch", "jax"):
        pytest.importorskip(package)
    from poison import CASES

    rows = re.findall(r"^\| (\d+) \| (.*?) \| (\w+) \|", (ROOT / "docs/guard.md").read_text(), re.MULTILINE)
    cases = [(str(case.row), case.name, "accepted" if case.accepted else "refused") for case in CASES]
    assert sorted(rows) == sorted(cases)
    assert f"[{len(cases)} cases](docs/guard.md)" in README


def test_the_loader_is_the_one_that_every_export_is_proven_with():
    from conversion.exports.stablehlo import LOADER

    assert f"```python\n{LOADER.strip()}\n```" in README
    assert len([line for line in LOADER.splitlines() if line]) <= 10


@pytest.mark.slow
def test_the_example_of_a_loop_of_ones_own_runs():
    for package in ("torch", "jax"):
        pytest.importorskip(package)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/switching.md").read_text(), re.DOTALL)
    names = {}
    exec(compile(block, "switching.md", "exec"), names)
    steps = {int(entry["step"]) for entry in names["optimizer"].state.values()}
    assert steps == {6}


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_the_examples_of_any_network_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax").numpy
    from foreign_unets import Milesial, trained

    monkeypatch.chdir(tmp_path)
    project = types.ModuleType("their_project")
    project.UNet = lambda n_channels, n_classes: Milesial(n_channels, n_classes, width=4)
    monkeypatch.setitem(sys.modules, "their_project", project)
    module = trained(project.UNet(3, 2))
    torch.save(module.state_dict(), tmp_path / "model.pt")
    in_jax, recorded = re.findall(r"```python\n(.*?)```", (ROOT / "docs/networks.md").read_text(), re.DOTALL)
    names = {"their_model": module.eval(), "images": jnp.ones((1, 32, 32, 3))}
    exec(compile(in_jax, "networks.md", "exec"), names)
    assert names["logits"].shape == (1, 32, 32, 2)
    exec(compile(recorded, "networks.md", "exec"), {})
    assert (tmp_path / "pair.npz").is_file()
