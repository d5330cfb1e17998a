"""What a person calls a place: a path on this machine, or the address of an object in a bucket.

`as_path` makes the one or the other of it, once, where it enters: an option of the command, an argument of a public
function. Inside, a `URLPath` is a `pathlib.Path` like any other, as far as its methods go that ask and read; whoever
needs a file of this machine opens `unet_core.staging.at_hand`, and `unet_core.files.atomic` writes.
"""

import errno
import io
import os
import re
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import IO, Any

from unet_core import objects
from unet_core.errors import StorageError, shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LIKE = {"gs": "gs://bucket/name", "s3": "s3://bucket/name", "hf": "hf://owner/name"}
_FOLDED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?!/)")


class URLPath(PosixPath):
    """An address such as `gs://bucket/run`, with the names and parents of a path.

    Everything that would take it for a file of this machine fails: `open`, `os.stat`, `os.path.exists`.
    """

    def __str__(self) -> str:
        return _FOLDED.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self}: is not on this machine; a bug of unet-twins")

    def exists(self, **_: Any) -> bool:
        """Whether there is such an object, or one below it."""
        return self.is_file() or self.is_dir()

    def is_file(self, **_: Any) -> bool:
        """Whether there is such an object."""
        return bool(objects.asked(str(self), lambda system, name: _kind(system, name) == "file"))

    def is_dir(self, **_: Any) -> bool:
        """Whether there are objects below it."""
        return bool(objects.asked(str(self), lambda system, name: _kind(system, name) == "directory"))

    def is_symlink(self) -> bool:
        """There are none."""
        return False

    def iterdir(self) -> Generator["URLPath", None, None]:
        """What is next below it."""
        for found in objects.asked(str(self), lambda system, name: system.ls(name, detail=False)):
            yield self / str(found).rstrip("/").rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """All of the object."""
        return objects.read(str(self))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """All of the object as text."""
        with io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding or "utf-8", errors, newline) as text:
            return text.read()

    def open(self, mode: str = "r", *_: Any, **how: Any) -> IO[Any]:  # type: ignore[override]
        """All of the object, to be read."""
        if mode == "rb":
            return io.BytesIO(self.read_bytes())
        if mode == "r":
            return io.TextIOWrapper(io.BytesIO(self.read_bytes()), **{"encoding": "utf-8", **how})
        raise StorageError(errno.EROFS, "a bucket has no files that are open for writing", str(self))

    def write_bytes(self, data: Any) -> int:
        """Write the object, whole or not at all."""
        objects.write(str(self), data)
        return len(data)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """A bucket has no folders that need to be made."""

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: ARG002
        """Remove the object."""
        objects.remove(str(self))

    def resolve(self, strict: bool = False) -> "URLPath":  # noqa: ARG002
        """An address is absolute; one of the Hub gets the commit that its revision is now."""
        return URLPath(objects.pinned(str(self)))

    def absolute(self) -> "URLPath":
        """An address is absolute."""
        return self

    def is_absolute(self) -> bool:
        """An address is."""
        return True


def as_path(typed: str | os.PathLike[str]) -> Path:
    """The path or address that a person means. `file://` is a path of this machine, `~` the home of its user.

    Raises:
        StorageError: an address that is none.
    """
    if isinstance(typed, Path):
        return typed
    text = typed if isinstance(typed, str) else str(typed)  # another library's paths show their address as text alone
    if _URL.match(text) is None:
        return Path(os.path.expanduser(typed))  # a shell leaves `--out=~/run` as it is
    scheme, _, rest = text.partition("://")
    if scheme.lower() == "file":
        return Path("/" + rest.lstrip("/"))
    if "::" in text or not rest or rest.startswith("/") or ".." in rest.split("/"):
        raise StorageError(
            errno.EINVAL,
            f"is no address of an object; give it as {_LIKE.get(scheme.lower(), _LIKE['gs'])}",
            shown(text),
        )
    return URLPath(f"{scheme.lower()}://{rest}")


def as_source(typed: str | os.PathLike[str]) -> Path:
    """`as_path`, of what is to be read: of the Hub what is there now, whatever is pushed there while it is read.

    Raises:
        StorageError: an address that is none, or of a repository that is not there.
    """
    path = as_path(typed)
    return path.resolve() if isinstance(path, URLPath) else path


def as_target(typed: str | os.PathLike[str]) -> Path:
    """`as_path`, of what is to be written.

    Raises:
        StorageError: an address that is none, or where nothing is written.
    """
    path = as_path(typed)
    if isinstance(path, URLPath):
        objects.check_writable(str(path))
    return path


def is_url(typed: str | os.PathLike[str]) -> bool:
    """Whether it is an address, and no path of this machine."""
    return isinstance(as_path(typed), URLPath)


def absolute(path: Path) -> Path:
    """The same from the root, without `..`; links are not followed."""
    return path if isinstance(path, URLPath) else Path(os.path.abspath(path))


def present(path: Path) -> bool:
    """Whether anything has this name, a broken link among it."""
    return path.exists() if isinstance(path, URLPath) else os.path.lexists(path)


def write_new(path: Path, content: bytes) -> None:
    """Write a small file or object of a name that there is not yet, which only one of several can.

    Raises:
        FileExistsError: it is there.
    """
    if isinstance(path, URLPath):
        objects.write(str(path), content, new=True)
        return
    with path.open("xb", buffering=0) as file:
        file.write(content)


def _kind(system: Any, name: str) -> str | None:
    """What `name` is in a file system of fsspec; None: nothing."""
    try:
        found: str = system.info(name)["type"]
    except FileNotFoundError:
        return None
    return found
