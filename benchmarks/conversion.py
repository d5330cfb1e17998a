"""What converting the full network costs beside the imports, and how soon the command answers.

    python -m benchmarks.conversion [--rounds 3] [--json FILE]

Each figure is from processes of its own: one that only imports what the job imports, and one that converts as well
(without the proof). Memory is the peak resident set that the conversion adds to the imports, over the size of the
checkpoint; time is the median of the rounds.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

ROUTES = (
    ("unet.pt", "out.safetensors"),
    ("unet.pt", "out"),
    ("unet.safetensors", "out.pt"),
    ("unet.safetensors", "out"),
    ("unet", "out.pt"),
    ("unet", "out.safetensors"),
)
MEMORY_BUDGET = 2.5
HELP_BUDGET = 1.0

IMPORTS = """
import resource, sys, time
started = time.monotonic()
from pathlib import Path
from conversion.formats import module_of
from conversion.files import convert
from unet_core.checkpoints.containers import container_of
src, dst = map(Path, sys.argv[1:])
module_of(container_of(src)), module_of(container_of(dst))
imported = time.monotonic()
"""
CONVERT = "convert(src, dst, verify=False)\n"
REPORT = """
print(imported - started, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
MAKE = """
import sys
from pathlib import Path
from conversion.files import convert
from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.graph.initial import initial_tensors
from unet_core.checkpoints.safetensors_file import write
folder, config = Path(sys.argv[1]), UNetConfig()
write(folder / "unet.safetensors", Checkpoint(config, initial_tensors(config, 0)))
for name in ("unet.pt", "unet"):
    convert(folder / "unet.safetensors", folder / name, verify=False)
"""


@dataclass(frozen=True)
class Benchmark:
    """Measure conversions of the full network, and the cold start of `unet --help`."""

    rounds: int = 3
    """How often each process runs; the figures are medians."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the figures to this file too."""


def run(code: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds to import, seconds in all, and peak bytes of a process that runs `code`."""
    command = [sys.executable, "-c", code, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    importing, total, peak = map(float, out.split() or (0, 0, 0))
    return importing, total, peak


def median(code: str, rounds: int, *arguments: str, remove: Path | None = None) -> tuple[float, ...]:
    """The median of each figure of `run`; `remove` is what the process writes."""
    found = []
    for _ in range(rounds):
        found.append(run(code, *arguments))
        if remove is not None:
            subprocess.run(["rm", "-rf", str(remove)], check=True)
    return tuple(map(statistics.median, zip(*found, strict=True)))


def measure_routes(folder: Path, rounds: int) -> list[dict[str, object]]:
    """Every route between the containers."""
    run(MAKE, str(folder))
    size = (folder / "unet.safetensors").stat().st_size
    found: list[dict[str, object]] = []
    for src, dst in ROUTES:
        paths = (str(folder / src), str(folder / dst))
        _, _, base = median(IMPORTS + REPORT, rounds, *paths)
        importing, total, peak = median(IMPORTS + CONVERT + REPORT, rounds, *paths, remove=folder / dst)
        found.append(
            {
                "route": f"{_kind(src)} to {_kind(dst)}",
                "seconds": total,
                "of which imports": importing,
                "checkpoint_MB": size / 1e6,
                "imports_MB": base / 1e6,
                "peak_MB": peak / 1e6,
                "added_over_checkpoint": (peak - base) / size,
            }
        )
    return found


def measure_help(rounds: int) -> float:
    """Median seconds of `unet --help`, process start included."""
    found = []
    for _ in range(rounds):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "unet_cli", "--help"], check=True, capture_output=True)
        found.append(time.monotonic() - started)
    return statistics.median(found)


def main() -> int:
    """Measure, print, and say with the exit code whether the budgets are kept."""
    benchmark = tyro.cli(Benchmark, prog="python -m benchmarks.conversion")
    with tempfile.TemporaryDirectory() as folder:
        routes = measure_routes(Path(folder), benchmark.rounds)
    help_seconds = measure_help(max(benchmark.rounds, 5))
    table = Table(title="Converting the full network (64..1024), without the proof")
    for heading in ("route", "seconds", "of which imports", "imports, MB", "peak, MB", "added / checkpoint"):
        table.add_column(heading, justify="left" if heading == "route" else "right", no_wrap=heading == "route")
    for row in routes:
        table.add_row(
            str(row["route"]),
            *(f"{row[key]:.2f}" for key in ("seconds", "of which imports")),
            *(f"{row[key]:.0f}" for key in ("imports_MB", "peak_MB")),
            f"{row['added_over_checkpoint']:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"unet --help: {help_seconds:.2f} s (budget {HELP_BUDGET:g} s)")
    worst = max(float(str(row["added_over_checkpoint"])) for row in routes)
    console.print(f"memory added by a conversion: {worst:.2f} checkpoints at most (budget {MEMORY_BUDGET})")
    if benchmark.json is not None:
        figures = {
            "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
            "versions": {name: version(name) for name in ("torch", "jax", "flax", "orbax-checkpoint", "safetensors")},
            "routes": routes,
            "help_seconds": help_seconds,
        }
        benchmark.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if worst <= MEMORY_BUDGET and help_seconds <= HELP_BUDGET else 1


def _kind(name: str) -> str:
    return Path(name).suffix or "Orbax"


if __name__ == "__main__":
    sys.exit(main())
