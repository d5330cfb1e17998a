"""What it takes to read a network from its code and to hold it to that: `python -m benchmarks.reading`.

Of the networks of `benchmarks.public_networks.WIDE`, each in a process of its own; names choose some of them. What is
timed is all that `conversion.to_jax` does before there is a model: reading, and every check in PyTorch and in JAX.
Memory is the most that the process has meanwhile, beyond the most that it has while PyTorch runs the module
forward and backward in float64 at 192x256, larger than what is checked; it is given as a multiple of the weights. What
is imported once, whatever the network, is in neither.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.public_networks import WIDE, built, wide
from conversion.modules import read_module
from unet_compare.speed.worker import resident, trim
from unet_torch.reading.read import picked


def peak(call: Callable[[], object]) -> int:
    """The most bytes that the process has while something is called."""
    trim()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew, see proc(5)
    call()
    found = resident("VmHWM")
    assert found is not None
    return found


def row(name: str) -> str:
    """Read one network in this process; in Markdown."""
    read_module(built("nnunet.PlainConvUNet"))  # imports all that is needed
    module = wide(name)
    weights = sum(4 * value.numel() for value in module.state_dict().values())
    torchs = peak(lambda: _run(module.double(), WIDE[name].channels))
    module.float()
    begun = time.perf_counter()
    whole = peak(lambda: read_module(module, name))
    seconds = time.perf_counter() - begun
    return f"| {name} | {weights / 4e6:.1f} M | {seconds:.0f} s | {(whole - torchs) / weights:.1f} |"


def _run(module: nn.Module, channels: int) -> None:
    x = torch.rand(1, channels, 192, 256, dtype=torch.float64)
    picked(module(x)).square().mean().backward()
    module.zero_grad()


def main(names: list[str]) -> None:
    """Print the table."""
    print("| network | tensors | time | memory / weights |\n|---|---|---|---|", flush=True)
    for name in names or WIDE:
        subprocess.run([sys.executable, "-m", "benchmarks.reading", "--one", name], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(row(sys.argv[2]), flush=True)
    else:
        main(sys.argv[1:])
