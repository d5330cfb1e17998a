"""`unet inspect` of what it does not read as a network, or is too large: what is in it, and what to type next."""

import json
import resource
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, trained_tensors

from conversion.survey import survey
from unet_cli.main import main

torch = pytest.importorskip("torch")
from torch import nn

from unet_core.checkpoints.torch_file import contents


def sizes(found):
    return {(branch.depth, branch.name): (branch.tensors, branch.numbers) for branch in found.tree}


def test_a_survey_tells_what_is_there_and_what_to_type(tmp_path, capsys):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = {"state": {0: {"exp_avg": torch.ones(5)}}, "param_groups": [{"lr": 1}]}
    torch.save({"net": net, "optimizer": optimizer, "args": Namespace(lr=1), "epoch": 3}, tmp_path / "my net.pt")
    found = survey(tmp_path / "my net.pt")
    assert (found.tensors, found.numbers) == (5, 12 + 4 + 8 + 2 + 5)
    assert sizes(found)[0, "net"] == (4, 26)
    assert sizes(found)[2, "weight"] in ((1, 12), (1, 8))
    assert found.code == ("torch.nn.modules.container.Sequential",)
    assert "argparse.Namespace" in found.inert
    assert any(line.startswith("epoch") for line in found.lost)
    assert found.networks == ()
    source = f"'{tmp_path / 'my net.pt'}' 'my net_jax'"
    assert found.next[:2] == (f"unet convert {source} --module FILE.py:Sequential", f"unet convert {source} --trust")
    assert main(["inspect", str(tmp_path / "my net.pt")]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "left inert" in out
    assert "next: unet convert" in out


def test_a_survey_for_machines(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **{"conv/kernel:0": np.zeros((3, 3, 1, 2), np.float32)})
    assert main(["inspect", str(tmp_path / "a.npz"), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["tree"][-1] == {"name": "kernel:0", "depth": 1, "tensors": 1, "numbers": 18, "shape": [3, 3, 1, 2]}
    assert found["next"][0].endswith("--module FILE.py:Class --draft names.csv")
    assert "no UNet of this family" in found["problem"]


def test_a_network_is_named_with_its_place(tmp_path):
    state = {key: torch.from_numpy(value) for key, value in trained_tensors(TINY).items()}
    torch.save({"ema": state, "best": 0.5}, tmp_path / "a.pt")
    found = survey(tmp_path / "a.pt")
    assert len(found.networks) == 1
    assert "under ema" in found.networks[0]
    assert found.next[0] == f"unet convert {tmp_path / 'a.pt'} a_jax"
    assert found.problem == ""


def test_a_network_that_is_read_tells_what_to_type(tmp_path, capsys):
    state = {key: torch.from_numpy(value) for key, value in trained_tensors(TINY).items()}
    torch.save({"model": state, "ema": dict(state)}, tmp_path / "a b.pt")
    assert main(["inspect", str(tmp_path / "a b.pt"), "--key", "ema", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["next"]
    assert found == f"unet convert '{tmp_path / 'a b.pt'}' 'a b_jax' --key ema"
    assert main([*shlex.split(found)[1:3], str(tmp_path / "c"), *shlex.split(found)[4:], "--no-verify"]) == 0


CODE = """
import sys
from pathlib import Path
from unet_cli.main import main
code = main(["inspect", sys.argv[1]])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of memory")
@pytest.mark.filterwarnings("ignore")
def test_five_gigabytes_take_neither_time_nor_memory(tmp_path):
    state = {f"layer{number}.weight": torch.empty(64, 1024, 4096) for number in range(5)}
    with torch.serialization.skip_data():
        torch.save(state, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size > 5 * 10**9
    before = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "a.pt")], capture_output=True, text=True)
    after = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert done.returncode == 0, done.stderr
    assert "64x1024x4096" in done.stdout
    assert int(done.stderr) < 300_000  # kB
    assert after - before < 5
    assert len(contents(tmp_path / "a.pt").groups[""]) == 5


class Node:
    """A part of a configuration that knows what it is a part of, as OmegaConf's do."""

    def __init__(self, parent=None):
        self._parent = parent
        self._content = {} if parent is not None else {"rate": Node(self), "weights": torch.ones(2)}


def test_objects_that_know_one_another_and_optimisers_are_walked_through(tmp_path):
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"settings": Node(), "optimizer": optimizer, "model": net.state_dict()}, tmp_path / "a.pt")
    found = contents(tmp_path / "a.pt")
    assert found.groups["model"] == {"weight": (2, 2), "bias": (2,)}
    assert found.groups["settings._content"] == {"weights": (2,)}
    assert "torch.optim.adam.Adam" in found.inert
    assert sum("exp_avg" in shapes for shapes in found.groups.values()) == 2
