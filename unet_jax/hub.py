"""The Flax NNX twin to and from the hub: the one table of names and layouts, read in both directions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unet_core.errors import CheckpointError, some
from unet_core.hub import COUNTER, Tensors

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


def translate(tensors: Mapping[str, Any], into: Side, *, whole: bool = True) -> dict[str, Any]:
    """Rename and transpose every tensor of one side into the other's names and layouts, in the order given.

    NumPy arrays come back as views. The two directions are each other's inverse.

    Args:
        tensors: by name.
        into: whose names and layouts they get.
        whole: whether they are all those of a network; otherwise rows may be left over.

    Raises:
        CheckpointError: a key that not exactly one row matches, or a row that no key matches (but for the optional
            ones); all are listed. Or a count that the other side's integer cannot hold.
    """
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


def hub_name(key: str) -> str:
    """Of a tensor of the NNX twin.

    Raises:
        CheckpointError: there is none of this name.
    """
    for row, block in _matches(key, "jax"):
        return row.torch.replace("*", block)
    raise CheckpointError(f"{key}: is the name of no tensor of the network")


def to_hub(model: nnx.Module) -> dict[str, np.ndarray]:
    """The parameters and statistics of `model` in torch's names and layouts, on the host."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return translate({_name(path): np.asarray(jax.device_get(variable[...])) for path, variable in state}, "torch")


def fill(model: nnx.Module, tensors: Mapping[str, Any], *, keep_dtypes: bool = True) -> None:
    """Give `model` the hub's parameters and statistics, their dtypes included (or, if not so asked, its own).

    Raises:
        CheckpointError: float64 tensors while JAX has x64 disabled and would round them silently.
    """
    values = translate(tensors, "jax")
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


def nest(tensors: Tensors) -> dict[str, Any]:
    """A flat dict of dotted names as the nested dict that `nnx.to_pure_dict` gives."""
    tree: dict[str, Any] = {}
    for key, value in tensors.items():
        *parents, name = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


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


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"(\w+)"))


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
