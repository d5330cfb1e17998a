"""A folder of pictures and their masks, all checked before a training starts."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from unet_core.data.colour_table import read_table
from unet_core.data.inventory import Files, PairState, listed, look_at
from unet_core.data.labels import Classes, value_problem
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.pictures import OF_COLOURS, Pair, read_colours, read_mask, read_picture
from unet_core.errors import DataError, shown, some
from unet_core.files import sha256_of
from unet_core.paths import URLPath, as_path
from unet_core.progress import Progress, silent

_REMOTE_THREADS = 32


@dataclass(frozen=True)
class Folder:
    """The pairs of a data folder: their files, which are read anew each time, and what was found in them."""

    path: Path
    names: tuple[str, ...]
    """Of the pictures below images/, without suffix, 2 before 10."""
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    channels: int
    """Of every picture that `pair` returns: 1 for grey, 3 for RGB, or those of a TIFF."""
    classes: Classes
    """Of the masks."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each picture, in pixels."""
    skipped: tuple[str, ...]
    """What else lies among the images and masks: hidden files, other suffixes, folders of one of the two alone."""
    blank: tuple[str, ...]
    """Masks that hold nothing but what is ignored, whose pairs are none of these."""
    unlabelled: tuple[str, ...]
    """Images without a mask, which are left out as well."""
    matched: str | None
    """How the names of pictures and masks differ, by an example."""

    @property
    def values(self) -> tuple[int, ...]:
        """What stands for each class in the masks, ascending."""
        return self.classes.values

    @property
    def remarks(self) -> tuple[str, ...]:
        """How names were matched, and what is left out, a line for each reason."""
        reasons = {
            "they are no pictures": self.skipped,
            "they have no mask": self.unlabelled,
            "they hold nothing but what is ignored": self.blank,
        }
        left = tuple(f"left out, for {why}: {some(names)}" for why, names in reasons.items() if names)
        return left if self.matched is None else (f"{len(self)} pairs, matched as {self.matched}", *left)

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> Pair:
        """A picture and its labels, read from their files.

        Raises:
            DataError: a file has changed since the folder was opened.
        """
        image = read_picture(self.images[index], self.channels)
        file, classes = self.masks[index], self.classes
        mask = read_colours(file, classes.known) if classes.coloured else read_mask(file)
        if image.shape[:2] != self.sizes[index] or mask.shape != self.sizes[index]:
            raise DataError(f"{shown(self.images[index])}: it or its mask has another size than before; start anew")
        try:
            return Pair(image, classes.labels(mask))
        except DataError as error:
            raise DataError(f"{shown(file)}: {error}") from error

    def digest(self) -> str:
        """A sha256 of all names and files."""
        whole = hashlib.sha256()
        files = [*self.images, *self.masks]
        with ThreadPoolExecutor(threads_for(self.path)) as pool:
            for file, found in zip(files, pool.map(sha256_of, files), strict=True):
                short = file.relative_to(self.path).as_posix()
                whole.update(f"{short} {found}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    def subset(self, indices: Sequence[int]) -> "Folder":
        """The pairs at these indices, in this order, with the channels and values of the whole."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            images=tuple(self.images[i] for i in indices),
            masks=tuple(self.masks[i] for i in indices),
            sizes=tuple(self.sizes[i] for i in indices),
        )


def open_folder(
    path: str | Path,
    *,
    channels: int | None = None,
    values: tuple[int, ...] | None = None,
    coloured: bool = False,
    masks: Masks = AS_FOUND,
    progress: Progress = silent,
) -> Folder:
    """The pairs `path`/images/NAME and `path`/masks/NAME, once every file of them has been decoded.

    Args:
        channels: of every picture; 1 makes grey of RGB, 3 repeats grey; None: 1 if all are grey, 3 if any is RGB.
        values: what stands for each class in the masks, ascending; None: what `masks` says.
        coloured: `values` are colours, 0xRRGGBB.
        masks: how the masks are read.
        progress: is told how many pairs are checked.

    Raises:
        DataError: all that is wrong with the folder, in one line.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    path = as_path(path)
    told = _told(values, coloured, masks)
    files = listed(path, masks)
    found = _looked_at(files, channels, told.known if told is not None and told.coloured else None, progress)
    # Of half the files what follows would tell too much or too little.
    _refuse(path, [*files.problems, *(problem for finding in found.values() for problem in finding.problems)])
    classes, held, problems = _classes(files, found, told, masks)
    _refuse(path, [*_channel_problems(found, channels), *problems])
    assert classes is not None  # for there is no problem
    names = [name for name in found if held[name]]
    return Folder(
        path=path,
        names=tuple(names),
        images=tuple(files.images[name] for name in names),
        masks=tuple(files.masks[name] for name in names),
        channels=channels or max(finding.channels for finding in found.values()),
        classes=classes,
        sizes=tuple(found[name].size for name in names),
        skipped=files.skipped,
        blank=tuple(files.short(files.masks[name]) for name in found if not held[name]),
        unlabelled=files.unlabelled,
        matched=files.matched,
    )


def _told(values: tuple[int, ...] | None, coloured: bool, masks: Masks) -> Classes | None:
    """The classes, where they are known before a mask is read."""
    if values is not None:
        return Classes(values, masks.ignored(coloured=coloured), coloured)
    if masks.colors is not None:
        codes, names = read_table(masks.colors)
        return Classes(codes, masks.ignored(coloured=True), True, names)
    return None if masks.values is None else Classes(masks.values, masks.ignored(coloured=False))


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        total = f"{len(problems)} problems: " if len(problems) > 1 else ""
        raise DataError(f"{shown(path)}: {total}{some(problems)}")


def _looked_at(
    files: Files, channels: int | None, colours: Sequence[int] | None, progress: Progress
) -> dict[str, PairState]:
    """What each pair shows, several decoded at a time."""
    names, found = files.names, {}
    pool = ThreadPoolExecutor(threads_for(files.path))
    try:
        looks = [pool.submit(look_at, files, name, channels, colours) for name in names]
        for name, look in zip(names, looks, strict=True):
            found[name] = look.result()
            progress(f"{len(found)} of {len(names)} pairs checked", len(found) / len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def threads_for(path: Path) -> int:
    """How many threads read a data folder: of a bucket, each waits for most of its time."""
    return _REMOTE_THREADS if isinstance(path, URLPath) else min(8, os.cpu_count() or 1)


def _channel_problems(found: dict[str, PairState], channels: int | None) -> list[str]:
    one_of = {finding.channels: name for name, finding in found.items()}
    if channels is not None or len(one_of) == 1 or set(one_of) == {1, 3}:
        return []
    counts = ", ".join(f"{name} has {count}" for count, name in sorted(one_of.items()))
    return [f"the pictures have different numbers of channels: {counts}; save all in one way"]


def _classes(
    files: Files, found: dict[str, PairState], told: Classes | None, masks: Masks
) -> tuple[Classes | None, dict[str, frozenset[int]], list[str]]:
    """The classes, what each mask holds of them, and what is wrong with it."""
    of_colours = [name for name, finding in found.items() if finding.values is None]
    if of_colours and (told is not None or any(finding.colours is None for finding in found.values())):
        return None, {}, [f"{files.short(files.masks[name])}: {OF_COLOURS}" for name in of_colours]
    coloured = bool(of_colours) if told is None else told.coloured
    ignored = masks.ignored(coloured=coloured)
    values = {name: finding.colours if of_colours else finding.values for name, finding in found.items()}
    held = {name: (one or frozenset()) - {ignored} for name, one in values.items()}
    by_file = {files.short(files.masks[name]): one for name, one in held.items()}
    if not any(held.values()):
        return None, held, ["no mask holds anything but what is ignored; there is nothing to learn"]
    if told is not None:
        return told, held, told.strange(by_file)
    problem = value_problem(by_file, coloured=coloured)
    if problem is not None:
        return None, held, [problem]
    return Classes(tuple(sorted(frozenset().union(*held.values()))), ignored, coloured), held, []
