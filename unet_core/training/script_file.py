"""The training file of a PyTorch script, in canonical form: its training state, and the form in which it goes back."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from unet_core.codec import decoded, marked, unmarked
from unet_core.errors import CheckpointError, first_line, some
from unet_core.training.state import TrainingState, parameter_shapes


@dataclass(frozen=True)
class Script:
    """What a script's file has beside what is carried, so that the script loads what comes back."""

    order: tuple[str, ...]
    """The file's outermost keys."""
    network: str
    """The key under which the network lies; empty: it is all there is besides."""
    optimizer: str
    """The key under which the optimiser's state lies."""
    listed: bool
    """Whether it lies there in a list, alone, as in Lightning's files."""
    names: tuple[tuple[str, str], ...]
    """The canonical name and the file's name of every tensor, in the file's order."""
    parameters: tuple[str, ...]
    """The canonical name of every parameter, by its index in the optimiser."""
    groups: tuple[dict[str, Any], ...]
    """The optimiser's `param_groups`."""
    steps: str
    """The dtype of the `step` of every parameter, "int" for a plain number."""
    beside: Mapping[str, Any]
    """The file's other values, all of them plain."""

    @property
    def keys(self) -> list[str]:
        """The file's outermost keys, in no order."""
        network = [self.network] if self.network else [name for _, name in self.names]
        return [*network, self.optimizer, *self.beside]

    def check(self, state: TrainingState, source: str) -> None:
        """Hold it against the state that it is for.

        Raises:
            CheckpointError: they do not fit together.
        """
        unknown = {key for key, _ in self.names} - state.network.tensors.keys()
        unknown |= set(self.parameters) - parameter_shapes(state.network.config).keys()
        if unknown or len(self.parameters) != sum(len(group["params"]) for group in self.groups):
            raise CheckpointError(f"{source}: the record of the script's file is that of another network")

    def to_json(self) -> str:
        """As one line; the inverse of `from_json`."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return json.dumps(marked(fields))

    @classmethod
    def from_json(cls, text: str, source: str) -> "Script":
        """The inverse of `to_json`.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            script: Script = decoded(cls, unmarked(json.loads(text)))
            if script.to_json() != text or sorted(script.order) != sorted(script.keys):
                raise CheckpointError(f"{source}: the record of the script's file is damaged")
            return script
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{source}: the record of the script's file is damaged: {first_line(error)}"
            ) from error


@dataclass(frozen=True)
class TrainingFile:
    """A training that a PyTorch script saved."""

    state: TrainingState
    script: Script


def is_plain(value: object) -> bool:
    """Whether a value is made of numbers, strings, lists, tuples and dicts alone, so that JSON can hold it."""
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, str):
        return not any("\ud800" <= sign <= "\udfff" for sign in value)
    return value is None or isinstance(value, bool | int | float)


def merged(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Both; a name that both have is of two things, and tells both."""
    both = {name: f"{what}, and {other[name]}" for name, what in one.items() if name in other}
    return {**one, **other, **both}


def refuse(left: Mapping[str, str], drop: Collection[str], source: str) -> None:
    """Name what cannot be carried, and is not to be dropped.

    Args:
        left: for each name, what it is.
        drop: the names of what may be left behind.
        source: for messages.

    Raises:
        CheckpointError: there is something; or there is nothing of a name to drop.
    """
    unknown = [name for name in drop if name not in left]
    if unknown:
        there = some(left) if left else "nothing"
        raise CheckpointError(f"{source}: has nothing named {some(unknown)} to drop; there is to drop: {there}")
    kept = {name: what for name, what in left.items() if name not in drop}
    if kept:
        named = "; ".join(f"{name} ({what})" for name, what in kept.items())
        raise CheckpointError(f"{source}: cannot be carried: {named}; to leave it behind, say --drop {' '.join(kept)}")
