"""Runs a graph in JAX: node by node, maps channels last. `unet_torch/execution.py` is the twin."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped

from unet_core.graph import INPUT, Graph, Node
from unet_jax.operations import OPERATIONS, Layout, norms

Tensors = Mapping[str, Array]
Uniform = Callable[[tuple[int, ...]], Array]
"""Draws random numbers from 0 to 1 of a shape; every call draws anew."""
Tap = Callable[[str, Array], Array]
"""Is told the name of a node and its answer, in torch's layout, and returns what the node hands on."""

KEPT = "kept"
"""The name of what is kept for the backward pass where all else is computed again (`jax.checkpoint`)."""
KERNELS = ("convolution", "transposed_convolution", "upsampled_convolution")
"""The operations whose kernel XLA likes spatial axes first."""
_COSTLY = (*KERNELS, "linear", "matmul", "attention")
_NORMS = frozenset(norms.ROWS)
"""Their tensors stay in float32 at least, whatever the maps are in."""
_WEIGHTS = ("slices", "rows", "columns")
"""And those of an interpolation."""


@dataclass(frozen=True)
class Execution:
    """How a network is run; it is given once, with the network."""

    dtype: DTypeLike | None = None
    """Computes in this dtype, normalises in float32 at least; None: in the common one of input and parameters."""
    remat: bool = False
    """Keeps only what convolutions and products make for the backward pass, and computes the rest again."""
    norm_parts: int = 1
    """BatchNorm takes the statistics of each of so many equal parts of a batch; the first one's are tracked."""
    strips: int = 1
    """Equal parts of a map's rows that lie on devices of their own."""
    rewrites: bool = True
    """Runs a graph that computes the same faster (`unet_jax.rewrites`); else every operation as torch does."""
    prepared: bool = False
    """The graph is rewritten already, and the kernels are spatial axes first (`unet_jax.rewrites.frozen`)."""


class How(TypedDict, total=False):
    """The fields of `Execution` that a network is made with."""

    dtype: DTypeLike | None
    remat: bool
    norm_parts: int
    strips: int
    rewrites: bool


class Executed(NamedTuple):
    """What a graph answers, channels last, and the running statistics after a step of training."""

    answer: Array
    updates: dict[str, Array]


class _Value(NamedTuple):
    """A node's answer: in torch's order of axes, or with the channels last."""

    array: Array
    last: bool

    def in_order(self, *, last: bool, rank: int = 0) -> Array:
        """The array with the channels last, or as in torch; with axes of one in front, up to this rank."""
        array = self.array
        if self.last == last and array.ndim >= rank:
            return array
        array = jnp.moveaxis(array, -1, 1) if self.last else array
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return jnp.moveaxis(array, 1, -1) if last else array


@dataclass
class _Run:
    """What a row may ask for beside its arrays."""

    training: bool
    dtype: Any
    strips: int
    draw: Uniform | None
    last: bool = False
    """The layout in which the row computes."""
    tracked: dict[str, Array] = field(default_factory=dict)

    def track(self, role: str, value: Array) -> None:
        self.tracked[role] = value

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Of a shape in the row's layout; drawn in torch's, so that the order of the numbers is the same in both."""
        if self.draw is None:
            raise ValueError("the network drops at random in training mode: give rngs")
        if not self.last:
            return self.draw(shape)
        return jnp.moveaxis(self.draw((shape[0], shape[-1], *shape[1:-1])), 1, -1)


def execute(
    graph: Graph,
    tensors: Tensors,
    x: Float[Array, "n *size c"],
    execution: Execution = Execution(),
    *,
    training: bool = False,
    draw: Uniform | None = None,
    until: str | None = None,
    tap: Tap | None = None,
) -> Executed:
    """What a network answers to a batch of pictures.

    Args:
        graph: the network.
        tensors: by their names, in torch's layouts; none that stands there under an earlier name as well.
        x: the pictures, channels last.
        execution: how it is run; the graph is taken as it is, rewritten or not.
        training: in training mode: with the statistics of the batch, and dropout.
        draw: where random numbers come from, in training.
        until: the node whose answer is wanted; None: the last one.
        tap: is told every node's answer.

    Raises:
        ValueError: an input that the network does not take.
    """
    batch, *size, channels = x.shape
    graph.check_input(*size, channels)
    graph = graph.in_mode(training=training)
    sizes = graph.sizes_of(batch, size)
    parameters = [
        tensors[name] for name, tensor in graph.tensors.items() if tensor.kind == "parameter" and name in tensors
    ]
    kind = jnp.dtype(execution.dtype or jnp.result_type(x, *parameters))
    values = {INPUT: _Value(x.astype(kind), last=True)}
    now = dict(tensors)
    updates: dict[str, Array] = {}
    uses = graph.uses()
    for node in graph.nodes:
        run = _Run(training, kind, execution.strips, draw)
        inputs = [values[name] for name in node.inputs]
        names = graph.first_names(node)
        arrays = {role: now[name] for role, name in names.items()}
        arrays = {role: _ready(node, role, array, kind, prepared=execution.prepared) for role, array in arrays.items()}
        value = _computed(node, inputs, arrays, node.at(sizes), run, execution.norm_parts if training else 1)
        if node.operation in _COSTLY:
            value = value._replace(array=checkpoint_name(value.array, KEPT))
        if tap is not None:
            value = _Value(tap(node.name, value.in_order(last=False)), last=False)
        values[node.name] = value
        for role, array in run.tracked.items():
            name = names[role]
            now[name] = updates[name] = array.astype(tensors[name].dtype)
        if node.name == until:
            break
        for name in node.inputs:  # what nothing needs any more is let go of
            uses[name] -= 1
            if not uses[name]:
                del values[name]
    return Executed(value.in_order(last=True), updates)


def _computed(
    node: Node, inputs: list[_Value], arrays: dict[str, Array], attributes: dict[str, Any], run: _Run, parts: int
) -> _Value:
    row = OPERATIONS[node.operation]
    if row.needs_run:
        attributes["run"] = run
    rank = max((value.array.ndim for value in inputs), default=0)
    run.last = last = row.layout is Layout.MAPS or (
        row.layout is Layout.SAME and any(value.last and value.array.ndim == rank for value in inputs)
    )
    given = [value.in_order(last=last, rank=rank if row.layout is Layout.SAME else 0) for value in inputs]
    if node.operation == "batch_norm" and parts > 1:
        (x,) = given
        answers = [
            row.function(part, **arrays, **attributes) for part in jnp.split(x, parts)[::-1]
        ]  # the first one last
        return _Value(jnp.concatenate(answers[::-1]), last)
    if row.layout is not Layout.SAME or not last:
        return _Value(row.function(*given, **arrays, **attributes), last)
    kept = attributes.get("keep", True)
    moved = {name: _translated(name, value, rank) for name, value in attributes.items()}
    answer = row.function(*given, **arrays, **(moved if kept else moved | {"keep": True}))
    if kept:
        return _Value(answer, last)
    gone = tuple(axis % rank for axis in attributes.get("axes", (attributes.get("axis"),)))
    return _Value(jnp.squeeze(_Value(answer, last).in_order(last=False), gone), last=False)


def _translated(name: str, value: Any, rank: int) -> Any:
    """An attribute that names axes in torch's order, in the order of channels last."""
    order = (0, *range(2, rank), 1)
    if name == "axis":
        return order.index(value % rank)
    if name == "axes":
        return tuple(order.index(axis % rank) for axis in value)
    if name == "amounts":
        return tuple(value[axis] for axis in order)
    return value


def _ready(node: Node, role: str, array: Array, dtype: Any, *, prepared: bool) -> Array:
    """A tensor in the dtype of the maps, a kernel spatial axes first."""
    exact = node.operation in _NORMS or role in _WEIGHTS
    if not exact and jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(dtype)
    return spatial_first(node, array) if role == "weight" and node.operation in KERNELS and not prepared else array


def spatial_first(node: Node, kernel: Shaped[Array, "a b *window"]) -> Shaped[Array, "*window i o"]:
    """The kernel of a convolution, [out, in, ...], or of a transposed one, [in, out, ...], as XLA likes it on a CPU."""
    pair = (0, 1) if node.operation == "transposed_convolution" else (1, 0)
    return kernel.transpose(*range(2, kernel.ndim), *pair)


def draws(key: Array) -> Uniform:
    """Random numbers of a key, one stretch of them after the other."""
    count = 0

    def draw(shape: tuple[int, ...]) -> Array:
        nonlocal count
        count += 1
        return jax.random.uniform(jax.random.fold_in(key, count), shape, jnp.float32)  # the same in all precisions

    return draw


def evaluated(
    node: Node,
    inputs: Sequence[Array],
    tensors: Mapping[str, Array],
    sizes: Mapping[str, int],
    *,
    training: bool,
    draw: Uniform,
) -> Array:
    """What a node alone answers, in torch's layout.

    Args:
        node: the node.
        inputs: what it takes in, in torch's layout.
        tensors: by their roles, in torch's layouts.
        sizes: of the network's input, by name.
        training: in training mode.
        draw: where random numbers come from.
    """
    kind = jnp.result_type(*inputs, *tensors.values())
    run = _Run(training, kind, 1, draw)
    arrays = {role: _ready(node, role, array, kind, prepared=False) for role, array in tensors.items()}
    value = _computed(node, [_Value(array, last=False) for array in inputs], arrays, node.at(sizes), run, 1)
    return value.in_order(last=False)
