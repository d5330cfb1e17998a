"""Reading and writing `.safetensors` files, so that plain torch code can load what is written as it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy, which safetensors then knows)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, exported, seal
from unet_core.checkpoints.contents import MOST_TENSORS, Contents, check_names
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.reading import NO_HINTS, Hints, read_contents
from unet_core.checkpoints.soundness import trusted
from unet_core.codec import once
from unet_core.errors import CheckpointError, first_line

CERTIFICATE_KEY = "unet_twins_certificate"
"""Where in the metadata a file has its certificate (`conversion.proof.certificate`); no reader of networks looks
there.
"""

_LARGEST_HEADER = 20_000_000
"""Bytes; that of a UNet has some ten thousand, and its record as many."""


def read(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read and check a `.safetensors` file.

    Raises:
        CheckpointError: not such a file, damaged, no network of the family, or not sound.
    """
    return trusted(examine(path, hints), str(path))


def examine(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """As `read`, but whatever its values are, and with what nothing in the file tells left open."""
    return read_contents(contents(path), hints)


def contents(path: Path) -> Contents:
    """What the file holds, before anything in it is judged.

    Raises:
        CheckpointError: not such a file, or damaged.
    """
    shapes = _header(path)
    return Contents(
        str(path),
        groups={"": shapes},
        fetch=lambda _, keys: _fetch(path, keys),
        record=_metadata(path).get(RECORD_KEY),
        ordered=False,
    )


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a `.safetensors` file under its own name, whatever network they are of.

    Raises:
        CheckpointError: not such a file, or damaged.
    """
    return _fetch(path, [*_header(path)])


def stored_certificate(path: Path) -> str | None:
    """The certificate in a file's metadata, unread; None where there is none.

    Raises:
        CheckpointError: not such a file, or damaged.
    """
    _header(path)
    return _metadata(path).get(CERTIFICATE_KEY)


def write(path: Path, checkpoint: Checkpoint, *, dialect: str = OWN.name, certificate: str | None = None) -> None:
    """Write `checkpoint` to a file at `path`.

    Args:
        path: where; a file that is there is overwritten.
        checkpoint: what.
        dialect: whose names the tensors get; one of `unet_core.checkpoints.dialects.NAMES`.
        certificate: what was proven of it, for the metadata.

    Raises:
        CheckpointError: the dialect cannot hold this network, or the file cannot be written.
    """
    tensors, _ = exported(checkpoint, dialect)
    metadata = {"format": "pt", RECORD_KEY: seal(checkpoint, dialect)}
    if certificate is not None:
        metadata[CERTIFICATE_KEY] = certificate
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write tensors to a file at `path`.

    Raises:
        CheckpointError: it cannot be written.
    """
    # safetensors takes the bytes as they lie, whatever the strides: only C order is written right.
    contiguous = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}
    try:
        save_file(contiguous, path, metadata=metadata)
    except (SafetensorError, UnicodeError) as error:  # its writer hides the OSError
        raise CheckpointError(f"{path.name}: not written: {error}") from error
    _in_order(path)


def _in_order(path: Path) -> None:
    """Put the metadata in order, which its writer leaves to chance: the same network is the same file."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length).decode()
        begin = len('{"__metadata__":')
        metadata, end = json.JSONDecoder().raw_decode(header, begin)
        text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        ordered = f"{header[:begin]}{text}{header[end:]}".encode()
        if len(ordered) == length:
            file.seek(8)
            file.write(ordered)


def _opened(path: Path) -> Any:
    # Not mapped into memory: each tensor would count twice, as the file's page and as the copy.
    return safe_open(path, framework="numpy", backend="pread")


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        with _opened(path) as file:  # the library checks all of the header that lies outside the shapes
            return file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a sound safetensors file: {first_line(error)}") from error


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor; refuses what the library lets through: names that come twice, and too many of them."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise CheckpointError(
                f"{path}: not a sound safetensors file: a header of {length} bytes in a file of {size}; get it again"
            )
        if length > _LARGEST_HEADER:
            raise CheckpointError(f"{path}: its header of {length} bytes is larger than any UNet's ({_LARGEST_HEADER})")
        header = file.read(length)
    try:
        entries: Any = json.loads(header.decode(), object_pairs_hook=once)
        entries = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        shapes = {name: _shape(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a sound safetensors file: its header: {first_line(error)}") from error
    if len(shapes) > MOST_TENSORS:
        raise CheckpointError(
            f"{path}: holds {len(shapes)} tensors; no checkpoint of a UNet has more than {MOST_TENSORS}"
        )
    check_names(shapes, str(path))
    return shapes


def _shape(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, list) or any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError(f"a shape that is none: {sizes}")
    return tuple(sizes)


def _fetch(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with _opened(path) as file:
            return {key: file.get_tensor(key) for key in keys}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a sound safetensors file: {first_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: holds a dtype that NumPy cannot read: {first_line(error)}") from error
