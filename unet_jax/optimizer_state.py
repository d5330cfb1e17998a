"""The state of an optax optimiser to and from the hub. `unet_torch/optimizer_state.py` is the twin.

optax keeps a tree of named tuples, one for each transformation of a chain. Those that remember gradients or count
updates are found by their type, wherever in the tree they are, and what they hold by the names of their fields.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from unet_core.errors import CheckpointError, some
from unet_core.settings import OptimizerName
from unet_core.training_state import MOMENTS, OptimizerState
from unet_jax.hub import translate


@dataclass(frozen=True)
class _Kind:
    """What is in one kind of named tuple; further fields are settings, or empty between two updates."""

    moments: tuple[str, ...] = ()
    """Fields that remember gradients: trees like the parameters."""
    count: str | None = None
    """The field that counts updates."""
    inner: str | None = None
    """The field with the state of a chain inside."""


_KINDS: Mapping[type, _Kind] = {
    optax.ScaleByAdamState: _Kind(("mu", "nu"), "count"),
    optax.ScaleByRmsState: _Kind(("nu",)),
    optax.TraceState: _Kind(("trace",)),
    optax.ScaleByScheduleState: _Kind(count="count"),
    optax.InjectStatefulHyperparamsState: _Kind(count="count", inner="inner_state"),
    optax.MultiStepsState: _Kind(count="gradient_step", inner="inner_opt_state"),
}


def to_hub(state: Any, step: int | None = None) -> tuple[OptimizerState, dict[str, str]]:
    """What an optax state holds; and, by name, what of it torch's optimisers do not have.

    Args:
        state: of any chain over the parameters of a `unet_jax.UNet`, plain or in an `nnx.Optimizer`.
        step: updates made, where no transformation counts them.

    Raises:
        CheckpointError: two transformations remember the same or count otherwise, or a name is of no parameter.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    counts: set[int] = set()
    left = others(state)
    kinds: set[type] = set()

    def visit(node: Any) -> Any:
        kinds.add(type(node))
        kind = _KINDS[type(node)]
        for field in kind.moments:
            named = {name_of(path): np.asarray(leaf) for path, leaf in _leaves(getattr(node, field))}
            arrays = found.setdefault(field, {})
            if arrays.keys() & named.keys():
                twice = some(arrays.keys() & named.keys())
                raise CheckpointError(f"the optax state remembers {field} of {twice} twice, in two transformations")
            arrays |= named
        if kind.count:
            counts.update(int(leaf) for _, leaf in _leaves(getattr(node, kind.count)))
        if isinstance(node, optax.MultiStepsState) and any(int(leaf) for _, leaf in _leaves(node.mini_step)):
            left["acc_grads"] = "gradients of a part of an update, which torch's optimisers do not remember"
        return node._replace(**{kind.inner: walk(getattr(node, kind.inner))}) if kind.inner else node

    def walk(tree: Any) -> Any:
        return _walk(tree, visit, lambda _: None)

    walk(state)
    if len(counts) > 1:
        raise CheckpointError(f"the optax state counts {' and '.join(map(str, sorted(counts)))} updates")
    optimizer: OptimizerName = (
        "adam" if optax.ScaleByAdamState in kinds else "rmsprop" if optax.ScaleByRmsState in kinds else "sgd"
    )
    names = {theirs: ours for ours, theirs in MOMENTS[optimizer].items()}
    left |= dict.fromkeys(found.keys() - names.keys(), f"which {optimizer} in torch does not remember")
    moments = {names[field]: translate(found[field], "torch", whole=False) for field in names if found.get(field)}
    return OptimizerState(optimizer, counts.pop() if counts else step, moments), left


def others(state: Any) -> dict[str, str]:
    """By name, what an optax state holds that torch's optimisers do not have."""
    left: dict[str, str] = {}

    def visit(node: Any) -> Any:
        inner = _KINDS[type(node)].inner
        if inner:
            walk(getattr(node, inner))
        return node

    def walk(tree: Any) -> None:
        _walk(tree, visit, lambda name: left.setdefault(name, "which no optimiser of torch's remembers"))

    walk(state)
    return left


def fill(state: Any, saved: OptimizerState) -> Any:
    """The same optax state with the moments and the count of `saved`, as NumPy arrays; its `others` stay as they are.

    Raises:
        CheckpointError: a moment of `saved` has no place in it, or none of its shape and dtype; or it remembers what
            `saved` does not; or it counts updates, and `saved` does not.
    """
    fields = {MOMENTS[saved.optimizer][moment]: tensors for moment, tensors in saved.moments.items()}
    waiting = {
        (field, name): value
        for field, tensors in fields.items()
        for name, value in translate(tensors, "jax", whole=False).items()
    }

    def put(field: str) -> Callable[[Any, Any], Any]:
        def value_of(path: Any, leaf: Any) -> Any:
            value = waiting.pop((field, name_of(path)), None)
            if value is None:  # of a parameter that was never updated
                return leaf
            if (value.shape, value.dtype) != (leaf.shape, leaf.dtype):
                raise CheckpointError(
                    f"{field} of {name_of(path)} is {value.dtype} {value.shape}, and in the optax state {leaf.dtype} "
                    f"{leaf.shape}; initialise it with parameters of that dtype"
                )
            return value

        return value_of

    def visit(node: Any) -> Any:
        kind = _KINDS[type(node)]
        if fields and (more := [field for field in kind.moments if field not in fields]):
            raise CheckpointError(
                f"the optax state remembers {some(more)}, torch's {saved.optimizer} does not; build a chain without"
            )
        changed: dict[str, Any] = {
            field: jax.tree_util.tree_map_with_path(put(field), getattr(node, field)) for field in kind.moments
        }
        if kind.count:
            if saved.step is None:
                raise CheckpointError("the optax state counts updates, and nothing tells how many were made: give step")
            count = saved.step
            changed[kind.count] = jax.tree.map(lambda leaf: np.asarray(count, leaf.dtype), getattr(node, kind.count))
        if kind.inner:
            changed[kind.inner] = walk(getattr(node, kind.inner))
        return node._replace(**changed)

    def walk(tree: Any) -> Any:
        return _walk(tree, visit, lambda _: None)

    filled = walk(state)
    if waiting:
        missing = some(f"{field} of {name}" for field, name in waiting)
        raise CheckpointError(f"the optax state has no place for {missing}; build a chain that remembers it")
    return filled


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


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _walk(tree: Any, visit: Callable[[Any], Any], other: Callable[[str], Any]) -> Any:
    """`visit` every known named tuple; `other` is told the name of the field of any array that is in none."""

    def step(path: Any, node: Any) -> Any:
        if type(node) in _KINDS:
            return visit(node)
        fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey) and key.name != "inner_state"]
        other(fields[0] if fields else name_of(path))
        return node

    return jax.tree_util.tree_map_with_path(step, tree, is_leaf=lambda node: type(node) in _KINDS)
