"""A folder of pictures and their masks, all checked before a training starts."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet_core.data.agreement import Named, agreed, colours_to_read, told_classes
from unet_core.data.decoded import PictureFile
from unet_core.data.index import Index, open_index
from unet_core.data.inventory import Files, listed, look_at, within
from unet_core.data.labels import Classes
from unet_core.data.listing import threads_for
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.pictures import Pair, read_colours, read_mask, read_picture
from unet_core.data.states import PairState
from unet_core.errors import DataError, shown, some
from unet_core.paths import as_path
from unet_core.progress import Progress, silent


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
    states: tuple[PairState, ...] = field(repr=False)
    """What decoding each pair showed."""
    index: Index = field(repr=False, compare=False)
    """What is known of the files."""

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
        image, mask, size = self.images[index], self.masks[index], self.sizes[index]
        return read_pair(image, mask, channels=self.channels, classes=self.classes, size=size)

    @property
    def aside(self) -> None:
        """Which pairs are for validation is decided by who trains."""

    @property
    def digests(self) -> list[str]:
        """The sha256 of every picture, and then of every mask."""
        found = self.index.sha256([within(self.path, file) for file in (*self.images, *self.masks)])
        self.index.save()
        return found

    def digest(self) -> str:
        """A sha256 of all names and files."""
        whole = hashlib.sha256()
        for file, found in zip((*self.images, *self.masks), self.digests, strict=True):
            whole.update(f"{within(self.path, file)} {found}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    def subset(self, indices: Sequence[int]) -> "Folder":
        """The pairs at these indices, in this order, with the channels and values of the whole."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            images=tuple(self.images[i] for i in indices),
            masks=tuple(self.masks[i] for i in indices),
            sizes=tuple(self.sizes[i] for i in indices),
            states=tuple(self.states[i] for i in indices),
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

    One that has not changed since it was decoded for the index of the folder is not read again.

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
    told = told_classes(values, coloured, masks)
    files = listed(path, masks)
    index = open_index(path, files.stamps)
    found = _looked_at(files, index, colours_to_read(told), progress)
    named = Named(lambda name: files.short(files.images[name]), lambda name: files.short(files.masks[name]))
    whole = agreed(path, found, named, told=told, masks=masks, channels=channels, problems=files.problems)
    return Folder(
        path=path,
        names=whole.names,
        images=tuple(files.images[name] for name in whole.names),
        masks=tuple(files.masks[name] for name in whole.names),
        channels=whole.channels,
        classes=whole.classes,
        sizes=tuple(found[name].size for name in whole.names),
        skipped=files.skipped,
        blank=tuple(map(named.mask, whole.blank)),
        unlabelled=files.unlabelled,
        matched=files.matched,
        states=tuple(found[name] for name in whole.names),
        index=index,
    )


def read_pair(image: PictureFile, mask: PictureFile, *, channels: int, classes: Classes, size: tuple[int, int]) -> Pair:
    """A picture and its labels, read from their files.

    Raises:
        DataError: they are not what they were when the data was opened.
    """
    picture = read_picture(image, channels)
    values = read_colours(mask, classes.known) if classes.coloured else read_mask(mask)
    if picture.shape[:2] != size or values.shape != size:
        raise DataError(f"{shown(image)}: it or its mask has another size than before; start anew")
    try:
        return Pair(picture, classes.labels(values))
    except DataError as error:
        raise DataError(f"{shown(mask)}: {error}") from error


def _looked_at(files: Files, index: Index, colours: Sequence[int] | None, progress: Progress) -> dict[str, PairState]:
    """What each pair shows; those that are not known are decoded, several at a time, and the index keeps them."""
    names = files.names
    pairs = [(files.short(files.images[name]), files.short(files.masks[name])) for name in names]
    known = dict(zip(names, index.known(pairs, colours), strict=True))
    found = {name: state for name, state in known.items() if state is not None}
    pool = ThreadPoolExecutor(threads_for(files.path))
    new: dict[tuple[str, str], PairState] = {}
    try:
        looks = [(name, pool.submit(look_at, files, name, colours)) for name in names if name not in found]
        pair_of = dict(zip(names, pairs, strict=True))
        for done, (name, look) in enumerate(looks, len(found) + 1):
            new[pair_of[name]] = look.result()
            progress(f"{done} of {len(names)} pairs checked", done / len(names))
    finally:
        pool.shutdown(cancel_futures=True)
        index.learn(new, colours)
        index.save()
    return {name: found.get(name) or new[pair] for name, pair in zip(names, pairs, strict=True)}
