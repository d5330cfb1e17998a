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
    """In Markdown, milliseconds."""
    found = {one["name"]: one for one in case["candidates"]}
    ours = found[_OURS]
    low, high = ours["spread"]
    which = next(compiled for kind, compiled in _COMPILED.items() if kind.startswith(case["case"]["kind"]))
    times = " | ".join(f"{1000 * found[theirs]['median']:.0f}" for theirs in (_EAGER, which))
    return f"| {name} | {1000 * ours['median']:.0f} | {ours['ratio']:.2f} ({low:.2f} to {high:.2f}) | {times} |"


def main(names: list[str], rounds: int = 3) -> None:
    """Measure, then print a table for each case."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measured(name, Path(folder) / "speed.json", rounds) for name in names or WIDE}
    for number, title in enumerate(_COMPILED):
        rows = [row(name, cases[number]) for name, cases in found.items()]
        print(f"\n{title}\n", "| network | JAX | ratio | eager | compile |\n|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
