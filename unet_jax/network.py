"""Any graph as a Flax NNX module. `unet_torch/network.py` is the twin."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from unet_core.checkpoints.checkpoint import Origin
from unet_core.checkpoints.evidence import UNCHECKED, Evidence
from unet_core.config import Output
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_jax import rewrites
from unet_jax.execution import KEPT, Execution, How, Tap, Uniform, draws, execute
from unet_jax.pretrained import Pretrained

_KEEPING = jax.checkpoint_policies.save_only_these_names(KEPT)

OUTPUTS: Mapping[Output, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "softmax": lambda logits: jax.nn.softmax(logits, axis=-1),
    "logits": lambda logits: logits,
}
"""What calling a network makes of its logits."""


class Part(nnx.Module):
    """Holds the tensors of a module of the network, and its parts, under torch's names."""


class Network(Pretrained, nnx.Module):
    """A network of any graph, channels last: [n, h, w, c], or [n, d, h, w, c] in three dimensions.

    Its variables lie under the names of torch's state_dict, split at the dots, in torch's layouts: `nnx.Param` what is
    trained, `nnx.BatchStat` running statistics, counters and other buffers. A name that a method has gets a `_` behind
    (`path_of`). A new network is in training mode, with zeros in all its variables.

    Args:
        graph: what it computes.
        param_dtype: keeps the parameters in this one, and statistics in float32 at least.
        rngs: where dropout draws from (its stream `dropout`), where no call says otherwise.
        evidence: by what the graph is known to be the user's network.
        how: it is run: `dtype`, `remat`, `norm_parts`, `strips` and `rewrites`, as in `Execution`.

    Examples:
        >>> import jax.numpy as jnp, unet_jax
        >>> from unet_core.graph.family import graph
        >>> network = unet_jax.Network(graph(unet_jax.UNetConfig(features=(4, 8))))
        >>> network.eval()
        >>> network(jnp.zeros((1, 16, 16, 3))).shape
        (1, 16, 16, 1)
    """

    def __init__(
        self,
        graph: Graph,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
        evidence: Evidence = UNCHECKED,
        **how: Unpack[How],
    ) -> None:
        self.graph = graph
        self.origin = Origin()
        self.evidence = evidence
        self.execution = Execution(**how)
        self.use_running_average = False
        self.rngs = rngs
        param_dtype = jax.eval_shape(lambda: jnp.zeros((), param_dtype)).dtype
        wide = jnp.promote_types(jnp.float32, param_dtype)
        kinds = {"parameter": param_dtype, "statistic": wide, "counter": jnp.int32, "buffer": wide}
        for name, tensor in graph.tensors.items():
            if tensor.same_as is None:
                variable = nnx.Param if tensor.kind == "parameter" else nnx.BatchStat
                self._put(name, variable(jax.device_put(np.zeros(tensor.shape, kinds[tensor.kind]))))

    @property
    def config(self) -> Description:
        """The graph, under the name that a `unet_jax.UNet` has for what describes it."""
        return self.graph

    @property
    def training(self) -> bool:
        """Whether it runs in training mode, as after `train()`; False after `eval()`."""
        return not self.use_running_average and not self.execution.prepared

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
            until = graph.logits
            if self.execution.rewrites and tap is None:
                graph, tensors = rewrites.rewritten(graph, tensors)
            return execute(graph, tensors, x, self.execution, training=self.training, draw=draw, until=until, tap=tap)

        run = jax.checkpoint(run, policy=_KEEPING) if self.execution.remat else run
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

    def executed(self, **how: Unpack[How]) -> "Network":
        """This network, which shares its variables, run otherwise: see `Execution`."""
        twin = nnx.merge(*nnx.split(self))
        twin.execution = dataclasses.replace(self.execution, **how)
        return twin

    def _put(self, name: str, variable: Any) -> None:
        *parents, last = path_of(name)
        part: Any = self
        for step in parents:
            if not hasattr(part, step):
                setattr(part, step, Part())
            part = getattr(part, step)
        setattr(part, last, variable)


def frozen(model: Network, platform: str | None = None) -> Network:
    """A copy of a network that only predicts, by a graph that is faster: BatchNorm is a part of its convolutions.

    Its logits are those of `model` in eval mode, to rounding; `model` stays as it is. The copy cannot be trained, saved
    or converted.

    Args:
        model: a network, in either mode.
        platform: where it will predict, "cpu", "gpu" or "tpu"; None: where its weights lie, which nobody knows within
            `jit`. On a CPU its wide convolutions take fewer multiplications, and their kernels about twice the memory
            (`unet_jax.kernels.winograd`).

    Examples:
        >>> import jax.numpy as jnp, unet_jax
        >>> model = unet_jax.UNet(rngs=0, features=(4, 8))
        >>> unet_jax.frozen(model)(jnp.zeros((1, 16, 16, 3))).shape
        (1, 16, 16, 1)
    """
    tensors = {name: variable[...] for name, variable in model.variables()}
    if platform is None:
        platform = next(iter(next(iter(tensors.values())).devices())).platform
    made = rewrites.frozen(model.graph, tensors, platform, model.execution.dtype)
    twin = nnx.eval_shape(lambda: Network(made.graph, evidence=model.evidence))
    twin.execution = dataclasses.replace(model.execution, rewrites=False, prepared=True)
    twin.eval()
    for name, variable in twin.variables():
        variable.set_value(made.tensors[name])
    return twin


_TAKEN = frozenset(
    [
        "config",
        "eval",
        "evidence",
        "executed",
        "execution",
        "from_pretrained",
        "graph",
        "iter_children",
        "iter_modules",
        "logits",
        "origin",
        "perturb",
        "push_to_hub",
        "rngs",
        "save_pretrained",
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


def name_of(path: Sequence[Any]) -> str:
    """The inverse of `path_of`."""
    return ".".join(str(part)[:-1] if str(part).rstrip("_") in _TAKEN else str(part) for part in path)
