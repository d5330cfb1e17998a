"""JAX's side of the speed measurement. `unet_compare/speed/torch_backend.py` is the twin."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import AxisType

from unet_compare.speed.plan import Setup
from unet_core.data.batches import Batch
from unet_jax.canonical import fill
from unet_jax.checkpoint import abstract
from unet_jax.compilation import compiler_options
from unet_jax.network import Network
from unet_jax.training.step import abstract_model, compiled, controls_of, new_state, placed, updater

DEVICE = jax.devices()[0]


def describe() -> dict[str, Any]:
    """Platform, device, and settings."""
    precision = getattr(jax.config, "jax_default_matmul_precision", None)
    tensor_cores = DEVICE.platform == "gpu" and float(getattr(DEVICE, "compute_capability", None) or 0) >= 8
    return {
        "platform": DEVICE.platform,
        "device": DEVICE.device_kind,
        "tf32": tensor_cores and precision not in ("highest", "float32"),
        "default_matmul_precision": precision,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


class Job:
    """A candidate in one case."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.checkpoint = setup.subject.checkpoint()
        self.channels = self.checkpoint.config.in_channels
        self.plain = "plain" in setup.candidate.words
        self.mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=[DEVICE])
        self.training = setup.case.kind == "training"
        self.run = self._training() if self.training else self._inference()

    def placed(self, batch: Batch) -> Any:
        if self.training:
            inputs: Any = next(placed(iter([batch]), self.setup.recipe, self.mesh))
        else:
            inputs = (jax.device_put(batch.image, DEVICE),)
        return jax.block_until_ready(inputs)

    def call(self, inputs: Any) -> Array:
        return self.run(*inputs).block_until_ready()

    def answer(self, output: Array) -> np.ndarray:
        return np.asarray(output, np.float32)

    def settle(self) -> None:
        """Nothing is kept."""

    def _inference(self) -> Callable[[Array], Array]:
        model = abstract(self.checkpoint, rewrites=not self.plain, dtype=self._dtype)
        fill(model, self.checkpoint.tensors)
        model.eval()
        if self.plain:
            return answers_of(model)
        return answers_of(model.fold(DEVICE.platform), compiler_options(DEVICE.platform))

    def _training(self) -> Callable[[Array, Array], Array]:
        train_config, start = self.setup.recipe, self.checkpoint
        update = updater(train_config, abstract_model(start, train_config, rewrites=not self.plain))
        state = new_state(start, train_config, self.mesh)
        controls = controls_of(train_config.optimizer.rate, 1.0, self.mesh)
        program: Any = jax.jit(update, donate_argnums=0) if self.plain else None

        def run(image: Array, labels: Array) -> Array:
            nonlocal state, program
            program = program or compiled(update, state, train_config, self.mesh, self.channels)
            state, values = program(state, image, labels, controls)
            return values

        return run

    @property
    def _dtype(self) -> Any:
        return jnp.bfloat16 if self.setup.precision == "bfloat16" else None


def answers_of(model: Network, options: dict[str, str] | None = None) -> Callable[[Array], Array]:
    """The compiled function of an image; `options` are XLA's."""
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x), compiler_options=options)
    return lambda x: run(state, x)


def memory_used() -> int | None:
    """Bytes that arrays have on the device."""
    return _memory("bytes_in_use")


def memory_peak() -> int | None:
    """The most since the process began: what compiling tries out is in it."""
    return _memory("peak_bytes_in_use")


def reset_peak() -> None:
    """There is no way to."""


def matmul(precision: str) -> tuple[int, Callable[[], None]]:
    """A product of large matrices, in this precision; several in flight on an accelerator, where one is short."""
    size, times = (2048, 1) if DEVICE.platform == "cpu" else (8192, 10)
    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), kind) for seed in range(2))
    product = jax.jit(jnp.matmul)

    def multiply() -> None:
        jax.block_until_ready([product(a, b) for _ in range(times)])

    return 2 * size**3 * times, multiply


def _memory(name: str) -> int | None:
    found = DEVICE.memory_stats()
    return None if found is None else found.get(name)
