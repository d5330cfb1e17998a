"""What is known of the files of a data folder, kept so that the next start need not read them.

It lies beside the data, as `.unet-index.npz`, or where nothing may be written there, in the user's cache. What it tells
of a file holds as long as the file's stamp is the same; what cannot be read of it is as if it were not there.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unet_core.data.columns import Columns, read_columns, text_column, words_of, write_columns
from unet_core.data.listing import threads_for
from unet_core.data.masks import MOST_CLASSES
from unet_core.data.states import PairState, Way, state_columns, states_of
from unet_core.errors import CheckpointError, DataError, of_system
from unet_core.files import atomic, sha256_of

logger = logging.getLogger(__name__)

NAME = ".unet-index.npz"
_WAYS = 4
"""Ways of reading masks of which the latest that were used are kept."""

Pair = tuple[str, str]
"""The picture and the mask, by their paths within the folder."""


@dataclass
class Index:
    """What is known of the files of one folder as they are now."""

    folder: Path
    stamps: Mapping[str, str]
    """Of all files, by their paths within the folder; empty where a file is not to be relied on."""
    digests: dict[str, str] = field(default_factory=dict)
    """The sha256 of files."""
    ways: dict[str, dict[Pair, PairState]] = field(default_factory=dict)
    """What pairs showed, by how their masks were read, the latest one last."""
    changed: bool = False

    def known(self, pairs: Iterable[Pair], way: Way) -> list[PairState | None]:
        """What is known of each pair that is read in this way."""
        found = self.ways.get(way_of(way), {})
        plain = self.ways.get(way_of(Way(None, way.pictures)), {}) if way.colours is not None else {}
        return [found.get(pair) or by_colours(plain.get(pair)) for pair in pairs]

    def learn(self, states: Mapping[Pair, PairState], way: Way) -> None:
        """Keep what pairs showed, but for what has a problem: that is looked at again."""
        before = self.ways.pop(way_of(way), {})
        new = {pair: state for pair, state in states.items() if state.is_sound and self._settled(*pair)}
        self.ways[way_of(way)] = before | new
        self.changed = self.changed or bool(new)

    def sha256(self, files: Sequence[str]) -> list[str]:
        """The digests of files; those that are not known are read."""
        unknown = [file for file in files if file not in self.digests]
        with ThreadPoolExecutor(threads_for(self.folder)) as pool:
            new = dict(zip(unknown, pool.map(lambda file: sha256_of(self.folder / file), unknown), strict=True))
        kept = {file: digest for file, digest in new.items() if self._settled(file)}
        self.digests |= kept
        self.changed = self.changed or bool(kept)
        return [new.get(file) or self.digests[file] for file in files]

    def save(self) -> None:
        """Write it where something new is known; a folder in which nothing can be written is no error."""
        if not self.changed:
            return
        for place in _places(self.folder):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                with atomic(place, force=True) as partial:
                    write_columns(partial, self._columns())
            except (CheckpointError, OSError) as error:
                refused = str(error) if isinstance(error, CheckpointError) else of_system(error)
            else:
                self.changed = False
                return
        logger.warning("%s: what was found in it is not kept, and read again the next time: %s", self.folder, refused)

    def _settled(self, *files: str) -> bool:
        return all(self.stamps.get(file) for file in files)

    def _columns(self) -> Columns:
        ways = list(self.ways.items())[-_WAYS:]
        files = list(dict.fromkeys([*self.digests, *(file for _, way in ways for pair in way for file in pair)]))
        number = {file: n for n, file in enumerate(files)}
        return {
            "version": text_column([_version()]),
            "files": text_column(files),
            "stamps": text_column(self.stamps[file] for file in files),
            "digests": text_column(self.digests.get(file, "") for file in files),
            "ways": text_column(name for name, _ in ways),
            "counts": np.array([len(way) for _, way in ways], np.int64),
            "pairs": np.array([[number[file] for file in pair] for _, way in ways for pair in way], np.int64),
            **state_columns([state for _, way in ways for state in way.values()]),
        }


def open_index(folder: Path, stamps: Mapping[str, str]) -> Index:
    """What is known of the folder's files that have these stamps; a damaged index is named, and tells nothing."""
    index = Index(folder, stamps)
    for place in _places(folder):
        found = Index(folder, stamps)
        try:
            if not place.is_file():
                continue
            _fill(found, read_columns(place))
        except (DataError, OSError) as error:
            why = of_system(error) if isinstance(error, OSError) else error
            logger.warning("%s; it is passed over", why)
            continue
        index.digests |= found.digests
        for way, states in found.ways.items():
            index.ways[way] = states | index.ways.get(way, {})
    return index


def forget(folder: Path) -> None:
    """Let every file of a folder be read again.

    Raises:
        DataError: what is known cannot be removed.
    """
    for place in _places(folder):
        try:
            place.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"--recheck: {of_system(error)}; remove it") from error


def _fill(index: Index, columns: Columns) -> None:
    """Take over what is said of files that are still as they were.

    Raises:
        DataError: the columns do not fit together.
    """
    try:
        files, stamps, digests = (words_of(columns[name]) for name in ("files", "stamps", "digests"))
        same = [bool(was) and index.stamps.get(file) == was for file, was in zip(files, stamps, strict=True)]
        index.digests = {file: sha for file, sha, ok in zip(files, digests, same, strict=True) if ok and sha}
        if words_of(columns["version"]) != [_version()]:
            return
        rows = list(zip(columns["pairs"].reshape(-1, 2).tolist(), states_of(columns), strict=True))
        ends = np.cumsum(columns["counts"]).tolist()
        for way, begin, end in zip(words_of(columns["ways"]), [0, *ends[:-1]], ends, strict=True):
            index.ways[way] = {(files[a], files[b]): state for (a, b), state in rows[begin:end] if same[a] and same[b]}
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{index.folder}: its index is damaged ({error})") from error


def _places(folder: Path) -> tuple[Path, ...]:
    """Where the index may lie, the best place first."""
    name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # which stays as it is without a home
    places = folder / NAME, Path(home) / "unet-twins" / "folders" / f"{name}.npz"
    return places if os.path.isabs(home) else places[:1]


@functools.cache
def _version() -> str:
    """Of all that decides what is found in a file: with other code, or another decoder, all are looked at anew."""
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py"))))
    return " ".join([code.hexdigest(), *map(_release, ("numpy", "pillow", "tifffile", "nibabel", "pydicom"))])


def _release(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def way_of(way: Way) -> str:
    """How pairs are read, in a word."""
    return json.dumps([way.colours, dataclasses.asdict(way.pictures)] + ["whole"] * way.pictures.whole)


def by_colours(state: PairState | None) -> PairState | None:
    """What a mask that was read as it is shows by its colours; None where that is not known.

    It has these if it is RGB, where no compression changed them; of very many not all were kept.
    """
    if state is None or state.colours is None or len(state.colours) > MOST_CLASSES:
        return None
    return dataclasses.replace(state, values=state.colours, colours=None)
