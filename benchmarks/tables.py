"""The tables of the README and of docs/networks.md, from what benchmarks measured: docs/data/NAME.json.

`python -m benchmarks.tables` puts them into the pages anew.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unet_compare.speed.bench import machine, versions

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"
CHECKS = ("eval logits", "training logits", "gradients", "statistics", "20 updates")
HEADS = (
    "network",
    "package",
    "parameters",
    "operations",
    "sizes that it takes",
    *(check.removesuffix(" logits") for check in CHECKS),
)
CASES = {"predicting": "compile, frozen", "an update": "compile"}
"""Of the speed: what is timed, and PyTorch's faster way."""


def write(name: str, command: str, results: Sequence[dict[str, Any]]) -> None:
    """Keep what a benchmark found, with the machine and the versions."""
    computer = machine()
    known = {name: computer[name] for name in ("cpu", "cores", "malloc")}
    about = {"command": command, **known, "versions": versions()}
    text = json.dumps({**about, "results": results}, indent=1)
    (DATA / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """What `write` kept."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


def tables() -> dict[str, list[str]]:
    """By page, its tables."""
    timed = read("network_speed")["results"]
    return {"README.md": [proven()], "docs/networks.md": [speed(case, timed) for case in CASES]}


def proven() -> str:
    """How far networks are in JAX from their own code."""
    return _table(HEADS, map(proven_row, read("networks")["results"]))


def speed(case: str, results: Iterable[dict[str, Any]]) -> str:
    """How long networks take in both frameworks."""
    rows = (speed_row(one) for one in results if one["case"] == case)
    return _table((case, "JAX", "ratio", "cores near", "apart", "eager", CASES[case]), rows)


def proven_row(found: dict[str, Any]) -> str:
    """Of one network: the largest differences, relative to the largest value."""
    errors = [f"{found['errors'][check]:.0e}" if check in found["errors"] else "" for check in CHECKS]
    parameters = f"{found['parameters'] / 1e6:.2f} M"
    return _row(found["name"], found["package"], parameters, str(found["operations"]), found["sizes"], *errors)


def speed_row(found: dict[str, Any]) -> str:
    """Of one network: milliseconds, and the ratio of JAX to PyTorch's fastest, also by how near the cores were."""
    ratio = "{:.2f} ({:.2f} to {:.2f})".format(*found["ratio"])
    times = {name: f"{time:.0f}" for name, time in found["milliseconds"].items()}
    by_cores = ("" if one is None else f"{one:.2f}" for one in found["ratios"].values())
    return _row(found["name"], times["jax"], ratio, *by_cores, times["eager"], times.get("compile", "fails"))


def _table(heads: Sequence[str], rows: Iterable[str]) -> str:
    return "\n".join([_row(*heads), f"|{'---|' * len(heads)}", *rows])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def with_tables(text: str, made: Iterable[str]) -> str:
    """A page whose tables are these; each is known by its first line."""
    for table in made:
        head = re.escape(table.partition("\n")[0])
        text, count = re.subn(rf"^{head}\n(?:\|.*\n)*", lambda _, table=table: table + "\n", text, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{count} tables begin with {head}")
    return text


def main() -> None:
    """Put the tables into the pages."""
    for page, made in tables().items():
        path = ROOT / page
        path.write_text(with_tables(path.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
