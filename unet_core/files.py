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

from unet_core.errors import CheckpointError, reason

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

    Args:
        target: what is to be there in the end.
        force: replace it.
        replaces: whether a directory may be.
        companion: a file beside `target` that speaks of it. Where one of its name is written beside what is yielded,
            both appear or neither; where none is, an old one goes with what it spoke of.

    Raises:
        CheckpointError: `target` or its companion exists (without `force`), cannot be replaced, or cannot be written.
    """
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


def reserve(partial: Path, size: int) -> None:
    """Take `size` bytes of the disk beside `partial` and give them back.

    For a library whose threads go on after a failed write: a full disk or a limit is found before it begins.

    Raises:
        OSError: there is no such room.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
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
    if not target.parent.is_dir():
        raise CheckpointError(f"{target}: the folder {target.parent} does not exist; make it first")
    for path, may_replace in ((target, replaces), (companion, None)):
        if path is None or not os.path.lexists(path):
            continue
        if not force:
            raise CheckpointError(f"{path}: exists already; give another name, or --force to replace it")
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path}: is a link or a special file, which is not replaced; give another name")
        if path.is_dir() and not (may_replace and may_replace(path)):
            raise CheckpointError(f"{path}: is a directory of something else, which is not replaced; give another name")


def sha256_of(path: Path) -> str:
    """The sha256, in hex, of a file's bytes; of a directory, of what this prints in it.

    find . -type f | LC_ALL=C sort | xargs sha256sum
    """
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
