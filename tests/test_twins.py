"""The twins read side by side: the same files, the same names, the same order."""

import ast
import dataclasses
from pathlib import Path

import pytest

from unet_core import UNetConfig
from unet_core.config import Options

ROOT = Path(__file__).parents[1]
ORBAX = ("is_orbax", "abstract", "read", "examine")
"""What JAX has for its own directories; a file of PyTorch's is read without PyTorch."""
SEEDS = {"unet_torch": {"seed": 0}, "unet_jax": {"rngs": 0}}


def public_names(path):
    tree = ast.parse(path.read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]


def methods(path, name):
    tree = ast.parse(path.read_text())
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return [node.name for node in found.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def test_packages_export_the_same_names():
    unet_torch, unet_jax = pytest.importorskip("unet_torch"), pytest.importorskip("unet_jax")
    both = [name for name in unet_torch.__all__ if name not in ("DoubleConv", "read")]
    assert both == [name for name in unet_jax.__all__ if name != "frozen"]


@pytest.mark.parametrize(
    ("folder", "own"),
    [
        (".", {"contents.py", "device.py", "distributed.py", "layers.py", "upsampled.py"}),
        ("training", {"parameter_groups.py", "processes.py", "normalisation.py"}),
    ],
)
def test_every_torch_file_has_its_twin(folder, own):
    """But for pickles, the processes of several devices, and what JAX has no file of its own for."""
    names = {path.name for path in (ROOT / "unet_torch" / folder).glob("*.py")} - own
    assert names <= {path.name for path in (ROOT / "unet_jax" / folder).glob("*.py")}


@pytest.mark.parametrize("name", ["checkpoint.py"])
def test_files_define_the_same_names_in_the_same_order(name):
    ours, theirs = (
        [found for found in public_names(ROOT / package / name) if found not in ORBAX]
        for package in ("unet_torch", "unet_jax")
    )
    assert ours == theirs


@pytest.mark.parametrize("package", ["unet_torch", "unet_jax"])
def test_the_constructor_takes_every_field_of_the_config(package):
    assert Options.__annotations__.keys() | {"in_channels", "out_channels"} == {
        field.name for field in dataclasses.fields(UNetConfig)
    }
    pytest.importorskip(package).UNet(2, 3, features=(2, 3), conv_bias=True, **SEEDS[package])


@pytest.mark.parametrize("package", ["unet_torch", "unet_jax"])
def test_from_config_keeps_every_field(package):
    config = UNetConfig(
        2, 3, (2, 3, 4), "transposed", False, True, "pad", True, "softmax", (5, 6), (7, 8), (9, 1), 0.1, 0.2, "group", 1
    )
    default = UNetConfig()
    assert all(getattr(config, field.name) != getattr(default, field.name) for field in dataclasses.fields(config))
    model = pytest.importorskip(package).UNet
    assert model.from_config(config, **SEEDS[package]).config == config
