"""The arrays of an Orbax directory, read one after the other, without Orbax. PyTorch has nothing to match."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from unet_core.errors import CheckpointError, first_line, shown

_LARGEST_UNPACKED = 500_000_000
"""Bytes that arrays may always claim: a network of zeros is packed into almost nothing."""


def read_arrays(path: Path, item: str = "state") -> dict[str, np.ndarray]:
    """Every array of an item, by its dotted name, read one after the other through TensorStore.

    Orbax reads them all at once: it holds what it reads twice, fills what is missing with zeros and, at the first
    failure, leaves the others to print tracebacks of their own.
    """
    store, stored = _opened(path, item)
    specs = _specs(path, item, store, stored)
    for key in sorted(stored):
        store.read(key).result()  # a part that cannot be read: TensorStore would fill it with zeros
    return {name: np.asarray(tensorstore.open(spec).result().read().result()) for name, spec in specs.items()}


def open_arrays(path: Path, item: str = "state") -> dict[str, tensorstore.TensorStore]:
    """Every array of an item, by its dotted name, to be read in parts; what is missing in it reads as zeros."""
    specs = _specs(path, item, *_opened(path, item))
    return {name: tensorstore.open(spec).result() for name, spec in specs.items()}


def _opened(path: Path, item: str) -> tuple[tensorstore.KvStore, set[str]]:
    """What an item's arrays are stored in, and the names of all that is there."""
    state = path / item
    if not _metadata(path, item)["use_ocdbt"] or not (state / "manifest.ocdbt").is_file():
        raise FileNotFoundError(f"its arrays are missing (no manifest.ocdbt in {item})")
    store = tensorstore.KvStore.open(_place(path, item)).result()
    return store, {key.decode() for key in store.list().result()}


def _metadata(path: Path, item: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / item / "_METADATA").read_text())
    return found


def _place(path: Path, item: str) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": f"file://{(path / item).resolve()}/"}


def _specs(path: Path, item: str, store: tensorstore.KvStore, stored: set[str]) -> dict[str, dict[str, Any]]:
    """What TensorStore opens each array by; they are checked to claim no more than is there."""
    specs: dict[str, dict[str, Any]] = {}
    claimed = 0
    for entry in _metadata(path, item)["tree_metadata"].values():
        parts = [str(part["key"]) for part in entry["key_metadata"]]
        name = ".".join(parts)
        if name in specs or any("." in part for part in parts):
            raise ValueError(f"its tree has a name with a dot in it, or twice: {shown(name)}")
        driver, file = ("zarr", ".zarray") if f"{name}/.zarray" in stored else ("zarr3", "zarr.json")
        if f"{name}/{file}" not in stored:
            raise FileNotFoundError(f"its array {shown(name)} is missing")
        array = json.loads(store.read(f"{name}/{file}").result().value)
        chunks = array["chunks"] if driver == "zarr" else array["chunk_grid"]["configuration"]["chunk_shape"]
        if any(chunk > max(size, 1) for chunk, size in zip(chunks, array["shape"], strict=True)):
            raise ValueError(f"its array {shown(name)} claims parts larger than itself")
        claimed += 4 * math.prod(array["shape"])
        specs[name] = {"driver": driver, "kvstore": {**_place(path, item), "path": f"{name}/"}}
    on_disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if claimed > max(_LARGEST_UNPACKED, 100 * on_disk):
        raise CheckpointError(f"{path}: its arrays claim {claimed} bytes, {on_disk} are stored; damaged, or a trap")
    return specs


def reason(error: Exception) -> str:
    """The first line of what a library says, without TensorStore's dump of its settings."""
    return first_line(error).split(" [tensorstore_spec")[0].split(" [source")[0]
