"""Writing that leaves the whole new file or directory, or nothing at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_core.errors import CheckpointError


@contextmanager
def atomic(target: Path, *, force: bool = False, replaces: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a directory to; on leaving, sync it and rename it to `target`.

    Whatever goes wrong inside, `target` stays as it was and the neighbour is removed. With `force`, an existing file is
    replaced, and an existing directory too if `replaces` says that it is of the kind that is written here.

    Raises:
        CheckpointError: `target` exists (without `force`), cannot be replaced, or cannot be written.
    """
    target = Path(os.path.abspath(target))
    check_target(target, force=force, replaces=replaces)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise CheckpointError(f"{target}: cannot write here: {_reason(error)}") from error
    try:
        partial = folder / target.name
        yield partial
        sync(partial)
        check_target(target, force=force, replaces=replaces)
        _replace(partial, target, folder)
        _sync_one(target.parent)
    except OSError as error:
        raise CheckpointError(f"{target}: not written: {_reason(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_target(target: Path, *, force: bool = False, replaces: Callable[[Path], bool] | None = None) -> None:
    """Raise CheckpointError where `target` may not be written; touches nothing."""
    if not target.parent.is_dir():
        raise CheckpointError(f"{target}: the folder {target.parent} does not exist; make it first")
    if not os.path.lexists(target):
        return
    if not force:
        raise CheckpointError(f"{target}: exists already; give another name, or --force to replace it")
    if target.is_symlink() or not (target.is_file() or target.is_dir()):
        raise CheckpointError(f"{target}: is a link or a special file, which is not replaced; give another name")
    if target.is_dir() and not (replaces and replaces(target)):
        raise CheckpointError(f"{target}: is a directory but no checkpoint, which is not replaced; give another name")


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
    """Rename, moving a directory out of the way first (a rename cannot replace one) and back if that fails."""
    if not target.is_dir() and not partial.is_dir():
        os.replace(partial, target)
        return
    old = folder / "replaced"
    if os.path.lexists(target):
        os.rename(target, old)
    try:
        os.rename(partial, target)
    except OSError:
        with suppress(FileNotFoundError):
            os.rename(old, target)
        raise


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    return (error.strerror or str(error)).lower()
