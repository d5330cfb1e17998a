"""The pairs of a packed set: opening it reads a table of them, and no shard."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt32

from unet_core.data.agreement import Named, agreed, annotated_classes, colours_to_read, told_classes
from unet_core.data.columns import read_columns, words_of
from unet_core.data.formats.decoded import Stored
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.formats.stack import Spacing
from unet_core.data.index import by_colours, way_of
from unet_core.data.labels import Classes
from unet_core.data.manifest import PAIRS, Manifest, Shard, check_files, packed_masks, read_manifest
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.pictures import Pair, read_pair
from unet_core.data.record_places import LENGTH, span, without_headers
from unet_core.data.states import PairState, Way, states_of
from unet_core.data.volumes import said_of_spacings
from unet_core.errors import (
    CheckpointError,
    DataError,
    MissingFrameworkError,
    UNetError,
    first_line,
    of_system,
    shown,
    some,
)
from unet_core.files import sha256_of
from unet_core.installation import installing
from unet_core.objects import read_part
from unet_core.paths import URLPath
from unet_core.staging import at_hand

_OPEN = 64
"""Shards that are kept open."""


@dataclass(frozen=True)
class Records:
    """The records of a set, each read when it is asked for."""

    path: Path
    shards: tuple[Shard, ...]
    ends: Int[np.ndarray, " shards"]
    """How many records there are up to the end of each shard."""
    checksums: UInt32[np.ndarray, " pairs"]
    places: Int[np.ndarray, "pairs 2"]
    """Where each record begins in its shard's file, and how many bytes it has (`record_places`)."""

    def read(self, number: int, name: str) -> tuple[Stored, Stored]:
        """The files of a picture and its mask.

        Raises:
            DataError: the record is damaged, or its shard is gone.
            MissingFrameworkError: grain is not installed.
        """
        which = int(np.searchsorted(self.ends, number, side="right"))
        shard = self.shards[which]
        place = int(number - self.ends[which] + shard.pairs)
        file = self.path / shard.name
        try:
            record = self._part(file, number) if isinstance(file, URLPath) else _reader(str(file), shard)[place]
        except UNetError:
            raise
        except Exception as error:  # the reader's own errors are of many kinds
            raise _damaged(file, name, first_line(error)) from error
        if zlib.crc32(record) != self.checksums[number]:
            raise _damaged(file, name, "another content than was packed")
        (length,) = LENGTH.unpack_from(record)
        split = LENGTH.size + length
        return (
            Stored(f"{file}: the picture {name}", record[LENGTH.size : split]),
            Stored(f"{file}: the mask of {name}", record[split:]),
        )

    def _part(self, file: URLPath, number: int) -> bytes:
        """A record, of which no more than itself is fetched."""
        begin, length = self.places[number].tolist()
        return without_headers(read_part(str(file), begin, span(begin, length)), begin)


@dataclass(frozen=True)
class Packed:
    """The pairs of a packed set; used as a `Folder` is."""

    path: Path
    names: tuple[str, ...]
    numbers: Int[np.ndarray, " pairs"]
    """Of their records."""
    channels: int
    classes: Classes
    sizes: tuple[tuple[int, ...], ...]
    blank: tuple[str, ...]
    """Pairs whose masks hold nothing but what is ignored, which are none of these."""
    aside: tuple[int, ...] | None
    """Which were put aside for validation; None: that is for who trains to decide."""
    records: Records
    packed: str
    """The digest of the folder from which all were packed."""
    pictures: Pictures
    """How the pictures are read."""
    cut: Bool[np.ndarray, " pairs"]
    """Which are slices of volumes, whose records hold arrays of what was read."""
    spacings: tuple[Spacing | None, ...]
    """Of the voxels of each volume; None of pictures."""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(name.rpartition("[")[0] if cut else name for name, cut in zip(self.names, self.cut, strict=True))

    @property
    def values(self) -> tuple[int, ...]:
        return self.classes.values

    @property
    def remarks(self) -> tuple[str, ...]:
        said = (f"left out, for they hold nothing but what is ignored: {some(self.blank)}",) if self.blank else ()
        return (*said, said_of_spacings(self.spacings)) if self.pictures.whole else said

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> Pair:
        """A picture and its labels, read from their record.

        Raises:
            DataError: the record is damaged, or its shard is gone.
        """
        image, mask = self.records.read(int(self.numbers[index]), self.names[index])
        channels, classes, size = self.channels, self.classes, self.sizes[index]
        how = AS_STORED if self.cut[index] else self.pictures
        return read_pair(image, mask, channels=channels, classes=classes, size=size, how=how)

    def digest(self) -> str:
        """That of the folder, whose training may so go on with the packed set; of a part of it another one."""
        if len(self) == len(self.records.checksums):
            return self.packed
        return sha256("\n".join([self.packed, *self.names]).encode(errors="surrogateescape")).hexdigest()

    def subset(self, indices: Sequence[int]) -> "Packed":
        """The pairs at these indices, in this order, with the channels and values of the whole."""
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in indices),
            numbers=self.numbers[np.asarray(indices, np.int64)],
            cut=self.cut[np.asarray(indices, np.int64)],
            sizes=tuple(self.sizes[i] for i in indices),
            spacings=tuple(self.spacings[i] for i in indices),
            aside=None,
        )


def open_packed(
    path: Path,
    *,
    channels: int | None = None,
    values: tuple[int, ...] | None = None,
    coloured: bool = False,
    masks: Masks = AS_FOUND,
    pictures: Pictures = AS_STORED,
) -> Packed:
    """The pairs of a packed set, of which no shard is read.

    Args:
        path: the set.
        channels, values, coloured: as of `folder.open_folder`.
        masks: how the masks are read; what it leaves open is as it was when they were packed.
        pictures: the same of the pictures.

    Raises:
        DataError: the set is damaged, a shard is missing, or the masks cannot be read so.
    """
    manifest = read_manifest(path)
    check_files(path, manifest)
    columns = _table(path, manifest)
    masks = packed_masks(path, manifest).but(masks)
    if masks.mask_suffix != manifest.masks.mask_suffix:
        raise DataError(f"--mask-suffix {masks.mask_suffix}: the pairs of {path} were matched when they were packed")
    pictures = _pictures(path, manifest, pictures)
    told = _told(path, manifest, values, coloured, masks)
    table = told if masks.colors == packed_masks(path, manifest).colors else None
    if table and table.names and (table.values, table.names) != (manifest.classes.values, manifest.classes.names):
        raise DataError(f"{shown(masks.colors)}: is not what was packed; restore it, or pack the data anew")
    states = _states(path, columns, Way(colours_to_read(told), pictures))
    names = words_of(columns["names"])
    found = dict(zip(names, states, strict=True))
    whole = agreed(path, found, Named(str, str), told=told, masks=masks, channels=channels)
    numbers = np.arange(len(names))
    if whole.blank:
        blank = set(whole.blank)
        numbers = np.flatnonzero([name not in blank for name in names])
    return Packed(
        path=path,
        names=whole.names,
        numbers=numbers,
        channels=whole.channels,
        classes=whole.classes,
        sizes=tuple(states[number].size for number in numbers.tolist()),
        spacings=tuple(states[number].spacing for number in numbers.tolist()),
        blank=whole.blank,
        aside=None if manifest.validation is None else tuple(np.flatnonzero(columns["aside"][numbers]).tolist()),
        records=Records(
            path,
            manifest.shards,
            np.cumsum([shard.pairs for shard in manifest.shards]),
            columns["checksums"],
            columns["places"],
        ),
        packed=manifest.digest,
        pictures=pictures,
        cut=columns["cut"][numbers] if "cut" in columns else np.zeros(len(numbers), bool),
    )


def _told(
    path: Path, manifest: Manifest, values: tuple[int, ...] | None, coloured: bool, masks: Masks
) -> Classes | None:
    """The classes, where they are known before the table is read."""
    if manifest.annotated:
        return annotated_classes(path, manifest.classes.names, values, masks)
    if masks.annotations is not None:
        raise DataError(f"--annotations {masks.annotations}: the masks of {path} were files when they were packed")
    return told_classes(values, coloured, masks)


def _pictures(path: Path, manifest: Manifest, wanted: Pictures) -> Pictures:
    """How the pictures are read, which is as they were packed."""
    if wanted.whole and not manifest.volumes:
        raise DataError(f"{shown(path)}: a 3-D network takes volumes, and these are pictures; pack with --volumes")
    if manifest.volumes and not wanted.whole:
        raise DataError(
            f"{shown(path)}: holds whole volumes, which a 3-D network takes; name the folder of which it is"
        )
    packed = manifest.read_as
    if packed.but(wanted) != packed:
        raise DataError(f"{shown(path)}: its pictures were packed with other options; pack the data anew, with these")
    return packed


def _table(path: Path, manifest: Manifest) -> Mapping[str, np.ndarray]:
    try:
        with at_hand(path / PAIRS) as file:
            if sha256_of(file) != manifest.table:
                raise DataError(f"{shown(file)}: is damaged, or of another set; restore it, or pack the data anew")
            return read_columns(file)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(of_system(error)) from error


def _states(path: Path, columns: Mapping[str, np.ndarray], wanted: Way) -> list[PairState]:
    """What each pair showed, if it is read in this way."""
    states, (way,) = states_of(columns), words_of(columns["way"])
    if way == way_of(wanted):
        return states
    plain = way == way_of(wanted._replace(colours=None))
    seen = {id(state): by_colours(state) if plain else None for state in states}
    found = [one for one in (seen[id(state)] for state in states) if one is not None]
    if len(found) < len(states):
        how = "with another table of colours, or with none" if wanted.colours is not None else "by their colours"
        raise DataError(f"{shown(path)}: its masks were packed {how}; pack the data anew, with the options given here")
    return found


def _damaged(file: Path, name: str, why: str) -> DataError:
    return DataError(f"{shown(file)}: {shown(name)} is damaged ({why}); restore the file, or pack the data anew")


@functools.lru_cache(maxsize=_OPEN)
def _reader(file: str, shard: Shard) -> Any:
    """Grain's reader of a shard, for any number of threads."""
    try:
        import grain
    except ModuleNotFoundError as error:
        raise MissingFrameworkError(f"shards need grain: {installing('train')}") from error
    return grain.sources.ArrayRecordDataSource(_Instruction(file, 0, shard.pairs, shard.pairs))


@dataclass(frozen=True)
class _Instruction:
    """What spares the reader to open a shard for its number of records."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int
