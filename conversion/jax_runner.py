"""Runs a JAX UNet for the proof, under `jax.jit`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from conversion.runners import Controls, Framework, Precision, Step, in_precision, input_name
from unet_core.batches import Batch
from unet_core.checkpoint import Checkpoint
from unet_core.errors import UNetError
from unet_core.hub import Tensors, check_tensors, in_forward_order, tensor_specs
from unet_core.recipe import Recipe
from unet_core.training_state import TrainingState
from unet_jax.checkpoint import from_checkpoint
from unet_jax.hub import TABLE, fill, to_hub
from unet_jax.layers import BatchNorm, Convolution, TransposedConvolution
from unet_jax.model import UNet
from unet_jax.optimizers import clipped
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
        with _parity(precision):
            graphdef, state = nnx.split(self._copy(precision, training=False))
            logits = jax.jit(lambda state, x: nnx.merge(graphdef, state).logits(x))
            return np.asarray(logits(state, _input(x, precision)))

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        with _parity(precision):
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
            # A model whose parameters are the gradients: the bridge then names and transposes them.
            hub = in_forward_order(to_hub(nnx.merge(graphdef, gradients, rest)), self.config)
            specs = tensor_specs(self.config)
            return Step(
                np.asarray(logits),
                {key: value for key, value in hub.items() if specs[key].trained},
                {key: value for key, value in hub.items() if not specs[key].trained},
            )

    def layers(self, x: np.ndarray, precision: Precision, *, training: bool) -> dict[str, np.ndarray]:
        with _parity(precision):
            graphdef, state = nnx.split(self._copy(precision, training=training))
            names: list[str] = []

            @jax.jit
            def record(state: Any, x: Any) -> list[Any]:
                taps = _Taps(nnx.merge(graphdef, state))
                answers = taps.run(x)
                names.extend(answers)
                return list(answers.values())

            answers = record(state, _input(x, precision))
            return dict(zip(names, map(np.asarray, answers), strict=True))

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
    with _parity("float64" if recipe.precision == "float64" else "float32"):
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
    """Notes, inside one trace of a model, what each of its layers takes in and answers."""

    def __init__(self, model: UNet) -> None:
        self.answers: dict[str, Any] = {}
        self._model = model
        for block in (*model.config.encoder_blocks, *model.config.decoder_blocks):
            module = getattr(model, block.name)
            for name, layer in _LAYERS.items():
                if getattr(module, name, None) is not None:
                    self._tap(module, name, f"{block.name}.{layer}")
        self._tap(model, "out", "out")

    def run(self, x: Any) -> dict[str, Any]:
        self._model.logits(x)
        return self.answers

    def _tap(self, parent: Any, attribute: str, name: str) -> None:
        object.__setattr__(parent, attribute, _Tap(getattr(parent, attribute), self.answers, name))


class _Tap:
    """Stands in for a layer."""

    def __init__(self, layer: Any, answers: dict[str, Any], name: str) -> None:
        self._layer, self._answers, self._name = layer, answers, name
        self._before = input_name(name)

    def __call__(self, x: Any) -> Any:
        return self._noted(x, self._layer(x))

    def joined(self, x: Any, skip: Any, taps: Any, *, skip_first: bool) -> Any:
        """Of a decoder's first convolution; the input that it is spared is made here."""
        raised = x
        if taps is not None:
            grown = [(0, len(axis) - size) for axis, size in zip(taps, x.shape[1:3], strict=True)]
            raised = stretch(stretch(jnp.pad(x, ((0, 0), *grown, (0, 0))), taps[0], 0), taps[1], 1)
            raised = raised[:, : skip.shape[1], : skip.shape[2]]
        joint = jnp.concatenate((skip, raised) if skip_first else (raised, skip), axis=-1)
        return self._noted(joint, self._layer.joined(x, skip, taps, skip_first=skip_first))

    def _noted(self, x: Any, y: Any) -> Any:
        if self._before is not None:
            self._answers[self._before] = x
        self._answers[self._name] = y
        return y


def _input(x: np.ndarray, precision: Precision) -> jax.Array:
    return jnp.asarray(x.astype(precision))


@contextmanager
def _parity(precision: Precision) -> Iterator[None]:
    """No TF32 and no bfloat16 passes inside the products; float64 where that is asked for."""
    with jax.default_matmul_precision("highest"), jax.enable_x64(precision == "float64"):
        yield
