"""The networks in Flax NNX to and from the canonical form: the same layouts, and the same names but for those that
NNX has.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unet_core.errors import CheckpointError, some
from unet_core.graph.canonical import COUNTER, Description, tensor_specs
from unet_core.graph.node import Kind
from unet_jax.network import name_of, path_of

Side = Literal["torch", "jax"]


def translate(tensors: Mapping[str, Any], into: Side, config: Description, *, whole: bool = True) -> dict[str, Any]:
    """Rename every tensor of one side as the other calls it, in the order given; the layouts are the same.

    NumPy arrays come back as views. The two directions are each other's inverse.

    Args:
        tensors: by name; those of JAX are split at the dots where a name has them.
        into: whose names they get.
        config: of the network.
        whole: whether they are all those of a network; otherwise some may be left out.

    Raises:
        CheckpointError: a name that is none of the network's, or one of its tensors that is not there; all are listed.
            Or an integer that the other side cannot hold.
    """
    names = {key: key if into == "jax" else name_of(tuple(key.split("."))) for key in tensors}
    own = tensor_specs(config)
    unknown = [key for key, name in names.items() if name not in own]
    missing = own.keys() - names.values() if whole else set[str]()
    if unknown or missing:
        raise CheckpointError(
            f"the tensors are not those of the network: not of it: {some(unknown) or 'none'}; missing: "
            f"{some(sorted(missing)) or 'none'}"
        )
    return {
        ".".join(path_of(name)) if into == "jax" else name: _integers(name, tensors[key], into, own[name].kind)
        for key, name in names.items()
    }


def to_canonical(model: Any) -> dict[str, np.ndarray]:
    """The parameters and statistics of a `UNet` or `Network` in torch's names and layouts, on the host."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    arrays = {_name(path): np.asarray(jax.device_get(variable[...])) for path, variable in state}
    return translate(arrays, "torch", model.config)


def fill(model: Any, tensors: Mapping[str, Any], *, keep_dtypes: bool = True) -> None:
    """Give `model` the canonical parameters and statistics, their dtypes included (or, if not so asked, its own).

    Raises:
        CheckpointError: float64 tensors while JAX has x64 disabled and would round them silently.
    """
    values = translate(tensors, "jax", model.config)
    if keep_dtypes:
        for value in values.values():
            refuse_narrowing(value.dtype)
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    filled = [
        (path, variable.replace(_copied(values[_name(path)], None if keep_dtypes else variable.dtype)))
        for path, variable in flat
    ]
    nnx.update(model, nnx.from_flat_state(filled))


def _copied(value: Any, dtype: Any) -> jax.Array:
    """As JAX's own: the values may be views of another framework's memory. NumPy's copy needs no program per shape."""
    return jax.device_put(np.array(value, dtype)) if isinstance(value, np.ndarray) else jnp.array(value, dtype)


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
        return value.astype(COUNTER) if value.dtype == np.int32 and kind in ("counter", "buffer") else value
    if value.dtype == np.int32:
        raise CheckpointError(f"{name} is int32, which would come back from JAX as int64; make it int64 before")
    if value.dtype != COUNTER:
        return value
    least, most = 0 if kind == "counter" else np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if value.size and not least <= value.min() <= value.max() <= most:
        found = f"is {value.min()}" if value.size == 1 else f"holds {value.min()} to {value.max()}"
        raise CheckpointError(f"{name} {found}; JAX counts from {least} to {most}")
    return value.astype(np.int32)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
