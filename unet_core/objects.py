"""Objects in stores that fsspec reaches: every request is asked again where that may help, and bounded."""

import contextlib
import errno
import functools
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from unet_core.errors import MissingFrameworkError, StorageError, UNetError, first_line
from unet_core.hub.client import LOG_IN
from unet_core.hub.store import READ_ALONE, Store
from unet_core.installation import installing

_Answer = TypeVar("_Answer")

_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries, give or take a third. gcsfs and s3fs have tried several times themselves before each."""

_PATIENCE = 60.0
"""Seconds after which no new try begins: of those of gcsfs, which take half a minute, there are two."""

HUB = "hf"
"""The scheme of repositories of the Hugging Face Hub."""

_LOG_IN = {
    "gs": "log in by `gcloud auth application-default login`, or run where a service account may use the bucket",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in by `aws configure`",
    HUB: LOG_IN,
}
_PACKAGES = {"gs": "gcs", "s3": "s3"}
"""The extra that has what reads such an address."""

_SAME = {"gcs": "gs", "s3a": "s3"}

_CUT = {
    "ClientConnectionError",  # aiohttp
    "ClientPayloadError",
    "HTTPClientError",  # botocore
    "IncompleteReadError",
    "ResponseStreamingError",
    "RequestException",  # requests
    "ChecksumError",  # gcsfs
    "TransportError",  # httpx
}
"""Names of the classes of errors of connections that broke or were never made; their packages may not be installed."""

_SEEN: set[str] = set()
"""Buckets that are there."""

_BUSY = {errno.EBUSY, errno.EIO, errno.ETIMEDOUT}
"""What s3fs makes of the answers that ask for patience."""


@dataclass(frozen=True)
class Entry:
    """What a store tells of an object without reading it."""

    size: int
    """Bytes."""
    version: str
    """Changes whenever the object is written: its generation, or else its ETag, or the time when it was written."""


def scheme_of(url: str) -> str:
    """Of an address as `gs://bucket/name`; two names of one are one."""
    scheme = url.partition("://")[0]
    return _SAME.get(scheme, scheme)


def asked(url: str, call: Callable[[Any, str], _Answer]) -> _Answer:
    """What a store answers, asked again where that may help.

    Args:
        url: which object or folder.
        call: is given fsspec's file system and the name in it; may be called several times.

    Raises:
        FileNotFoundError, FileExistsError: as the store says.
        StorageError: what else it refuses, in one line.
        MissingFrameworkError: what reads such an address is not installed.
    """
    system, name = _system(url)
    begun = time.monotonic()
    for tries in itertools.count(1):
        try:
            return call(system, name)
        except (UNetError, MemoryError):
            raise
        except Exception as error:  # each store has errors of its own kinds
            late = tries > len(_WAITS) or time.monotonic() - begun > _PATIENCE
            if late or not _may_pass(error):
                raise _translated(error, url, tries) from error
        time.sleep(_WAITS[tries - 1] * random.uniform(2 / 3, 4 / 3))
    raise AssertionError


def listed(url: str) -> dict[str, Entry]:
    """All objects below a folder by their names from there on, with one request for each thousand or so.

    An object that has the name itself is there as the empty name.
    """
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        found = asked(url, lambda system, name: system.find(name, detail=True))
    top = asked(url, lambda _, name: name).strip("/")
    entries = {}
    for name, about in found.items():
        short = name.strip("/").removeprefix(top)
        if about.get("type") != "directory" and not name.endswith("/") and (not short or short.startswith("/")):
            entries[short[1:]] = Entry(int(about.get("size") or 0), _version(about))
    return entries


def pinned(url: str) -> str:
    """The address of what is there now, whatever is written there later; of a bucket, the same."""
    return asked(url, lambda system, name: system.pinned(name)) if scheme_of(url) == HUB else url


def missing(url: str) -> str:
    """What an address is where nothing is there."""
    return "no such file in the repository" if scheme_of(url) == HUB else "no such object, or no such bucket"


def check_writable(url: str) -> None:
    """Raise StorageError for an address of the Hub, before it is asked for anything."""
    if scheme_of(url) == HUB:
        raise StorageError(errno.EROFS, READ_ALONE, url)


def check_bucket(url: str) -> None:
    """Raise StorageError where the bucket of an address is not there, so that this is known before the work."""
    check_writable(url)
    scheme = scheme_of(url)
    bucket = "/".join(url.split("/")[:3])
    if scheme not in _PACKAGES or bucket in _SEEN:
        return
    try:
        asked(bucket, lambda system, name: system.info(name))
    except FileNotFoundError as error:
        raise StorageError(
            errno.ENOENT, f"there is no bucket {bucket}; make it first, or mend its name", url
        ) from error
    except StorageError as error:
        if error.errno != errno.EACCES:  # who may write objects may not see the bucket itself
            raise
    _SEEN.add(bucket)


def read(url: str) -> bytes:
    """The bytes of an object."""
    found: bytes = asked(url, lambda system, name: system.cat_file(name))
    return found


def read_part(url: str, begin: int, size: int) -> bytes:
    """So many bytes of an object, from one on."""

    def part(system: Any, name: str) -> bytes:
        found: bytes = system.cat_file(name, start=begin, end=begin + size)
        if len(found) != size:
            raise ConnectionError(f"{len(found)} of {size} bytes came")
        return found

    return asked(url, part)


def write(url: str, content: bytes, *, new: bool = False) -> None:
    """Write an object, whole or not at all.

    Raises:
        FileExistsError: it is there, where it is to be `new`.
    """
    asked(url, lambda system, name: system.pipe_file(name, content, mode="create" if new else "overwrite"))


def get(url: str, local: Path, size: int) -> None:
    """Fetch an object of `size` bytes to a file."""

    def fetched(system: Any, name: str) -> None:
        system.get_file(name, str(local))
        if local.stat().st_size != size:
            raise ConnectionError(f"{local.stat().st_size} of {size} bytes came")

    asked(url, fetched)


def put(url: str, local: Path) -> None:
    """Write a file as an object, whole or not at all."""
    size = local.stat().st_size

    def written(system: Any, name: str) -> None:
        system.put_file(str(local), name)
        found = system.info(name)["size"]
        if found != size:
            raise ConnectionError(f"{found} of {size} bytes were kept")

    asked(url, written)


def remove(url: str) -> None:
    """Remove an object, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        asked(url, lambda system, name: system.rm_file(name))


def _system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the name in it.

    fsspec itself has one for each thread, which then logs in for itself; those of buckets are for all threads.
    """
    root = "/".join(url.split("/")[:3])
    system = _system_of(root, os.getpid(), 0)
    if not system.async_impl:
        system = _system_of(root, os.getpid(), threading.get_ident())
    return system, system._strip_protocol(url)


@functools.cache
def _system_of(url: str, _process: int, _thread: int) -> Any:
    if scheme_of(url) == HUB:
        return Store()
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingFrameworkError(f"{url}: reading it takes fsspec: pip install fsspec", name="fsspec") from error
    scheme = scheme_of(url)
    if scheme == "gs":  # else gcsfs asks over gRPC what kind of bucket it is, and waits a minute where nobody answers
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints a traceback of what is told in one line
    try:
        system, _ = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = _PACKAGES.get(scheme)
        advice = installing(extra) if extra else first_line(error)
        raise MissingFrameworkError(f"{url}: what reads {scheme}:// is not installed: {advice}") from error
    except ValueError as error:
        raise StorageError(errno.EINVAL, f"no address that is known ({first_line(error)})", url) from error
    return system


def _version(about: dict[str, Any]) -> str:
    keys = ("generation", "ETag", "etag", "mtime", "updated", "LastModified", "created")
    return next((str(about[key]).strip('"') for key in keys if about.get(key) is not None), "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was made of."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _status(error: BaseException) -> int | None:
    """The code of HTTP, where it tells one."""
    for one in _causes(error):
        answer = getattr(one, "response", None)
        about = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        code = about.get("HTTPStatusCode") or getattr(answer, "status_code", None)
        code = code or getattr(one, "code", None) or getattr(one, "status", None)
        if isinstance(code, int | str) and str(code).isdecimal():
            return int(code)
    return None


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, TimeoutError | ConnectionError | EOFError):
        return True
    if any({kind.__name__ for kind in type(one).__mro__} & _CUT for one in _causes(error)):
        return True
    return isinstance(error, OSError) and error.errno in _BUSY


def _translated(error: Exception, url: str, tries: int) -> Exception:
    """The same for a person, on one line."""
    status, said = _status(error), first_line(error)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or status == 404:
        return FileNotFoundError(errno.ENOENT, missing(url), url)
    if isinstance(error, FileExistsError) or status == 412:
        return FileExistsError(errno.EEXIST, "is there already", url)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageError(errno.ENOSPC, "the disk is full", url)
    refused = status in (401, 403) or isinstance(error, PermissionError) or said.startswith("Forbidden")
    if refused or "credential" in f"{type(error).__name__} {said}".lower():
        advice = _LOG_IN.get(scheme_of(url), "look at the credentials")
        return StorageError(errno.EACCES, f"access denied ({said}); {advice}", url)
    often = f", tried {tries} times" if tries > 1 else ""
    return StorageError(errno.EIO, f"the store does not answer as it should{often}: {said}", url)
