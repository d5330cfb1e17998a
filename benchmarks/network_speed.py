"""How long networks read from code take to predict, beside PyTorch: `python -m benchmarks.network_speed --rounds 3`.

Float32, at their usual widths, one picture of 256x256. PyTorch runs the network's own module eager and by
`torch.compile`, each as it is and channels_last; JAX runs what was read from it, folded, as `unet predict` does. Each
runs in a process of its own, and all take turns; the figure is the median over the rounds of the ratio to the fastest
of PyTorch in the same round. It prints the table of docs/networks.md.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.public_networks import WIDE

SIZE = (256, 256)
CANDIDATES = ("torch eager", "torch eager channels_last", "torch compile", "torch compile channels_last", "jax")
_CALLS, _SECONDS = 8, 4.0
"""Timed calls of a turn, at least, and how long they go on where they are quick."""


def timed(call: Callable[[], Any]) -> float:
    """The median of a turn, in seconds, after three calls to warm up."""
    for _ in range(3):
        call()
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < _CALLS or (time.perf_counter() - begun < _SECONDS and len(taken) < 50):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def turn(name: str, candidate: str) -> float:
    """One turn, in this process."""
    import torch

    from benchmarks.public_networks import disturbed

    torch.manual_seed(0)
    public = WIDE[name]
    module = disturbed(public.build()).eval()
    x = torch.rand(1, public.channels, *SIZE)
    if candidate == "jax":
        return _in_jax(module, x.movedim(1, -1).numpy())
    if candidate.endswith("channels_last"):
        module, x = module.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    run: Any = torch.compile(module) if "compile" in candidate else module
    with torch.inference_mode():
        return timed(lambda: run(x))


def _in_jax(module: Any, x: np.ndarray) -> float:
    import jax
    from flax import nnx

    import unet_torch.reading
    from unet_core.checkpoint import Checkpoint
    from unet_jax.checkpoint import from_checkpoint
    from unet_jax.compilation import compiler_options
    from unet_torch.hub import as_numpy

    read = unet_torch.reading.read(module, SIZE)
    tensors = {key: as_numpy(value) for key, value in read.tensors.items()}
    platform = jax.devices()[0].platform
    graphdef, state = nnx.split(from_checkpoint(Checkpoint(read.graph, tensors)).fold(platform))
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x), compiler_options=compiler_options(platform))
    given = jax.numpy.asarray(x)
    return timed(lambda: jax.block_until_ready(run(state, given)))


def measured(name: str, rounds: int, candidates: tuple[str, ...]) -> Mapping[str, list[float]]:
    """The turns of each candidate, in seconds; what a candidate cannot run has none."""
    found: dict[str, list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate, turns in found.items():
            command = [sys.executable, "-m", "benchmarks.network_speed", "--turn", candidate, name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                turns.append(float(done.stdout.split()[-1]))
    return found


def row(name: str, found: Mapping[str, list[float]]) -> str:
    """In Markdown."""
    theirs = {candidate: turns for candidate, turns in found.items() if candidate != "jax" and turns}
    best = min(theirs, key=lambda candidate: statistics.median(theirs[candidate]))
    ratios = [own / min(other) for own, *other in zip(found["jax"], *theirs.values(), strict=True)]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    times = (f"{1000 * statistics.median(turns):.0f} ms" for turns in (found["jax"], theirs[best]))
    return f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {' | '.join(times)}, {best.removeprefix('torch ')} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.network_speed")
    parser.add_argument("names", nargs="*", default=list(WIDE))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", nargs="*", default=CANDIDATES)
    parser.add_argument("--turn")
    given = parser.parse_args()
    if given.turn:
        print(turn(given.names[0], given.turn))
        return
    print("| network | JAX / fastest torch | JAX | torch |\n|---|---|---|---|", flush=True)
    for name in given.names:
        print(row(name, measured(name, given.rounds, tuple(given.candidates))), flush=True)


if __name__ == "__main__":
    main()
