"""COCO's annotations: polygons and run lengths, compressed or not; crowds are of no class."""

from typing import Any

from unet_core.data.annotations import BACKGROUND
from unet_core.data.annotations.disk import Disk
from unet_core.data.annotations.regions import Annotated, Region
from unet_core.data.labels import IGNORED
from unet_core.errors import DataError


def read_coco(found: dict[str, Any], disk: Disk) -> Annotated:
    """What the file holds of the pictures on the disk; the classes are the categories in the order of their numbers.

    A category without a region that groups others, as Roboflow writes one, is left out.

    Raises:
        DataError: it is no such file; it is not named.
    """
    try:
        used = {one["category_id"] for one in found["annotations"]}
        groups = {one.get("supercategory") for one in found["categories"]}
        categories = sorted(
            (int(one["id"]), str(one["name"]))
            for one in found["categories"]
            if one["id"] in used or one["name"] not in groups
        )
        names = [name for _, name in categories]
        labels = {number: place for place, (number, _) in enumerate(categories, 1)}
        known = Annotated((BACKGROUND, *names))
        if len(labels) < len(categories) or len(set(known.classes)) < len(known.classes) or len(labels) >= IGNORED:
            raise DataError(f"its categories ({len(categories)}) are not 1 to 254 of different names and numbers")
        pictures = {}
        for image in found["images"]:
            file = disk.find(str(image["file_name"]))
            if file is None:
                known.problems.append(f"{image['file_name']} is not there")
                continue
            if file in known.drawn:
                known.problems.append(f"{image['file_name']} is in it twice")
            pictures[image["id"]] = file
            known.drawn[file] = []
            if "height" in image and "width" in image:
                known.sizes[file] = int(image["height"]), int(image["width"])
        gone = {image["id"] for image in found["images"]} - pictures.keys()
        crowds_first = sorted(found["annotations"], key=lambda one: not one.get("iscrowd"))
        for one in crowds_first:
            if one["image_id"] not in gone:
                known.drawn[pictures[one["image_id"]]].append(_region(one, labels))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"is no file of COCO's annotations: {type(error).__name__} {error}") from error
    return known


def _region(one: dict[str, Any], labels: dict[int, int]) -> Region:
    title, shape = f"annotation {one.get('id', '')}".strip(), one.get("segmentation")
    label = IGNORED if one.get("iscrowd") else labels[one["category_id"]]
    if isinstance(shape, dict):
        counts = shape["counts"]
        if not isinstance(counts, str | list):
            raise DataError(f"{title}: its run lengths are neither a list nor a text")
        return Region(label, title, counts=counts)
    if not isinstance(shape, list) or not shape:
        raise DataError(f"{title}: has no segmentation, and a box alone is no mask")
    return Region(label, title, polygons=shape)
