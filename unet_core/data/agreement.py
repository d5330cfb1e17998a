"""Whether pairs that were decoded fit together: their channels, and what their masks hold."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_core.data.colour_table import read_table
from unet_core.data.labels import IGNORED, Classes, value_problem
from unet_core.data.masks import Masks
from unet_core.data.pictures import OF_COLOURS
from unet_core.data.states import PairState
from unet_core.errors import DataError, counted, shown, some

Found = Mapping[str, PairState]
"""What each pair showed."""


@dataclass(frozen=True)
class Agreed:
    """What all pairs have in common."""

    channels: int
    classes: Classes
    names: tuple[str, ...]
    """Of the pairs of whose masks anything counts."""
    blank: tuple[str, ...]
    """And of the others."""


@dataclass(frozen=True)
class Named:
    """What the files of a pair are called in messages, by the pair's name."""

    image: Callable[[str], str]
    mask: Callable[[str], str]


def told_classes(values: tuple[int, ...] | None, coloured: bool, masks: Masks) -> Classes | None:
    """The classes, where they are known before a mask is read."""
    if values is not None:
        return Classes(values, masks.ignored(coloured=coloured), coloured)
    if masks.colors is not None:
        codes, names = read_table(masks.colors)
        return Classes(codes, masks.ignored(coloured=True), True, names)
    return None if masks.values is None else Classes(masks.values, masks.ignored(coloured=False))


def annotated_classes(path: Path, names: tuple[str, ...], values: tuple[int, ...] | None, masks: Masks) -> Classes:
    """The classes that annotations name.

    Raises:
        DataError: others are wanted.
    """
    if masks.colors is not None or masks.classes is not None or masks.ignore not in (None, IGNORED):
        raise DataError(
            f"{shown(path)}: the classes are those of its annotations ({some(names)}); leave out --colors, "
            "--classes and any --ignore but 255"
        )
    numbers = tuple(range(len(names)))
    if values not in (None, numbers):
        raise DataError(f"{shown(path)}: has the classes {some(names)}, where {len(values or ())} are wanted")
    return Classes(numbers, masks.ignored(coloured=False), names=names)


def colours_to_read(told: Classes | None) -> tuple[int, ...] | None:
    """The colours by which masks are read; None where they are read by numbers, if they have such."""
    return told.known if told is not None and told.coloured else None


def agreed(
    path: Path,
    found: Found,
    named: Named,
    *,
    told: Classes | None,
    masks: Masks,
    channels: int | None,
    problems: Sequence[str] = (),
) -> Agreed:
    """What these pairs have in common.

    Args:
        path: where they are.
        found: what each showed.
        named: how messages name their files.
        told: the classes, where these are known.
        masks: how the masks are read.
        channels: that every picture is to have; None: 1 if all are grey, 3 if any is RGB.
        problems: what is wrong besides.

    Raises:
        DataError: all that is wrong, in one line.
    """
    # Of half the files what follows would tell too much or too little.
    _refuse(path, [*problems, *_problems(found, named, channels)])
    _refuse(path, _range_problems(found, named))
    classes, held, strange = _classes(found, named, told, masks)
    _refuse(path, [*_channel_problems(found, channels), *strange])
    assert classes is not None  # for there is no problem
    return Agreed(
        channels or max(finding.channels for finding in found.values()),
        classes,
        tuple(name for name in found if held[name]),
        tuple(name for name in found if not held[name]),
    )


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        total = f"{len(problems)} problems: " if len(problems) > 1 else ""
        raise DataError(f"{shown(path)}: {total}{some(problems)}")


def _problems(found: Found, named: Named, channels: int | None) -> Iterator[str]:
    """What is wrong with each pair, where its picture is to have so many channels."""
    for name, finding in found.items():
        if finding.channels and channels not in (None, finding.channels) and {channels, finding.channels} != {1, 3}:
            have, wanted = counted(finding.channels, "channel"), counted(channels or 0, "is", "are")
            yield f"{named.image(name)} has {have} where {wanted} wanted"
        yield from finding.problems


def _range_problems(found: Found, named: Named) -> list[str]:
    """Which values the pictures hold, where nothing tells which are black and white."""
    ranges = {name: finding.unknown for name, finding in found.items() if finding.unknown is not None}
    if not ranges:
        return []
    low, high = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
    of = named.image(next(iter(ranges)))
    of += f" and {len(ranges) - 1} more" if len(ranges) > 1 else ""
    return [
        f"{of}: values from {low:g} to {high:g}, and nothing tells which are black and white; give --window LOW HIGH, "
        f"as --window {low:g} {high:g}"
    ]


def _channel_problems(found: Found, channels: int | None) -> list[str]:
    one_of = {finding.channels: name for name, finding in found.items()}
    if channels is not None or len(one_of) == 1 or set(one_of) == {1, 3}:
        return []
    counts = ", ".join(f"{name} has {count}" for count, name in sorted(one_of.items()))
    return [f"the pictures have different numbers of channels: {counts}; save all in one way"]


def _classes(
    found: Found, named: Named, told: Classes | None, masks: Masks
) -> tuple[Classes | None, dict[str, frozenset[int]], list[str]]:
    """The classes, what each mask holds of them, and what is wrong with it."""
    of_colours = [name for name, finding in found.items() if finding.values is None]
    if of_colours and (told is not None or any(finding.colours is None for finding in found.values())):
        return None, {}, [f"{named.mask(name)}: {OF_COLOURS}" for name in of_colours]
    coloured = bool(of_colours) if told is None else told.coloured
    ignored = masks.ignored(coloured=coloured)

    @functools.cache  # many masks hold the same
    def counted(values: frozenset[int] | None) -> frozenset[int]:
        return (values or frozenset()) - {ignored}

    held = {name: counted(one.colours if of_colours else one.values) for name, one in found.items()}
    by_file = {named.mask(name): one for name, one in held.items()}
    if not any(held.values()):
        return None, held, ["no mask holds anything but what is ignored; there is nothing to learn"]
    if told is not None:
        return told, held, told.strange(by_file)
    problem = value_problem(by_file, coloured=coloured)
    if problem is not None:
        return None, held, [problem]
    return Classes(tuple(sorted(frozenset().union(*held.values()))), ignored, coloured), held, []
