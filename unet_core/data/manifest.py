"""What `unet pack` writes: a data set in few files.

SET/manifest.json   what is in the set, with the digests of all other files
SET/pairs.npz       of every pair its name, its size, what its mask holds, and its record's checksum
SET/*.array_record  the pairs, a record each: the bytes of the picture's file and of the mask's, as they were, or arrays
SET/colors.csv      the colours of the classes, where the masks were packed with a table of them
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from unet_core import objects
from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.labels import Classes
from unet_core.data.listing import part_of
from unet_core.data.masks import Masks
from unet_core.errors import DataError, counted, of_system, shown, some
from unet_core.files import sha256_of
from unet_core.paths import URLPath

MANIFEST, PAIRS, COLOURS = "manifest.json", "pairs.npz", "colors.csv"
KIND, VERSION = "unet-twins shards", 1


@dataclass(frozen=True)
class Shard:
    """One file of records."""

    name: str
    pairs: int
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds."""

    pairs: int
    channels: int
    """Of the pictures: 1 if all are grey, 3 if any is RGB."""
    classes: Classes
    """Of the masks, as they were packed."""
    masks: Masks
    """How they are read, where who trains does not say otherwise."""
    validation: int | None
    """How many pairs are put aside for validation; None: who trains decides."""
    digest: str
    """Of the data folder."""
    table: str
    """The sha256 of pairs.npz."""
    shards: tuple[Shard, ...]
    pictures: Pictures = AS_STORED
    """How the pictures are read."""
    volumes: bool = field(default=False, metadata=OPTIONAL)
    """Whether each of them is a whole volume."""
    annotated: bool = field(default=False, metadata=OPTIONAL)
    """Whether the masks were made of annotations, which named the classes."""

    @property
    def read_as(self) -> Pictures:
        """How the pictures are read, whole if they are volumes."""
        return self.pictures.of(3 if self.volumes else 2)


def is_packed(path: Path) -> bool:
    """Whether this is a packed set, whole or damaged, and no data folder that has a manifest of its own."""
    return any((path / name).is_file() for name in (MANIFEST, PAIRS)) and part_of(path, "images") is None


def is_replaceable(path: Path) -> bool:
    """Whether this is a packed set beyond doubt."""
    try:
        return is_packed(path) and json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("kind") == KIND
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def packed_masks(path: Path, manifest: Manifest) -> Masks:
    """How the masks of a set are read, where nobody says otherwise."""
    masks = manifest.masks
    return masks if masks.colors is None else dataclasses.replace(masks, colors=str((path / COLOURS).resolve()))


def read_manifest(path: Path) -> Manifest:
    """What is in the set.

    Raises:
        DataError: the manifest is damaged, or a later release wrote it.
    """
    file = path / MANIFEST
    try:
        fields = decoded(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))
        if fields.pop("kind", None) != KIND:
            raise DataError(f"{shown(file)}: is of something else than a packed data set")
        if fields.pop("version", None) != VERSION:
            raise DataError(f"{shown(file)}: was written by a later release; update unet-twins")
        if fields.pop("sha256", None) != _digest(fields):
            raise ValueError("it does not hold what was written")
        manifest: Manifest = decoded(Manifest, fields)
    except FileNotFoundError as error:
        raise DataError(
            f"{shown(file)}: is missing: the set is not whole; restore it, or pack the data anew"
        ) from error
    except OSError as error:
        raise DataError(of_system(error)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(file)}: is damaged: {error}") from error
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """The inverse of `read_manifest`."""
    fields = encoded(manifest)
    fields = {"kind": KIND, "version": VERSION, "sha256": _digest(fields), **fields}
    (path / MANIFEST).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def _digest(fields: dict[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def check_digests(path: Path) -> None:
    """Read all of the set, and hold it against its manifest.

    Raises:
        DataError: a file is not what was packed.
    """
    manifest = read_manifest(path)
    check_files(path, manifest)
    digests = {PAIRS: manifest.table, **{shard.name: shard.sha256 for shard in manifest.shards}}
    other = [name for name, digest in digests.items() if sha256_of(path / name) != digest]
    if other:
        raise DataError(f"{shown(path)}: damaged are {some(other)}; restore them, or pack the data anew")


def check_files(path: Path, manifest: Manifest) -> None:
    """Raise DataError where a shard is missing or cut short; none is read."""
    sizes, problems = _sizes(path), []
    for shard in manifest.shards:
        if shard.name not in sizes:
            problems.append(f"{shard.name} is missing")
        elif sizes[shard.name] != shard.size:
            problems.append(f"{shard.name} has {counted(sizes[shard.name], 'byte')} in place of {shard.size}")
    if problems:
        raise DataError(f"{shown(path)}: {some(problems)}; restore what is lost, or pack the data anew")


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of the files in a folder."""
    if isinstance(path, URLPath):
        return {name: entry.size for name, entry in objects.listed(str(path)).items()}
    with os.scandir(path) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
