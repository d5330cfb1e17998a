"""Objects of a bucket as files of this machine, for as long as they are read; and new ones from files.

An object is put whole or not at all. Of a folder nothing is: a first object says that it is being written, all others
follow, those last that Orbax writes last, or the config of a run, and the first one is taken away again. Readers take
no folder that says so, nor an Orbax directory without its last object.
"""

import functools
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Concatenate, ParamSpec, TypeVar

from unet_core import objects
from unet_core.errors import CheckpointError, shown
from unet_core.objects import Entry
from unet_core.paths import URLPath

logger = logging.getLogger(__name__)

_SPOKEN: dict[str, str] = {}
"""The addresses of what is here for a while, by the paths."""

_More = ParamSpec("_More")
_Read = TypeVar("_Read")

UNFINISHED = ".unet-twins-writes-here"
"""The first object of a folder that is being written, and the last to be removed."""

COMMITTED = "commit_success.txt"
"""The last object of an Orbax directory in a bucket: Orbax's own name for it."""

_ORBAX = "_CHECKPOINT_METADATA"
_THREADS = 16
_MOST_OBJECTS = 100_000
_LARGE = 20_000_000
"""Bytes from which on it is said what is fetched or put."""


@contextmanager
def at_hand(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Path]:
    """A path of this machine with what `path` has; of an address a copy, which is gone afterwards.

    Whoever asks for the same address, or for one below it, while it is at hand gets the same copy.

    Args:
        path: a path of this machine, or an address.
        wanted: of the names below a folder, whether to fetch it.

    Raises:
        CheckpointError: it is not there, is not whole, or has names that no file can have.
        StorageError: it cannot be fetched.
    """
    if not isinstance(path, URLPath):
        yield path
        return
    path = path.resolve()
    with _HELD.copy_of(path, wanted) as local:
        if str(local) in _SPOKEN:  # with the folder that it is in
            yield local
            return
        with speaking_of(path, local):
            yield local


@contextmanager
def speaking_of(url: URLPath, local: Path) -> Iterator[None]:
    """Let errors, and what is `spoken`, speak of an address, not of what is here for it."""
    _SPOKEN[str(local)] = str(url)
    try:
        yield
    except Exception as error:
        error.args = tuple(spoken(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(error, OSError) and isinstance(error.filename, str):
            error.filename = spoken(error.filename)
        raise
    finally:
        del _SPOKEN[str(local)]


def spoken(text: str) -> str:
    """A line for people, with addresses in place of what is here for them."""
    for local, url in tuple(_SPOKEN.items()):
        text = text.replace(local, url)
    return text


def locally(read: Callable[Concatenate[Path, _More], _Read], /) -> Callable[Concatenate[Path, _More], _Read]:
    """Of a function that reads a path of this machine, one that reads addresses, too."""

    @functools.wraps(read)
    def reading(path: Path, /, *more: _More.args, **named: _More.kwargs) -> _Read:
        with at_hand(path) as local:
            return read(local, *more, **named)

    return reading


def whole(url: URLPath, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Of the objects below a folder, those that are in no folder whose writing has not come to its end.

    Raises:
        CheckpointError: the folder itself is such a one.
    """
    half = {name.rpartition("/")[0] for name in entries if name.rpartition("/")[2] == UNFINISHED}
    if "" in half:
        raise CheckpointError(
            f"{url}: is being written, or its writing was cut off; write it again with --force, or remove it"
        )
    half |= {
        folder
        for folder, _, last in (name.rpartition("/") for name in entries)
        if last == _ORBAX and f"{folder}/{COMMITTED}".lstrip("/") not in entries
    }
    if "" in half:
        raise CheckpointError(
            f"{url}: has no {COMMITTED}, which is written last: its writing was cut off; if you have copied all "
            "of it there yourself, add an empty object of that name"
        )
    return {name: about for name, about in entries.items() if not any(name.startswith(f"{one}/") for one in half)}


def put(local: Path, url: URLPath, check: Callable[[], None] = lambda: None) -> None:
    """Write a file as an object, or a folder as objects below a name, whose earlier ones are removed.

    Before each object `check` is called, which raises where nothing more is to be written.
    """
    if local.is_dir():
        _put_folder(local, url, check)
    else:
        put_files({url: local}, check)


def put_files(files: Mapping[URLPath, Path], check: Callable[[], None] = lambda: None) -> None:
    """Write several objects, each whole or not at all, several at a time; `check` as in `put`."""
    size = sum(file.stat().st_size for file in files.values())
    with _told("writing", files, size) as done:

        def one(item: tuple[URLPath, Path]) -> None:
            url, file = item
            check()
            objects.put(str(url), file)
            done(file.stat().st_size)

        _all(one, files.items())


def remove_tree(url: URLPath, names: Iterable[str]) -> None:
    """Remove objects below a name; first those without which it does not count."""
    first = [name for name in names if name.rpartition("/")[2] == COMMITTED]
    first.sort(key=lambda name: name.count("/"))
    for name in first:
        objects.remove(str(url / name))
    _all(lambda name: objects.remove(str(url / name)), [name for name in names if name not in first])


def _put_folder(local: Path, url: URLPath, check: Callable[[], None]) -> None:
    files = {file.relative_to(local).as_posix(): file for file in sorted(local.rglob("*")) if file.is_file()}
    last = [name for name in files if name.rpartition("/")[2] == COMMITTED]
    last = [*sorted(last, key=lambda name: -name.count("/")), *(["config.json"] if "config.json" in files else [])]
    marks = {f"{name.removesuffix(_ORBAX)}{COMMITTED}" for name in files if name.rpartition("/")[2] == _ORBAX}
    check()
    objects.write(str(url / UNFINISHED), b"")
    remove_tree(url, [name for name in objects.listed(str(url)) if name != UNFINISHED])
    put_files({url / name: file for name, file in files.items() if name not in last}, check)
    check()
    for name in marks - files.keys():
        objects.write(str(url / name), b"")
    for name in last:
        check()
        objects.put(str(url / name), files[name])
    objects.remove(str(url / UNFINISHED))


@dataclass
class _Copy:
    """What was fetched."""

    folder: str
    local: Path
    users: int = 1


class _Copies:
    """Those that are at hand."""

    def __init__(self) -> None:
        self._copies: dict[URLPath, _Copy] = {}
        self._lock = threading.RLock()

    @contextmanager
    def copy_of(self, url: URLPath, wanted: Callable[[str], bool]) -> Iterator[Path]:
        with self._lock:
            held = next((one for one in (url, *url.parents) if one in self._copies), None)
            if held is None:
                folder = tempfile.mkdtemp(prefix="unet-twins-")
                try:
                    local = _fetched(url, Path(folder) / url.name, wanted)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                held = url
                self._copies[held] = _Copy(folder, local)
            else:
                self._copies[held].users += 1
            copy = self._copies[held]
        try:
            yield copy.local / url.relative_to(held)
        finally:
            with self._lock:
                copy.users -= 1
                if not copy.users:
                    del self._copies[held]
                    shutil.rmtree(copy.folder, ignore_errors=True)


_HELD = _Copies()


def _fetched(url: URLPath, local: Path, wanted: Callable[[str], bool]) -> Path:
    """Fetch an object, or all below a folder, to a path of this machine."""
    entries = objects.listed(str(url))
    if "" in entries:  # an object; others of longer names are none of it
        entries = {"": entries[""]}
    if not entries:
        raise CheckpointError(f"{url}: {objects.missing(str(url))}")
    entries = whole(url, entries)
    fetch(url, local, {name: entry for name, entry in entries.items() if _is_kept(name, entry) and wanted(name)})
    return local


def _is_kept(name: str, entry: Entry) -> bool:
    """Whether an object is one of what was put: not an empty mark, which Orbax has not written."""
    return entry.size > 0 or PurePosixPath(name).name != COMMITTED


def fetch(url: URLPath, local: Path, entries: Mapping[str, Entry]) -> None:
    """Fetch objects below a folder by their names, the empty one among them, to files of these names."""
    _check_names(url, entries)
    size = sum(entry.size for entry in entries.values())
    free = shutil.disk_usage(next(folder for folder in local.parents if folder.exists())).free
    if size > free:
        raise CheckpointError(f"{url}: has {size} bytes, {free} are free in {local.parent}; set TMPDIR to another disk")
    for name in entries:
        (local / name).parent.mkdir(parents=True, exist_ok=True)
    with _told("fetching", [url], size) as done:

        def one(name: str) -> None:
            objects.get(str(url / name if name else url), local / name, entries[name].size)
            done(entries[name].size)

        _all(one, entries)


def _check_names(url: URLPath, names: Iterable[str]) -> None:
    """Refuse objects that no files can have the names of, or that would lie elsewhere."""
    there = set(names)
    if len(there) > _MOST_OBJECTS:
        raise CheckpointError(f"{url}: holds more than {_MOST_OBJECTS} objects; name a folder with less in it")
    for name in there - {""}:
        parts = name.split("/")
        odd = any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts)
        if odd or any("/".join(parts[:n]) in there for n in range(1, len(parts))):
            raise CheckpointError(f"{url}: no file can have the name of the object {shown(name)}")


def _all(call: Callable[..., None], items: Iterable[object]) -> None:
    """Call for each, several at a time; the first error ends it."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for future in [pool.submit(call, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _told(what: str, urls: Iterable[URLPath], size: int) -> Iterator[Callable[[int], None]]:
    """Say what is fetched or put where it is large, and now and then how far that is."""
    name, begun = next(iter(urls), None), time.monotonic()
    lock, state = threading.Lock(), {"done": 0.0, "said": begun}

    def done(more: int) -> None:
        with lock:
            state["done"] += more
            if size >= _LARGE and time.monotonic() - state["said"] > 10:
                state["said"] = time.monotonic()
                logger.info("%s %s: %.0f%%", what, name, 100 * state["done"] / size)

    if size >= _LARGE:
        logger.info("%s %s, %.1f MB", what, name, size / 1e6)
    yield done
