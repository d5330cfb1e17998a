"""Runs a JAX UNet for the proof, under `jax.jit`."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from conversion.runners import (
    Controls,
    Forced,
    Framework,
    Precision,
    Step,
    Trace,
    Tracer,
    in_precision,
    input_name,
    layers_of,
)
from unet_core.batches import Batch
from unet_core.checkpoint import Checkpoint
from unet_core.errors import UNetError
from unet_core.hub import Tensors, check_tensors, in_forward_order, tensor_specs
from unet_core.recipe import Recipe
from unet_core.settings import Optimizer
from unet_core.training_state import TrainingState
from unet_jax.checkpoint import from_checkpoint
from unet_jax.hub import TABLE, fill, to_hub
from unet_jax.layers import BatchNorm, Convolution, TransposedConvolution
from unet_jax.model import UNet
from unet_jax.optimizers import clipped, optimizer_of
from unet_jax.states import hub_form, saved_form
from unet_jax.step import (
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
from unet_jax.windows import stretch

_LAYERS = {row.jax.split(".")[-2]: row.torch.rpartition(".")[0].removeprefix("*.") for row in TABLE}
"""The hub's name of each layer within its block: `conv1` is `conv.0`."""


class JaxRunner:
    """See `conversion.runners.Runner`. The model itself is never touched: every call runs a copy.

    Each call compiles anew: it judges the code as it is now, not as some earlier call found it.
    """

    framework: Framework = "jax"

    def __init__(self, model: nnx.Module, name: str) -> None:
        if not isinstance(model, UNet):
            raise UNetError(f"a JAX UNet is needed, got {type(model).__name__}")
        self.name = name
        self.config = model.config
        self.output: str = model.config.output
        self.odd_sizes = True
        self.versions = {"jax": jax.__version__, "flax": flax.__version__}
        self.flags = _flags()
        self.device = jax.devices()[0].device_kind
        tensors = to_hub(model)
        check_tensors(tensors, self.config, name)
        self.tensors = in_forward_order(tensors, self.config)
        self._model = model

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str) -> "JaxRunner":
        with jax.enable_x64(True):
            return cls(from_checkpoint(checkpoint), name)

    def with_tensors(self, tensors: Tensors) -> "JaxRunner":
        with jax.enable_x64(True):
            model = nnx.clone(self._model)
            fill(model, tensors)
            return JaxRunner(model, self.name)

    def predict(self, x: np.ndarray, precision: Precision) -> np.ndarray:
        with parity(precision):
            graphdef, state = nnx.split(self._copy(precision, training=False))
            logits = jax.jit(lambda state, x: nnx.merge(graphdef, state).logits(x))
            return np.asarray(logits(state, _input(x, precision)))

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        with parity(precision):
            model = self._copy(precision, training=True)
            graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
            parameters, rest = states

            @jax.jit
            def differentiate(parameters: Any, rest: Any, x: Any, cotangent: Any) -> Any:
                def loss(parameters: Any) -> Any:
                    model = nnx.merge(graphdef, parameters, rest, copy=True)
                    logits = model.logits(x)
                    return (logits * cotangent).mean(), (logits, nnx.state(model, nnx.BatchStat))

                return jax.grad(loss, has_aux=True)(parameters)

            gradients, (logits, rest) = differentiate(
                parameters, rest, _input(x, precision), _input(cotangent, precision)
            )
            hub = self._named(gradients, rest)
            return Step(
                np.asarray(logits),
                {key: value for key, value in hub.items() if self._trained(key)},
                {key: value for key, value in hub.items() if not self._trained(key)},
            )

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        with parity(precision):
            split: Any = nnx.split(self._copy(precision, training=training), nnx.Param, nnx.BatchStat)
            graphdef, parameters, rest = split

        def forward(parameters: Any, probes: Any, rest: Any, forced: Any, x: Any) -> Any:
            with _Taps(nnx.merge(graphdef, parameters, rest, copy=True), probes, forced) as taps:
                logits = taps.model.logits(x)
            return logits, taps.answers, nnx.state(taps.model, nnx.BatchStat)

        @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
        def differentiate(parameters: Any, probes: Any, rest: Any, forced: Any, x: Any, cotangent: Any) -> Any:
            logits, *noted = forward(parameters, probes, rest, forced, x)
            return (logits * cotangent).mean(), noted

        predict, train = jax.jit(forward), jax.jit(differentiate)

        def trace(x: np.ndarray, cotangent: np.ndarray | None = None, forced: Forced | None = None) -> Trace:
            with parity(precision):
                given = _input(x, precision)
                _, shapes, _ = jax.eval_shape(forward, parameters, None, rest, None, given)
                zeros = {name: np.zeros(shapes[name].shape, precision) for name in layers_of(self.config)}
                force = _force(forced, zeros, precision)
                if cotangent is None:
                    _, answers, after = predict(parameters, zeros, rest, force, given)
                    gradients, cotangents = parameters, {}
                else:
                    (gradients, cotangents), (answers, after) = train(
                        parameters, zeros, rest, force, given, _input(cotangent, precision)
                    )
                hub = self._named(gradients, after)
            order = [name for layer in zeros for name in (input_name(layer), layer) if name is not None]
            return Trace(
                {name: np.asarray(answers[name]) for name in order},
                {name: np.asarray(cotangents[name]) for name in zeros if cotangents},
                {key: value for key, value in hub.items() if cotangents and self._trained(key)},
                {key: value for key, value in hub.items() if not self._trained(key)},
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
            params, state = before, optimizer.init(before)
            for given in gradients:
                params, state = update(params, state, {key: value.astype(precision) for key, value in given.items()})
            return {key: np.asarray(params[key]) - value for key, value in before.items()}

    def _named(self, gradients: Any, statistics: Any) -> Tensors:
        """Both in the hub's names and layouts: those of a model whose parameters are the gradients."""
        model = nnx.merge(nnx.graphdef(self._model), gradients, statistics)
        return in_forward_order(to_hub(model), self.config)

    def _trained(self, key: str) -> bool:
        return tensor_specs(self.config)[key].trained

    def _copy(self, precision: Precision, *, training: bool) -> UNet:
        model = nnx.clone(self._model)
        for _, layer in nnx.iter_modules(model):
            if isinstance(layer, Convolution | TransposedConvolution | BatchNorm):
                layer.dtype = None  # computes in the precision that is asked for
        fill(model, {key: in_precision(value, precision) for key, value in self.tensors.items()})
        model.train() if training else model.eval()
        return model


def update(
    state: TrainingState, recipe: Recipe, batch: Batch, controls: Controls
) -> tuple[float, Tensors, TrainingState]:
    """One update by the trainer's own code, on one device; see `conversion.updates.Update`."""
    with parity("float64" if recipe.precision == "float64" else "float32"):
        mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(AxisType.Auto,))
        model = abstract_model(state.network, recipe)
        live = new_state(state.network, recipe, mesh, saved_form(state, recipe))
        ((image, labels),) = placed(iter([batch]), recipe, mesh)

        @jax.jit
        def differentiate(params: Any, stats: Any) -> Any:
            gradients, _, loss = differentiator(recipe, model)(params, stats, image, labels)
            return clipped(gradients, recipe.optimizer.clip)[0], loss

        gradients, loss = differentiate(live.params, live.stats)
        named = host_network(gradients, live.stats, state.network).tensors
        numbers = controls_of(*controls, mesh)
        live, _ = compiled(updater(recipe, model), live, recipe, mesh)(live, image, labels, numbers)
        network = host_network(live.params, live.stats, state.network)
        after = hub_form(network, host_arrays(live), state.step + 1, recipe, "the state after an update")
    specs = tensor_specs(state.network.config)
    return float(loss), {name: value for name, value in named.items() if specs[name].trained}, after


class _Taps:
    """Notes, inside one trace of a model, what each of its layers takes in and answers; and may force what it hands on.

    Args:
        model: its layers are stood in for until the end of the `with`.
        probes: zeros for each layer; the gradient by them is that by the layer's answer. None: nothing is forced.
        forced: whether to force; and with what, forward and backward.
    """

    def __init__(self, model: UNet, probes: Any, forced: Any) -> None:
        self.answers: dict[str, Any] = {}
        self.model = model
        self._probes, self._forced = probes, forced
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> "_Taps":
        for block in (*self.model.config.encoder_blocks, *self.model.config.decoder_blocks):
            module = getattr(self.model, block.name)
            for name, layer in _LAYERS.items():
                if getattr(module, name, None) is not None:
                    self._tap(module, name, f"{block.name}.{layer}")
        self._tap(self.model, "out", "out")
        return self

    def __exit__(self, *_: object) -> None:
        for parent, attribute, layer in self._before:
            object.__setattr__(parent, attribute, layer)

    def noted(self, name: str, x: Any, y: Any) -> Any:
        """Note a layer's input and answer, and return what it hands on."""
        before = input_name(name)
        if before is not None:
            self.answers[before] = x
        self.answers[name] = y
        if self._forced is None:
            return y
        whether, outputs, cotangents = self._forced
        return _handed_on(y, self._probes[name], outputs[name], cotangents[name], whether)

    def _tap(self, parent: Any, attribute: str, name: str) -> None:
        layer = getattr(parent, attribute)
        self._before.append((parent, attribute, layer))
        object.__setattr__(parent, attribute, _Tap(layer, self, name))


class _Tap:
    """Stands in for a layer."""

    def __init__(self, layer: Any, taps: _Taps, name: str) -> None:
        self._layer, self._taps, self._name = layer, taps, name

    def __call__(self, x: Any) -> Any:
        return self._taps.noted(self._name, x, self._layer(x))

    def joined(self, x: Any, skip: Any, taps: Any, *, skip_first: bool) -> Any:
        """Of a decoder's first convolution; the input that it is spared is made here."""
        raised = x
        if taps is not None:
            grown = [(0, len(axis) - size) for axis, size in zip(taps, x.shape[1:3], strict=True)]
            raised = stretch(stretch(jnp.pad(x, ((0, 0), *grown, (0, 0))), taps[0], 0), taps[1], 1)
            raised = raised[:, : skip.shape[1], : skip.shape[2]]
        joint = jnp.concatenate((skip, raised) if skip_first else (raised, skip), axis=-1)
        return self._taps.noted(self._name, joint, self._layer.joined(x, skip, taps, skip_first=skip_first))


@jax.custom_vjp
def _handed_on(y: Any, probe: Any, output: Any, cotangent: Any, force: Any) -> Any:  # noqa: ARG001
    """`y`, or `output` in its place; backward, the gradient goes to `probe` too, and `cotangent` may take its place."""
    return jnp.where(force, output, y)


def _hand_on(y: Any, probe: Any, output: Any, cotangent: Any, force: Any) -> Any:
    return _handed_on(y, probe, output, cotangent, force), (cotangent, force)


def _hand_back(forced: Any, gradient: Any) -> Any:
    cotangent, force = forced
    nothing = jnp.zeros_like(gradient)
    return jnp.where(force, cotangent, gradient), gradient, nothing, nothing, None


_handed_on.defvjp(_hand_on, _hand_back)


def _force(forced: Forced | None, zeros: dict[str, np.ndarray], precision: Precision) -> Any:
    """What `_Taps` is told."""
    if forced is None:
        return np.array(False), zeros, zeros
    outputs, cotangents = (
        {name: of[name].astype(precision) if name in of else zero for name, zero in zeros.items()}
        for of in (forced.outputs, forced.cotangents)
    )
    return np.array(True), outputs, cotangents


def _input(x: np.ndarray, precision: Precision) -> jax.Array:
    return jnp.asarray(x.astype(precision))


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
    with jax.default_matmul_precision("tensorfloat32" if tf32 else "highest"), jax.enable_x64(precision == "float64"):
        yield
