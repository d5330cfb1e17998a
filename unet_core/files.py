"""Writing that leaves the whole new file or directory, or nothing at all."""

import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unet_core import objects
from unet_core.errors import CheckpointError, StorageError, reason
from unet_core.paths import URLPath, present
from unet_core.staging import UNFINISHED, at_hand, put

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@contextmanager
def atomic(
    target: Path,
    *,
    force: bool = False,
    replaces: Callable[[Path], bool] | None = None,
    companion: Path | None = None,
) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a directory to; on leaving, sync it and rename it to `target`.

    Whatever goes wrong inside, `target` stays as it was and the neighbour is removed. With `force`, an existing file is
    replaced, and an existing directory too if `replaces` says that it is of the kind that is written here.

    To an address, what is written here is put on leaving: an object whole or not at all, a directory so that no reader
    takes the half of it. Where an old one was replaced and that is cut off, the old one is gone.

    Args:
        target: what is to be there in the end.
        force: replace it.
        replaces: whether a directory may be.
        companion: a file beside `target` that speaks of it. Where one of its name is written beside what is yielded,
            both appear or neither; where none is, an old one goes with what it spoke of.

    Raises:
        CheckpointError: `target` or its companion exists (without `force`), cannot be replaced, or cannot be written.
    """
    if isinstance(target, URLPath):
        with _put_on_leaving(target, force, replaces, companion) as partial:
            yield partial
        return
    target = Path(os.path.abspath(target))
    companion = None if companion is None else Path(os.path.abspath(companion))
    check_target(target, force=force, replaces=replaces, companion=companion)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise CheckpointError(f"{target}: cannot write here: {_reason(error)}") from error
    try:
        partial = folder / target.name
        yield partial
        if partial.is_file():  # safetensors' writer lets nobody else read what it writes
            partial.chmod(0o666 & ~_umask())
        sync(partial)
        check_target(target, force=force, replaces=replaces, companion=companion)
        if companion is None:
            _replace(partial, target, folder)
        else:
            _replace_both(partial, target, folder, companion)
        _sync_one(target.parent)
    except OSError as error:
        raise CheckpointError(f"{target}: not written: {_reason(error)}") from error
    finally:
        _remove(folder)


@contextmanager
def _put_on_leaving(
    target: URLPath, force: bool, replaces: Callable[[Path], bool] | None, companion: Path | None
) -> Iterator[Path]:
    """`atomic`, to an address. A companion is there only beside what it speaks of: an old one is removed first."""
    check_target(target, force=force, replaces=replaces, companion=companion)
    with tempfile.TemporaryDirectory(prefix="unet-twins-") as folder:
        partial = Path(folder) / target.name
        try:
            yield partial
            if not force:  # somebody may have been quicker
                check_target(target, replaces=replaces, companion=companion)
            if companion is not None:
                companion.unlink(missing_ok=True)
            put(partial, target)
            if isinstance(companion, URLPath) and partial.with_name(companion.name).is_file():
                put(partial.with_name(companion.name), companion)
        except StorageError as error:
            raise CheckpointError(f"{target}: not written: {error.strerror}") from error
        except OSError as error:
            raise CheckpointError(f"{target}: not written: {_reason(error)}") from error


def reserve(partial: Path, size: int) -> None:
    """Take `size` bytes of the disk beside `partial` and give them back.

    For a library whose threads go on after a failed write: a full disk or a limit is found before it begins.

    Raises:
        OSError: there is no such room.
    """
    if not hasattr(os, "posix_fallocate") or isinstance(partial, URLPath):  # macOS; a bucket
        return
    with tempfile.TemporaryFile(dir=partial.parent) as file:
        os.posix_fallocate(file.fileno(), 0, size)


def check_target(
    target: Path,
    *,
    force: bool = False,
    replaces: Callable[[Path], bool] | None = None,
    companion: Path | None = None,
) -> None:
    """Raise CheckpointError where `target`, or its `companion`, may not be written; touches nothing."""
    if isinstance(target, URLPath):
        objects.check_bucket(str(target))
    elif not target.parent.is_dir():
        raise CheckpointError(f"{target}: the folder {target.parent} does not exist; make it first")
    for path, may_replace in ((target, replaces), (companion, None)):
        if path is None or not present(path):
            continue
        if not force:
            raise CheckpointError(f"{path}: exists already; give another name, or --force to replace it")
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path}: is a link or a special file, which is not replaced; give another name")
        cut_off = isinstance(path, URLPath) and (path / UNFINISHED).is_file()
        if path.is_dir() and not (may_replace and may_replace(path)) and not cut_off:
            raise CheckpointError(f"{path}: is a directory of something else, which is not replaced; give another name")


def sha256_of(path: Path) -> str:
    """The sha256, in hex, of a file's bytes; of a directory, of what this prints in it.

    find . -type f | LC_ALL=C sort | xargs sha256sum
    """
    if isinstance(path, URLPath):
        with at_hand(path) as local:
            return sha256_of(local)
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(os.fsencode(file.relative_to(path).as_posix()) for file in path.rglob("*") if file.is_file())
    lines = (sha256_of(path / os.fsdecode(name)).encode() + b"  ./" + name + b"\n" for name in names)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _remove(folder: Path) -> None:
    """Remove a folder into which a library's threads may still be writing after their first error."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def sync(path: Path) -> None:
    """Force a file, or a directory with all that is in it, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(partial: Path, target: Path, folder: Path) -> None:
    """Give `partial` the name `target`; what bore it before is left in `folder`."""
    if not target.is_dir() and not partial.is_dir():
        os.replace(partial, target)
    elif not os.path.lexists(target):
        os.rename(partial, target)
    elif not _exchange(partial, target):
        old = folder / "replaced"
        os.rename(target, old)
        try:
            os.rename(partial, target)
        except BaseException:
            os.rename(old, target)
            raise


def _replace_both(partial: Path, target: Path, folder: Path, old: Path) -> None:
    """As `_replace`, and the same of the companion `old` of `target`, or none of the two.

    The companion comes first, so that what may fail last is `_replace`, which leaves `target` as it was.
    """
    new, kept = partial.with_name(old.name), folder / "replaced companion"
    if new.is_file():
        sync(new)
    ours, whole = _inode(new), _inode(partial)
    try:
        if os.path.lexists(old):
            os.rename(old, kept)
        if ours is not None:
            os.rename(new, old)
        _replace(partial, target, folder)
    except BaseException:
        if _inode(target) != whole:  # else a signal came when all was done
            if _inode(old) == ours is not None:
                old.unlink()
            if os.path.lexists(kept):
                os.rename(kept, old)
        raise


def _inode(path: Path) -> int | None:
    return os.lstat(path).st_ino if os.path.lexists(path) else None


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step, which a rename cannot do to directories; False where the system cannot either."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


def _reason(error: OSError) -> str:
    return "the disk is full" if error.errno == errno.ENOSPC else reason(error)
