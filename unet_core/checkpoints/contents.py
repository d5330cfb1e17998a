"""What a file holds before anything in it is judged, and the networks among it: under which key, in which wrappers."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_core.checkpoints.dialects import DIALECTS
from unet_core.errors import CheckpointError, some

Shape = tuple[int, ...]

WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "unet", "ema", "ema_model")
"""Prefixes that a wrapper class puts before every key: DataParallel, torch.compile, Lightning modules, averages."""

INNER = {"module", "_orig_mod"}
"""Wrappers of single layers, which leave their name in the middle of a key."""

_RANK = ("", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "unet", "weights", "params")
"""Where several networks are found, the first of these is taken."""

_MOST_WORK = 300_000
"""Tensors to look at, in all places together where a network may lie; each place counts for a thousand at least."""

LONGEST_NAME = 1000
"""Characters of the name of a tensor or of a key; the longest in use have a tenth of that."""

MOST_TENSORS = 10_000
"""A UNet with its optimiser has a few hundred."""

_DEEPEST_NAME = 40
"""Modules in modules."""


@dataclass(frozen=True)
class Contents:
    """A file's tensors by the dict that they lie in, unread, and what lies beside them."""

    source: str
    """The path, for messages."""
    groups: Mapping[str, Mapping[str, Shape]]
    """The shapes of the tensors of every dict in the file, by its path of keys; the outermost dict's is empty."""
    fetch: Callable[[str, Sequence[str]], dict[str, np.ndarray]]
    """Reads tensors of one group, and refuses those that are not sound."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """Everything that is no tensor, by its path of keys."""
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By group, what is no tensor but lies among them, and can be kept: numbers, strings, short lists of these."""
    record: str | None = None
    """What `checkpoint.seal` stored."""
    inert: tuple[str, ...] = ()
    """The classes and functions in the file that were not looked up, and of which nothing was run."""
    code: Mapping[str, str] = field(default_factory=dict)
    """By group, the class of a module that was pickled whole, whose `state_dict` the group is."""
    ordered: bool = True
    """Whether the tensors are in the order in which the model registered them."""


@dataclass(frozen=True)
class Candidate:
    """Some tensors of a file that may be a network, their wrappers taken off."""

    group: str
    prefix: str
    keys: Mapping[str, str]
    """The file's key of every tensor, by what is left of it."""
    shapes: Mapping[str, Shape]
    """Of every tensor, by what is left of its key."""
    wrappers: tuple[str, ...]
    """The prefixes that were taken off."""

    @property
    def label(self) -> str:
        """Where it lies, as `--key` names it."""
        return ".".join(part for part in (self.group, self.prefix.rstrip(".")) if part)

    @property
    def rank(self) -> int:
        """The smaller, the likelier to be the network that is meant; above all ranks where nothing tells."""
        parts = [part for part in self.label.split(".") if part not in INNER]
        places = [_RANK.index(part) if part in _RANK else len(_RANK) for part in parts]
        return max(places, default=0)


def candidates(contents: Contents, key: str | None = None) -> Iterator[Candidate]:
    """Every group with every wrapper around all or some of its tensors, but for those of optimisers.

    Args:
        key: where a person says that a network lies, which may be a prefix of another name than those known.

    Raises:
        CheckpointError: there are more of them than in any checkpoint.
    """
    work = 0
    for group, shapes in _groups(contents):
        if not any(len(shape) == 4 for shape in shapes.values()):
            continue
        prefixes = {"", *_wrapped(shapes)}
        if key is not None:
            inside = f"{key}.".removeprefix(f"{group}." if group else "")
            prefixes |= {inside} if any(name.startswith(inside) for name in shapes) else set()
        for dialect in DIALECTS:
            marker = f"{dialect.layers(2)['down1.conv.0']}.weight"
            prefixes |= {key.removesuffix(marker) for key in shapes if key.endswith(f".{marker}")}
        work += len(prefixes) * (len(shapes) + 1000)
        if work > _MOST_WORK:
            raise CheckpointError(f"{contents.source}: has tensors in more dicts and wrappers than any checkpoint")
        for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
            yield _candidate(contents.source, group, prefix, shapes)


def by_names(contents: Contents, names: Collection[str], key: str | None = None) -> list[Candidate]:
    """The places where tensors have these names, whatever comes before them; those where most have come first.

    Args:
        contents: of the file.
        names: of the network's tensors.
        key: where a person says that it lies.
    """
    wanted = set(names)
    found: list[tuple[int, Candidate]] = []
    for group, shapes in _groups(contents):
        whole: Counter[str] = Counter()
        bare: Counter[str] = Counter()  # where single layers have wrappers of their own
        for name in shapes:
            parts = name.split(".", _DEEPEST_NAME)
            for count in range(len(parts)):
                prefix, rest = "".join(f"{part}." for part in parts[:count]), parts[count:]
                whole[prefix] += ".".join(rest) in wanted
                bare[prefix] += rest[0] not in INNER and ".".join(part for part in rest if part not in INNER) in wanted
        for prefix in bare:
            if bare[prefix] > whole[prefix]:
                found.append((bare[prefix], _candidate(contents.source, group, prefix, shapes)))
            elif whole[prefix]:
                found.append((whole[prefix], _plain(group, prefix, shapes)))
    if key is not None:
        found = [(count, place) for count, place in found if f".{key}." in f".{place.label}."]
    return [place for _, place in sorted(found, key=lambda one: (-one[0], one[1].rank))]


def _plain(group: str, prefix: str, shapes: Mapping[str, Shape]) -> Candidate:
    """The tensors whose names begin so, and are left as they are otherwise."""
    keys = {name[len(prefix) :]: name for name in shapes if name.startswith(prefix)}
    wrappers = tuple(f"{part}." for part in prefix.split(".") if part)
    return Candidate(group, prefix, keys, {name: shapes[key] for name, key in keys.items()}, wrappers)


def _groups(contents: Contents) -> Iterator[tuple[str, Mapping[str, Shape]]]:
    """The dicts of the file that are no optimiser's."""
    optimisers = tuple(
        f"{name.removesuffix('param_groups')}state." for name in contents.beside if f".{name}".endswith(".param_groups")
    )
    yield from ((group, shapes) for group, shapes in contents.groups.items() if not f"{group}.".startswith(optimisers))


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse names longer than any that is in use, before anything is made of them.

    Raises:
        CheckpointError: one is longer than `LONGEST_NAME`.
    """
    long = [name for name in names if len(name) > LONGEST_NAME]
    if long:
        raise CheckpointError(f"{source}: has names of up to {max(map(len, long))} characters: {some(long, most=2)}")


def _wrapped(shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Every chain of known wrappers that some key begins with."""
    found = set()
    for key in shapes:
        parts = key.split(".", 8)[:-1]
        prefix = ""
        for part in parts:
            if part not in WRAPPERS:
                break
            prefix += f"{part}."
            found.add(prefix)
    yield from found


def _candidate(source: str, group: str, prefix: str, shapes: Mapping[str, Shape]) -> Candidate:
    keys: dict[str, str] = {}
    inner = set()
    twice = []
    for key in shapes:
        if not key.startswith(prefix):
            continue
        parts = key[len(prefix) :].split(".")
        kept = parts[:1] + [part for part in parts[1:-1] if part not in INNER] + parts[1:][-1:]
        inner |= INNER.intersection(parts[1:-1])
        name = ".".join(kept)
        if name in keys:
            twice.append(key)
        keys[name] = key
    if twice:
        raise CheckpointError(
            f"{source}: these are the same tensors as others once wrappers are taken off: {some(twice)}"
        )
    wrappers = [f"{part}." for part in prefix.split(".") if part] + [f"...{part}." for part in sorted(inner)]
    return Candidate(group, prefix, keys, {name: shapes[key] for name, key in keys.items()}, tuple(wrappers))
