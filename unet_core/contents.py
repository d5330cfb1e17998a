"""What a file holds before anything in it is judged, and the networks among it: under which key, in which wrappers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_core.dialects import DIALECTS
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
    riders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By group, what is no tensor but lies among them, and can be kept: numbers, strings, short lists of these."""
    record: str | None = None
    """What `checkpoint.seal` stored."""
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
    optimisers = tuple(
        f"{name.removesuffix('param_groups')}state." for name in contents.beside if f".{name}".endswith(".param_groups")
    )
    work = 0
    for group, shapes in contents.groups.items():
        if not any(len(shape) == 4 for shape in shapes.values()) or f"{group}.".startswith(optimisers):
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
