"""The state of an optax optimiser to and from the canonical form. `unet_torch/training/optimizer_state.py` is the twin.

optax keeps a tree of named tuples, one for each transformation of a chain. Those that remember gradients or count
updates are found by their type, wherever in the tree they are, and what they hold by the names of their fields.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from unet_core.errors import CheckpointError, some
from unet_core.graph.canonical import Description
from unet_core.training.settings import OptimizerName
from unet_core.training.state import MOMENTS, OptimizerState, updated_shapes
from unet_jax.canonical import translate
from unet_jax.network import name_of as canonical_name

Role = Literal["moment", "count", "setting", "between", "chain"]
"""What a field is: remembered gradients; counted updates; a setting; empty between two updates; a chain inside."""

_FIELDS: Mapping[str, Mapping[str, Role]] = {
    "ScaleByAdamState": {"count": "count", "mu": "moment", "nu": "moment"},
    "ScaleByRmsState": {"nu": "moment"},
    "TraceState": {"trace": "moment"},
    "ScaleByScheduleState": {"count": "count"},
    "WrappedScheduleState": {"count": "count"},
    "InjectStatefulHyperparamsState": {
        "count": "count",
        "hyperparams": "setting",
        "hyperparams_states": "chain",
        "inner_state": "chain",
    },
    "MultiStepsState": {
        "mini_step": "between",
        "gradient_step": "count",
        "inner_opt_state": "chain",
        "acc_grads": "between",
        "skip_state": "between",
    },
}
"""The named tuples of optax (optax/_src/transform.py, optax/transforms, optax/schedules) that are understood."""


@dataclass(frozen=True)
class _Leaf:
    """One array of an optax state."""

    role: Role | Literal["other"]
    field: str
    name: str
    """The parameter that a moment is of, as NNX names it."""
    value: Any
    slow: bool
    """Whether it is inside `MultiSteps`, where an update is several steps of what is outside."""


def to_canonical(state: Any, config: Description, step: int | None = None) -> tuple[OptimizerState, dict[str, str]]:
    """What an optax state holds; and, by name, what of it torch's optimisers do not have.

    Args:
        state: of any chain over the parameters of a `unet_jax.UNet` or `Network`, plain or in an `nnx.Optimizer`.
        config: of the network.
        step: updates made, where no transformation counts them.

    Raises:
        CheckpointError: two transformations remember the same or count otherwise, or a name is of no parameter.
    """
    leaves = _leaves(state)
    left = _others(leaves)
    counts = {int(leaf.value) for leaf in leaves if leaf.role == "count"} | ({step} if step is not None else set())
    if len(counts) > 1:
        raise CheckpointError(f"the optax state counts {' and '.join(map(str, sorted(counts)))} updates")
    found: dict[str, dict[str, np.ndarray]] = {}
    for leaf in leaves:
        if leaf.role == "moment":
            found.setdefault(leaf.field, {})[leaf.name] = np.asarray(leaf.value)
    optimizer = _kind(found)
    names = {theirs: ours for ours, theirs in MOMENTS[optimizer].items()}
    left |= dict.fromkeys(found.keys() - names.keys(), f"which {optimizer} in torch does not remember")
    moments = {names[field]: translate(found[field], "torch", config, whole=False) for field in names if field in found}
    return OptimizerState(optimizer, counts.pop() if counts else None, moments), left


def others(state: Any) -> dict[str, str]:
    """By name, what an optax state holds that torch's optimisers do not have."""
    return _others(_leaves(state))


def fill(state: Any, saved: OptimizerState, config: Description) -> tuple[Any, list[str]]:
    """The same optax state with the moments and the count of `saved`, of a network of `config`, as NumPy arrays.

    Its `others` stay as they are, and so do the moments of parameters of which `saved` has none; these are named, but
    for those that no optimiser of torch's updates, as the logits do not depend on them.

    Raises:
        CheckpointError: a moment of `saved` has no place in it, or none of its shape and dtype; or the one remembers
            what the other does not; or it counts updates, and `saved` does not, or too many.
    """
    leaves = _leaves(state)
    fields = {MOMENTS[saved.optimizer][moment]: tensors for moment, tensors in saved.moments.items()}
    more = {leaf.field for leaf in leaves if leaf.role == "moment"} - fields.keys()
    if more:
        raise CheckpointError(
            f"the optax state remembers {some(sorted(more))}, this {saved.optimizer} in torch does not; build a chain "
            "without"
        )
    waiting = {
        (field, name): value
        for field, tensors in fields.items()
        for name, value in translate(tensors, "jax", config, whole=False).items()
    }
    missing: list[str] = []
    updated = updated_shapes(config)
    filled = []
    for leaf in leaves:
        value = leaf.value
        if leaf.role == "moment" and (leaf.field, leaf.name) in waiting:
            value = _fitting(waiting.pop((leaf.field, leaf.name)), leaf)
        elif leaf.role == "moment" and canonical_name(leaf.name.split(".")) in updated:
            missing.append(leaf.name)
        elif leaf.role == "count":
            value = _counted(saved.step, leaf)
        filled.append(value)
    if waiting:
        homeless = some(f"{field} of {name}" for field, name in waiting)
        raise CheckpointError(f"the optax state has no place for {homeless}; build a chain that remembers it")
    if not any(fields.values()):  # nothing is remembered yet, of any parameter
        missing = []
    return jax.tree.unflatten(jax.tree.structure(state), filled), list(dict.fromkeys(missing))


def placed_like(filled: Any, state: Any) -> Any:
    """What `fill` gave, with its arrays on the devices where those of `state` are."""

    def place(new: Any, old: Any) -> Any:
        if new is old or not isinstance(old, jax.Array):
            return new
        return jax.device_put(new, old.sharding if old.committed else None)

    return jax.tree.map(place, filled, state)


def placeless(name: str) -> str:
    """The dotted name of an array of a training state, without the place of a slot's transformation in its chain."""
    return re.sub(r"^slots(\.\d+)+\.", "slots.", name)


def name_of(path: tuple[Any, ...]) -> str:
    """The dotted name of a leaf, without the `value` that NNX's variables put at the end."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] in ("value", "raw_value") else parts)


def _leaves(state: Any) -> list[_Leaf]:
    """Every array of an optax state, in JAX's order.

    Raises:
        CheckpointError: two transformations remember the same, or count different things; or an update is half done.
    """
    leaves: list[_Leaf] = jax.tree.leaves(_described(state, slow=False))
    seen: set[tuple[str, str]] = set()
    for leaf in leaves:
        if leaf.role == "moment" and (leaf.field, leaf.name) in seen:
            raise CheckpointError(
                f"the optax state remembers {leaf.field} of {leaf.name} twice, in two transformations"
            )
        if leaf.role == "moment":
            seen.add((leaf.field, leaf.name))
        if leaf.field == "mini_step" and not isinstance(leaf.value, jax.ShapeDtypeStruct) and int(leaf.value):
            raise CheckpointError(
                "the optax state holds the gradients of a part of an update; take it after the whole one"
            )
    if len({leaf.slow for leaf in leaves if leaf.role == "count"}) > 1:
        raise CheckpointError(
            "the optax state counts steps outside MultiSteps and updates inside; put all of it inside"
        )
    return leaves


def _described(tree: Any, *, slow: bool) -> Any:
    """The same tree with a `_Leaf` in place of every array."""

    def describe(path: tuple[Any, ...], node: Any) -> Any:
        if not _is_known(node):
            fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
            named = [field for field in fields if field not in ("inner_state", "inner_states", "value")]
            return _Leaf("other", named[0] if named else name_of(path), "", node, slow)
        roles = _FIELDS[type(node).__name__]
        inside = slow or type(node).__name__ == "MultiStepsState"
        return node._replace(
            **{field: _field(getattr(node, field), field, roles.get(field), slow=inside) for field in node._fields}
        )

    return jax.tree_util.tree_map_with_path(describe, tree, is_leaf=_is_known)


def _field(value: Any, field: str, role: Role | None, *, slow: bool) -> Any:
    if role == "chain":
        return _described(value, slow=slow)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _Leaf(role or "other", field, name_of(path) if role == "moment" else "", leaf, slow), value
    )


def _is_known(node: Any) -> bool:
    return type(node).__name__ in _FIELDS and type(node).__module__.startswith("optax.")


def _others(leaves: Sequence[_Leaf]) -> dict[str, str]:
    return {leaf.field: "which no optimiser of torch's remembers" for leaf in leaves if leaf.role == "other"}


def _kind(fields: Mapping[str, Any]) -> OptimizerName:
    return "adam" if "mu" in fields else "rmsprop" if "nu" in fields else "sgd"


def _fitting(value: np.ndarray, leaf: _Leaf) -> np.ndarray:
    if (value.shape, value.dtype) != (leaf.value.shape, leaf.value.dtype):
        raise CheckpointError(
            f"{leaf.field} of {leaf.name} is {value.dtype} {value.shape}, and in the optax state {leaf.value.dtype} "
            f"{leaf.value.shape}; initialise it with parameters of that dtype"
        )
    return value


def _counted(step: int | None, leaf: _Leaf) -> np.ndarray:
    if step is None:
        raise CheckpointError("the optax state counts updates, and nothing tells how many were made: give step")
    most = np.iinfo(leaf.value.dtype).max
    if step > most:
        raise CheckpointError(f"{step} updates were made; the optax state counts up to {most}")
    return np.asarray(step, leaf.value.dtype)
