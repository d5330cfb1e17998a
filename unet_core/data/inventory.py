"""What lies in a data folder, and what is wrong with it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unet_core.data.annotations.class_masks import class_masks
from unet_core.data.annotations.found import annotation_file, read_annotations
from unet_core.data.findings import Files, natural, within
from unet_core.data.formats.files import SUFFIXES, Extent, bare, extent, is_data
from unet_core.data.labels import values_of
from unet_core.data.listing import lister, part_of
from unet_core.data.masks import AS_FOUND, MOST_CLASSES, Masks
from unet_core.data.names import masks_by_image
from unet_core.data.pictures import EitherMask, UnknownRangeError, read_colours, read_either, read_picture
from unet_core.data.states import NUMBERS, PairState, Way
from unet_core.errors import DataError, counted, reason, shown, sized


def listed(path: Path, how: Masks = AS_FOUND) -> Files:
    """The images and masks of a data folder and of the folders in it; none of them is opened.

    Args:
        path: the folder.
        how: which mask is a picture's, and what becomes of a picture without one.

    Raises:
        DataError: there is no such folder, or it cannot be listed.
    """
    if not path.is_dir():
        raise DataError(f"{shown(path)}: no such folder; give one that holds images/ and masks/")
    file = annotation_file(path, how.annotations)
    if file is not None:
        return _annotated(path, file, how)
    of_images, of_masks = part_of(path, "images"), part_of(path, "masks")
    if of_images is None or of_masks is None:
        missing = [name for name, part in (("images/", of_images), ("masks/", of_masks)) if part is None]
        raise DataError(
            f"{shown(path)}: has no {' and no '.join(missing)}; pictures belong in images/, masks in masks/"
        )
    stamps: dict[str, str] = {}
    (images, *others), (masks, *other_masks) = (_by_name(path, part.name, stamps) for part in (of_images, of_masks))
    skipped, problems = (found + more for found, more in zip(others, other_masks, strict=True))
    parted = class_masks(images, masks)
    if parted is not None:
        masks = {name: of_masks / name for name in parted.files}
    skipped += _one_sided({of_images.name: images, of_masks.name: masks})
    try:
        mask_of = masks_by_image(images, masks, how.mask_suffix)
    except DataError as error:
        raise DataError(f"{shown(path)}: {error}") from error
    lone = sorted(images.keys() - mask_of.keys(), key=natural)
    spare = sorted(masks.keys() - set(mask_of.values()), key=natural)
    pairs = {image: masks[mask] for image, mask in mask_of.items()}
    other = next((name for name in mask_of if mask_of[name] != name), None)
    files = Files(path, images, pairs, tuple(skipped), (), stamps=stamps, annotations=parted)
    unlabelled = tuple(files.short(images[name]) for name in lone)
    if not how.skip_unlabelled or not pairs:
        problems += [f"{image} has no mask" for image in unlabelled]
    problems += [f"{files.short(masks[name])} has no image" for name in spare]
    if images and not mask_of and any(mask.startswith(next(iter(images))) for mask in masks):
        hint = "no name in masks/ is a picture's; --mask-suffix says what stands behind it, as _mask in 7_mask.png"
        problems.insert(0, hint)
    if not images and not masks:
        problems = [f"holds no images: none of the files in images/ ends in {', '.join(SUFFIXES)}"]
    matched = None if other is None else f"{files.short(images[other])} with {files.short(pairs[other])}"
    return replace(files, problems=tuple(problems), matched=matched, unlabelled=unlabelled)


def _annotated(path: Path, file: Path, how: Masks) -> Files:
    """The pictures that a file of annotations speaks of."""
    found = read_annotations(path, file)
    masks = dict.fromkeys(found.regions.drawn, file)
    files = Files(path, found.images, masks, (), found.problems, annotations=found.regions)
    lone = sorted(found.images.keys() - masks.keys(), key=natural)
    unlabelled = tuple(files.short(found.images[name]) for name in lone)
    problems = list(found.problems)
    if not how.skip_unlabelled:
        problems += [f"{image} is not annotated" for image in unlabelled]
    if not masks:
        problems = problems[:1] or [f"{files.short(file)}: annotates no picture"]
    return replace(files, problems=tuple(problems), unlabelled=unlabelled)


def look_at(files: Files, name: str, way: Way = NUMBERS) -> PairState:
    """Decode a pair, or each slice of a pair of volumes, and tell what it is.

    Args:
        files: of the data folder.
        name: of the pair.
        way: how both are read.
    """
    look = _Look(files, name, way)
    try:
        image = extent(look.image, way.pictures)
    except DataError:
        return look.at(None)  # which says of both what is wrong
    try:
        mask = look.mask_extent(image)
    except DataError as error:
        return look.at(None) if image.pages == 1 else PairState((look.problem(look.mask, error),))
    told = way.pictures.whole or way.pictures.pages is not None
    if not told and image.pages == mask.pages == 1 and image.size != mask.size:
        first = _Look(files, name, way._replace(pictures=replace(way.pictures, pages="channels")))
        turned = extent(first.image, first.way.pictures)
        if turned.size == first.mask_extent(turned).size:
            return replace(first.at(None), pages="channels")
    try:
        slices = look.slices(image, mask)
    except DataError as error:
        return PairState((str(error),))
    if way.pictures.whole:
        return replace(look.at(None), spacing=image.grid.spacing or mask.grid.spacing)
    asked = image.are is None
    if slices is None:
        return replace(look.at(None), pages="channels" if asked else None)
    return replace(_joined([look.at(number) for number in range(slices)]), pages="slices" if asked else None)


@dataclass(frozen=True)
class _Look:
    """A look at one pair of files."""

    files: Files
    name: str
    way: Way

    @property
    def image(self) -> Path:
        """The picture's file."""
        return self.files.images[self.name]

    @property
    def mask(self) -> Path:
        """The mask's file, or what holds it."""
        return self.files.masks[self.name]

    def mask_extent(self, image: Extent) -> Extent:
        """Of the mask, which where it is outlined in the picture has that one's size."""
        if self.files.annotations is None:
            return extent(self.mask, self.way.pictures)
        return self.files.annotations.extent(self.name, self.way.pictures) or Extent(image.size)

    def slices(self, image: Extent, mask: Extent) -> int | None:
        """How many slices both have; None: they are one picture and its mask.

        Raises:
            DataError: they do not fit.
        """
        one, other = self.files.short(self.image), self.files.short(self.mask)
        if self.way.pictures.whole:
            for name, of in ((one, image), (other, mask)):
                if len(of.size) == 2:
                    raise DataError(f"{name} is one picture, where a 3-D network takes volumes")
            self.check_grids(image, mask)
            return None
        if mask.pages == 1 and (image.pages == 1 or image.are != "slices"):
            return None
        if image.pages != mask.pages or image.are == "channels":
            part = "slice" if image.are == "slices" else "page"
            raise DataError(f"{one} has {counted(image.pages, part)}, but {other} has {mask.pages}")
        self.check_grids(image, mask)
        return image.pages

    def check_grids(self, image: Extent, mask: Extent) -> None:
        """Raise DataError where the voxels of the two lie elsewhere."""
        if image.grid.departs(mask.grid):
            one, other = self.files.short(self.image), self.files.short(self.mask)
            raise DataError(f"{one} and {other}: their headers place them elsewhere in space; save both in one grid")

    def at(self, number: int | None) -> PairState:
        """What the pair shows, or a slice of both."""
        problems: list[str] = []
        picture = labels = unknown = None
        short, have = self.files.short, 0
        try:
            picture = read_picture(self.image, how=self.way.pictures, at=number)
            have = picture.shape[-1]
        except UnknownRangeError as error:
            unknown = (error.low, error.high)
        except DataError as error:
            problems.append(self.problem(self.image, error))
        try:
            numbers, seen = self._mask(number, picture)
            labels = seen if numbers is None else numbers
        except DataError as error:
            problems.append(self.problem(self.mask, error))
        if picture is None or labels is None:
            return PairState(tuple(problems), have, unknown=unknown)
        size, other = picture.shape[:-1], labels.shape
        if size != other:
            problems.append(f"{short(self.image)} is {sized(size)}, but {short(self.mask)} is {sized(other)}")
        values = None if numbers is None else values_of(numbers)
        held = (
            None if seen is None else frozenset(sorted(values_of(seen))[: MOST_CLASSES + 1])
        )  # enough of a photograph
        brightest = int(picture.max()) if picture.dtype == np.uint16 else 0
        return PairState(tuple(problems), have, size, values, held, brightest=brightest)

    def _mask(self, number: int | None, picture: np.ndarray | None) -> EitherMask:
        colours, pictures = self.way
        if self.files.annotations is not None:
            if picture is None:  # whose size is not known
                return EitherMask(None, None)
            return EitherMask(self.files.annotations.numbers(self.name, picture.shape[:-1], pictures, number), None)
        if colours is None:
            return read_either(self.mask, pictures, number)
        return EitherMask(read_colours(self.mask, colours, pictures, number), None)

    def problem(self, file: Path, error: DataError) -> str:
        """What a file's error says, in the list of those of the folder."""
        said = str(error).removeprefix(f"{shown(file)}: ").removeprefix(f"{shown(file)}/")
        of = self.files.mask(self.name) if file == self.mask else self.files.short(file)
        return f"{of}: {said}"


def _joined(slices: list[PairState]) -> PairState:
    """What a volume shows, of what its slices do."""
    ranges = [one.unknown for one in slices if one.unknown is not None]
    unknown = (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None
    problems = tuple(dict.fromkeys(problem for one in slices for problem in one.problems))
    if problems or unknown:
        return PairState(problems[:1], unknown=unknown)
    coloured = any(one.values is None for one in slices)
    kinds = [one.colours if coloured else one.values for one in slices]
    held = tuple(one or frozenset() for one in kinds)
    every = frozenset().union(*held)
    return replace(
        slices[0],
        values=None if coloured else every,
        colours=every if coloured and all(one.colours is not None for one in slices) else None,
        slices=held,
        brightest=max(one.brightest for one in slices),
    )


def _by_name(path: Path, kind: str, stamps: dict[str, str]) -> tuple[dict[str, Path], list[str], list[str]]:
    """The files of a kind by name, what is skipped of it, and problems; `stamps` learns the files' stamps."""
    files: dict[str, Path] = {}
    skipped, problems, waiting = [], [], [""]
    items_in = lister(path / kind)
    while waiting:
        folder = waiting.pop()
        try:
            items = sorted(items_in(folder), key=lambda item: natural(item.name))
        except OSError as error:
            raise DataError(f"{shown(path / kind / folder)}: cannot be listed: {reason(error)}") from error
        for item in items:
            short, name = f"{kind}/{folder}{item.name}", f"{folder}{bare(item.name)}"
            hidden, data = item.name.startswith("."), is_data(item.name)
            if not hidden and not data and item.is_folder():
                waiting.append(f"{folder}{item.name}/")
            elif hidden or not data:
                skipped.append(short)
            elif name in files:
                problems.append(f"{within(path, files[name])} and {short} have one name")
            else:
                files[name] = path / short
                stamps[short] = item.stamp()
    return files, skipped, problems


def _one_sided(kinds: dict[str, dict[str, Path]]) -> list[str]:
    """Take the folders out that one of the two kinds alone has, unless nothing would be left; returns which."""
    taken = []
    images, masks = ({_folder(name) for name in files} for files in kinds.values())
    both = images & masks
    for kind, files in kinds.items() if both else ():
        lone = {folder for name in files if (folder := _folder(name)) and folder not in both}
        for name in [name for name in files if _folder(name) in lone]:
            del files[name]
        taken += [f"{kind}/{folder}" for folder in sorted(lone, key=natural)]
    return taken


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
