"""A file's tensors in a module of anybody's, strictly: every key and every shape, and the file's dtypes are kept."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conversion.backends.frameworks import importing
from unet_core.checkpoints.checkpoint import Checkpoint, Reading, exported
from unet_core.checkpoints.contents import Candidate, Contents, Shape, by_names
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.naming import likely, read_names, renamed, unmatched
from unet_core.errors import CheckpointError, sized, some
from unet_core.graph.canonical import COUNTER, contiguous, differ

if TYPE_CHECKING:
    from torch import nn

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Loaded:
    """What a file has for a module."""

    tensors: Mapping[str, np.ndarray] = field(repr=False)
    """By the names of the module's state_dict; of one that has several names there, the first."""
    reading: Reading
    counters: bool
    """Whether it has the batches that BatchNorms have counted, which are 0 otherwise."""


def load(module: "nn.Module", contents: Contents, code: str, key: str | None = None) -> Loaded:
    """Put the tensors of a file into a module, which then computes in float64, as `load_state_dict(strict=True)` does.

    Args:
        module: is filled.
        contents: of the file.
        code: where the module is from, for messages.
        key: where in the file the network lies.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes; all are listed.
    """
    with importing():
        from unet_torch.canonical import as_torch
    source = contents.source
    live = {name: value for name, value in module.state_dict(keep_vars=True).items() if hasattr(value, "shape")}
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(value), name) for name, value in live.items()}
    shapes = shapes_of(module)
    places = by_names(contents, shapes, key)
    if not places:
        raise CheckpointError(f"{source}: has none of the tensors of {code}: {some(shapes)}")
    place = places[0]
    counted = {name for name in shapes if name.rpartition(".")[2] == _COUNTER}
    counters = not counted or any(name in place.shapes for name in counted)
    twice = {name for name, one in names.items() if name != one}
    optional = twice if counters else twice | counted
    problems = list(_problems(place.shapes, shapes, optional))
    if problems:
        raise CheckpointError(f"{source}: the tensors are not those of {code}: {'; '.join(problems)}")
    whole = [one for one in places if not list(_problems(one.shapes, shapes, optional))]
    if len(whole) > 1 and whole[0].rank == whole[1].rank:
        labels = [one.label or "the file's outermost dict" for one in whole]
        raise CheckpointError(f"{source}: holds several networks: {some(labels)}; choose one with --key")
    tensors = _fetched(contents, place, names)
    module.double().load_state_dict(
        {**module.state_dict(), **{name: as_torch(tensors[one]) for name, one in names.items()}}, strict=True
    )
    beside = tuple(f"{name} {value}" for name, value in contents.beside.items() if "." not in name)
    reading = Reading(
        key=place.label,
        wrappers=place.wrappers,
        others=tuple(one.label for one in whole if one is not place),
        beside=tuple(name for name in beside if not f"{place.group}.".startswith(f"{name.split(' ')[0]}.")),
        inert=contents.inert,
        code=contents.code.get(place.group, ""),
        keys={name: place.keys[name] for name in tensors if name in place.keys},
    )
    return Loaded(tensors, reading, counters)


def shapes_of(module: "nn.Module") -> dict[str, Shape]:
    """Of the tensors of a module's state_dict."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items() if hasattr(value, "shape")}


def under_its_names(contents: Contents, module: "nn.Module", code: str, table: Path | None) -> Contents:
    """The same tensors under a module's names: by a table, or where no name is the module's and only one way fits.

    Args:
        contents: of the file.
        module: whose names they get.
        code: where the module is from, for messages.
        table: of names, as a person says them.

    Raises:
        CheckpointError: no name is the module's, and several ways fit, or none.
    """
    shapes = shapes_of(module)
    if table is not None:
        return renamed(contents, read_names(table))
    if by_names(contents, shapes):
        return contents
    counted = {name for name in shapes if name.rpartition(".")[2] == _COUNTER}
    names = likely(contents, shapes)
    open_ = [name for name in unmatched(names, shapes) if name not in counted]
    if open_:
        raise CheckpointError(
            f"{contents.source}: has none of the names of {code}, and shapes do not tell which tensors are "
            f"{some(open_)}; unet inspect --module ... --draft map.csv writes a table of names to look through, which "
            "--names takes"
        )
    found = renamed(contents, names)
    return dataclasses.replace(found, beside={**found.beside, "names": "matched by their shapes, in the only way"})


def contents_of(checkpoint: Checkpoint, source: str, module: "nn.Module") -> Contents:
    """What a file with a record of ours holds, under the names of those it may have that fit a module best."""
    wanted = module.state_dict().keys()
    dialects = dict.fromkeys((OWN.name, checkpoint.origin.dialect))
    found = [exported(checkpoint, dialect)[0] for dialect in dialects]
    tensors = max(found, key=lambda one: len(one.keys() & wanted))
    return Contents(
        source,
        groups={"": {name: value.shape for name, value in tensors.items()}},
        fetch=lambda _, keys: {key: tensors[key] for key in keys},
    )


def _problems(found: Mapping[str, Shape], wanted: Mapping[str, Shape], optional: set[str]) -> Iterator[str]:
    """What a strict loading refuses."""
    missing = [name for name in wanted if name not in found and name not in optional]
    misshaped = [
        f"{name} is {_shape(found[name])}, not {_shape(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    extra = [name for name in found if name not in wanted]
    for word, names in (("missing", missing), ("not of this network", extra), ("wrong shape", misshaped)):
        if names:
            yield f"{word}: {some(names, most=500)}"


def _fetched(contents: Contents, place: Candidate, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Every tensor once.

    Raises:
        CheckpointError: under two names of one tensor there are two.
    """
    there = {name: place.keys[name] for name in names if name in place.keys}
    owner = {
        one: next((name for name in names if names[name] == one and name in there), None) for one in names.values()
    }
    keys = {one: there[name] for one, name in owner.items() if name is not None}
    fetched = contents.fetch(place.group, list(keys.values()))
    apart = [
        name  # fetched one by one: they may share the memory of the first
        for name, one in names.items()
        if name in there
        and there[name] != keys[one]
        and differ(contents.fetch(place.group, [there[name]])[there[name]], fetched[keys[one]])
    ]
    if apart:
        raise CheckpointError(f"{contents.source}: is one tensor in the code, but two in the file: {some(apart)}")
    return {
        one: contiguous(fetched[keys[one]]) if one in keys else np.zeros((), COUNTER)
        for one in dict.fromkeys(names.values())
    }


def _shape(sizes: Shape) -> str:
    return sized(sizes) or "a scalar"
