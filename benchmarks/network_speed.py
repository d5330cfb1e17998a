"""How long networks read from code take to predict, beside PyTorch: `python -m benchmarks.network_speed`.

Each is timed by `unet bench --module benchmarks/public_networks.py:wide --kwargs name=NAME`, at its usual widths, one
picture of 256x256 in float32. It prints the table of docs/networks.md; names choose some of them.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.public_networks import WIDE
from comparison.speed.bench import bench
from comparison.speed.plan import CANDIDATES, Plan

_OURS = "jax:ours"


def measured(name: str, file: Path, rounds: int) -> dict[str, Any]:
    """What `unet bench` writes of one network."""
    plan = Plan(
        inference=("1x256x256",),
        training=(),
        module=str(Path(__file__).with_name("public_networks.py")) + ":wide",
        kwargs=(f"name={name}",),
        candidates=tuple(one.name for one in CANDIDATES if one.name != "jax:plain"),
        rounds=rounds,
        out=file,
    )
    bench(plan)
    (case,) = json.loads(file.read_text())["cases"]
    return case


def row(name: str, case: dict[str, Any]) -> str:
    """In Markdown."""
    found = {one["name"]: one for one in case["candidates"]}
    ours, theirs = found[_OURS], found[case["reference"]]
    low, high = ours["spread"]
    words = case["reference"].removeprefix("torch:").replace("+", ", ")
    return (
        f"| {name} | {ours['ratio']:.2f} ({low:.2f} to {high:.2f}) | {1000 * ours['median']:.0f} ms "
        f"| {1000 * theirs['median']:.0f} ms, {words} |"
    )


def main(names: list[str], rounds: int = 5) -> None:
    """Measure, then print the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, measured(name, Path(folder) / "speed.json", rounds)) for name in names or WIDE]
    print("| network | JAX / fastest torch | JAX | torch |\n|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
