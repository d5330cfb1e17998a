"""Parts a data set into pictures to train on and pictures to validate on."""

from collections import Counter
from collections.abc import Sequence

from unet_core.data.dataset import Dataset
from unet_core.data.formats.files import bare
from unet_core.data.split import UNGROUPED, Split
from unet_core.data.tables import lines_of
from unet_core.errors import DataError, counted, shown, some


def split(source: Dataset, validation: float, how: Split = UNGROUPED) -> tuple[Dataset, Dataset]:
    """The pictures to train on, and those to validate on: the last ones in order of their names, or a fold.

    Slices of one volume are a group. Groups are in order of their first pictures; a fold has those whose first picture
    is in its part of the row.

    Args:
        source: all of them.
        validation: how many are for validation: a part of them where below 1, rounded down, but one at least; 0: none;
            of groups, the last ones that have so many pictures or more.
        how: folds and groups.

    Raises:
        DataError: one of the two would be empty, or the groups are not those of the pictures.
    """
    groups = _groups(source.files, how.groups)
    if how.folds is not None:
        chosen = {group for group, first in _places(groups).items() if first * how.folds // len(groups) + 1 == how.fold}
        named = f"--folds {how.folds} --fold {how.fold}"
    else:
        chosen, named = _last(groups, validation), f"--validation {validation:g}"
    part = [group in chosen for group in groups]
    if all(part) or (not any(part) and (validation != 0 or how.folds is not None)):
        count, unit = len(set(groups)), "group" if how.groups else "volume"
        within = f" in {counted(count, unit)}"
        of = counted(len(groups), "picture") + (within if how.groups or count < len(groups) else "")
        advice = "a part below 1, a smaller number, or --validation 0 to train on all"
        raise DataError(
            f"{named}: of {of} this leaves none to train or none to validate on; give "
            + (advice if how.folds is None else "fewer folds, or another one")
        )
    sides = [[index for index, validated in enumerate(part) if validated == side] for side in (False, True)]
    return source.subset(sides[0]), source.subset(sides[1])


def _last(groups: Sequence[str], validation: float) -> set[str]:
    """The last groups that have enough pictures together; all, or none, where there is no such number."""
    if not 0 <= validation < len(groups):
        return set()
    part = max(int(len(groups) * validation), int(validation > 0))
    count = int(validation) if validation >= 1 else part
    sizes, chosen, has = Counter(groups), set(), 0
    for group in reversed(dict.fromkeys(groups)):  # in order of their first pictures
        if has >= count:
            break
        chosen.add(group)
        has += sizes[group]
    return chosen


def _places(groups: Sequence[str]) -> dict[str, int]:
    """How many pictures are in the groups before each, in order of their first pictures."""
    sizes, places, before = Counter(groups), {}, 0
    for group in dict.fromkeys(groups):
        places[group] = before
        before += sizes[group]
    return places


def _groups(names: Sequence[str], path: str | None) -> list[str]:
    """The group of each picture, by its file; without a table that is one of its own."""
    if path is None:
        return list(names)
    group_of: dict[str, str] = {}
    for line in lines_of(path, "groups"):
        if len(line) != 2 or group_of.get(bare(line[0]), line[1]) != line[1]:
            what = "give name,group" if len(line) != 2 else "is in another group already"
            raise DataError(f"{shown(path)}: {','.join(line)}: {what}")
        group_of[bare(line[0])] = line[1]
    lone = [name for name in dict.fromkeys(names) if name not in group_of]
    if lone:
        raise DataError(f"{shown(path)}: has no group for {some(lone)}")
    return [group_of[name] for name in names]
