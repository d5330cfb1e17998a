"""Each twin stands alone: it imports and works in a process where the other framework cannot be imported."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

WITHOUT = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NotInstalled())
"""
TORCH, JAX = ("torch",), ("jax", "jaxlib", "flax", "orbax", "optax")

USE_TORCH = """
import torch, unet_torch
model = unet_torch.UNet(features=(2, 3), seed=0).eval()
for name in ("a.pt", "a.safetensors"):
    unet_torch.save(model, name)
    assert torch.equal(unet_torch.load(name)(torch.zeros(1, 3, 8, 8)), model(torch.zeros(1, 3, 8, 8)))
"""
USE_JAX = """
import jax.numpy as jnp, unet_jax
model = unet_jax.UNet(features=(2, 3), rngs=0)
model.eval()
for name in ("a", "a.safetensors"):
    unet_jax.save(model, name)
    assert (unet_jax.load(name)(jnp.zeros((1, 8, 8, 3))) == model(jnp.zeros((1, 8, 8, 3)))).all()
"""

USE_COMMAND = """
from unet_cli.main import main
recipe = ["--steps", "2", "--features", "2", "3", "--crop", "16", "--batch", "2", "--validate-every", "2"]
assert main(["train", "--backend", {backend!r}, "--data", "synthetic", "--out", "run", *recipe]) == 0
assert main(["train", "--resume", "--out", "run", "--steps", "3"]) == 0
from unet_core.data.synthetic import Synthetic, write_folder
write_folder(Synthetic(2, 32), "cells")
assert main(["predict", "run", "cells/images", "--out", "masks"]) == 0
assert main(["eval", "run", "--data", "cells"]) == 0
"""


OPEN_FILES_OF_TORCHS = """
from unet_cli.main import main
assert main(["inspect", "theirs.pt"]) == main(["inspect", "whole.pt"]) == 0
assert main(["convert", "theirs.pt", "theirs", "--no-verify"]) == 0
assert (unet_jax.load("theirs.pt").out.weight[...] == unet_jax.load("theirs").out.weight[...]).all()
assert (unet_jax.load("whole.pt").out.weight[...] != 0).any()
"""


def write_files_of_torchs(folder):
    import torch

    import unet_torch

    unet_torch.save(unet_torch.UNet(features=(2, 3), seed=0), folder / "theirs.pt")
    torch.save(unet_torch.UNet(features=(2, 3), seed=0), folder / "whole.pt")


def run(code, tmp_path):
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("needs", "blocked", "code", "other", "message"),
    [
        ("torch", JAX, USE_TORCH, "b", "JAX, which is not installed"),
        ("jax", TORCH, USE_JAX, "b.pt", "PyTorch, which is not installed"),
    ],
    ids=["torch-only", "jax-only"],
)
def test_a_twin_works_alone_and_converts_without_the_proof(tmp_path, needs, blocked, code, other, message):
    """What needs the other framework is refused, in one line; JAX opens what torch has written."""
    pytest.importorskip(needs)
    if needs == "jax" and find_spec("torch"):
        write_files_of_torchs(tmp_path)
        code += OPEN_FILES_OF_TORCHS
    code += (
        "from unet_cli.main import main\n"
        f"assert main(['convert', 'a.safetensors', {other!r}]) == 2\n"
        "assert main(['convert', 'a.safetensors', 'b.safetensors']) == 2\n"
        "sys.exit(main(['convert', 'a.safetensors', 'c.safetensors', '--no-verify']))"
    )
    done = run(WITHOUT.format(blocked=blocked) + code, tmp_path)
    assert done.returncode == 0, done.stderr
    missing, unproven = done.stderr.splitlines()
    assert message in missing
    assert unproven.endswith("or convert without the proof, which runs both: --no-verify")
    assert not list(tmp_path.glob("b*"))
    assert (tmp_path / "c.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("needs", "blocked"), [("torch", JAX), ("jax", TORCH)], ids=["torch-only", "jax-only"])
def test_a_twin_trains_and_predicts_alone(tmp_path, needs, blocked):
    for package in (needs, "grain"):
        pytest.importorskip(package)
    done = run(WITHOUT.format(blocked=blocked) + USE_COMMAND.format(backend=needs), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        (
            "unet_core.checkpoints.checkpoint, unet_core.checkpoints.safetensors_file, unet_core.graph.initial, "
            "conversion, conversion.sources",
            ("torch", *JAX),
        ),
        ("unet_cli.main", ("torch", *JAX, "numpy")),
    ],
)
def test_nothing_heavy_is_imported_early(tmp_path, module, unwanted):
    done = run(f"import sys, {module}\nprint([name for name in {unwanted!r} if name in sys.modules])", tmp_path)
    assert done.stdout.strip() == "[]", done.stderr
