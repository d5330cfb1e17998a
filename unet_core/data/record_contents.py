"""What a record holds of a pair: the bytes of its files, or arrays, of a slice and of annotations."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_core.data.findings import within
from unet_core.data.listing import threads_for
from unet_core.data.pictures import read_colours, read_mask, read_picture
from unet_core.data.record_places import LENGTH
from unet_core.data.states import PairState
from unet_core.errors import DataError, of_system, shown
from unet_core.files import sha256_of
from unet_core.paths import URLPath

if TYPE_CHECKING:
    from unet_core.data.folder import Folder

_HEADER = 4096
"""More than NumPy writes beside an array's values."""


class Contents:
    """The records of a folder's pairs, whose files are those that were looked at."""

    def __init__(self, source: "Folder") -> None:
        self.source = source
        files = dict.fromkeys([*source.images, *source.masks])
        self._digests = dict(zip(files, source.digests, strict=True))

    def record(self, index: int) -> bytes:
        """That of a pair.

        Raises:
            DataError: a file cannot be read, or has changed.
        """
        source, cut = self.source, self.source.slices[index] is not None
        picture = self._picture(index) if cut else self._stored(source.images[index])
        mask = self._mask(index) if cut or source.annotations is not None else self._stored(source.masks[index])
        return LENGTH.pack(len(picture)) + picture + mask

    def most(self, index: int) -> int:
        """How many bytes it has, or more."""
        source, pixels = self.source, prod(self.source.sizes[index])
        if source.slices[index] is not None:
            return LENGTH.size + 2 * _HEADER + (4 * source.states[index].channels + 4) * pixels
        mask = self._size(source.masks[index]) if source.annotations is None else _HEADER + pixels
        return LENGTH.size + self._size(source.images[index]) + mask

    def check(self) -> None:
        """Raise DataError where a file has changed of which arrays were made."""
        source = self.source
        pairs = zip(source.images, source.masks, source.slices, strict=True)
        made = {file for image, mask, number in pairs if number is not None for file in (image, mask)}
        if source.annotations is not None:
            made.update(source.masks)
        with ThreadPoolExecutor(threads_for(source.path)) as pool:
            try:
                found = list(pool.map(sha256_of, made))
            except OSError as error:
                raise DataError(of_system(error)) from error
        for file, digest in zip(made, found, strict=True):
            self._check(file, digest)

    def _stored(self, file: Path) -> bytes:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(of_system(error)) from error
        self._check(file, sha256(content).hexdigest())
        return content

    def _check(self, file: Path, digest: str) -> None:
        if digest != self._digests[file]:
            raise DataError(f"{shown(file)}: has changed since it was read; start anew")

    def _picture(self, index: int) -> bytes:
        source, file = self.source, io.BytesIO()
        np.save(file, read_picture(source.images[index], how=source.pictures, at=source.slices[index]))
        return file.getvalue()

    def _mask(self, index: int) -> bytes:
        source, file, how, at = self.source, io.BytesIO(), self.source.pictures, self.source.slices[index]
        if source.annotations is not None:
            array = source.annotations.numbers(source.files[index], source.sizes[index], how, at)
        elif source.classes.coloured:
            codes = read_colours(source.masks[index], source.classes.known, how, at)
            array = np.stack([codes >> 16, codes >> 8, codes], -1).astype(np.uint8)
        else:
            array = read_mask(source.masks[index], how, at)
        np.savez_compressed(file, array)
        return file.getvalue()

    def _size(self, file: Path) -> int:
        """Bytes of a file; of an object they are in its stamp, or not told at all."""
        if isinstance(file, URLPath):
            return int((self.source.index.stamps[within(self.source.path, file)] or "0").split()[0])
        return file.stat().st_size


def states_of_records(source: "Folder") -> list[PairState]:
    """What the pairs show, each slice by itself."""
    found = []
    for state, number in zip(source.states, source.slices, strict=True):
        if number is not None and state.slices is not None:
            held = state.slices[number]
            values, colours = (None, held) if state.values is None else (held, None)
            state = replace(state, values=values, colours=colours, slices=None)
        found.append(state)
    return found
