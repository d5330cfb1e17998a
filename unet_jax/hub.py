"""The networks in Flax NNX to and from the hub: their names and layouts, in both directions.

A `UNet` has names of its own and layouts of JAX, by one table. A `Network` has the hub's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unet_core.errors import CheckpointError, some
from unet_core.graph import Graph
from unet_core.graph.graph import Kind
from unet_core.hub import COUNTER, Description
from unet_jax.network import name_of, path_of

OIHW_TO_HWIO = (2, 3, 1, 0)
"""The same permutation takes a transposed convolution's kernel from IOHW to HWOI."""


@dataclass(frozen=True)
class Row:
    """One kind of tensor: its name in torch and in NNX (`*` is the block's), and how its layout changes."""

    torch: str
    jax: str
    axes: tuple[int, ...] | None = None
    """The transposition from torch's layout to NNX's; None: the same layout."""
    counts: bool = False
    """An integer: int64 in torch, int32 in JAX, which has no int64 unless x64 is enabled."""
    optional: bool = False
    """Not every network of the family has such a tensor."""


TABLE = (
    Row("*.up.weight", "*.up.kernel", OIHW_TO_HWIO, optional=True),
    Row("*.up.bias", "*.up.bias", optional=True),
    Row("*.conv.0.weight", "*.conv1.kernel", OIHW_TO_HWIO),
    Row("*.conv.0.bias", "*.conv1.bias", optional=True),
    Row("*.conv.1.weight", "*.norm1.scale"),
    Row("*.conv.1.bias", "*.norm1.bias"),
    Row("*.conv.1.running_mean", "*.norm1.mean"),
    Row("*.conv.1.running_var", "*.norm1.var"),
    Row("*.conv.1.num_batches_tracked", "*.norm1.num_batches_tracked", counts=True),
    Row("*.conv.3.weight", "*.conv2.kernel", OIHW_TO_HWIO),
    Row("*.conv.3.bias", "*.conv2.bias", optional=True),
    Row("*.conv.4.weight", "*.norm2.scale"),
    Row("*.conv.4.bias", "*.norm2.bias"),
    Row("*.conv.4.running_mean", "*.norm2.mean"),
    Row("*.conv.4.running_var", "*.norm2.var"),
    Row("*.conv.4.num_batches_tracked", "*.norm2.num_batches_tracked", counts=True),
    Row("out.weight", "out.kernel", OIHW_TO_HWIO),
    Row("out.bias", "out.bias"),
)

Side = Literal["torch", "jax"]


def translate(tensors: Mapping[str, Any], into: Side, config: Description, *, whole: bool = True) -> dict[str, Any]:
    """Rename and transpose every tensor of one side into the other's names and layouts, in the order given.

    NumPy arrays come back as views. The two directions are each other's inverse.

    Args:
        tensors: by name.
        into: whose names and layouts they get.
        config: of the network. Of a config it matters only that it is one: all its family has one table.
        whole: whether they are all those of a network; otherwise some may be left out.

    Raises:
        CheckpointError: a name that is none of the network's, or one of its tensors that is not there; all are listed.
            Or an integer that the other side cannot hold.
    """
    return _renamed(tensors, into, config, whole) if isinstance(config, Graph) else _by_table(tensors, into, whole)


def _by_table(tensors: Mapping[str, Any], into: Side, whole: bool) -> dict[str, Any]:
    source: Side = "jax" if into == "torch" else "torch"
    translated: dict[str, Any] = {}
    unmatched: list[str] = []
    unused = {row for row in TABLE if whole and not row.optional}
    for key, value in tensors.items():
        matches = _matches(key, source)
        if len(matches) != 1:
            unmatched.append(f"{key} ({len(matches)} rows)")
            continue
        ((row, block),) = matches
        unused.discard(row)
        name = getattr(row, into).replace("*", block)
        translated[name] = _relayout(row, key, value, into)
    if unmatched or unused:
        idle = sorted(getattr(row, source) for row in unused)
        raise CheckpointError(
            f"the tensors do not fit the table of names: without a row: {some(unmatched, most=500) or 'none'}; "
            f"rows without a tensor: {', '.join(idle) or 'none'}"
        )
    return translated


def _renamed(tensors: Mapping[str, Any], into: Side, graph: Graph, whole: bool) -> dict[str, Any]:
    """As `translate`, between a `Network` and the hub: the same layouts, and names but for those that JAX has taken."""
    names = {key: key if into == "jax" else name_of(tuple(key.split("."))) for key in tensors}
    own = {name: tensor for name, tensor in graph.tensors.items() if tensor.same_as is None}
    unknown = [key for key, name in names.items() if name not in own]
    missing = own.keys() - names.values() if whole else set[str]()
    if unknown or missing:
        raise CheckpointError(
            f"the tensors are not those of the graph: not of it: {some(unknown) or 'none'}; missing: "
            f"{some(sorted(missing)) or 'none'}"
        )
    return {
        ".".join(path_of(name)) if into == "jax" else name: _integers(name, tensors[key], into, own[name].kind)
        for key, name in names.items()
    }


def hub_place(key: str, axis: int, config: Description) -> tuple[str, int]:
    """What the hub calls a tensor of a network in JAX, and which of its axes there is this one of a kernel.

    Raises:
        CheckpointError: there is none of this name.
    """
    if isinstance(config, Graph):
        return name_of(tuple(key.split("."))), axis
    for row, block in _matches(key, "jax"):
        return row.torch.replace("*", block), OIHW_TO_HWIO[axis]
    raise CheckpointError(f"{key}: is the name of no tensor of the network")


def to_hub(model: Any) -> dict[str, np.ndarray]:
    """The parameters and statistics of a `UNet` or `Network` in torch's names and layouts, on the host."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    arrays = {_name(path): np.asarray(jax.device_get(variable[...])) for path, variable in state}
    return translate(arrays, "torch", model.config)


def fill(model: Any, tensors: Mapping[str, Any], *, keep_dtypes: bool = True) -> None:
    """Give `model` the hub's parameters and statistics, their dtypes included (or, if not so asked, its own).

    Raises:
        CheckpointError: float64 tensors while JAX has x64 disabled and would round them silently.
    """
    values = translate(tensors, "jax", model.config)
    if keep_dtypes:
        for value in values.values():
            refuse_narrowing(value.dtype)
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    filled = [  # jnp.array copies: the values may be views of another framework's memory
        (path, variable.replace(jnp.array(values[_name(path)], None if keep_dtypes else variable.dtype)))
        for path, variable in flat
    ]
    nnx.update(model, nnx.from_flat_state(filled))


def refuse_narrowing(dtype: Any) -> None:
    """Raise CheckpointError where JAX would round parameters of this dtype silently."""
    if dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise CheckpointError(
            "the weights are float64, which JAX rounds to float32 by default: "
            'call jax.config.update("jax_enable_x64", True) first, or load them with param_dtype=jnp.float32'
        )


def nest(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A flat dict of dotted names as the nested dict that `nnx.to_pure_dict` gives."""
    tree: dict[str, Any] = {}
    for key, value in tensors.items():
        *parents, name = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _integers(name: str, value: Any, into: Side, kind: Kind) -> Any:
    """An int64 as int32 and back: JAX has no int64, unless x64 is enabled, and torch makes no int32 unless asked to."""
    if into == "torch":
        return value.astype(COUNTER) if value.dtype == np.int32 else value
    if value.dtype == np.int32:
        raise CheckpointError(f"{name} is int32, which would come back from JAX as int64; make it int64 before")
    if value.dtype != COUNTER:
        return value
    least, most = 0 if kind == "counter" else np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if value.size and not least <= value.min() <= value.max() <= most:
        raise CheckpointError(f"{name} holds {value.min()} to {value.max()}; JAX holds {least} to {most}")
    return value.astype(np.int32)


def _relayout(row: Row, key: str, value: Any, into: Side) -> Any:
    if row.counts:
        limit = np.iinfo(np.int32).max
        if into == "jax" and not 0 <= int(value) <= limit:
            raise CheckpointError(f"{key} is {int(value)}; JAX counts from 0 to {limit}")
        return value.astype(COUNTER if into == "torch" else np.int32)
    if row.axes is None:
        return value
    return value.transpose(row.axes if into == "jax" else np.argsort(row.axes))


def _matches(key: str, side: Side) -> list[tuple[Row, str]]:
    """The rows that a name of one side has, each with its block; a sound table has one at most."""
    found = ((row, _pattern(getattr(row, side)).fullmatch(key)) for row in TABLE)
    return [(row, match[1] if match.groups() else "") for row, match in found if match]


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"(\w+)"))


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
