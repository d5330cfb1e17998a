"""Writes a data folder as shards (`unet_core.data.shards`)."""

import dataclasses
import os
import tempfile
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet_core import objects
from unet_core.data.agreement import colours_to_read, told_classes
from unet_core.data.columns import text_column, write_columns
from unet_core.data.folder import Folder, open_folder
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.index import way_of
from unet_core.data.manifest import COLOURS, MANIFEST, PAIRS, Manifest, Shard, is_packed, is_replaceable, write_manifest
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.record_contents import Contents, states_of_records
from unet_core.data.record_places import record_places
from unet_core.data.split import Split
from unet_core.data.splitting import split
from unet_core.data.states import Way, state_columns
from unet_core.errors import DataError, MissingFrameworkError, UNetError, counted, first_line, shown
from unet_core.files import atomic, check_target, sha256_of
from unet_core.installation import installing
from unet_core.paths import URLPath, as_path
from unet_core.progress import Progress, silent
from unet_core.staging import UNFINISHED, put, remove_tree

_OPTIONS = "group_size:1,uncompressed"
"""Each record by itself and as it is, so that one can be read alone, in a bucket too."""
_AHEAD = 8
"""Pairs of a shard that are read ahead from a bucket."""


def pack(
    data: str | Path,
    target: str | Path,
    *,
    masks: Masks = AS_FOUND,
    pictures: Pictures = AS_STORED,
    volumes: bool = False,
    validation: float | None = None,
    groups: str | None = None,
    shard_size: int = 2**30,
    force: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Write a data folder as shards, each pair as `Contents` has it; all of the set appears, or nothing.

    Args:
        data: the folder with `images/` and `masks/`.
        target: the set's folder.
        masks: how the masks are read; the set keeps that.
        pictures: how the pictures are read, which it keeps, too.
        volumes: each is a whole volume, for a 3-D network.
        validation: which of the last pairs to put aside for validation, as in `TrainConfig`; None: who trains decides.
        groups: with `validation`, a table of groups that must not be parted.
        shard_size: bytes of a shard, at most, unless a pair alone has more.
        force: replace a set that is there.
        progress: is told how far it is.

    Raises:
        DataError: the folder cannot be trained on, a file of it changes meanwhile, or the set cannot be written.
        CheckpointError: `target` exists (without `force`), or is something else.
    """
    path, target = as_path(data), as_path(target)
    if shard_size < 1:
        raise DataError(f"shard_size {shard_size}: give a number of bytes from 1 up")
    check_target(target, force=force, replaces=is_replaceable)
    if is_packed(path):
        raise DataError(f"{shown(path)}: is packed already; name the folder with images/ and masks/")
    pictures = pictures.of(3 if volumes else 2)
    source = open_folder(path, masks=masks, pictures=pictures, progress=lambda text, done: progress(text, done / 2))
    aside = _put_aside(source, validation, groups)
    with _placed(target, force) as (folder, keep):
        writer = _Writer(folder, keep, source, lambda text, done: progress(text, (1 + done) / 2))
        return _write(writer, masks, aside, shard_size)


@contextmanager
def _placed(target: Path, force: bool) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder to write in, and what is told of each file that is complete; a bucket gets it then, and it is gone here.

    Of what is in a bucket nothing counts before the manifest is there.
    """
    if not isinstance(target, URLPath):
        with atomic(target, force=force, replaces=is_replaceable) as partial:
            partial.mkdir()
            yield partial, lambda _: None
        return
    with tempfile.TemporaryDirectory(prefix="unet-twins-") as place:
        folder = Path(place)

        def keep(name: str) -> None:
            put(folder / name, target / name)
            (folder / name).unlink()

        objects.write(str(target / UNFINISHED), b"")
        try:
            remove_tree(target, [name for name in objects.listed(str(target)) if name != UNFINISHED])
            yield folder, keep
        except BaseException:
            with suppress(UNetError):
                remove_tree(target, objects.listed(str(target)))
            raise
        objects.remove(str(target / UNFINISHED))


def _put_aside(source: Folder, validation: float | None, groups: str | None) -> frozenset[str] | None:
    """The names of those for validation; None: who trains decides."""
    if validation is None:
        if groups is not None:
            raise DataError(f"--groups {groups}: give --validation too, or name the groups when you train")
        return None
    return frozenset(split(source, validation, Split(groups=groups))[1].names)


def _write(writer: "_Writer", masks: Masks, aside: frozenset[str] | None, shard_size: int) -> Manifest:
    """All files of the set, the manifest last."""
    folder, source = writer.folder, writer.source
    digest = source.digest()
    shards, records = writer.written(list(_parts(writer.contents, shard_size)))
    writer.contents.check()
    columns = {
        "names": text_column(source.names),
        "checksums": np.array([record.checksum for record in records], np.uint32),
        "places": np.array([(record.begin, record.length) for record in records], np.int64),
        "way": text_column([way_of(Way(colours_to_read(told_classes(None, False, masks)), source.pictures))]),
        "cut": np.array([number is not None for number in source.slices]),
        **state_columns(states_of_records(source)),
    }
    if aside is not None:
        columns["aside"] = np.array([name in aside for name in source.names])
    write_columns(folder / PAIRS, columns)
    table = sha256_of(folder / PAIRS)
    writer.keep(PAIRS)
    if masks.colors is not None:
        (folder / COLOURS).write_bytes(as_path(masks.colors).read_bytes())
        writer.keep(COLOURS)
        masks = dataclasses.replace(masks, colors=COLOURS)
    masks = dataclasses.replace(masks, annotations=None)
    manifest = Manifest(
        pairs=len(source),
        channels=source.channels,
        classes=source.classes,
        masks=masks,
        validation=None if aside is None else len(aside),
        digest=digest,
        table=table,
        shards=tuple(shards),
        pictures=source.pictures,
        volumes=source.pictures.whole,
        annotated=source.annotations is not None,
    )
    write_manifest(folder, manifest)
    writer.keep(MANIFEST)
    return manifest


def _parts(contents: Contents, most: int) -> Iterator[range]:
    """The pairs of each shard, so many bytes at most."""
    begin, size, pairs = 0, 0, len(contents.source)
    for number in range(pairs):
        more = contents.most(number)
        if number > begin and size + more > most:
            yield range(begin, number)
            begin, size = number, 0
        size += more
    yield range(begin, pairs)


class _Record(NamedTuple):
    """Of a record that was written."""

    checksum: int
    begin: int
    length: int


class _Writer:
    """Writes shards, several at a time.

    Args:
        folder: where.
        keep: is told the name of each that is complete.
        source: what is packed.
        progress: is told how many pairs are packed.
    """

    def __init__(self, folder: Path, keep: Callable[[str], None], source: Folder, progress: Progress) -> None:
        self.folder, self.keep, self.source, self._progress = folder, keep, source, progress
        self.contents = Contents(source)
        self._done, self._stopped, self._lock = 0, threading.Event(), threading.Lock()

    def written(self, parts: Sequence[range]) -> tuple[list[Shard], list[_Record]]:
        """All shards, and their records."""
        names = [f"pairs-{number:05d}-of-{len(parts):05d}.array_record" for number in range(len(parts))]
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            found = list(pool.map(self._shard, names, parts))
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
        return [shard for shard, _ in found], [record for _, records in found for record in records]

    def _shard(self, name: str, part: range) -> tuple[Shard, list[_Record]]:
        try:
            from array_record.python.array_record_module import ArrayRecordWriter
        except ModuleNotFoundError as error:
            raise MissingFrameworkError(f"shards need array_record: {installing('train')}") from error
        file, checksums = self.folder / name, []
        try:
            writer = ArrayRecordWriter(str(file), _OPTIONS)
            for record in self._records(part):
                writer.write(record)
                checksums.append(zlib.crc32(record))
                self._tell()
            writer.close()
            places = record_places(file, len(checksums))
            records = [_Record(checksum, *place) for checksum, place in zip(checksums, places, strict=True)]
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{shown(file)}: cannot be written: {first_line(error)}") from error
        shard = Shard(name, len(part), file.stat().st_size, sha256_of(file))
        self.keep(name)
        return shard, records

    def _records(self, part: range) -> Iterator[bytes]:
        """Those of these pairs, read ahead where that takes its time."""
        if not isinstance(self.source.path, URLPath):
            yield from map(self._record, part)
            return
        pool = ThreadPoolExecutor(_AHEAD)
        try:
            waiting: deque[Future[bytes]] = deque()
            for index in part:
                waiting.append(pool.submit(self._record, index))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            yield from (record.result() for record in waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def _record(self, index: int) -> bytes:
        """That of a pair, unless another shard has failed."""
        if self._stopped.is_set():
            raise DataError("another shard could not be written")
        return self.contents.record(index)

    def _tell(self) -> None:
        with self._lock:
            self._done += 1
            self._progress(f"{self._done} of {counted(len(self.source), 'pair')} packed", self._done / len(self.source))
