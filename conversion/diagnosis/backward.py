"""Why a gradient departs: it is computed anew, in float64 by `jax.vjp`, with one thing after the other switched."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from conversion.backends.backend import Precision
from conversion.backends.frameworks import importing
from conversion.diagnosis.nodes import TracedNetwork
from conversion.diagnosis.trials import PRODUCTS, ROUNDED, Rounding, Suspect, Trial, scaled, tried
from unet_core.graph import Node
from unet_core.graph.canonical import Tensors

_Function = Callable[[Any], Any]

MOMENTS: Mapping[tuple[str, ...], str] = {
    ("mean", "variance"): "mean and variance",
    ("variance",): "variance",
    ("mean",): "mean",
}
"""What of a batch may be taken for constants, and how that is said."""


def output_trials(
    a: TracedNetwork, name: str, ours: np.ndarray, theirs: np.ndarray, precision: Precision, budget: float
) -> tuple[Trial, ...]:
    """Every switch of what lies behind a node, as `forward.trials`, of the gradient by its output."""
    behind = _Behind(a, name)
    if not behind.known:
        return ()

    def suspects(target: np.ndarray) -> Iterator[Suspect]:
        yield from behind.switched()
        yield from _common(behind.gradient, target, precision, rounds=behind.rounds)

    return tried(suspects, behind.gradient(), ours, theirs, precision, budget)


def parameter_trials(
    a: TracedNetwork, name: str, ours: Tensors, theirs: Tensors, precision: Precision, budget: float
) -> tuple[Trial, ...]:
    """The same of the gradient by a node's own parameters."""
    node = a.nodes[name]
    inputs = a.inputs(node)
    first = a.graph.first_names(node)
    names = [name for name in first.values() if name in ours]
    owners = [other for other in a.graph.nodes if {*a.graph.first_names(other).values()} & set(names)]
    if inputs is None or owners != [node] or name not in a.back:
        return ()
    known = inputs

    def gradient(rounded: Rounding | None = None) -> np.ndarray:
        change, roles = rounded or _same, a.roles(node)
        back = a.back[name].astype(np.float64)
        _, found = a.gradients(node, [change(value) for value in known], roles, change(back))
        if rounded and "bias" in found:  # a sum, and no product
            found["bias"] = a.gradients(node, known, roles, back)[1]["bias"]
        return flat({first[role]: value for role, value in found.items()}, names)

    def suspects(target: np.ndarray) -> Iterator[Suspect]:
        return _common(gradient, target, precision, rounds=node.operation in PRODUCTS)

    return tried(suspects, gradient(), flat(ours, names), flat(theirs, names), precision, budget)


def flat(tensors: Tensors, names: Sequence[str] | None = None) -> Float[np.ndarray, " n"]:
    """All of them, or those of these names, as one vector."""
    values = tensors.values() if names is None else [tensors[name] for name in names]
    return np.concatenate([np.ravel(value).astype(np.float64) for value in values])


def _common(
    gradient: Callable[..., np.ndarray], target: np.ndarray, precision: Precision, *, rounds: bool
) -> Iterator[Suspect]:
    """The rounding of products, and a factor."""
    if precision == "float32" and rounds:
        for name, rounded in ROUNDED.items():
            yield Suspect(f"the products of the backward pass are rounded to {name}", gradient(rounded=rounded))
    plain = gradient()
    factor = scaled(plain, target)
    if not np.isclose(factor, 1, rtol=1e-6):
        said = f"the gradient is {factor:.6g} times as large"
        yield Suspect(said if factor else "no gradient arrives (stop_gradient, detach)", factor * plain)


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _pulled(function: _Function, value: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The gradient of a function of JAX."""
    with importing():
        import jax
    with jax.enable_x64(True):
        (found,) = jax.vjp(function, value)[1](back)
        return np.asarray(found)


class _Behind:
    """The gradient by a node's output, of what the nodes that take it in have handed back."""

    def __init__(self, a: TracedNetwork, name: str) -> None:
        self.a, self.name = a, name
        self.takers = [node for node in a.takers(name) if node.name in a.back]
        self.known = name in a.handed and all(a.inputs(node) is not None for node in self.takers)
        self.rounds = any(node.operation in PRODUCTS for node in self.takers)

    def gradient(
        self, *, rounded: Rounding | None = None, without: str = "", instead: Mapping[str, _Function] | None = None
    ) -> np.ndarray:
        """As it should be, or with something switched.

        Args:
            rounded: what is done to the operands of products.
            without: a node through which no gradient comes back.
            instead: what a node computes, by its name, of this answer alone.
        """
        own = self.a.handed[self.name].astype(np.float64)
        total = np.zeros_like(own)
        if not self.takers:
            return self.a.back[self.name].astype(np.float64)
        for node in self.takers:
            if node.name == without:
                continue
            back = self.a.back[node.name].astype(np.float64)
            if instead and node.name in instead:
                total = total + _pulled(instead[node.name], own, back)
                continue
            change = rounded if rounded is not None and node.operation in PRODUCTS else _same
            roles = {role: change(value) if role == "weight" else value for role, value in self.a.roles(node).items()}
            found, _ = self.a.gradients(node, self.a.inputs(node) or [], roles, change(back))
            total = total + sum(one for name, one in zip(node.inputs, found, strict=True) if name == self.name)
        return total

    def switched(self) -> Iterator[Suspect]:
        """Every switch of the nodes that have the output as an input."""
        for node in self.takers:
            for said, function in self._others(node):
                yield Suspect(said, self.gradient(instead={node.name: function}))
            if len(self.takers) > 1:
                what = "the skip connection" if node.operation == "concatenate" else node.operation
                yield Suspect(f"no gradient goes through {what} ({node.name})", self.gradient(without=node.name))

    def _others(self, node: Node) -> Iterator[tuple[str, _Function]]:
        """What else a node might compute, the same forward and with another gradient."""
        if node.operation == "relu":
            with importing():
                from jax import numpy as jnp
            half = "the ReLU's gradient at 0 is 0.5 instead of 0 (jnp.maximum)"
            yield half, lambda y: jnp.maximum(y, 0)
            yield "the ReLU's gradient at 0 is 1 instead of 0", lambda y: jnp.where(y >= 0, y, 0)
        elif node.operation == "batch_norm" and self.a.training:
            for constants, said in MOMENTS.items():
                said = f"no gradient goes through the batch's {said} (stop_gradient, detach)"
                yield said, self._with_constants(node, constants)
        elif node.operation == "max_pool" and set(node.attributes["padding"]) == {0}:
            yield from self._pools(node)

    def _with_constants(self, node: Node, constants: Sequence[str]) -> _Function:
        roles, epsilon = self.a.roles(node), node.attributes["epsilon"]
        with importing():
            import jax

        def function(y: Any) -> Any:
            axes, each = (0, *range(2, y.ndim)), (slice(None), *(None,) * (y.ndim - 2))
            moments = {"mean": y.mean(axes), "variance": y.var(axes)}
            mean, variance = (
                jax.lax.stop_gradient(value) if name in constants else value for name, value in moments.items()
            )
            normal = (y - mean[each]) / jax.numpy.sqrt(variance + epsilon)[each]
            return normal * roles["weight"][each] if "weight" in roles else normal

        return function

    def _pools(self, node: Node) -> Iterator[tuple[str, _Function]]:
        """Where the gradient may go when several values of a window are the largest."""
        with importing():
            import jax
        windows, strides = node.attributes["window"], node.attributes["stride"]

        def parts(y: Any) -> Any:
            whole = [size // w * w for size, w in zip(y.shape[2:], windows, strict=True)]
            cut = y[(..., *(slice(length) for length in whole))]
            split = [n for size, w in zip(whole, windows, strict=True) for n in (size // w, w)]
            return cut.reshape(*y.shape[:2], *split)

        def windows_of(y: Any) -> Any:
            """[..., window], the first of its elements first."""
            split = parts(y)
            last = tuple(range(3, split.ndim, 2))
            return jax.numpy.moveaxis(split, last, range(-len(last), 0)).reshape(
                *split.shape[:2], *split.shape[2::2], -1
            )

        def shared(y: Any) -> Any:
            return windows_of(y).max(-1)

        def to_the_last(y: Any) -> Any:
            values = windows_of(y)
            last = values.shape[-1] - 1 - values[..., ::-1].argmax(-1)
            return jax.numpy.take_along_axis(values, last[..., None], -1)[..., 0]

        def each(y: Any) -> Any:
            values = windows_of(y)
            still = jax.lax.stop_gradient(values)
            largest = still.max(-1)
            return largest + jax.numpy.where(still == largest[..., None], values - still, 0).sum(-1)

        if windows == strides:
            yield "the max-pool gives the gradient to the last of equal values, not the first", to_the_last
            yield "the max-pool shares the gradient among equal values, as a maximum over an axis does", shared
            yield "the max-pool gives the whole gradient to each of several equal values", each
