"""The parts of a graph: its operations, its tensors, and the sizes that it takes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.errors import ConfigError, shown
from unet_core.graph.operations import OPERATIONS
from unet_core.graph.sizes import Size, evaluate

INPUT = "input"
"""The name of the picture, as an input of nodes."""

Kind = Literal["parameter", "statistic", "counter", "buffer"]
"""What a tensor is: trained; a running mean or variance; the batches that were counted; anything else that is kept."""


@dataclass(frozen=True)
class Node:
    """One operation.

    Raises:
        ConfigError: there is no such operation, or it takes no such inputs, tensors or attributes.
    """

    name: str
    """Of the module that computes it, such as `down1.conv.0`, and more where it computes several."""
    operation: str
    """One of `OPERATIONS`."""
    inputs: tuple[str, ...] = ()
    """The names of nodes before it, or `INPUT`."""
    tensors: Mapping[str, str] = field(default_factory=dict, metadata=OPTIONAL)
    """The state_dict's name of each tensor, by its role."""
    attributes: Mapping[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    """Those that the table has; those that are left out have its defaults."""

    def __post_init__(self) -> None:
        row = OPERATIONS.get(self.operation)
        if row is None:
            raise ConfigError(f"node {shown(self.name)}: there is no operation {shown(self.operation)}")
        least, most = row.inputs
        roles = {role for role, needed in row.roles.items() if needed}
        attributes: dict[str, Any] = {}
        try:
            if len(self.inputs) < least or (most is not None and len(self.inputs) > most):
                raise ValueError(f"it takes {least} to {most or 'any number of'} inputs, not {len(self.inputs)}")
            if not roles <= self.tensors.keys() <= row.roles.keys():
                raise ValueError(f"it takes the tensors {', '.join(row.roles)}")
            if not self.attributes.keys() <= row.attributes.keys():
                raise ValueError(f"it takes the attributes {', '.join(row.attributes)}")
            for name, (kind, default) in row.attributes.items():
                if name not in self.attributes and default is inspect.Parameter.empty:
                    raise ValueError(f"it needs the attribute {name}")
                attributes[name] = decoded(kind, self.attributes[name]) if name in self.attributes else default
        except ValueError as error:
            raise ConfigError(f"node {shown(self.name)}, {self.operation}: {error}") from error
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(
            self, "tensors", MappingProxyType({role: self.tensors[role] for role in row.roles if role in self.tensors})
        )
        object.__setattr__(self, "attributes", MappingProxyType(attributes))

    def __hash__(self) -> int:
        return hash((self.name, self.operation, self.inputs))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without what the table's defaults say."""
        row = OPERATIONS[self.operation].attributes
        changed = {name: value for name, value in self.attributes.items() if value != row[name][1]}
        fields = {**encoded(self), "attributes": encoded(changed)}
        return {name: value for name, value in fields.items() if value or name not in ("tensors", "attributes")}

    def at(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The attributes, sizes as numbers, for an input of these sizes (`unet_core.graph.sizes.AXES`)."""
        return {name: _numbers(value, sizes) for name, value in self.attributes.items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the state_dict."""

    shape: tuple[int, ...]
    kind: Kind
    same_as: str | None = None
    """The name before it in the state_dict under which the very same tensor stands."""

    def to_list(self) -> list[Any]:
        """As plain JSON values."""
        return [list(self.shape), self.kind, *([self.same_as] if self.same_as else [])]


@dataclass(frozen=True)
class Sizes:
    """The heights, widths and depths that a network takes, in pixels."""

    multiple: int = 1
    """Each is a multiple of this."""
    least: int = 1
    """Each is this at least."""
    most: int | None = None
    """Each is this at most."""
    only: tuple[tuple[int, ...], ...] = ()
    """These alone, where there are any: the network was read at them, one by one."""

    def take(self, size: Sequence[int]) -> bool:
        """Whether the network takes an input of this size."""
        if self.only:
            return tuple(size) in self.only
        return all(length % self.multiple == 0 and self.least <= length <= (self.most or length) for length in size)

    def __str__(self) -> str:
        if self.only:
            return f"{' or '.join('x'.join(map(str, size)) for size in self.only)} alone"
        kind = "any size" if self.multiple == 1 else f"multiples of {self.multiple}"
        return f"{kind} from {self.least}{' up' if self.most is None else f' to {self.most}'}"


def _numbers(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_numbers(item, sizes) for item in value)
    return evaluate(value, sizes) if isinstance(value, Size) else value
