"""Runs a network in JAX for the proof, under `jax.jit`."""

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from conversion.backends.backend import (
    Controls,
    Forced,
    Framework,
    Precision,
    Roles,
    Sizes,
    Step,
    Trace,
    Tracer,
    Values,
    draws,
    in_precision,
)
from conversion.backends.jax_taps import Taps, forcing
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.errors import UNetError
from unet_core.graph import Node
from unet_core.graph.canonical import Tensors, in_forward_order, tensor_specs
from unet_core.training.settings import Optimizer
from unet_core.training.state import TrainingState
from unet_core.training.train_config import TrainConfig
from unet_jax import execution
from unet_jax.canonical import fill, to_canonical
from unet_jax.checkpoint import from_checkpoint, to_checkpoint
from unet_jax.network import Network
from unet_jax.training.optimizers import clipped, optimizer_of
from unet_jax.training.states import canonical_form, saved_form
from unet_jax.training.step import (
    abstract_model,
    compiled,
    controls_of,
    differentiator,
    host_arrays,
    host_network,
    new_state,
    placed,
    updater,
)


class JaxRunner:
    """See `conversion.backends.backend.Runner`. The model itself is never touched: every call runs a copy.

    Each runner compiles anew, and shares that with those made of it alone: it judges the code as it is now.
    """

    framework: Framework = "jax"

    def __init__(self, model: Network, name: str) -> None:
        checkpoint = to_checkpoint(model)
        self.name = name
        self.config, self.tensors = checkpoint.config, checkpoint.tensors
        self.origin, self.evidence = checkpoint.origin, checkpoint.evidence
        self.output: str = checkpoint.config.output
        self.whole = False
        self.versions: Mapping[str, str] = {"jax": jax.__version__, "flax": flax.__version__}
        self.flags: Mapping[str, bool | str] = _flags()
        self.device = jax.devices()[0].device_kind
        if model.rngs is not None:
            model = nnx.clone(model)
            model.rngs = None
        self._model = model
        self._programs: dict[Any, Any] = {}

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str) -> "JaxRunner":
        with jax.enable_x64(True):
            return cls(from_checkpoint(checkpoint), name)

    def with_tensors(self, tensors: Tensors) -> "JaxRunner":
        with jax.enable_x64(True):
            model = nnx.clone(self._model)
            fill(model, tensors)
            other = JaxRunner(model, self.name)
            other.whole, other._programs = self.whole, self._programs
            return other

    def as_called(self) -> "JaxRunner":
        other = copy.copy(self)
        other.whole = True
        return other

    def predict(self, x: np.ndarray, precision: Precision) -> np.ndarray:
        with parity(precision):
            graphdef, state = nnx.split(self._in_mode(training=False))
            whole = self.whole

            def answer(state: Any, x: Any) -> Any:  # casts here, so that there is no copy of all weights
                return _answer(nnx.merge(graphdef, _all_in(state, precision)), x, whole=whole)

            program = self._programs.setdefault(("predict", precision, whole), jax.jit(answer))
            return np.asarray(program(state, x.astype(precision)))

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        with parity(precision):
            graphdef, parameters, rest = self._split(precision, training=True)
            whole = self.whole

            def differentiate(parameters: Any, rest: Any, x: Any, cotangent: Any) -> Any:
                def loss(parameters: Any) -> Any:
                    model = nnx.merge(graphdef, parameters, rest, copy=True)
                    answer = _answer(model, x, whole=whole)
                    return (answer * cotangent).mean(), (answer, nnx.state(model, nnx.BatchStat))

                return jax.grad(loss, has_aux=True)(parameters)

            program = self._programs.setdefault(("step", precision, whole), jax.jit(differentiate))
            gradients, (answer, rest) = program(parameters, rest, x.astype(precision), cotangent.astype(precision))
            return Step(np.asarray(answer), *self._named(gradients, rest))

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        with parity(precision):
            graphdef, parameters, rest = self._split(precision, training=training)

        def forward(parameters: Any, probes: Any, rest: Any, forced: Any, x: Any) -> Any:
            model, taps = nnx.merge(graphdef, parameters, rest, copy=True), Taps(probes, forced)
            logits = model.logits(x, rngs=drawn, tap=taps.of_node)
            return logits, taps.answers, nnx.state(model, nnx.BatchStat)

        @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
        def differentiate(parameters: Any, probes: Any, rest: Any, forced: Any, x: Any, cotangent: Any) -> Any:
            logits, *noted = forward(parameters, probes, rest, forced, x)
            return (logits * cotangent).mean(), noted

        predict, train = jax.jit(forward), jax.jit(differentiate)

        def trace(x: np.ndarray, cotangent: np.ndarray | None = None, forced: Forced | None = None) -> Trace:
            with parity(precision):
                given = x.astype(precision)
                _, shapes, _ = jax.eval_shape(forward, parameters, None, rest, None, given)
                order = (node.name for node in self._model.graph.in_mode(training=training).nodes)
                zeros = {name: np.zeros(shapes[name].shape, precision) for name in order if name in shapes}
                force = forcing(forced, zeros, precision)
                if cotangent is None:
                    _, answers, after = predict(parameters, zeros, rest, force, given)
                    gradients, cotangents = parameters, {}
                else:
                    (gradients, cotangents), (answers, after) = train(
                        parameters, zeros, rest, force, given, cotangent.astype(precision)
                    )
                named, statistics = self._named(gradients, after)
            return Trace(
                {name: np.asarray(answers[name]) for name in zeros},
                {name: np.asarray(cotangents[name]) for name in zeros if cotangents},
                named if cotangents else {},
                statistics,
            )

        return trace

    def stepped(self, gradients: Sequence[Tensors], settings: Optimizer, precision: Precision) -> Tensors:
        optimizer = optimizer_of(settings)

        @jax.jit
        def update(params: Any, state: Any, gradients: Any) -> Any:
            steps, state = optimizer.update(gradients, state, params)
            return jax.tree.map(lambda param, step: param - settings.rate * step, params, steps), state

        with parity(precision):
            before = {key: self.tensors[key].astype(precision) for key in gradients[0]}
            params, state = before, jax.jit(optimizer.init)(before)
            for given in gradients:
                params, state = update(params, state, {key: value.astype(precision) for key, value in given.items()})
            return {key: np.asarray(params[key]) - value for key, value in before.items()}

    def _named(self, gradients: Any, statistics: Any) -> tuple[Tensors, Tensors]:
        """Both under canonical names, in torch's layouts: those of a model whose parameters are the gradients."""
        model: Any = nnx.merge(nnx.graphdef(self._model), gradients, statistics)
        found, specs = in_forward_order(to_canonical(model), self.config), tensor_specs(self.config)
        trained = {key: value for key, value in found.items() if specs[key].trained}
        return trained, {key: value for key, value in found.items() if key not in trained}

    def _split(self, precision: Precision, *, training: bool) -> Any:
        """Graph, parameters and statistics of another of the model."""
        model = self._in_mode(training=training)
        nnx.update(model, _all_in(jax.device_get(nnx.state(model)), precision))
        return nnx.split(model, nnx.Param, nnx.BatchStat)

    def _in_mode(self, *, training: bool) -> Network:
        """Another of the model, which computes in the precision of what it holds."""
        model = nnx.clone(self._model).executed(dtype=None)
        model.train() if training else model.eval()
        return model


def _answer(model: Any, x: Any, *, whole: bool) -> Any:
    return (model if whole else model.logits)(x, rngs=drawn)


def _all_in(state: Any, precision: Precision) -> Any:
    return jax.tree.map(lambda array: in_precision(array, precision), state)


def runner_of(model: Any, name: str) -> JaxRunner:
    """A runner of a live model.

    Raises:
        UNetError: it is none of this project's.
    """
    if not isinstance(model, Network):
        raise UNetError(f"a unet_jax.UNet or Network is needed, got {type(model).__name__}")
    return JaxRunner(model, name)


runner_of_checkpoint = JaxRunner.of_checkpoint


def evaluated(node: Node, inputs: Values, roles: Roles, sizes: Sizes, *, training: bool) -> np.ndarray:
    """The output of a node alone, in float64; see `conversion.backends.backend.Values`."""
    with parity("float64"):
        return np.asarray(_evaluated(node, list(inputs), dict(roles), sizes, training))


def gradients(
    node: Node, inputs: Values, roles: Roles, sizes: Sizes, back: np.ndarray, *, training: bool
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The gradients by what it takes in, and by its tensors, of what it hands back."""
    floats = {role: value for role, value in roles.items() if value.dtype.kind == "f"}

    def run(inputs: Any, floats: Any) -> Any:
        return _evaluated(node, inputs, {**roles, **floats}, sizes, training)

    with parity("float64"):
        given = jax.tree.map(jnp.asarray, (list(inputs), floats))
        found = jax.vjp(run, *given)[1](jnp.asarray(back))
        return jax.tree.map(np.asarray, found)


def _evaluated(node: Node, inputs: Any, roles: Any, sizes: Sizes, training: bool) -> Any:
    given, arrays = jax.tree.map(jnp.asarray, (inputs, roles))
    return execution.evaluated(node, given, arrays, sizes, training=training, draw=drawn)


def update(
    state: TrainingState, config: TrainConfig, batch: Batch, controls: Controls
) -> tuple[float, Tensors, TrainingState]:
    """One update by the trainer's own code, on one device; see `conversion.backends.backend.Backend`."""
    with parity("float64" if config.precision == "float64" else "float32"):
        mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(AxisType.Auto,))
        model = abstract_model(state.network, config)
        live = new_state(state.network, config, mesh, saved_form(state, config))
        ((image, labels),) = placed(iter([batch]), config, mesh)

        @jax.jit
        def differentiate(params: Any, stats: Any) -> Any:
            gradients, _, loss = differentiator(config, model)(params, stats, image, labels)
            return clipped(gradients, config.optimizer.clip)[0], loss

        gradients, loss = differentiate(live.params, live.stats)
        named = host_network(gradients, live.stats, state.network).tensors
        numbers = controls_of(*controls, mesh)
        program = compiled(updater(config, model), live, config, mesh, image.shape[-1], image.ndim - 3)
        live, _ = program(live, image, labels, numbers)
        network = host_network(live.params, live.stats, state.network)
        after = canonical_form(network, host_arrays(live), state.step + 1, config, "the state after an update")
    specs = tensor_specs(state.network.config)
    return float(loss), {name: value for name, value in named.items() if specs[name].trained}, after


def drawn(shape: tuple[int, ...]) -> jax.Array:
    """What a proof's networks draw at random."""
    return jnp.asarray(draws(shape))


def _flags() -> dict[str, bool | str]:
    found: dict[str, bool | str] = {}
    config: Any = jax.config  # whose attributes no stub knows
    for precision in get_args(Precision):
        with parity(precision):
            found["jax_default_matmul_precision"] = str(config.jax_default_matmul_precision)
            found[f"jax_enable_x64 ({precision})"] = bool(config.jax_enable_x64)
    return found


@contextmanager
def parity(precision: Precision, *, tf32: bool = False) -> Iterator[None]:
    """No TF32 and no bfloat16 passes inside the products, or TF32 in all of them; float64 where that is asked for."""
    with jax.default_matmul_precision("default" if tf32 else "highest"), jax.enable_x64(precision == "float64"):
        yield
