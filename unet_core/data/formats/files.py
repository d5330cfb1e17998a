"""The formats of pictures and masks: which one a file is of, its size and slices by its header, and its samples."""

import functools
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unet_core import objects
from unet_core.data.formats.decoded import Decoded, PictureFile, Stored
from unet_core.data.formats.reading import AS_STORED, Pages, Pictures
from unet_core.data.formats.stack import NOWHERE, Grid, Kept, Stack
from unet_core.errors import DataError, MissingFrameworkError, counted, first_line, reason, shown
from unet_core.paths import URLPath, as_path, is_url

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".npy", ".npz"),
    *(".nii", ".nii.gz", ".dcm", ".dicom"),
)
"""Of the files that are read, in lower case; what a file is, its content tells."""

_volumes = Kept()


class Extent(NamedTuple):
    """What a file's header tells of what it holds."""

    size: tuple[int, ...]
    """Height and width in pixels, upright, of every page or slice; of a whole volume its depth before them."""
    pages: int = 1
    """How many there are."""
    are: Pages | None = "channels"
    """What several are; None where nothing says it."""
    grid: Grid = NOWHERE
    """Where the slices lie."""


def is_data(name: str) -> bool:
    """Whether a file's name is that of a picture or a mask."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def bare(name: str) -> str:
    """A file's name without the suffix of its format."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def data_files(path: Path, *, but: Path | None = None) -> Iterator[Path]:
    """The files in a folder, and in the folders in it, whose names are those of pictures.

    Args:
        path: the folder.
        but: a folder in it that is left out, by its real path.

    Raises:
        DataError: a folder cannot be listed.
    """
    if isinstance(path, URLPath):
        yield from (path / name for name in sorted(objects.listed(str(path))) if is_data(name.rpartition("/")[2]))
        return
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise DataError(f"{shown(folder)}: cannot be listed: {reason(error)}") from error
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                if entry.resolve() != but:
                    waiting.append(entry)
            elif is_data(entry.name):
                yield entry


def extent(path: PictureFile, how: Pictures = AS_STORED) -> Extent:
    """How large a file is and how many slices it has, without decoding any.

    Raises:
        DataError: the file is missing or no picture, or too large.
        MissingFrameworkError: what reads it is not installed.
    """
    with naming(path), _opened(path) as file:
        form = _format(file, how)
        if isinstance(form, _Plain):
            return Extent(form.size(file))
        stack = form(file)
        are = how.pages or stack.are or ("slices" if how.slice_axis or how.whole else None)
        if stack.depth == 1 or are == "channels":
            return Extent((stack.height, stack.width), stack.depth, "channels", stack.grid)
        if how.whole:
            return Extent((stack.depth, stack.height, stack.width), 1, are, stack.grid)
        return Extent(stack.size(how.axis), stack.count(how.axis), are, stack.grid)


def decode(path: PictureFile, how: Pictures = AS_STORED, at: int | None = None, *, channels: bool = True) -> Decoded:
    """The samples of a picture, or of the slice `at` of a volume. The caller names the file in errors (`naming`).

    Args:
        path: the file.
        how: across which axis slices are cut, and what pages are.
        at: the slice's number; None: the file is one picture, of which pages are channels unless they are slices, or
            one volume.
        channels: whether several pages may be channels, which those of a mask never are.
    """
    key = (_version(path), how.pages, how.whole)
    if at is not None and (kept := _volumes.find(key, how.axis, at)) is not None:
        return kept
    with _opened(path) as file:
        form = _format(file, how)
        if isinstance(form, _Plain):
            if at is not None or how.whole:
                raise DataError(f"is one picture, where {'a volume is' if how.whole else 'slices are'} wanted")
            return form.read(file)
        stack = form(file)
        if how.whole:
            if stack.depth == 1 or (how.pages or stack.are) == "channels":
                raise DataError("is one picture, where a volume is wanted")
            if 1 < stack.moments < stack.depth:
                raise DataError(f"holds {stack.moments} volumes, one for each moment; save each as a file")
            return _volumes.whole(key, stack)
        if at is not None:
            count = stack.count(how.axis)
            if not 0 <= at < count:
                raise DataError(f"has {counted(count, 'slice')}, and none of the number {at}")
            at_once = how.axis != "z" or stack.voxels is not None
            return _volumes.slice(key, stack, how.axis, at) if at_once else stack.plane(at)
        if stack.depth == 1:
            return stack.plane(0)
        if (how.pages or stack.are) == "slices":
            raise DataError(f"holds {counted(stack.count(how.axis), 'slice')}, where one picture is wanted")
        if not channels:
            raise DataError(f"holds {stack.depth} pages, where a mask has one, or as many as its picture has slices")
        return stack.as_channels()


def _version(path: PictureFile) -> object:
    """What is another one for another file, or once it has changed; an object of a bucket is as it was found first."""
    if isinstance(path, Stored) or is_url(path):
        return path
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


@contextmanager
def naming(path: PictureFile) -> Iterator[None]:
    """Whatever a decoder says of a damaged file becomes one line that begins with the file's name."""
    try:
        yield
    except MissingFrameworkError:
        raise
    except DataError as error:
        error.args = (f"{shown(path)}: {error}",)
        raise
    except MemoryError as error:
        raise DataError(f"{shown(path)}: does not fit into memory; cut it into tiles") from error
    except OSError as error:
        why = reason(error) if error.strerror else first_line(error)
        raise DataError(f"{shown(path)}: cannot be read: {why}") from error
    except Exception as error:  # decoders meet damage with errors of all kinds: struct.error, KeyError, SyntaxError
        why = first_line(error) if str(error)[4:] else f"{type(error).__name__} {error}"
        raise DataError(f"{shown(path)}: is damaged, or of a kind that is not read ({why}); save it anew") from error


@contextmanager
def _opened(path: PictureFile) -> Iterator[BinaryIO]:
    path = path if isinstance(path, Stored) else as_path(path)
    if isinstance(path, Stored | URLPath):
        content = path.content if isinstance(path, Stored) else path.read_bytes()
        if not content:
            raise DataError("is empty")
        yield io.BytesIO(content)
        return
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
        raise DataError(f"is {'a directory' if stat.S_ISDIR(status.st_mode) else 'a special file'}, no picture")
    if not status.st_size:
        raise DataError("is empty")
    with open(path, "rb") as file:
        yield file


class _Plain(NamedTuple):
    """How a file of one picture is read."""

    read: Callable[[BinaryIO], Decoded]
    size: Callable[[BinaryIO], tuple[int, int]]


def _format(file: BinaryIO, how: Pictures) -> _Plain | Callable[[BinaryIO], Stack]:
    """What reads a file of this kind: a picture, or a stack of pages or slices."""
    head = file.read(132)
    file.seek(0)
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        from unet_core.data.formats.tiff import tiff_stack

        return tiff_stack
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        from unet_core.data.formats import numpy_files

        read = numpy_files.npz_stack if head.startswith(b"PK") else numpy_files.npy_stack
        return functools.partial(read, last=how.pages is None and not how.whole)
    if head[128:] == b"DICM":
        from unet_core.data.formats.dicom import dicom_stack

        return dicom_stack
    from unet_core.data.formats import gif_bmp_webp, png_jpeg
    from unet_core.data.formats.nifti import is_nifti, nifti_stack

    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _Plain(png_jpeg.read_png, png_jpeg.png_size)
    if head.startswith(b"\xff\xd8\xff"):
        return _Plain(png_jpeg.read_jpeg, png_jpeg.jpeg_size)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _Plain(gif_bmp_webp.read_gif, gif_bmp_webp.gif_size)
    if head.startswith(b"BM"):
        return _Plain(gif_bmp_webp.read_bmp, gif_bmp_webp.bmp_size)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _Plain(gif_bmp_webp.read_webp, gif_bmp_webp.webp_size)
    if is_nifti(file):
        return nifti_stack
    raise DataError(
        "is no PNG, JPEG, TIFF, GIF, BMP, WebP or NumPy array, no NIfTI and no DICOM, whatever its name says"
    )
