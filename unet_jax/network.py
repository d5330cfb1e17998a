"""Any graph as a Flax NNX module. `unet_torch/network.py` is the twin."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from unet_core.checkpoint import Origin
from unet_core.evidence import UNCHECKED, Evidence
from unet_core.graph import Graph
from unet_jax.execution import KEPT, Tap, Uniform, draws, execute
from unet_jax.layers import OUTPUTS
from unet_jax.rewrites import folded, prepared

_KEEPING = jax.checkpoint_policies.save_only_these_names(KEPT)


class Part(nnx.Module):
    """Holds the tensors of a module of the network, and its parts, under torch's names."""


class Network(nnx.Module):
    """A network of any graph, channels last: [n, h, w, c], or [n, d, h, w, c] in three dimensions.

    Its variables lie under the names of torch's state_dict, split at the dots, in torch's layouts: `nnx.Param` what is
    trained, `nnx.BatchStat` running statistics, counters and other buffers. A name that a method has gets a `_` behind
    (`path_of`). A new network is in training mode, with zeros in all its variables.

    Args:
        graph: what it computes.
        dtype: computes in this dtype, normalises in float32 at least; None: in the common one of input and parameters.
        param_dtype: keeps the parameters in this one, and statistics in float32 at least.
        remat: keeps only what convolutions and products answer for the backward pass, and computes the rest again.
        norm_parts: BatchNorm takes the statistics of each of so many equal parts of a batch.
        rngs: where dropout draws from (its stream `dropout`), where no call says otherwise.
        evidence: by what the graph is known to be the user's network.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        norm_parts: int = 1,
        rngs: nnx.Rngs | None = None,
        evidence: Evidence = UNCHECKED,
    ) -> None:
        self.graph = graph
        self.origin = Origin()
        self.evidence = evidence
        self.dtype = dtype
        self.remat = remat
        self.norm_parts = norm_parts
        self.use_running_average = False
        self.prepared = False
        self.rngs = rngs
        wide = jnp.promote_types(jnp.float32, param_dtype)
        kinds = {"parameter": param_dtype, "statistic": wide, "counter": jnp.int32, "buffer": wide}
        for name, tensor in graph.tensors.items():
            if tensor.same_as is None:
                variable = nnx.Param if tensor.kind == "parameter" else nnx.BatchStat
                self._put(name, variable(jnp.zeros(tensor.shape, kinds[tensor.kind])))

    @property
    def config(self) -> Graph:
        """The graph, under the name that a `unet_jax.UNet` has for what describes it."""
        return self.graph

    @property
    def training(self) -> bool:
        """Whether it runs in training mode, as after `train()`; False after `eval()`."""
        return not self.use_running_average

    def logits(
        self, x: Float[Array, "n *size c"], *, rngs: nnx.Rngs | Array | Uniform | None = None, tap: Tap | None = None
    ) -> Float[Array, "n *out k"]:
        """The answer before a last sigmoid or softmax; in training mode the running statistics are renewed.

        Args:
            x: the pictures.
            rngs: where dropout draws from: `nnx.Rngs`, a key, or a function that draws; None: those of the network.
            tap: is told every node's answer, in torch's layout, and returns what it hands on.

        Raises:
            ValueError: an input that the network does not take, or, in training, dropout without rngs.
        """
        rngs = rngs if rngs is not None else self.rngs
        rngs = (rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs) if self.training else None
        draw = draws(rngs) if isinstance(rngs, Array) else rngs
        variables = dict(self.variables())

        def run(tensors: dict[str, Array], x: Array) -> tuple[Array, dict[str, Array]]:
            graph = self.graph.in_mode(training=self.training)
            return execute(
                self.graph,
                tensors,
                x,
                training=self.training,
                dtype=self.dtype,
                draw=draw,
                norm_parts=self.norm_parts,
                prepared=self.prepared,
                until=graph.logits,
                tap=tap,
            )

        run = jax.checkpoint(run, policy=_KEEPING) if self.remat else run
        answer, updates = run({name: variable[...] for name, variable in variables.items()}, x)
        for name, value in updates.items():
            variables[name].set_value(value)
        return answer

    def __call__(
        self, x: Float[Array, "n *size c"], *, rngs: nnx.Rngs | Array | Uniform | None = None
    ) -> Float[Array, "n *out k"]:
        """What the network answers: its logits, or what its last operation makes of them; raises what they raise."""
        graph = self.graph.in_mode(training=self.training)
        return OUTPUTS[graph.output](self.logits(x, rngs=rngs))

    def variables(self) -> Iterator[tuple[str, Any]]:
        """Every variable by the state_dict's name of its tensor."""
        for name, tensor in self.graph.tensors.items():
            if tensor.same_as is None:
                part: Any = self
                for step in path_of(name):
                    part = getattr(part, step)
                yield name, part

    def fold(self, platform: str | None = None) -> "Network":  # noqa: ARG002  (as in `unet_jax.UNet`)
        """A copy that only predicts: BatchNorm is a part of its convolutions, whose kernels lie as XLA has them.

        Its logits are those of this network in eval mode, to rounding. It cannot be trained, saved or converted.

        Args:
            platform: where it will predict.
        """
        graph, tensors = folded(self.graph, {name: variable[...] for name, variable in self.variables()})
        twin = nnx.eval_shape(lambda: Network(graph, dtype=self.dtype))
        twin.evidence, twin.prepared = self.evidence, True
        twin.eval()
        tensors = prepared(graph, tensors)
        for name, variable in twin.variables():
            variable.set_value(tensors[name])
        return twin

    def _put(self, name: str, variable: Any) -> None:
        *parents, last = path_of(name)
        part: Any = self
        for step in parents:
            if not hasattr(part, step):
                setattr(part, step, Part())
            part = getattr(part, step)
        setattr(part, last, variable)


_TAKEN = frozenset(
    [
        "config",
        "dtype",
        "eval",
        "evidence",
        "fold",
        "graph",
        "iter_children",
        "iter_modules",
        "logits",
        "norm_parts",
        "origin",
        "perturb",
        "prepared",
        "remat",
        "rngs",
        "set_attributes",
        "sow",
        "train",
        "training",
        "use_running_average",
        "variables",
    ]
)
"""Names of methods and attributes of the module: a list of its own, so that no release of Flax changes a path."""


def path_of(name: str) -> tuple[str, ...]:
    """Where a tensor of the state_dict lies in the module: its name split at the dots, `_` behind what is taken."""
    return tuple(f"{part}_" if part.rstrip("_") in _TAKEN else part for part in name.split("."))


def name_of(path: tuple[Any, ...]) -> str:
    """The inverse of `path_of`."""
    return ".".join(str(part)[:-1] if str(part).rstrip("_") in _TAKEN else str(part) for part in path)
