"""What the pairs of a data folder have in common: the channels and scale of the pictures, the classes of the masks."""

from collections.abc import Iterator

from unet_core.data.findings import Files
from unet_core.data.labels import Classes, value_problem
from unet_core.data.masks import Masks
from unet_core.data.pictures import OF_COLOURS
from unet_core.data.states import PairState


def range_problems(files: Files, found: dict[str, PairState]) -> list[str]:
    """Which values the pictures hold, where nothing tells which are black and white."""
    ranges = {name: finding.unknown for name, finding in found.items() if finding.unknown is not None}
    if not ranges:
        return []
    low, high = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
    of = files.short(files.images[next(iter(ranges))])
    of += f" and {len(ranges) - 1} more" if len(ranges) > 1 else ""
    return [
        f"{of}: values from {low:g} to {high:g}, and nothing tells which are black and white; give --window LOW HIGH, "
        f"as --window {low:g} {high:g}"
    ]


def pair_problems(files: Files, found: dict[str, PairState], channels: int | None) -> Iterator[str]:
    """What is wrong with each pair, where its picture is to have so many channels."""
    for name, finding in found.items():
        if finding.channels and channels not in (None, finding.channels) and {channels, finding.channels} != {1, 3}:
            image = files.short(files.images[name])
            yield f"{image} has {finding.channels} channels where {channels} are wanted"
        yield from finding.problems


def channel_problems(found: dict[str, PairState], channels: int | None) -> list[str]:
    """Of pictures with other numbers of channels, where `channels` does not say how many they get."""
    one_of = {finding.channels: name for name, finding in found.items()}
    if channels is not None or len(one_of) == 1 or set(one_of) == {1, 3}:
        return []
    counts = ", ".join(f"{name} has {count}" for count, name in sorted(one_of.items()))
    return [f"the pictures have different numbers of channels: {counts}; save all in one way"]


def common_classes(
    files: Files, found: dict[str, PairState], told: Classes | None, masks: Masks
) -> tuple[Classes | None, dict[str, frozenset[int]], list[str]]:
    """The classes, what each mask holds of them, and what is wrong with it."""
    of_colours = [name for name, finding in found.items() if finding.values is None]
    if of_colours and (told is not None or any(finding.colours is None for finding in found.values())):
        return None, {}, [f"{files.mask(name)}: {OF_COLOURS}" for name in of_colours]
    coloured = bool(of_colours) if told is None else told.coloured
    ignored = masks.ignored(coloured=coloured)
    values = {name: finding.colours if of_colours else finding.values for name, finding in found.items()}
    held = {name: (one or frozenset()) - {ignored} for name, one in values.items()}
    by_file = {files.mask(name): one for name, one in held.items()}
    if not any(held.values()):
        return None, held, ["no mask holds anything but what is ignored; there is nothing to learn"]
    if told is not None:
        return told, held, told.strange(by_file)
    problem = value_problem(by_file, coloured=coloured)
    if problem is not None:
        return None, held, [problem]
    return Classes(tuple(sorted(frozenset().union(*held.values()))), ignored, coloured), held, []
