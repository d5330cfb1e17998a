"""A run's folder in a bucket: a copy on this machine that trains, and what has changed in it put to the bucket.

No object can be appended to, and none renamed. So the history is put anew, whole, before each state that relies on it,
and a state counts from its last object on (`unet_core.staging`).
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from unet_core import objects
from unet_core.errors import RunError, StorageError
from unet_core.leases import Lease
from unet_core.paths import URLPath
from unet_core.staging import COMMITTED, fetch, put, put_files, remove_tree, speaking_of, whole
from unet_core.training.lock import leased, lost
from unet_core.training.run import BOARD, CONFIG, PROFILE, STATES

logger = logging.getLogger(__name__)

_Signature = tuple[int, int]
"""When a file was written, in nanoseconds, and its size."""


class WorkingCopy:
    """A run's folder as the training sees it: where that is on this machine, the folder itself.

    Args:
        path: on this machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def states(self) -> Path:
        """The folder of the states."""
        return self.path / STATES

    def publish(self, settle: Callable[[], None] = lambda: None, *, every: float = 0) -> None:
        """Put what has changed where the run is.

        Args:
            settle: waits for what is being written.
            every: not if this was done within so many seconds; what cannot be put then waits for the next time.

        Raises:
            StorageError: it cannot be put.
            RunError: another process has taken the run over.
        """


class BucketCopy(WorkingCopy):
    """Of a run in a bucket.

    Args:
        url: the run's folder.
        path: on this machine.
        lease: on the folder; None: this process writes nothing there.
        divided: each of several hosts writes its part of a state, to the bucket itself.
    """

    def __init__(self, url: URLPath, path: Path, lease: Lease | None, *, divided: bool) -> None:
        super().__init__(path)
        self._url, self._lease, self._divided = url, lease, divided
        self._put: dict[str, _Signature] = {}
        self._last = time.monotonic()

    @property
    def states(self) -> Path:
        """The folder of the states."""
        return self._url / STATES if self._divided else super().states

    def fetch(self) -> None:
        """Fetch what a training goes on from. What was left of a state that was being written is removed."""
        entries = objects.listed(str(self._url))
        run = {name: entry for name, entry in entries.items() if _is_kept(name)}
        kept = whole(self._url, run)
        kept = {name: entry for name, entry in kept.items() if _top(name) in ("", name) or _mark(name) in kept}
        if self._lease is not None:
            remove_tree(self._url, run.keys() - kept.keys())
        kept = {name: entry for name, entry in kept.items() if not self._is_divided(name)}
        if kept:
            fetch(self._url, self.path, kept)
        self._put = self._files()

    def publish(self, settle: Callable[[], None] = lambda: None, *, every: float = 0) -> None:
        """As said there: first all but the states, then these, then those that are gone are removed."""
        if self._lease is None or time.monotonic() - self._last < every:
            return
        settle()
        self._last = time.monotonic()
        try:
            self._put_changes()
        except StorageError as error:
            if not every:
                raise
            logger.warning("%s; the training goes on", error)

    def _put_changes(self) -> None:
        files = self._files()
        changed = {name for name, found in files.items() if self._put.get(name) != found}
        for names in ({CONFIG} & changed, {name for name in changed - {CONFIG} if not _top(name)}):
            put_files({self._url / name: self.path / name for name in sorted(names)}, self._check)
            self._put |= {name: files[name] for name in names}
        for top in sorted({_top(name) for name in changed} - {""}):
            put(self.path / top, self._url / top, self._check)
            self._put |= {name: found for name, found in files.items() if _top(name) == top}
        for top in sorted({_top(name) for name in self._put} - {_top(name) for name in files}):
            self._check()
            remove_tree(self._url / top, objects.listed(str(self._url / top)))  # there is a mark that is not here
        self._put = {name: found for name, found in self._put.items() if name in files or not _top(name)}

    def _check(self) -> None:
        if self._lease is not None and not self._lease.holds:
            raise lost(self._url)

    def _files(self) -> dict[str, _Signature]:
        """What is on this machine and belongs to the run."""
        found = {}
        for file in self.path.rglob("*"):
            name = file.relative_to(self.path).as_posix()
            with contextlib.suppress(FileNotFoundError):  # Orbax may be writing beside us
                if file.is_file() and not any(part.startswith(".") or "-tmp" in part for part in name.split("/")):
                    status = file.stat()
                    found[name] = status.st_mtime_ns, status.st_size
        return found

    def _is_divided(self, name: str) -> bool:
        return self._divided and name.startswith(f"{STATES}/")


@contextmanager
def working_copy(path: Path, *, writes: bool, divided: bool = False) -> Iterator[WorkingCopy]:
    """The folder of a run as a training needs it; what has changed in it is put where the run is, also at the end.

    Args:
        path: the run's folder, which may be an address.
        writes: this process, of those that train together, is the one that writes.
        divided: each of several hosts writes its part of a state.

    Raises:
        RunError: another process trains there; or several hosts cannot write there together.
    """
    if not isinstance(path, URLPath):
        yield WorkingCopy(path)
        return
    if divided and objects.scheme_of(str(path)) != "gs":
        raise RunError(f"{path}: several hosts write their states to gs://, or to a folder that all of them see")
    objects.check_bucket(str(path))
    lease: AbstractContextManager[Lease | None] = leased(path) if writes else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="unet-twins-") as folder, lease as held:
        copy = BucketCopy(path, Path(folder) / path.name, held, divided=divided)
        with speaking_of(path, copy.path):
            copy.fetch()
            try:
                yield copy
            except BaseException:
                with contextlib.suppress(StorageError, RunError):  # what ended the training is told, not this
                    copy.publish()
                raise
            copy.publish()


def _is_kept(name: str) -> bool:
    """Whether a training that goes on needs it."""
    return not name.startswith((".", f"{BOARD}/", f"{PROFILE}/"))


def _mark(name: str) -> str:
    """Of a file of a state that is a folder, the last object of that."""
    return f"{_top(name)}/{COMMITTED}"


def _top(name: str) -> str:
    """Of a state's file the state, as `states/10`; of others nothing."""
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] == STATES else ""
