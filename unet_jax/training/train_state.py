"""What an update changes, as a tree of arrays, and the dotted names of these."""

from typing import Any, NamedTuple

import jax
import optax

from unet_jax.training.optimizer_state import placeless

Tree = dict[str, Any]
"""Nested dicts of arrays, as `nnx.to_pure_dict` gives them."""


class TrainState(NamedTuple):
    """What an update changes; kernels spatial axes first (`unet_jax.training.layout`)."""

    params: Tree
    """What the optimiser updates."""
    stats: Tree
    """The rest of the network: running statistics, counters, and parameters on which its logits do not depend."""
    slots: optax.OptState
    average: tuple[Tree, Tree] | None
    """The moving average of parameters and statistics."""

    @property
    def rest(self) -> dict[str, Any]:
        """What it has besides the network."""
        return {"slots": self.slots, "average": self.average}


def named_network(state: TrainState) -> dict[str, Any]:
    """Parameters and statistics of a state, by dotted names, in the order of its leaves."""
    return flat(state.params, state.stats)


def named_rest(state: TrainState) -> dict[str, Any]:
    """What a state has besides the network, by dotted names; a slot's does not tell its place in the chain."""
    return {placeless(name): value for name, value in flat(state.rest).items()}


def state_of(shapes: TrainState, network: dict[str, Any], rest: dict[str, Any]) -> TrainState:
    """The inverse of `named_network` and `named_rest`, whose order the names have; `shapes` gives the structure."""
    count = len(jax.tree.leaves(shapes.params))
    leaves = list(network.values())
    params = jax.tree.unflatten(jax.tree.structure(shapes.params), leaves[:count])
    stats = jax.tree.unflatten(jax.tree.structure(shapes.stats), leaves[count:])
    return TrainState(params, stats, **jax.tree.unflatten(jax.tree.structure(shapes.rest), list(rest.values())))


def flat(*trees: Tree) -> dict[str, Any]:
    """The arrays of some trees, by dotted names."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): value
        for tree in trees
        for path, value in jax.tree_util.tree_leaves_with_path(tree)
    }


def subtree(tree: Tree, like: Tree) -> Tree:
    """The part of a tree that another one has."""
    return {key: subtree(tree[key], value) if isinstance(value, dict) else tree[key] for key, value in like.items()}
