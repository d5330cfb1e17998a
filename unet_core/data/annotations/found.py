"""The file of annotations of a data folder, and what it says of the pictures there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unet_core.data.annotations.coco import read_coco
from unet_core.data.annotations.disk import Disk
from unet_core.data.annotations.label_studio import read_label_studio
from unet_core.data.annotations.regions import Regions
from unet_core.data.formats.files import bare
from unet_core.data.listing import part_of
from unet_core.errors import DataError, reason, shown, some
from unet_core.paths import as_path


@dataclass(frozen=True)
class AnnotatedFolder:
    """The pictures of a folder that are annotated."""

    images: Mapping[str, Path]
    """By name, those without annotations too, which lie beside them."""
    regions: Regions
    problems: tuple[str, ...]


def annotation_file(path: Path, named: str | None) -> Path | None:
    """The file of annotations: the one that is named, or else the only JSON in a folder that has no masks/.

    Raises:
        DataError: there are several, or there is none of this name.
    """
    if named is not None:
        if not as_path(named).is_file():
            raise DataError(f"{shown(named)}: no such file of annotations")
        return as_path(named)
    if not path.is_dir() or part_of(path, "masks") is not None:
        return None
    folders = [folder for folder in (path, path / "annotations") if folder.is_dir()]
    found = sorted(file for folder in folders for file in folder.iterdir() if file.suffix == ".json")
    if len(found) > 1:
        names = some(file.relative_to(path).as_posix() for file in found)
        raise DataError(f"{shown(path)}: has several files of annotations ({names}); name one (--annotations)")
    return found[0] if found else None


def read_annotations(path: Path, file: Path) -> AnnotatedFolder:
    """What a file of annotations says of the pictures in a folder.

    Raises:
        DataError: it cannot be read, or is of no kind that is known.
    """
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{shown(file)}: cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(file)}: is no JSON, or is truncated; save it anew") from error
    root = part_of(path, "images") or path
    disk = Disk(root)
    try:
        if isinstance(found, list):
            known = read_label_studio(found, disk)
        elif isinstance(found, dict) and {"images", "annotations", "categories"} <= found.keys():
            known = read_coco(found, disk)
        else:
            raise DataError("is neither COCO's annotations (images, annotations, categories) nor Label Studio's JSON")
    except DataError as error:
        raise DataError(f"{shown(file)}: {error}") from error
    beside = {one.parent for one in known.drawn}
    images: dict[str, Path] = {}
    names: dict[Path, str] = {}
    problems = [f"{file.name}: {problem}" for problem in known.problems]
    for picture in disk.files:
        if picture.parent not in beside:
            continue
        name = (picture.parent / bare(picture.name)).relative_to(root).as_posix()
        if name in images:
            problems.append(f"{images[name].name} and {picture.name} have one name")
        images[name], names[picture] = picture, name
    regions = Regions(
        known.classes,
        {names[picture]: tuple(drawn) for picture, drawn in known.drawn.items()},
        {names[picture]: size for picture, size in known.sizes.items()},
    )
    return AnnotatedFolder(images, regions, tuple(problems))
