"""The pictures and volumes that are to be predicted, and where their predictions go."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_core import objects
from unet_core.data.formats.files import SUFFIXES, Extent, bare, data_files, extent
from unet_core.data.formats.reading import Pictures
from unet_core.data.listing import part_of
from unet_core.errors import DataError, shown, some
from unet_core.paths import URLPath


@dataclass(frozen=True)
class Source:
    """A file to predict."""

    path: Path
    name: str
    """Without the suffix of its format, and with the folders in which it lies in the one that was named: a/7."""


@dataclass(frozen=True)
class Wanted:
    """What to write of every picture, as `NAME.png`, `NAME.npy` and `NAME_overlay.png`; of a volume, as one volume.

    Of an array that was read as a whole volume, the mask is an array, and the probabilities are in another file.
    """

    masks: bool = True
    probabilities: bool = False
    """float32, [height, width, channels], from 0 to 1; of a volume [depth, height, width, channels]."""
    overlays: bool = False
    """The picture, tinted where a class was found."""

    def files(self, out: Path, source: Source, found: Extent) -> dict[str, Path]:
        """Where the predictions of a picture, or of a volume, go."""
        volume, name = is_volume(found), source.path.name.lower()
        array = len(found.size) == 3 and name.endswith((".npy", ".npz"))
        suffix = ".nii.gz" if name.endswith((".nii", ".nii.gz")) else ".npy" if array else ".tif"
        names = {
            "masks": f"{source.name}{suffix if volume else '.png'}",
            "probabilities": f"{source.name}{'_probabilities' if array else ''}.npy",
            "overlays": f"{source.name}_overlay.{'tif' if volume else 'png'}",
        }
        return {kind: out / name for kind, name in names.items() if getattr(self, kind)}


def is_volume(found: Extent) -> bool:
    """Whether the file's pages are slices, or it was read whole."""
    return len(found.size) == 3 or (found.pages > 1 and found.are == "slices")


def sources_in(paths: Iterable[Path], out: Path) -> list[Source]:
    """The files that are meant: those that are named, and all in the folders that are, and in the folders in these.

    What lies in `out` is left out.

    Raises:
        DataError: there are none, or a folder cannot be listed, or is a data folder, with masks.
    """
    found = [source for path in paths for source in _within(path, out.resolve())]
    if not found:
        raise DataError(f"no picture is named, or in the folders that are ({', '.join(SUFFIXES)})")
    return found


def extent_of(source: Source, how: Pictures) -> Extent:
    """What a file holds.

    Raises:
        DataError: it cannot be read, or nothing tells what its pages are.
    """
    found = extent(source.path, how)
    if found.are is None:
        raise DataError(
            f"{shown(source.path)}: has {found.pages} pages, and nothing tells what they are; give --pages slices or "
            "--pages channels"
        )
    if how.whole and len(found.size) == 2:
        raise DataError(f"{shown(source.path)}: is one picture, where a 3-D network takes volumes")
    return found


def check_targets(sources: Sequence[tuple[Source, Extent]], out: Path, wanted: Wanted, *, force: bool) -> None:
    """Raise DataError where two are written to one file, or something is there already (without `force`)."""
    targets: dict[Path, Path] = {}
    for source, found in sources:
        for target in wanted.files(out, source, found).values():
            if target in targets:
                raise DataError(f"{source.path} and {targets[target]}: both would be written to {target}; rename one")
            targets[target] = source.path
    written = {out / name for name in objects.listed(str(out))} if isinstance(out, URLPath) else None  # asked once
    there = [target for target in targets if (target.exists() if written is None else target in written)]
    if there and not force:
        raise DataError(f"{some(there, most=3)}: there already; name another --out, or --force to replace")
    lost = {source.path.resolve() for source, _ in sources} & {target.resolve() for target in there}
    if lost:
        raise DataError(f"{some(sorted(lost), most=3)}: is a picture that is to be read; name another --out")


def _within(path: Path, out: Path) -> Iterator[Source]:
    if not path.is_dir():
        yield Source(path, bare(path.name))
        return
    images = part_of(path, "images")
    if images is not None and part_of(path, "masks") is not None:
        raise DataError(f"{shown(path)}: is a data folder, with masks; name {shown(images)}")
    for file in data_files(path, but=out):
        yield Source(file, (file.parent / bare(file.name)).relative_to(path).as_posix())
