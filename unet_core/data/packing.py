"""Writes a data folder as shards (`unet_core.data.shards`)."""

import dataclasses
import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np

from unet_core.data.agreement import colours_to_read, told_classes
from unet_core.data.columns import text_column, write_columns
from unet_core.data.folder import Folder, open_folder
from unet_core.data.index import way_of
from unet_core.data.manifest import COLOURS, PAIRS, Manifest, Shard, is_packed, write_manifest
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.shards import LENGTH
from unet_core.data.split import Split
from unet_core.data.splitting import split
from unet_core.data.states import state_columns
from unet_core.errors import DataError, MissingFrameworkError, first_line, of_system, shown
from unet_core.files import atomic, check_target, sha256_of
from unet_core.progress import Progress, silent

_OPTIONS = "group_size:1,zstd:1"
"""Each record by itself, as reading at random needs; what a file's own compression left is compressed."""


def pack(
    data: str | Path,
    target: str | Path,
    *,
    masks: Masks = AS_FOUND,
    validation: float | None = None,
    groups: str | None = None,
    shard_size: int = 2**30,
    force: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Write a data folder as shards, each pair as the bytes of its two files; all of the set appears, or nothing.

    Args:
        data: the folder with `images/` and `masks/`.
        target: the set's folder.
        masks: how the masks are read; the set keeps that.
        validation: which of the last pairs to put aside for validation, as in `TrainConfig`; None: who trains decides.
        groups: with `validation`, a table of groups that must not be parted.
        shard_size: bytes of a shard, at most, unless a pair alone has more.
        force: replace a set that is there.
        progress: is told how far it is.

    Raises:
        DataError: the folder cannot be trained on, a file of it changes meanwhile, or the set cannot be written.
        CheckpointError: `target` exists (without `force`), or is something else.
    """
    path, target = Path(data), Path(target)
    if shard_size < 1:
        raise DataError(f"shard_size {shard_size}: give a number of bytes from 1 up")
    check_target(target, force=force, replaces=is_packed)
    if is_packed(path):
        raise DataError(f"{shown(path)}: is packed already; name the folder with images/ and masks/")
    source = open_folder(path, masks=masks, progress=lambda text, done: progress(text, done / 2))
    aside = _put_aside(source, validation, groups)
    with atomic(target, force=force, replaces=is_packed) as partial:
        partial.mkdir()
        return _write(partial, source, masks, aside, shard_size, lambda text, done: progress(text, (1 + done) / 2))


def _put_aside(source: Folder, validation: float | None, groups: str | None) -> frozenset[str] | None:
    """The names of those for validation; None: who trains decides."""
    if validation is None:
        if groups is not None:
            raise DataError(f"--groups {groups}: give --validation too, or name the groups when you train")
        return None
    return frozenset(split(source, validation, Split(groups=groups))[1].names)


def _write(
    folder: Path, source: Folder, masks: Masks, aside: frozenset[str] | None, shard_size: int, progress: Progress
) -> Manifest:
    """All files of the set, the manifest last."""
    digest = source.digest()
    writer = _Writer(folder, source, source.digests, progress)
    shards, checksums = writer.written(list(_parts(source, shard_size)))
    columns = {
        "names": text_column(source.names),
        "checksums": np.array(checksums, np.uint32),
        "way": text_column([way_of(colours_to_read(told_classes(None, False, masks)))]),
        **state_columns(source.states),
    }
    if aside is not None:
        columns["aside"] = np.array([name in aside for name in source.names])
    write_columns(folder / PAIRS, columns)
    if masks.colors is not None:
        shutil.copyfile(masks.colors, folder / COLOURS)
        masks = dataclasses.replace(masks, colors=COLOURS)
    manifest = Manifest(
        pairs=len(source),
        channels=source.channels,
        classes=source.classes,
        masks=masks,
        validation=None if aside is None else len(aside),
        digest=digest,
        table=sha256_of(folder / PAIRS),
        shards=tuple(shards),
    )
    write_manifest(folder, manifest)
    return manifest


def _parts(source: Folder, most: int) -> Iterator[range]:
    """The pairs of each shard, so many bytes at most."""
    begin, size = 0, 0
    for number, files in enumerate(zip(source.images, source.masks, strict=True)):
        more = LENGTH.size + sum(file.stat().st_size for file in files)
        if number > begin and size + more > most:
            yield range(begin, number)
            begin, size = number, 0
        size += more
    yield range(begin, len(source))


class _Writer:
    """Writes shards, several at a time.

    Args:
        folder: the set's.
        source: what is packed.
        digests: of its files, as of `Folder.digests`.
        progress: is told how many pairs are packed.
    """

    def __init__(self, folder: Path, source: Folder, digests: Sequence[str], progress: Progress) -> None:
        self._folder, self._source, self._digests, self._progress = folder, source, digests, progress
        self._done, self._stopped, self._lock = 0, threading.Event(), threading.Lock()

    def written(self, parts: Sequence[range]) -> tuple[list[Shard], list[int]]:
        """All shards, and the checksums of all records."""
        names = [f"pairs-{number:05d}-of-{len(parts):05d}.array_record" for number in range(len(parts))]
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            found = list(pool.map(self._shard, names, parts))
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
        return [shard for shard, _ in found], [checksum for _, some in found for checksum in some]

    def _shard(self, name: str, part: range) -> tuple[Shard, list[int]]:
        try:
            from array_record.python.array_record_module import ArrayRecordWriter
        except ModuleNotFoundError as error:
            raise MissingFrameworkError(
                "shards need array_record: pip install -e '.[train]' -c constraints.txt"
            ) from error
        file, checksums = self._folder / name, []
        try:
            writer = ArrayRecordWriter(str(file), _OPTIONS)
            for index in part:
                if self._stopped.is_set():
                    break
                record = self._record(index)
                writer.write(record)
                checksums.append(zlib.crc32(record))
                self._tell()
            writer.close()
        except RuntimeError as error:
            raise DataError(f"{shown(file)}: cannot be written: {first_line(error)}") from error
        return Shard(name, len(part), file.stat().st_size, sha256_of(file)), checksums

    def _record(self, index: int) -> bytes:
        """The bytes of a pair's two files, which are those that were looked at."""
        source, contents = self._source, []
        for file, place in ((source.images[index], index), (source.masks[index], len(source) + index)):
            try:
                content = file.read_bytes()
            except OSError as error:
                raise DataError(of_system(error)) from error
            if sha256(content).hexdigest() != self._digests[place]:
                raise DataError(f"{shown(file)}: has changed since it was read; start anew")
            contents.append(content)
        return LENGTH.pack(len(contents[0])) + contents[0] + contents[1]

    def _tell(self) -> None:
        with self._lock:
            self._done += 1
            self._progress(f"{self._done} of {len(self._source)} pairs packed", self._done / len(self._source))
