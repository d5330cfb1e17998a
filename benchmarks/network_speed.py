"""How long networks read from code take to predict and to train, beside PyTorch: `python -m benchmarks.network_speed`.

Each is timed by `unet bench --module benchmarks.public_networks:wide --kwargs name=NAME`, at its usual widths, in
float32. It prints the tables of docs/networks.md and keeps them in docs/data/network_speed.json; names choose some of
the networks, which are only printed.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.public_networks import WIDE
from benchmarks.tables import CASES, speed, write
from unet_cli.__main__ import in_large_pages
from unet_compare.speed.bench import bench
from unet_compare.speed.plan import Plan

_OURS, _EAGER = "jax:ours", "torch:eager+channels_last"
_COMPILED = {
    "inference 1x256x256": "torch:compile+channels_last+frozen",
    "training 2x128x128": "torch:compile+channels_last",
}
_CORES = {"cores near": True, "apart": False}
_TITLES = dict(zip(_COMPILED, CASES, strict=True))


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


def record(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Of one network: times, seconds of compiling, and what a process takes at most beside its start."""
    found = {one["name"]: one for one in case["candidates"]}
    kind, compiled = next((kind, one) for kind, one in _COMPILED.items() if kind.startswith(case["case"]["kind"]))
    named = {"jax": _OURS, "eager": _EAGER, "compile": compiled}
    ways = {way: found[one] for way, one in named.items() if one in found}  # torch.compile fails on some networks
    return {
        "name": name,
        "case": _TITLES[kind],
        "ratio": [ways["jax"]["ratio"], *ways["jax"]["spread"]],
        "ratios": {name: beside(ways, near) for name, near in _CORES.items()},
        "milliseconds": {way: 1000 * one["median"] for way, one in ways.items()},
        "compile_seconds": {way: one["compile_seconds"] for way, one in ways.items()},
        "peak_bytes": {way: one["memory"]["peak"] - one["memory"]["before"] for way, one in ways.items()},
    }


def beside(ways: dict[str, Any], near: bool) -> float | None:
    """JAX's median over PyTorch's fastest, of the rounds in which the cores were near, or of those where not."""
    medians = {
        way: statistics.median(kept)
        for way, one in ways.items()
        if (kept := [time for time, held in zip(one["seconds"], one["near"], strict=True) if held is near])
    }
    ours = medians.pop("jax", None)
    return ours / min(medians.values()) if ours and len(medians) == len(ways) - 1 else None


def main(names: list[str], rounds: int = 6) -> None:
    """Measure, then print a table for each case; keep them where they are whole."""
    if not WIDE.keys() >= set(names):
        raise SystemExit(f"give some of {', '.join(WIDE)}")
    with tempfile.TemporaryDirectory() as folder:
        found = [
            record(name, case) for name in names or WIDE for case in measured(name, Path(folder) / "speed.json", rounds)
        ]
    for title in CASES:
        print(f"\n{speed(title, found)}")
    if not names:
        write("network_speed", "python -m benchmarks.network_speed", found)


if __name__ == "__main__":
    in_large_pages()  # as `unet bench` runs
    main(sys.argv[1:])
