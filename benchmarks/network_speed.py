"""How long networks read from code take to predict, beside PyTorch: `python -m benchmarks.network_speed`.

Each is timed by `unet bench --module benchmarks.public_networks:wide --kwargs name=NAME`, at its usual widths, one
picture of 256x256 in float32. It prints the table of docs/networks.md; names choose some of them.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.public_networks import WIDE
from unet_compare.speed.bench import bench
from unet_compare.speed.plan import CANDIDATES, Plan

_OURS, _FORMATS = "jax:ours", ("", "+channels_last")


def measured(name: str, file: Path, rounds: int) -> dict[str, Any]:
    """What `unet bench` writes of one network."""
    plan = Plan(
        inference=("1x256x256",),
        training=(),
        module="benchmarks.public_networks:wide",
        kwargs=(f"name={name}",),
        candidates=tuple(one.name for one in CANDIDATES if one.name != "jax:plain"),
        rounds=rounds,
        out=file,
    )
    bench(plan)
    (case,) = json.loads(file.read_text())["cases"]
    return case


def row(name: str, case: dict[str, Any]) -> str:
    """In Markdown, milliseconds; of the two memory formats of PyTorch the faster one."""
    found = {one["name"]: one for one in case["candidates"]}
    ours = found[_OURS]
    low, high = ours["spread"]
    theirs = (
        min(found[f"torch:{words}{last}"]["median"] for last in lasts)
        for words, lasts in (("eager", _FORMATS), ("compile", _FORMATS), ("compile+channels_last+frozen", ("",)))
    )
    times = " | ".join(f"{1000 * seconds:.0f}" for seconds in theirs)
    return f"| {name} | {1000 * ours['median']:.0f} | {ours['ratio']:.2f} ({low:.2f} to {high:.2f}) | {times} |"


def main(names: list[str], rounds: int = 3) -> None:
    """Measure, then print the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, measured(name, Path(folder) / "speed.json", rounds)) for name in names or WIDE]
    print("| network | JAX | ratio | eager | compile | compile, frozen |\n|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
