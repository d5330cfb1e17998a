"""Label Studio's JSON: regions that were painted (brush) or outlined (polygons)."""

from typing import Any

from unet_core.data.annotations import BACKGROUND
from unet_core.data.annotations.disk import Disk
from unet_core.data.annotations.regions import Annotated, Region
from unet_core.errors import DataError, some

_READ = ("brushlabels", "polygonlabels")


def read_label_studio(tasks: list[Any], disk: Disk) -> Annotated:
    """What the file holds of the pictures on the disk; the classes are the labels in order of their names.

    Raises:
        DataError: it is no such file; it is not named.
    """
    try:
        results = {task["id"]: _results(task) for task in tasks}
        labels = sorted({_label(one) for of_task in results.values() for one in of_task or ()} - {BACKGROUND})
        known = Annotated((BACKGROUND, *labels))
        for task in tasks:
            found = results[task["id"]]
            if found is None:
                continue
            file = _picture(task, disk)
            if file is None:
                known.problems.append(f"the picture of task {task['id']} ({some(_addresses(task))}) is not there")
                continue
            if file in known.drawn:
                known.problems.append(f"task {task['id']} is of a picture that another task has")
            known.drawn[file] = [_region(one, known) for one in found]
            for one in found:
                known.sizes[file] = int(one["original_height"]), int(one["original_width"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"is no JSON export of Label Studio, with its tasks: {type(error).__name__} {error}") from error
    return known


def _results(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The regions of a task; None where nobody has annotated it."""
    kept = [one for one in task["annotations"] if not one.get("was_cancelled")]
    if len(kept) > 1:
        raise DataError(f"task {task['id']} has {len(kept)} annotations; keep one of them")
    if not kept:
        return None
    regions = [one for one in kept[0]["result"] if str(one.get("type", "")).endswith("labels")]
    others = {one["type"] for one in regions} - {*_READ}
    if others:
        raise DataError(f"task {task['id']} has {some(sorted(others))}; masks are {' and '.join(_READ)}")
    return regions


def _label(one: dict[str, Any]) -> str:
    labels = one["value"].get(one["type"], ())
    if len(labels) != 1:
        raise DataError(f"region {one.get('id')} has {len(labels)} labels, where a pixel is of one class")
    return str(labels[0])


def _region(one: dict[str, Any], known: Annotated) -> Region:
    title, value = f"region {one.get('id')}", one["value"]
    if one.get("image_rotation"):
        raise DataError(f"{title}: was drawn on a turned picture; save the picture as it is seen")
    label = known.classes.index(_label(one))
    if one["type"] == "brushlabels":
        if not isinstance(value["rle"], list):
            raise DataError(f"{title}: its run lengths are no list; export it as JSON again")
        return Region(label, title, brush=value["rle"])
    height, width = one["original_height"], one["original_width"]
    corners = [part for x, y in value["points"] for part in (x * width / 100, y * height / 100)]
    return Region(label, title, polygons=(corners,))


def _addresses(task: dict[str, Any]) -> list[str]:
    return [value for value in task["data"].values() if isinstance(value, str)]


def _picture(task: dict[str, Any], disk: Disk) -> Any:
    return next((file for address in _addresses(task) if (file := disk.find(address)) is not None), None)
