"""How long a training takes from its command to its first batch.

    python -m benchmarks.start [--pairs 100000]
    python -m benchmarks.start --packed [--pairs 1000000]

64 built-in pictures of 32x32 and their masks, under as many names as are asked for (links to the same files). Prints
seconds: of a folder, the first start, which reads every file, and the second one, which finds them in its index; of a
packed set, whose records are the same 64 again and again, two starts alike; and the resume of the second one's run.
"""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from unet_core.data.columns import read_columns, text_column, write_columns
from unet_core.data.listing import SETTLED
from unet_core.data.manifest import PAIRS, read_manifest, write_manifest
from unet_core.data.packing import pack
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import UNetError
from unet_core.files import sha256_of
from unet_core.training.opening import Job, open_run
from unet_core.training.train_config import TrainConfig

_DISTINCT, _SHARD = 64, 10_000


@dataclass(frozen=True)
class Start:
    """Measure the start of a training."""

    pairs: int = 100_000
    """How many pictures; of a packed set, in ten thousands."""
    packed: bool = False
    """Of shards that unet pack has written, instead of a folder."""

    def run(self) -> dict[str, float]:
        """Measure; returns seconds."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            data = linked(place, min(self.pairs, _SHARD) if self.packed else self.pairs)
            if self.packed:
                pack(data, place / "shard")
                data = repeated(place / "shard", place / "set", self.pairs // _SHARD)
            else:
                time.sleep(SETTLED / 1e9)
            return dict(self._measured(place, data))

    def _measured(self, place: Path, data: Path) -> Iterator[tuple[str, float]]:
        recipe = TrainConfig(features=(2, 3), batch=4, crop=16)
        job = Job("torch", recipe, str(data))
        for number in ("first", "second"):
            yield f"{number} start", started(place / number, job)
        yield "resume", started(place / "second", dataclasses.replace(job, resume=True))


def started(run: Path, job: Job) -> float:
    """Seconds from opening a run until its first batch is there."""
    begun = time.perf_counter()
    with open_run(run, job) as opened, opened.batches(0) as batches:
        next(batches)
        seconds = time.perf_counter() - begun
    (run / "history.jsonl").touch()  # it has begun
    return seconds


def linked(place: Path, pairs: int) -> Path:
    """A data folder of so many pairs."""
    write_folder(Synthetic(count=_DISTINCT, size=32), place / "some")
    for part in ("images", "masks"):
        folder = place / "cells" / part
        folder.mkdir(parents=True)
        for number in range(pairs):
            (folder / f"{number:07d}.png").hardlink_to(place / "some" / part / f"{number % _DISTINCT:03d}.png")
    return place / "cells"


def repeated(one: Path, path: Path, times: int) -> Path:
    """A packed set of the same shard many times, under names of their own."""
    manifest, columns = read_manifest(one), read_columns(one / PAIRS)
    path.mkdir()
    (shard,) = manifest.shards
    shards = [dataclasses.replace(shard, name=f"{number}.{shard.name}") for number in range(max(times, 1))]
    for again in shards:
        (path / again.name).hardlink_to(one / shard.name)
    count = len(shards) * shard.pairs
    tiled = {name: np.concatenate([columns[name]] * len(shards)) for name in ("checksums", "states")}
    names = text_column(f"{number:07d}" for number in range(count))
    write_columns(path / PAIRS, {**columns, **tiled, "names": names})
    table = sha256_of(path / PAIRS)
    write_manifest(path, dataclasses.replace(manifest, pairs=count, shards=tuple(shards), table=table))
    return path


def main() -> int:
    """Print the figures; returns the exit code."""
    try:
        found = tyro.cli(Start, prog="python -m benchmarks.start").run()
    except UNetError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(json.dumps({name: round(seconds, 1) for name, seconds in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
