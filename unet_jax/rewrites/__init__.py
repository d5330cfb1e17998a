"""Rewrites of a graph that make it faster, each into a graph that computes the same.

Each takes a graph and its tensors, by name in torch's layouts, and returns both; the tensors may be traced.
"""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from unet_core.graph import Graph
from unet_core.graph.folding import folded
from unet_jax.execution import Tensors
from unet_jax.kernels.normalisation import inverse_deviation
from unet_jax.kernels.winograd import is_exact
from unet_jax.rewrites.kernels import prepared
from unet_jax.rewrites.low_resolution import at_low_resolution
from unet_jax.rewrites.parts import in_parts
from unet_jax.rewrites.summed_taps import with_summed_taps

__all__ = ["Frozen", "frozen", "rewritten"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """A network that only predicts."""

    graph: Graph = field(metadata={"static": True})
    tensors: dict[str, Array]


def rewritten(graph: Graph, tensors: Tensors) -> tuple[Graph, dict[str, Array]]:
    """What any network gains by, in training as well."""
    return at_low_resolution(*in_parts(graph, tensors))


@partial(jax.jit, static_argnames=("graph", "platform", "dtype"))
def frozen(graph: Graph, tensors: Tensors, platform: str | None, dtype: DTypeLike | None = None) -> Frozen:
    """What a network that only predicts gains by, computed as one program.

    Args:
        graph: the network.
        tensors: its tensors.
        platform: where it predicts; None: anywhere.
        dtype: what it computes in; None: the common one of its tensors.
    """
    graph, tensors = rewritten(*folded(graph, tensors, inverse_deviation))
    if platform == "cpu" and is_exact(dtype or jnp.result_type(*tensors.values())):
        graph, tensors = with_summed_taps(graph, tensors)
    return Frozen(graph, prepared(graph, tensors))
