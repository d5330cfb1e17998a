"""Tensors under other names, and in other layouts, than those of a network's code: a table says which is which."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet_core.checkpoints.contents import Contents, Shape
from unet_core.errors import CheckpointError, first_line, shown, some
from unet_core.files import atomic
from unet_core.paths import present

COLUMNS = ("module", "file", "axes", "sure")
"""The name in the module's state_dict; the file's; the file's axes in the module's order, none where they are as they
are; and, in a draft, whether nothing else fits.
"""

_LARGEST = 10_000_000

_KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
"""From the layout of Flax and Keras, whose channels are last, to torch's."""

_ROLES = {
    **dict.fromkeys(("kernel", "embedding", "weight", "scale", "gamma"), "weight"),
    **dict.fromkeys(("bias", "beta"), "bias"),
    **dict.fromkeys(("mean", "moving_mean", "running_mean"), "running_mean"),
    **dict.fromkeys(("var", "variance", "moving_variance", "moving_var", "running_var"), "running_var"),
}
"""By the last part of a name, what torch calls such a tensor."""


@dataclass(frozen=True)
class Named:
    """Which tensor of a file is one of the module's."""

    file: str
    axes: tuple[int, ...] | None = None
    sure: bool = True

    def shape(self, stored: Shape) -> Shape:
        """That of the module's tensor, of the file's."""
        return stored if self.axes is None else tuple(stored[axis] for axis in self.axes)


Names = Mapping[str, Named]
"""By the module's names."""


def read_names(path: Path) -> dict[str, Named]:
    """A table as `write_names` writes it; rows without a name in the file, or in the module, are left out.

    Raises:
        CheckpointError: it is none, or names something twice.
    """
    found: dict[str, Named] = {}
    try:
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f"{path}: is larger than any table of names")
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"module", "file"} <= set(rows.fieldnames or ()):
                raise CheckpointError(
                    f"{path}: needs the columns module and file; unet inspect --draft writes such one"
                )
            for number, row in enumerate(rows, 2):
                module, name = (row["module"] or "").strip(), (row["file"] or "").strip()
                if not module or not name:
                    continue
                if module in found or any(one.file == name for one in found.values()):
                    raise CheckpointError(f"{path}: line {number}: {shown(module)} or {shown(name)} is named twice")
                found[module] = Named(name, _axes(row.get("axes"), f"{path}: line {number}"))
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is no table of names: {first_line(error)}") from error
    if not found:
        raise CheckpointError(f"{path}: names no tensor")
    return found


def _axes(text: str | None, where: str) -> tuple[int, ...] | None:
    words = (text or "").split()
    if not words:
        return None
    if sorted(words) != [str(axis) for axis in range(len(words))]:
        raise CheckpointError(f"{where}: axes {shown(text)}: give each axis of the file once, as in 3 2 0 1")
    return tuple(map(int, words))


def write_names(path: Path, names: Names, wanted: Mapping[str, Shape], contents: Contents) -> None:
    """Write a draft: a row for every tensor of the module, with the file's where one is likely, and one for each that
    is left over.

    Raises:
        CheckpointError: the file exists, or cannot be written.
    """
    left = [name for name in _all_shapes(contents) if name not in {one.file for one in names.values()}]
    if present(path):
        raise CheckpointError(f"{path}: exists already; give another name")
    try:
        with atomic(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for name in wanted:
                one = names.get(name)
                axes = " ".join(map(str, one.axes)) if one and one.axes else ""
                rows.writerow((name, one.file if one else "", axes, "" if one is None else "yes" if one.sure else "no"))
            rows.writerows(("", name, "", "") for name in left)
    except UnicodeError as error:
        raise CheckpointError(f"{path}: not written: {first_line(error)}") from error


def renamed(contents: Contents, names: Names) -> Contents:
    """The same tensors under the module's names, in its layouts, and no others.

    Raises:
        CheckpointError: the file does not have one of them, or one of so many axes.
    """
    shapes = _all_shapes(contents)
    lacking = [one.file for one in names.values() if one.file not in shapes]
    if lacking:
        raise CheckpointError(f"{contents.source}: has no tensors of the names {some(lacking)}")
    odd = [one.file for one in names.values() if one.axes is not None and len(one.axes) != len(shapes[one.file][2])]
    if odd:
        raise CheckpointError(f"{contents.source}: has other axes than the table of names says: {some(odd)}")

    def fetch(_: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
        groups: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            group, own, _shape = shapes[names[key].file]
            groups[group].append(own)
        found = {
            (group, own): value for group, owns in groups.items() for own, value in contents.fetch(group, owns).items()
        }
        values = {key: found[shapes[names[key].file][:2]] for key in keys}
        return {
            key: value if names[key].axes is None else value.transpose(names[key].axes) for key, value in values.items()
        }

    found = {key: one.shape(shapes[one.file][2]) for key, one in names.items()}
    return Contents(contents.source, {"": found}, fetch, beside=contents.beside, inert=contents.inert)


def likely(contents: Contents, wanted: Mapping[str, Shape]) -> dict[str, Named]:
    """Which tensor of a file each of a module's may be, by role and shape; of several alike, in the file's order.

    Args:
        contents: of the file.
        wanted: the shapes of the module's tensors.
    """
    there: dict[tuple[str, Shape], list[Named]] = defaultdict(list)
    for name, (_, _, shape) in sorted(_all_shapes(contents).items(), key=lambda one: _natural(one[0])):
        role, axes = _role(name, len(shape))
        if role is not None:
            one = Named(name, axes)
            there[role, one.shape(shape)].append(one)
    asked: dict[tuple[str, Shape], list[str]] = defaultdict(list)
    for name, shape in wanted.items():
        asked[name.rpartition(".")[2], shape].append(name)
    found: dict[str, Named] = {}
    for key, names in asked.items():
        sure = len(names) == len(there[key]) == 1
        found |= {name: Named(one.file, one.axes, sure) for name, one in zip(names, there[key], strict=False)}
    return {name: found[name] for name in wanted if name in found}


def _all_shapes(contents: Contents) -> dict[str, tuple[str, str, Shape]]:
    """Group, key and shape of every tensor, by the two joined."""
    return {
        f"{group}.{key}" if group else key: (group, key, shape)
        for group, shapes in contents.groups.items()
        for key, shape in shapes.items()
    }


def _role(name: str, axes: int) -> tuple[str | None, tuple[int, ...] | None]:
    last = re.split(r"[./]", name.removesuffix(":0"))[-1].lower()
    return _ROLES.get(last), _KERNEL_AXES.get(axes) if last == "kernel" else None


def _natural(name: str) -> list[tuple[int, str]]:
    """What sorts `Conv_2` before `Conv_10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,9})", name)]


def unmatched(names: Names, wanted: Mapping[str, Shape]) -> Iterator[str]:
    """The module's tensors for which no one of the file is the only one that fits."""
    yield from (name for name in wanted if name not in names or not names[name].sure)
