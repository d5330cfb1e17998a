"""A folder of pictures and their masks, all checked before a training starts."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from unet_core.data.agreement import Named, agreed, annotated_classes, colours_to_read, told_classes
from unet_core.data.annotations import Annotations
from unet_core.data.findings import Files, within
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.formats.stack import Spacing
from unet_core.data.index import Index, open_index
from unet_core.data.inventory import listed, look_at
from unet_core.data.labels import Classes
from unet_core.data.listing import threads_for
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.pages import said_of_pages, settled
from unet_core.data.pictures import Pair, read_pair, read_picture
from unet_core.data.states import PairState, Way
from unet_core.data.volumes import said_of_spacings
from unet_core.errors import DataError, counted, shown, some
from unet_core.paths import as_path
from unet_core.progress import Progress, silent

_DARK = 2**14
"""A picture of 16 bits that has no number so large is nearly black."""


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
    sizes: tuple[tuple[int, ...], ...]
    """Height and width of each picture, in pixels; depth before them, where the pictures are volumes."""
    skipped: tuple[str, ...]
    """What else lies among the images and masks: hidden files, other suffixes, folders of one of the two alone."""
    blank: tuple[str, ...]
    """Masks that hold nothing but what is ignored, whose pairs are none of these."""
    unlabelled: tuple[str, ...]
    """Images without a mask, which are left out as well."""
    matched: str | None
    """How the names of pictures and masks differ, by an example."""
    slices: tuple[int | None, ...]
    """Which slice of its file each picture is; None: all of it."""
    pictures: Pictures
    """How the files of pictures are read."""
    brightest: int
    """The largest number in the pictures of 16 bits; 0 where there are none."""
    states: tuple[PairState, ...] = field(repr=False)
    """What decoding each pair's files showed."""
    index: Index = field(repr=False, compare=False)
    """What is known of the files."""
    annotations: Annotations | None = None
    """What tells the classes of pixels, where no mask's file does by itself."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that the pictures are from."""
        return tuple(
            name if slice_ is None else name.rpartition("[")[0]
            for name, slice_ in zip(self.names, self.slices, strict=True)
        )

    @property
    def spacings(self) -> tuple[Spacing | None, ...]:
        """Of the voxels of each volume."""
        return tuple(state.spacing for state in self.states)

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
        said = [f"left out, for {why}: {some(names)}" for why, names in reasons.items() if names]
        if self.matched is not None:
            said.insert(0, f"{counted(len(self), 'pair')}, matched as {self.matched}")
        volumes = {file for file, number in zip(self.files, self.slices, strict=True) if number is not None}
        if volumes:
            count, of = counted(len(self) - self.slices.count(None), "slice"), counted(len(volumes), "volume")
            said.append(f"{count} of {of}; those of one are all trained on, or none is")
        if self.annotations is not None:
            said.append(f"classes: {', '.join(self.annotations.classes)}")
        if self.pictures.whole:
            said.append(said_of_spacings(self.spacings))
        return (*said, *said_of_pages(self.pictures), *self._scaling())

    def _scaling(self) -> tuple[str, ...]:
        """Which values are black and white, where these are not the ends of a byte."""
        if self.pictures.window is not None:
            low, high = self.pictures.window
            return (f"pictures: {low:g} is black, {high:g} is white, and what is beyond them is clipped",)
        if not self.brightest:
            return ()
        most = 2 ** self.brightest.bit_length() - 1
        dark = f", but the largest number is {self.brightest}; --window 0 {most} makes {most} white"
        return ("pictures: 16 bits, of which 65535 is white" + dark * (self.brightest < _DARK),)

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> Pair:
        """A picture and its labels, read from their files.

        Raises:
            DataError: a file has changed since the folder was opened.
        """
        image, mask, how = self.images[index], self.masks[index], self.pictures
        channels, classes, size, at = self.channels, self.classes, self.sizes[index], self.slices[index]
        if self.annotations is None:
            return read_pair(image, mask, channels=channels, classes=classes, size=size, how=how, at=at)
        picture = read_picture(image, channels, how, at)
        if picture.shape[:-1] != size:
            raise DataError(f"{shown(image)}: it has another size than before; start anew")
        try:
            return Pair(picture, classes.labels(self.annotations.numbers(self.files[index], size, how, at)))
        except DataError as error:
            raise DataError(f"{shown(mask)}: {error}") from error

    @property
    def aside(self) -> None:
        """Which pairs are for validation is decided by who trains."""

    @property
    def digests(self) -> list[str]:
        """The sha256 of every file of pictures, and then of every mask's."""
        found = self.index.sha256(list(self._files))
        self.index.save()
        return found

    @property
    def _files(self) -> dict[str, Path]:
        """All files, by their paths within the folder."""
        return {within(self.path, file): file for file in (*self.images, *self.masks)}

    def digest(self) -> str:
        """A sha256 of all names and files."""
        whole = hashlib.sha256()
        for (short, file), found in zip(self._files.items(), self.digests, strict=True):
            name = file.name if str(file) == short else short  # what lies elsewhere may be moved
            whole.update(f"{name} {found}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    def subset(self, indices: Sequence[int]) -> "Folder":
        """The pairs at these indices, in this order, with the channels and values of the whole."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            images=tuple(self.images[i] for i in indices),
            masks=tuple(self.masks[i] for i in indices),
            sizes=tuple(self.sizes[i] for i in indices),
            slices=tuple(self.slices[i] for i in indices),
            states=tuple(self.states[i] for i in indices),
        )


def open_folder(
    path: str | Path,
    *,
    channels: int | None = None,
    values: tuple[int, ...] | None = None,
    coloured: bool = False,
    masks: Masks = AS_FOUND,
    pictures: Pictures = AS_STORED,
    progress: Progress = silent,
) -> Folder:
    """The pairs `path`/images/NAME and `path`/masks/NAME, once every file of them has been decoded.

    One that has not changed since it was decoded for the index of the folder is not read again.

    Args:
        channels: of every picture; 1 makes grey of RGB, 3 repeats grey; None: 1 if all are grey, 3 if any is RGB.
        values: what stands for each class in the masks, ascending; None: what `masks` says.
        coloured: `values` are colours, 0xRRGGBB.
        masks: how the masks are read.
        pictures: how the pictures are read.
        progress: is told how many pairs are checked.

    Raises:
        DataError: all that is wrong with the folder, in one line.
        MissingFrameworkError: Pillow, or for a TIFF tifffile, is not installed.
    """
    path = as_path(path)
    files = listed(path, masks)
    if files.annotations is None:
        told = told_classes(values, coloured, masks)
    else:
        told = annotated_classes(path, files.annotations.classes, values, masks)
    index = open_index(path, files.stamps)
    way = Way(colours_to_read(told), pictures)
    found = _looked_at(files, index, way, progress)
    named = Named(lambda name: files.short(files.images[name]), files.mask)
    whole = agreed(path, found, named, told=told, masks=masks, channels=channels, problems=files.problems)
    pictures = settled(files, found, pictures)
    pairs = list(_places(found, set(whole.blank), masks.ignored(coloured=whole.classes.coloured)))
    kept = [place for place in pairs if place.labelled]
    return Folder(
        path=path,
        names=tuple(place.name for place in kept),
        images=tuple(files.images[place.file] for place in kept),
        masks=tuple(files.masks[place.file] for place in kept),
        channels=whole.channels,
        classes=whole.classes,
        sizes=tuple(found[place.file].size for place in kept),
        skipped=files.skipped,
        blank=tuple(files.mask(place.file) + place.suffix for place in pairs if not place.labelled),
        unlabelled=files.unlabelled,
        matched=files.matched,
        slices=tuple(place.slice for place in kept),
        pictures=pictures,
        brightest=max(finding.brightest for finding in found.values()),
        annotations=files.annotations,
        states=tuple(found[place.file] for place in kept),
        index=index,
    )


class _Place(NamedTuple):
    """A picture of a folder: a file, or a slice of one."""

    file: str
    slice: int | None
    labelled: bool
    """Whether its mask holds anything but what is ignored."""

    @property
    def suffix(self) -> str:
        return "" if self.slice is None else f"[{self.slice:03d}]"

    @property
    def name(self) -> str:
        return self.file + self.suffix


def _places(found: Mapping[str, PairState], blank: Collection[str], ignored: int | None) -> Iterator[_Place]:
    """The pictures of all files."""
    for name, finding in found.items():
        if finding.slices is None:
            yield _Place(name, None, name not in blank)
            continue
        for number, values in enumerate(finding.slices):
            yield _Place(name, number, bool(values - {ignored}))


def _looked_at(files: Files, index: Index, way: Way, progress: Progress) -> dict[str, PairState]:
    """What each pair shows; those that are not known are decoded, several at a time, and the index keeps them."""
    names = files.names
    pairs = [(files.short(files.images[name]), files.short(files.masks[name])) for name in names]
    known = dict(zip(names, index.known(pairs, way), strict=True))
    found = {name: state for name, state in known.items() if state is not None}
    pool = ThreadPoolExecutor(threads_for(files.path))
    new: dict[tuple[str, str], PairState] = {}
    try:
        looks = [(name, pool.submit(look_at, files, name, way)) for name in names if name not in found]
        pair_of = dict(zip(names, pairs, strict=True))
        for done, (name, look) in enumerate(looks, len(found) + 1):
            new[pair_of[name]] = look.result()
            progress(f"{done} of {counted(len(names), 'pair')} checked", done / len(names))
    finally:
        pool.shutdown(cancel_futures=True)
        index.learn(new, way)
        index.save()
    return {name: found.get(name) or new[pair] for name, pair in zip(names, pairs, strict=True)}
