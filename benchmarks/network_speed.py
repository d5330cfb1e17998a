"""How long networks read from code take to predict and to train, beside PyTorch: `python -m benchmarks.network_speed`.

Each is timed by `unet bench --module benchmarks.public_networks:wide --kwargs name=NAME`, at its usual widths, in
float32. It prints the tables of docs/networks.md; names choose some of them.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.public_networks import WIDE
from unet_compare.speed.bench import bench
from unet_compare.speed.plan import Plan

_OURS, _EAGER = "jax:ours", "torch:eager+channels_last"
_COMPILED = {
    "inference 1x256x256": "torch:compile+channels_last+frozen",
    "training 2x128x128": "torch:compile+channels_last",
}

_HEAD = "| network | JAX | ratio | eager | compile | compiling, s | peak, MB |\n|---|---|---|---|---|---|---|"


def measured(name: str, file: Path, rounds: int) -> list[dict[str, Any]]:
    """What `unet bench` writes of one network, case by case."""
    plan = Plan(
        inference=("1x256x256",),
        training=("2x128x128",),
        module="benchmarks.public_networks:wide",
        kwargs=(f"name={name}",),
        candidates=(_OURS, _EAGER, *_COMPILED.values()),
        rounds=rounds,
        out=file,
    )
    bench(plan)
    cases: list[dict[str, Any]] = json.loads(file.read_text())["cases"]
    return cases


def row(name: str, case: dict[str, Any]) -> str:
    """In Markdown: milliseconds, seconds of compiling, and what a process takes at most beside its start."""
    found = {one["name"]: one for one in case["candidates"]}
    ours = found[_OURS]
    low, high = ours["spread"]
    compiled = next(found[one] for kind, one in _COMPILED.items() if kind.startswith(case["case"]["kind"]))
    times = " | ".join(f"{1000 * theirs['median']:.0f}" for theirs in (found[_EAGER], compiled))
    compiling = " / ".join(f"{one['compile_seconds']:.0f}" for one in (ours, compiled))
    peaks = [(one["memory"]["peak"] - one["memory"]["before"]) / 1e6 for one in (ours, found[_EAGER], compiled)]
    memory = f"{peaks[0]:.0f} / {min(peaks[1:]):.0f}"
    ratio = f"{ours['ratio']:.2f} ({low:.2f} to {high:.2f})"
    return f"| {name} | {1000 * ours['median']:.0f} | {ratio} | {times} | {compiling} | {memory} |"


def main(names: list[str], rounds: int = 3) -> None:
    """Measure, then print a table for each case."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measured(name, Path(folder) / "speed.json", rounds) for name in names or WIDE}
    for number, title in enumerate(_COMPILED):
        rows = [row(name, cases[number]) for name, cases in found.items()]
        print(f"\n{title}\n", _HEAD, *rows, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
