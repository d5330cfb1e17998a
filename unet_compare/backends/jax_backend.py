"""JAX's side of the comparison, on one device. `unet_compare/backends/torch_backend.py` is the twin."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from conversion.backends.jax_backend import parity
from unet_compare.backends.backend import Pictures, Precision, in_dtype
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.graph.canonical import Description
from unet_core.training.train_config import TrainConfig
from unet_jax.canonical import translate
from unet_jax.checkpoint import from_checkpoint
from unet_jax.compilation import compiler_options, has_tf32
from unet_jax.network import frozen
from unet_jax.predict import Predictor
from unet_jax.training.layout import in_torchs_layout
from unet_jax.training.step import Update, abstract_model, compiled, controls_of, new_state, placed, updater
from unet_jax.training.train_state import TrainState, named_network


class Trainer:
    """See `unet_compare.backends.backend.Trainer`; the programs are compiled for the first network."""

    def __init__(self, train_config: TrainConfig) -> None:
        self.recipe = train_config
        self.mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(AxisType.Auto,))
        self._programs: tuple[Update, Predictor] | None = None

    def start(self, checkpoint: Checkpoint) -> "Training":
        with parity("float32"):
            state = new_state(checkpoint, self.recipe, self.mesh)
            if self._programs is None:
                model = abstract_model(checkpoint, self.recipe)
                channels = checkpoint.config.in_channels
                update = compiled(updater(self.recipe, model), state, self.recipe, self.mesh, channels)
                self._programs = update, Predictor(model)
        return Training(self, checkpoint.config, state, *self._programs)


class Training:
    """See `unet_compare.backends.backend.Training`."""

    def __init__(
        self, trainer: Trainer, config: Description, state: TrainState, update: Update, predictor: Predictor
    ) -> None:
        self._recipe, self._mesh, self._config = trainer.recipe, trainer.mesh, config
        self._state, self._update, self._predictor = state, update, predictor
        self._made = 0

    def step(self, batch: Batch, rate: float) -> tuple[float, float]:
        with parity("float32"):
            ((image, labels),) = placed(iter([batch]), self._recipe, self._mesh)
            controls = controls_of(rate, 1.0, self._mesh, self._made)
            self._state, values = self._update(self._state, image, labels, controls)
            loss, norm = values.tolist()
        self._made += 1
        return loss, norm

    def tensors(self) -> dict[str, np.ndarray]:
        arrays = in_torchs_layout({name: np.asarray(value) for name, value in named_network(self._state).items()})
        return translate(arrays, "torch", self._config)

    def logits(self, pictures: Pictures) -> list[np.ndarray]:
        with parity("float32"):
            variables = jax.jit(in_torchs_layout)((self._state.params, self._state.stats))
            return [self._predictor.logits(picture, variables) for picture in pictures]


def lacks_tf32() -> str | None:
    """See `unet_compare.backends.backend.Backend`."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        return f"JAX runs on a {device.platform.upper()}"
    return None if has_tf32(device) else f"{device.device_kind} has none"


def predict(checkpoint: Checkpoint, precision: Precision, pictures: Pictures) -> list[np.ndarray]:
    """See `unet_compare.backends.backend.Backend`."""
    kind: Literal["float64", "float32"] = "float64" if precision == "float64" else "float32"
    platform = jax.devices()[0].platform
    options = compiler_options(platform, wide=kind == "float64")
    with parity(kind, tf32=precision == "tf32"):
        model = from_checkpoint(in_dtype(checkpoint, kind), dtype=jnp.bfloat16 if precision == "bfloat16" else None)
        graphdef, state = nnx.split(frozen(model, platform))

        @functools.partial(jax.jit, compiler_options=options)
        def logits(state: Any, x: Any) -> Any:
            return nnx.merge(graphdef, state).logits(x).astype(kind)

        return [np.asarray(logits(state, picture[None].astype(kind)))[0] for picture in pictures]
