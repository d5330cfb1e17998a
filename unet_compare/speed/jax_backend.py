"""JAX's side of the speed measurement. `unet_compare/speed/torch_backend.py` is the twin."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import AxisType

from unet_compare.speed.plan import Precision, Setup
from unet_core.data.batches import Batch
from unet_jax.canonical import fill
from unet_jax.checkpoint import abstract
from unet_jax.compilation import compiler_options, has_tf32
from unet_jax.network import frozen
from unet_jax.training.step import abstract_model, compiled, controls_of, new_state, placed, updater

DEVICE = jax.devices()[0]


def use(precision: Precision) -> None:
    """See `unet_compare.speed.worker.SpeedBackend`.

    Under what JAX calls "tensorfloat32" the products of cuDNN and cuBLAS take TF32, and those of XLA's Triton do not;
    under "default" all do.
    """
    if DEVICE.platform == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else "default")


def describe() -> dict[str, Any]:
    """Platform, device, and settings."""
    precision = getattr(jax.config, "jax_default_matmul_precision", None)
    return {
        "platform": DEVICE.platform,
        "device": DEVICE.device_kind,
        "platform_version": DEVICE.client.platform_version,
        "tf32": has_tf32(DEVICE) and precision not in ("highest", "float32"),
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
        self.loaded = self.plain or "unfrozen" in setup.candidate.words  # as a user's own program has it
        self.mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=[DEVICE])
        self.training = setup.case.kind == "training"
        self.program: Any = None
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

    def memory_peak(self) -> int | None:
        """What lies there after a call, and what the program takes beside it.

        The device's own peak also holds what compiling tried out, and cannot be reset.
        """
        used = memory_used()
        return None if used is None else used + self.program.memory_analysis().temp_size_in_bytes

    def _inference(self) -> Callable[[Array], Array]:
        model = abstract(self.checkpoint, rewrites=not self.plain, dtype=self._dtype)
        fill(model, self.checkpoint.tensors)
        model.eval()
        graphdef, state = nnx.split(model if self.loaded else frozen(model, DEVICE.platform))
        options = None if self.loaded else compiler_options(DEVICE.platform)
        answer = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x), compiler_options=options)

        def run(image: Array) -> Array:
            self.program = self.program or answer.lower(state, image).compile()
            return self.program(state, image)

        return run

    def _training(self) -> Callable[[Array, Array], Array]:
        train_config, start = dataclasses.replace(self.setup.recipe, rewrites=not self.plain), self.checkpoint
        update = updater(train_config, abstract_model(start, train_config))
        state = new_state(start, train_config, self.mesh)
        controls = controls_of(train_config.optimizer.rate, 1.0, self.mesh)

        def made(image: Array, labels: Array) -> Any:
            if self.plain:
                return jax.jit(update, donate_argnums=0).lower(state, image, labels, controls).compile()
            return compiled(update, state, train_config, self.mesh, self.channels)

        def run(image: Array, labels: Array) -> Array:
            nonlocal state
            self.program = self.program or made(image, labels)
            state, values = self.program(state, image, labels, controls)
            return values

        return run

    @property
    def _dtype(self) -> Any:
        return jnp.bfloat16 if self.setup.precision == "bfloat16" else None


def memory_used() -> int | None:
    """Bytes that arrays have on the device."""
    found = DEVICE.memory_stats()
    return None if found is None else found["bytes_in_use"]


def reset_peak() -> None:
    """There is no way to, and no need: see `Job.memory_peak`."""


def matmul(precision: str) -> tuple[int, Callable[[], None]]:
    """A product of large matrices, in this precision; several in flight on an accelerator, where one is short."""
    size, times = (2048, 1) if DEVICE.platform == "cpu" else (8192, 2)
    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), kind) for seed in range(2))
    product = jax.jit(jnp.matmul)

    def multiply() -> None:
        jax.block_until_ready([product(a, b) for _ in range(times)])

    return 2 * size**3 * times, multiply
